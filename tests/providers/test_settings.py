"""What hangs together in an upstream's settings is checked when the configuration is read."""

from typing import Any

import pytest

from proxy.config import ConfigError
from proxy.config.load import build
from proxy.config.source import Document
from proxy.providers import traits

URL = "http://upstream.example"
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"provider": "huggingface", "settings": {"mode": "endpoint"}}, "needs the endpoint's base_url"),
    ({"provider": "huggingface", "settings": {"engine": "vllm"}}, "an engine is that of a dedicated endpoint"),
    (
        {
            "provider": "huggingface",
            "base_url": URL,
            "wire": "exact",
            "settings": {"mode": "endpoint", "engine": "tgi"},
        },
        "huggingface can only be normalise here",
    ),
    (
        {"provider": "rayserve", "base_url": URL, "wire": "exact", "settings": {"mode": "custom"}},
        "rayserve can only be normalise here",
    ),
    ({"provider": "tgi", "base_url": URL, "wire": "exact"}, "tgi can only be normalise here"),
    (
        {"provider": "rayserve", "base_url": URL, "query": {"q": "{prompt}"}, "settings": {"mode": "custom"}},
        "filled in settings.query",
    ),
    (
        {"provider": "bentoml", "base_url": URL, "settings": {"mode": "custom", "query": {"q": "{promt}"}}},
        "is no name of a field",
    ),
    ({"provider": "rayserve", "base_url": URL, "settings": {"mode": "plain"}}, "must be 'llm' or 'custom'"),
    ({"provider": "bentoml", "base_url": URL, "settings": {"path": "generate"}}, "must begin with /"),
]


def built(upstream: dict[str, Any]) -> Any:
    return build(Document("settings", {"upstreams": {"up": upstream}}), traits()).upstreams["up"]


@pytest.mark.parametrize(("upstream", "told"), WRONG)
def test_what_does_not_go_together(upstream: dict[str, Any], told: str) -> None:
    """The mistake is told, and what to change."""
    with pytest.raises(ConfigError, match=told):
        built(upstream)


@pytest.mark.parametrize(
    ("upstream", "wire"),
    [
        ({"provider": "rayserve", "base_url": URL}, "exact"),
        ({"provider": "rayserve", "base_url": URL, "settings": {"mode": "custom"}}, "normalise"),
        ({"provider": "bentoml", "base_url": URL}, "normalise"),
        ({"provider": "huggingface"}, "normalise"),
        ({"provider": "vllm", "base_url": URL}, "exact"),
        ({"provider": "tgi", "base_url": URL}, "normalise"),
    ],
)
def test_the_default_wire(upstream: dict[str, Any], wire: str) -> None:
    """It is the provider's, for the mode that is set."""
    assert built(upstream).wire == wire
