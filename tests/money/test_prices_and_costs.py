"""What a usage costs: plain arithmetic, whatever an upstream says of its tokens."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config import Price
from proxy.config.load import build
from proxy.config.source import Document
from proxy.providers import traits
from proxy.simulator import Simulator
from proxy.telemetry.prices import PriceList, cost_of
from tests.conftest import Start
from tests.money.scene import always, route, samples, total

MILLION = 1_000_000
FULL = Price(
    input_per_million=8, output_per_million=16, cached_input_per_million=2, cache_write_per_million=10,
    reasoning_per_million=32,
)  # fmt: skip
NO_COUNTS = [True, False, -1, -(2**60), 2**53, 2**60, 10**400, "5", "", None, 1.0, 0.5, math.nan, math.inf, [], [5], {}]
NO_DETAILS: list[Any] = [None, [], [5], "cached_tokens", 5, True, 1.5, {"cached_tokens": {}}]


def price(**settings: float) -> Price:
    """One that has what is not given at 0."""
    return Price.model_validate(settings)


def usage(prompt: Any = 0, answer: Any = 0, *, cached: Any = None, written: Any = None, thought: Any = None) -> Any:
    """A usage in OpenAI's shape, with details where they are given."""
    told: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": answer}
    details = {"cached_tokens": cached, "cache_write_tokens": written}
    if cached is not None or written is not None:
        told["prompt_tokens_details"] = {name: value for name, value in details.items() if value is not None}
    if thought is not None:
        told["completion_tokens_details"] = {"reasoning_tokens": thought}
    return told


@pytest.mark.parametrize(
    ("told", "micros"),
    [
        (usage(100, 10), 100 * 8 + 10 * 16),
        (usage(100, 10, cached=40), 60 * 8 + 40 * 2 + 10 * 16),
        (usage(100, 10, written=40), 60 * 8 + 40 * 10 + 10 * 16),
        (usage(100, 10, cached=40, written=50), 10 * 8 + 40 * 2 + 50 * 10 + 10 * 16),
        (usage(100, 10, thought=4), 100 * 8 + 6 * 16 + 4 * 32),
        (usage(100, 10, cached=100, thought=10), 100 * 2 + 10 * 32),
        (usage(100, 10, cached=0, written=0, thought=0), 100 * 8 + 10 * 16),
        (usage(100, 10, cached=101), 100 * 2 + 10 * 16),
        (usage(100, 10, thought=11), 100 * 8 + 10 * 32),
        (usage(0, 0, cached=10, written=10, thought=10), 0),
        (usage(2**53 - 1, 0), (2**53 - 1) * 8),
    ],
)
def test_each_token_at_its_price(told: dict[str, Any], micros: int) -> None:
    """Tokens of the prompt are new, cached or put in the cache; those of the answer are said or thought."""
    assert cost_of(FULL, told) == pytest.approx(micros / MILLION, rel=1e-12)


@pytest.mark.parametrize("copies", [1, 2, 7])
def test_a_prompt_sent_several_times(copies: int) -> None:
    """It costs as often as it was sent, what was cached of it at that price; the answers are all told."""
    expected = copies * (60 * 8 + 40 * 2) + 10 * 16
    assert cost_of(FULL, usage(100, 10, cached=40), copies) == pytest.approx(expected / MILLION)


def test_prices_that_are_not_given() -> None:
    """Of the cache they are the input's, of thoughts the output's; 0 is given."""
    usual = price(input_per_million=8, output_per_million=16)
    assert cost_of(usual, usage(100, 10, cached=40, written=50, thought=5)) == pytest.approx(960 / MILLION)
    free = price(input_per_million=8, output_per_million=16, cached_input_per_million=0, reasoning_per_million=0)
    assert cost_of(free, usage(100, 10, cached=40, thought=5)) == pytest.approx((60 * 8 + 5 * 16) / MILLION)


@pytest.mark.parametrize("absurd", NO_COUNTS, ids=lambda value: repr(value)[:24])
def test_what_is_no_count(absurd: Any) -> None:
    """It costs nothing, wherever it stands, and the rest costs what it costs."""
    assert cost_of(FULL, usage(absurd, 10)) == pytest.approx(160 / MILLION)
    assert cost_of(FULL, usage(100, absurd)) == pytest.approx(800 / MILLION)
    assert cost_of(FULL, usage(100, 10, cached=absurd, written=absurd, thought=absurd)) == pytest.approx(960 / MILLION)


@pytest.mark.parametrize("details", NO_DETAILS, ids=repr)
def test_details_that_are_none(details: Any) -> None:
    """What is no object with counts changes nothing."""
    told = {**usage(100, 10), "prompt_tokens_details": details, "completion_tokens_details": details}
    assert cost_of(FULL, told) == pytest.approx(960 / MILLION)


def test_more_of_the_prompt_in_the_cache_than_there_was() -> None:
    """Tokens cached and tokens put in the cache are together no more than the prompt: a cost is never below 0."""
    cheap = price(input_per_million=10, cached_input_per_million=0, cache_write_per_million=0)
    assert cost_of(cheap, usage(100, 0, cached=100, written=100)) >= 0


counts = st.integers(0, 2**53 - 1)
absurdities = st.one_of(counts, st.integers(), st.booleans(), st.none(), st.text(), st.floats(), st.lists(counts))
dollars = st.floats(0, 1e9, allow_nan=False, width=32)
prices = st.builds(
    Price,
    input_per_million=dollars,
    output_per_million=dollars,
    cached_input_per_million=st.none() | dollars,
    cache_write_per_million=st.none() | dollars,
    reasoning_per_million=st.none() | dollars,
)


@given(prices, counts, counts, st.integers(1, 128))
def test_the_plain_formula(price: Price, prompt: int, answer: int, copies: int) -> None:
    """Without details a usage costs its tokens at their two prices."""
    expected = (copies * prompt * price.input_per_million + answer * price.output_per_million) / MILLION
    assert cost_of(price, usage(prompt, answer), copies) == pytest.approx(expected, rel=1e-9)


@given(prices, absurdities, absurdities, absurdities, absurdities, absurdities)
def test_never_below_nothing(price: Price, prompt: Any, answer: Any, cached: Any, written: Any, thought: Any) -> None:
    """Whatever an upstream says: a cost is a number, and at least 0 but for what floats lose."""
    for details in ({"cached": cached}, {"written": written}, {"thought": thought}):
        cost = cost_of(price, usage(prompt, answer, **details))
        assert math.isfinite(cost)
        assert cost >= -1e-6 * max(1.0, cost_of(price, usage(prompt, answer)))


@given(prices, counts, counts, counts, counts)
def test_more_tokens_cost_no_less(price: Price, prompt: int, answer: int, cached: int, more: int) -> None:
    """Of two usages with the same details, the one with more tokens costs at least as much."""
    less, most = usage(prompt, answer, cached=cached), usage(prompt + more, answer + more, cached=cached)
    if prompt + more < 2**53 and answer + more < 2**53 and cached <= prompt:
        assert cost_of(price, most) >= cost_of(price, less) * (1 - 1e-9)


@given(prices, st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**9))
def test_the_cache_makes_it_no_dearer(price: Price, prompt: int, cached: int, more: int) -> None:
    """Where cached tokens cost no more than others, the more of them there are the less a prompt costs."""
    if price.cached_input_per_million is not None and price.cached_input_per_million <= price.input_per_million:
        one, two = (cost_of(price, usage(prompt, 0, cached=count)) for count in (cached, cached + more))
        assert two <= one * (1 + 1e-9) + 1e-9


def price_list(**globs: dict[str, int]) -> PriceList:
    """Prices of one upstream, in this order."""
    tree = {"upstreams": {"one": {"provider": "openai", "prices": globs}}}
    return PriceList(build(Document("test", tree), traits()).upstreams)


def test_the_first_glob_wins() -> None:
    """In the order of the file, not the nearest one."""
    told = price_list(**{"gpt-*": {"input_per_million": 1}, "gpt-4o": {"input_per_million": 2}, "*": {}})
    assert told.cost("one", "gpt-4o", usage(MILLION)) == pytest.approx(1.0)
    assert told.cost("one", "llama", usage(MILLION)) == 0


def test_nothing_is_a_price_and_none_is_not() -> None:
    """A model at 0 costs 0; one that nothing is known of costs nobody knows what."""
    told = price_list(free={})
    assert told.cost("one", "free", usage(MILLION, MILLION)) == 0.0
    assert told.cost("one", "other", usage(MILLION)) is None
    assert told.cost("two", "free", usage(MILLION)) is None
    assert told.cost("one", "free", None) is None
    assert told.cost("one", "free", {}) is None


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
async def test_a_call_without_a_price(start: Start, simulator: Simulator, stream: bool) -> None:
    """It counts as unpriced, its cost is null and no series of costs begins."""
    free = {"prices": {"known": {"input_per_million": 1}}}
    sidecar = await start(upstreams={"openai": free}, routes=[route()])
    always(simulator, "openai", tokens=5)
    await (await sidecar.chat(stream=stream)).read()
    (line,) = await sidecar.lines.wait_for(1)
    assert (line["cost_usd"], line["usage_source"], line["completion_tokens"]) == (None, "provider", 5)
    assert await total(sidecar, "octet_unpriced_total", upstream="openai", model="other", reason="price") == 1
    assert not await samples(sidecar, "octet_cost_usd_total")


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
async def test_a_call_at_no_price(start: Start, simulator: Simulator, stream: bool) -> None:
    """A price of 0 is a price: the call's cost is 0, and it is not unpriced."""
    sidecar = await start(upstreams={"openai": {"prices": {"*": {}}}}, routes=[route()])
    await (await sidecar.chat(stream=stream)).read()
    (line,) = await sidecar.lines.wait_for(1)
    assert line["cost_usd"] == 0
    assert await total(sidecar, "octet_unpriced_total") == 0
    assert list((await samples(sidecar, "octet_cost_usd_total")).values()) == [0.0]
