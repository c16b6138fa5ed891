"""What tokens cost is what the configuration says, where it says anything."""

from typing import Any

import pytest

from proxy.config.load import build
from proxy.config.source import Document
from proxy.providers import traits
from proxy.telemetry.prices import PriceList

PRICES: dict[str, Any] = {
    "gpt-4o-mini": {"input_per_million": 0.15, "output_per_million": 0.6},
    "gpt-4o*": {"input_per_million": 2.5, "output_per_million": 10},
    "free": {},
    "in-[ab]": {"input_per_million": 1},
    "out-?": {"output_per_million": 1},
}
UPSTREAMS = {
    "a": {"provider": "openai", "prices": PRICES},
    "b": {"provider": "openai", "prices": {"gpt-4o-mini": {"input_per_million": 7}, "*": {"input_per_million": 1}}},
    "c": {"provider": "openai"},
}
LIST = PriceList(build(Document("test", {"upstreams": UPSTREAMS}), traits()).upstreams)
USAGE = {"prompt_tokens": 1_000_000, "completion_tokens": 2_000_000, "total_tokens": 3_000_000}


@pytest.mark.parametrize(
    ("upstream", "model", "cost"),
    [
        ("a", "gpt-4o-mini", 0.15 + 1.2),
        ("a", "gpt-4o-mini-2024", 2.5 + 20),
        ("a", "gpt-4o", 2.5 + 20),
        ("a", "free", 0.0),
        ("a", "in-a", 1.0),
        ("a", "in-c", None),
        ("a", "out-x", 2.0),
        ("a", "out-xy", None),
        ("a", "GPT-4o", None),
        ("a", "my-gpt-4o", None),
        ("a", "other", None),
        ("b", "gpt-4o-mini", 7.0),
        ("b", "anything", 1.0),
        ("c", "gpt-4o", None),
        ("unknown", "gpt-4o", None),
    ],
)
def test_the_first_price_that_fits(upstream: str, model: str, cost: float | None) -> None:
    """By upstream and the model's name there; none is not the same as nothing."""
    found = LIST.cost(upstream, model, USAGE)
    assert found == (pytest.approx(cost) if cost is not None else None)


@pytest.mark.parametrize(
    ("usage", "cost"),
    [
        (None, None),
        ({}, None),
        ({"total_tokens": 5}, 0.0),
        ({"prompt_tokens": 0, "completion_tokens": 0}, 0.0),
        ({"prompt_tokens": 1_000_000}, 2.5),
        ({"completion_tokens": 1}, 1e-5),
        ({"prompt_tokens": None, "completion_tokens": 1_000_000}, 10.0),
        ({"prompt_tokens": "5", "completion_tokens": [5]}, 0.0),
        ({"prompt_tokens": -5, "completion_tokens": -1}, 0.0),
        ({"prompt_tokens": 2**53, "completion_tokens": 10**400}, 0.0),
        ({"prompt_tokens": 1.5, "completion_tokens": float("nan")}, 0.0),
    ],
)
def test_the_number_of_tokens(usage: dict[str, Any] | None, cost: float | None) -> None:
    """What an upstream says of it counts where it can be a number of tokens."""
    found = LIST.cost("a", "gpt-4o", usage)
    assert found == (pytest.approx(cost) if cost is not None else None)
