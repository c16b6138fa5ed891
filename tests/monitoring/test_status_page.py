"""The status page, looked at with a real browser: what it says is so, and it says it in time."""

import re
import time
from typing import Any

import pytest
from playwright.async_api import expect

from proxy.edge import status
from proxy.simulator import Behaviour, Simulator
from tests.monitoring.browser import PATIENCE, PHONE, UNREADABLE, WIDE, Look, quantile
from tests.reload.conftest import Live, StartLive, Tree, one, route, upstream

QUICK = {"window": 4, "minimum_calls": 2, "open_seconds": 60}
PRICES = {"*": {"input_per_million": 1000, "output_per_million": 5000}}
SOON = 2.0 + 3.0  # seconds in which a change is to be seen, and what a busy machine may take


def priced(simulator: Simulator, daily_usd: float = 1000) -> Tree:
    """Two upstreams, of which `b` breaks soon; routes `one` (kept answers, a budget), `two`, `three` (b, then a)."""
    spending = {"cache": {}, "budget": {"daily_usd": daily_usd}}
    tree = one(simulator, settings={"prices": PRICES})
    tree["upstreams"]["b"] = upstream(simulator, "anthropic", circuit=QUICK)
    streams = route("streams", "a", match={"model": "three", "stream": True})
    last = route("three", "b", "a", retry={"attempts": 2})
    routes = [route("one", "a", **spending), route("two", "b"), streams, last]
    return {**tree, "routes": routes}


async def call(sidecar: Live, model: str, times: int = 1, **fields: Any) -> None:
    """Calls, whose answers are read to the end."""
    for _ in range(times):
        async with await sidecar.chat(model, **fields) as response:
            await response.read()


def totals(counters: dict[str, float], name: str, label: str) -> dict[str, float]:
    """The sums of a metric's series, by the value of a label."""
    sums: dict[str, float] = {}
    for series, value in counters.items():
        found = re.fullmatch(rf'{name}\{{(?:.*,)?{label}="([^"]*)".*\}}', series)
        if found is not None:
            sums[found[1]] = sums.get(found[1], 0.0) + value
    return sums


async def test_its_numbers_are_those_of_the_metrics(live: StartLive, look: Look, simulator: Simulator) -> None:
    """Calls by outcome, tokens, cost, the cache, and the percentiles of the last minute."""
    sidecar = await live(priced(simulator))
    view = await look(sidecar.admin_url)
    await view.is_live()
    await call(sidecar, "one", 3, temperature=0)
    await call(sidecar, "one", 12)
    await call(sidecar, "one", 2, stream=True, stream_options={"include_usage": True})
    await call(sidecar, "unknown")
    simulator.script("anthropic", Behaviour(status=500))
    await call(sidecar, "two")
    await view.counts("calls-total", 19)
    told = await sidecar.counters()
    outcomes = totals(told, "octet_calls_total", "outcome")
    assert outcomes == {"ok": 17, "caller_error": 1, "upstream_error": 1}
    for outcome in ("ok", "caller_error", "limited", "hangup", "upstream_error", "cut", "proxy_error"):
        await view.counts(f"calls-{outcome}", int(outcomes.get(outcome, 0)))
    tokens = totals(told, "octet_tokens_total", "direction")
    assert {name: await view.number(f"tokens-{name}") for name in tokens} == tokens
    cost = sum(totals(told, "octet_cost_usd_total", "upstream").values())
    assert cost > 0
    assert await view.number("cost-total") == pytest.approx(cost)
    assert await view.number("cost-minute") == pytest.approx(cost)
    assert await view.number("cost-saved") == pytest.approx(
        sum(totals(told, "octet_cost_saved_usd_total", "route").values())
    )
    looks = totals(told, "octet_cache_lookups_total", "result")
    assert [await view.number(f"cache-{name}") for name in ("hits", "looks")] == [looks["hit"], sum(looks.values())]
    assert await view.number("cache-share") == pytest.approx(2 / 3)
    assert await view.number("cache-bytes") == told["octet_cache_bytes"]
    assert await view.number("failed-share") == pytest.approx(1 / 18)
    await view.counts("calls-minute", 19)
    times = [series for series in told if series.startswith("octet_call_duration_seconds_bucket") and "json" in series]
    buckets = totals({series: told[series] for series in times}, "octet_call_duration_seconds_bucket", "le")
    for share in (50, 95, 99):
        estimate = quantile(share / 100, {float(bound): count for bound, count in buckets.items()})
        assert await view.number(f"json-p{share}") == pytest.approx(estimate)
    await expect(view.at("#chart path").first).to_have_attribute("d", re.compile("^M"))
    await view.counts("stream-calls", 2)
    await view.counts("first_token-calls", 2)
    await view.shows("#budgets", "route, this day")


async def test_a_circuit_is_seen_to_open(live: StartLive, look: Look, simulator: Simulator) -> None:
    """Within two seconds, by its word and not only its colour; a reset too."""
    sidecar = await live(priced(simulator))
    view = await look(sidecar.admin_url)
    row = view.at('[data-upstream="b"]')
    await expect(row).to_have_attribute("data-circuit", "closed", timeout=PATIENCE)
    simulator.script("anthropic", Behaviour(status=503), Behaviour(status=503))
    await call(sidecar, "two", 2)
    opened = time.perf_counter()
    await expect(row).to_have_attribute("data-circuit", "open", timeout=PATIENCE)
    assert time.perf_counter() - opened < SOON
    await expect(row.locator(".pill").first).to_have_text("open")
    await expect(row).to_contain_text("Overloaded")
    await view.shows("#problems", "The circuit of b is open")
    await view.shows("#attention-title", "needs attention")
    await sidecar.ask("POST", "/admin/upstreams/b/reset")
    await expect(row).to_have_attribute("data-circuit", "closed", timeout=PATIENCE)
    await sidecar.ask("POST", "/admin/upstreams/b/open")
    await expect(row).to_contain_text("held by hand", timeout=PATIENCE)


async def test_a_bad_reload_shows_its_mistakes(live: StartLive, look: Look, simulator: Simulator) -> None:
    """All of them as text, until the next good one; the generation says which configuration is in force."""
    tree = one(simulator)
    sidecar = await live(tree)
    view = await look(sidecar.admin_url)
    await view.counts("generation", 1)
    told = await sidecar.reload({**tree, "routes": [route("<b>one</b>", "nowhere")], "surplus": 1})
    assert len(told["mistakes"]) > 1
    await expect(view.at("#mistakes li")).to_have_text(told["mistakes"], timeout=PATIENCE)
    await view.shows("#problems", "The last reload failed")
    await view.shows("#reload", "the reload failed")
    await sidecar.take({**tree, "routes": [route("other", "a")]})
    await view.counts("generation", 2)
    await expect(view.at("#mistakes li")).to_have_count(0)
    await view.shows("#attention-title", "Nothing needs attention")


async def test_a_call_tells_why_it_went_where_it_went(live: StartLive, look: Look, simulator: Simulator) -> None:
    """With the keyboard; the list stands still while one of its calls is open, and goes on when told to."""
    sidecar = await live(priced(simulator))
    view = await look(sidecar.admin_url)
    simulator.script("anthropic", Behaviour(status=503))
    await call(sidecar, "three")
    summary = view.at("#calls summary")
    await expect(summary).to_contain_text("three → a/gpt-4o-mini", timeout=PATIENCE)
    await expect(summary).to_contain_text("2 attempts")
    await summary.focus()
    await view.page.keyboard.press("Enter")
    for text in ("streams: match.stream does not fit", "b/gpt-4o-mini", "b/gpt-4o-mini: Overloaded"):
        await view.shows("#calls .why", text)
    await call(sidecar, "one")
    await view.shows("#held", "1 newer")
    await expect(summary).to_have_count(1)
    await view.at("#hold").click()
    await expect(summary).to_have_count(2, timeout=PATIENCE)
    await view.at("#filter").select_option("failed ones")
    await view.shows("#no-calls", "No failed call")


@pytest.mark.parametrize("size", [PHONE, WIDE], ids=["phone", "desktop"])
@pytest.mark.parametrize("scheme", ["dark", "light"])
async def test_it_can_be_read_anywhere(
    live: StartLive, look: Look, simulator: Simulator, scheme: str, size: dict[str, int]
) -> None:
    """On a phone nothing is wider than the screen; dark or light, every text stands out from its ground."""
    sidecar = await live(priced(simulator, daily_usd=0.01))
    view = await look(sidecar.admin_url, size=size, scheme=scheme)
    simulator.script("anthropic", Behaviour(status=503), Behaviour(status=503))
    await call(sidecar, "two", 2)
    await call(sidecar, "one", 4)
    await call(sidecar, "unknown-" * 30)
    await view.counts("calls-total", 7)
    await view.at("#calls summary").first.click()
    await view.shows("#calls .why", "unknown-")
    await view.shows("#problems", "The circuit of b is open")
    await view.shows("#budgets", "used up")
    assert await view.overflow() <= 0
    assert await view.evaluate(UNREADABLE) == []
    ground = await view.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == {"dark": "rgb(14, 17, 23)", "light": "rgb(244, 245, 248)"}[scheme]


async def test_old_data_is_said_to_be_old(
    live: StartLive, look: Look, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When no events come, the page says so, and since when."""
    monkeypatch.setattr(status, "EVERY_SECONDS", 6.0)
    sidecar = await live(one(simulator))
    view = await look(sidecar.admin_url)
    await view.is_live()
    await view.shows("#state", "stale")
    await view.shows("#attention-title", "No news for")
    await expect(view.page).to_have_title("stale - Octet")
    await view.is_live()
    await view.shows("#attention-title", "Nothing needs attention")


async def test_it_outlives_its_sidecar(live: StartLive, look: Look, simulator: Simulator) -> None:
    """An open page holds no stop up; it says that nobody answers, and goes on with the next process' numbers."""
    first = await live(one(simulator))
    view = await look(first.admin_url)
    await call(first, "one", 3)
    await view.counts("calls-total", 3)
    began = time.perf_counter()
    await first.app.stop()
    assert time.perf_counter() - began < SOON
    await view.shows("#state", "gone")
    await view.shows("#age", "old")
    await expect(view.at("#again")).to_be_visible()
    second = await live(one(simulator, server={"admin": str(first.app.admin)}))
    await view.is_live()
    await call(second, "one")
    await view.counts("calls-total", 1)
    await view.counts("calls-ok", 1)
    await view.counts("calls-minute", 4)
    view.allowed("net::ERR_")
