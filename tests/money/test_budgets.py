"""Budgets: who has spent theirs is told so, and everybody else is answered."""

import asyncio
import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from openai import RateLimitError

from proxy.config import Budget, ConfigError
from proxy.config.load import build
from proxy.config.source import Document
from proxy.limits.budgets import Spending
from proxy.providers import traits
from proxy.simulator import Behaviour, Simulator
from tests.clock import Clock
from tests.conftest import Sidecar, Start, config_for
from tests.edge.wire import asking, call, read_head, request
from tests.money.scene import always, ask, cost_of, priced, route, samples, total
from tests.waiting import until

both_modes = pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
SEARCH, OTHER = "sk-search", "sk-other"
HELLO: Any = [{"role": "user", "content": "Hello"}]
PLENTY = 1000.0


def at(text: str) -> float:
    """A moment of UTC, in unix time."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


NOON = at("2026-11-27T12:00:00")


class Scene:
    """A sidecar whose callers or route have budgets, and the clock that they go by."""

    def __init__(self, sidecar: Sidecar) -> None:
        self.sidecar = sidecar
        self.clock = Clock(NOON)
        self.turn_by_hand()

    def turn_by_hand(self) -> None:
        """Let the budgets go by the clock."""
        funds = self.sidecar.app.upstreams.funds
        funds._clock = self.clock
        for spending in funds._spendings.values():
            spending._clock, spending._ends = self.clock, 0.0

    def spend(self, usd: float, *, scope: str = "caller", name: str = "search") -> None:
        """As a call that has cost so much."""
        self.sidecar.app.upstreams.funds._spendings[scope, name].add(usd)

    async def spent(self, period: str = "day", *, scope: str = "caller", name: str = "search") -> float:
        labels = {"scope": scope, "name": name, "period": period}
        return await total(self.sidecar, "octet_budget_spent_usd", **labels)


Begin = Callable[..., Any]


def tree(budget: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    """Two callers, of which the first has a budget, and prices."""
    first: dict[str, Any] = {"name": "search", "key": SEARCH, **({"budget": budget} if budget else {})}
    callers = [first, {"name": "other", "key": OTHER}]
    return {"upstreams": priced("openai"), "routes": [route()], "server": {"callers": callers}, **more}


@pytest.fixture
def begin(start: Start) -> Begin:
    """Starts a sidecar with a budget of the first caller's."""

    async def begun(more: dict[str, Any] | None = None, **budget: Any) -> Scene:
        return Scene(await start(**tree(budget, **(more or {}))))

    return begun


async def reload(scene: Scene, simulator: Simulator, **changed: Any) -> None:
    """Put another configuration in force."""
    app = scene.sidecar.app
    app.take(await app.prepare(config_for(simulator, changed)), app.reloader.generation + 1)
    scene.turn_by_hand()


# What a refusal is.


@both_modes
async def test_the_official_client(begin: Begin, simulator: Simulator, stream: bool) -> None:
    """It raises RateLimitError with OpenAI's code for it, and does not try again, though it would."""
    scene = await begin(daily_usd=1)
    scene.spend(1)
    client = scene.sidecar.openai(api_key=SEARCH, max_retries=3)
    with pytest.raises(RateLimitError) as caught:
        await client.chat.completions.create(model="gpt-4o-mini", messages=HELLO, stream=stream)
    assert caught.value.code == "insufficient_quota"
    assert caught.value.type == "insufficient_quota"
    assert "budget of your key for this day" in caught.value.message
    assert "daily_usd" in caught.value.message
    lines = await scene.sidecar.lines.wait_for(1)
    assert len(lines) == 1
    assert simulator.report.calls == 0


@both_modes
async def test_a_refusal(begin: Begin, simulator: Simulator, stream: bool) -> None:
    """429, told not to come back, counted and logged; nothing was sent."""
    scene = await begin(daily_usd=1, monthly_usd=PLENTY)
    scene.spend(2)
    head, body = await call(scene.sidecar, request(f"authorization: Bearer {SEARCH}", stream=stream))
    assert head.status == 429
    assert head["x-should-retry"] == "false"
    assert head["content-type"].startswith("application/json")
    error = json.loads(body)["error"]
    assert (error["type"], error["code"], error["param"]) == ("insufficient_quota", "insufficient_quota", None)
    assert "2.0" not in error["message"]
    (line,) = await scene.sidecar.lines.wait_for(1)
    assert (line["outcome"], line["status"], line["reason"]) == ("limited", 429, "LimitReached.daily_usd")
    assert line["cost_usd"] == 0
    counted = await samples(scene.sidecar, "octet_limited_total")
    assert counted == {(("limit", "daily_usd"), ("name", "search"), ("scope", "caller")): 1.0}
    assert simulator.report.calls == 0


async def test_a_month_that_is_spent(begin: Begin) -> None:
    """It says so, though the day is not."""
    scene = await begin(daily_usd=PLENTY, monthly_usd=1)
    scene.spend(1)
    head, body = await call(scene.sidecar, request(f"authorization: Bearer {SEARCH}"))
    assert (head.status, b"monthly_usd" in body) == (429, True)
    assert await total(scene.sidecar, "octet_limited_total", limit="monthly_usd") == 1


async def test_when_to_come_back(begin: Begin) -> None:
    """The day is not over for long: the longest wait that we tell anybody, and no repeating by itself."""
    scene = await begin(daily_usd=1, monthly_usd=PLENTY)
    scene.spend(1)
    head, _ = await call(scene.sidecar, request(f"authorization: Bearer {SEARCH}"))
    assert (head["retry-after"], head["x-should-retry"]) == ("60", "false")


@both_modes
async def test_two_callers_do_not_mix(begin: Begin, stream: bool) -> None:
    """One has spent theirs; another with the same route and model is answered, and pays nothing of it."""
    scene = await begin(daily_usd=1)
    scene.spend(1)
    assert await ask(scene.sidecar, SEARCH, stream=stream) == 429
    assert await ask(scene.sidecar, OTHER, stream=stream) == 200
    await scene.sidecar.lines.wait_for(2)
    assert await scene.spent() == 1
    assert await total(scene.sidecar, "octet_cost_usd_total", caller="other") > 0
    assert await total(scene.sidecar, "octet_cost_usd_total", caller="search") == 0


# What is charged.


@both_modes
async def test_a_call_is_charged(begin: Begin, simulator: Simulator, stream: bool) -> None:
    """What it has cost, once, in the day and the month; the call after the one that went above is refused."""
    scene = await begin(daily_usd=0.02, monthly_usd=PLENTY)
    always(simulator, "openai", tokens=5)
    assert await ask(scene.sidecar, SEARCH, stream=stream) == 200
    (line,) = await scene.sidecar.lines.wait_for(1)
    assert await scene.spent("day") == await scene.spent("month") == pytest.approx(cost_of(line))
    assert await ask(scene.sidecar, SEARCH, stream=stream) == 200
    await scene.sidecar.lines.wait_for(2)
    assert await ask(scene.sidecar, SEARCH, stream=stream) == 429
    assert simulator.report.calls == 2


async def test_calls_in_flight(begin: Begin, simulator: Simulator) -> None:
    """Those that began before it was spent end well, and are all charged."""
    scene = await begin(daily_usd=0.02)
    always(simulator, "openai", tokens=5, delay_seconds=0.1)
    statuses = await asyncio.gather(*(ask(scene.sidecar, SEARCH) for _ in range(5)))
    assert statuses == [200] * 5
    lines = await scene.sidecar.lines.wait_for(5)
    assert await scene.spent() == pytest.approx(sum(map(cost_of, lines)))
    assert await ask(scene.sidecar, SEARCH) == 429


async def test_a_caller_who_leaves_pays(begin: Begin, simulator: Simulator) -> None:
    """What came until they left."""
    scene = await begin(daily_usd=PLENTY)
    always(simulator, "openai", tokens=50, stall=20)
    async with asking(scene.sidecar, request(f"authorization: Bearer {SEARCH}", stream=True)) as (reader, _):
        await read_head(reader)
        for _ in range(30):
            await reader.readline()
    (line,) = await scene.sidecar.lines.wait_for(1)
    assert (line["outcome"], line["usage_source"]) == ("hangup", "partial")
    assert await scene.spent() == pytest.approx(line["cost_usd"])
    assert line["cost_usd"] > 0


async def test_what_costs_nothing(begin: Begin, simulator: Simulator) -> None:
    """Failed calls, and models without a price, use up no budget."""
    scene = await begin({"upstreams": {"openai": {"prices": {"dear": {"input_per_million": 1}}}}}, daily_usd=1)
    assert await ask(scene.sidecar, SEARCH) == 200
    simulator.script("openai", Behaviour(status=500))
    assert await ask(scene.sidecar, SEARCH, model="dear") == 502
    await scene.sidecar.lines.wait_for(2)
    assert await scene.spent() == 0


@both_modes
async def test_a_route_has_a_budget(start: Start, simulator: Simulator, stream: bool) -> None:
    """Of all its callers together; other routes go on."""
    tight = route("tight", budget={"daily_usd": 0.001}, match={"model": "gpt-*"})
    rules = tree(None) | {"routes": [tight, route("wide")]}
    scene = Scene(await start(**rules))
    assert await ask(scene.sidecar, SEARCH, stream=stream) == 200
    await scene.sidecar.lines.wait_for(1)
    for key in (SEARCH, OTHER):
        head, body = await call(scene.sidecar, request(f"authorization: Bearer {key}", stream=stream))
        assert (head.status, b"this model's route" in body) == (429, True)
    assert await ask(scene.sidecar, SEARCH, model="o4-mini", stream=stream) == 200
    assert await total(scene.sidecar, "octet_limited_total", scope="route", name="tight", limit="daily_usd") == 2


async def test_both_budgets(start: Start) -> None:
    """A caller's and a route's are both charged, and either refuses."""
    rules = tree({"daily_usd": PLENTY}) | {"routes": [route(budget={"daily_usd": PLENTY})]}
    scene = Scene(await start(**rules))
    assert await ask(scene.sidecar, SEARCH) == 200
    (line,) = await scene.sidecar.lines.wait_for(1)
    for scope, name in (("caller", "search"), ("route", "openai")):
        assert await scene.spent(scope=scope, name=name) == pytest.approx(cost_of(line))
    scene.spend(PLENTY, scope="route", name="openai")
    assert await ask(scene.sidecar, SEARCH) == 429
    assert await ask(scene.sidecar, OTHER) == 429


async def test_a_route_without_a_name(start: Start) -> None:
    """Its budget holds, too."""
    unnamed = {"targets": [{"upstream": "openai"}], "budget": {"daily_usd": 0.001}}
    sidecar = await start(**(tree(None) | {"routes": [unnamed]}))
    assert await ask(sidecar, SEARCH) == 200
    await sidecar.lines.wait_for(1)
    assert await ask(sidecar, SEARCH) == 429


# What costs nothing is given all the same.


@both_modes
async def test_kept_answers(begin: Begin, simulator: Simulator, stream: bool) -> None:
    """Whoever has spent their budget gets them."""
    scene = await begin({"routes": [route(cache={"any_temperature": True})]}, daily_usd=PLENTY)
    assert await ask(scene.sidecar, SEARCH, stream=stream) == 200
    await scene.sidecar.lines.wait_for(1)
    scene.spend(PLENTY)
    assert await ask(scene.sidecar, SEARCH, stream=stream) == 200
    line = (await scene.sidecar.lines.wait_for(2))[1]
    assert (line["cache"], line["cost_usd"]) == ("memory", 0)
    assert await ask(scene.sidecar, SEARCH, stream=stream, seed=1) == 429
    assert simulator.report.calls == 1


async def test_joined_calls_are_charged_once(begin: Begin, simulator: Simulator) -> None:
    """Of many who wait for the same answer, one pays."""
    scene = await begin({"routes": [route(cache={"any_temperature": True})]}, daily_usd=PLENTY)
    always(simulator, "openai", tokens=5, delay_seconds=0.1)
    assert await asyncio.gather(*(ask(scene.sidecar, SEARCH) for _ in range(4))) == [200] * 4
    lines = await scene.sidecar.lines.wait_for(4)
    assert sorted(line["cache"] for line in lines) == ["joined"] * 3 + ["miss"]
    (paid,) = [line["cost_usd"] for line in lines if line["cost_usd"]]
    assert simulator.report.calls == 1
    assert await scene.spent() == pytest.approx(paid)


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/completions"])
async def test_other_operations(begin: Begin, path: str) -> None:
    """They are charged and refused as chats are."""
    scene = await begin(daily_usd=1)
    body = {"model": "gpt-4o-mini", "input": "Hello"} if "embed" in path else {"model": "m", "prompt": "Hello"}
    ours = {"headers": {"authorization": f"Bearer {SEARCH}"}, "json": body}
    async with scene.sidecar.http.post(scene.sidecar.url + path, **ours) as response:
        assert response.status == 200, await response.read()
    await scene.sidecar.lines.wait_for(1)
    assert await scene.spent() > 0
    scene.spend(1)
    async with scene.sidecar.http.post(scene.sidecar.url + path, **ours) as response:
        assert response.status == 429


# Days and months.


async def test_a_new_day(begin: Begin) -> None:
    """At midnight of UTC there is a new budget for the day, and the month's goes on."""
    scene = await begin(daily_usd=1, monthly_usd=1.5)
    scene.spend(1)
    scene.clock.now = at("2026-11-28T00:00:00") - 0.001
    assert await ask(scene.sidecar, SEARCH) == 429
    scene.clock.now += 0.001
    assert (await scene.spent("day"), await scene.spent("month")) == (0, 1)
    assert await ask(scene.sidecar, SEARCH) == 200
    scene.spend(0.5)
    assert await ask(scene.sidecar, SEARCH) == 429
    scene.clock.now = at("2026-12-01T00:00:00")
    assert await ask(scene.sidecar, SEARCH) == 200


@pytest.mark.parametrize(
    ("now", "day", "month"),
    [
        ("2028-02-28T23:59:59", 1, 86_401),  # there is a 29th
        ("2028-02-29T00:00:00", 86_400, 86_400),
        ("2027-02-28T23:59:58", 2, 2),
        ("2026-12-31T23:59:50", 10, 10),
        ("2027-01-01T00:00:00", 86_400, 31 * 86_400),
        ("2026-01-31T12:00:00", 43_200, 43_200),  # 31 days on would be March
        ("2026-03-29T00:30:00", 84_600, 3 * 86_400 - 1800),  # clocks change in many places
        ("2026-11-30T23:59:59.9", 1, 1),  # never less than a second
    ],
)
def test_when_it_is_over(now: str, day: float, month: float) -> None:
    """The seconds that are left, whatever the calendar has."""
    clock = Clock(at(now))
    spending = Spending(clock)
    spending.turn()
    assert [spending.left_seconds(period) for period in ("day", "month")] == pytest.approx([day, month])


@pytest.mark.parametrize(
    ("before", "after", "day", "month"),
    [
        ("2028-02-28T23:00:00", "2028-02-29T01:00:00", 0, 5),
        ("2028-02-29T23:00:00", "2028-03-01T01:00:00", 0, 0),
        ("2026-12-31T23:59:59", "2027-01-01T00:00:00", 0, 0),
        ("2026-11-27T00:00:00", "2026-11-27T23:59:59", 5, 5),
        ("2025-11-27T12:00:00", "2026-11-27T12:00:00", 0, 0),  # asleep for a year
        ("2026-11-27T12:00:00", "2026-11-27T11:00:00", 5, 5),  # set back
        ("2026-11-27T00:30:00", "2026-11-26T23:30:00", 5, 5),  # into the day before
        ("2026-12-01T00:30:00", "2026-11-30T23:30:00", 5, 5),
    ],
)
def test_what_a_turn_forgets(before: str, after: str, day: float, month: float) -> None:
    """A day's spending when another day has begun; a clock that is set back gives nothing back."""
    clock = Clock(at(before))
    spending = Spending(clock)
    spending.add(5.0)
    clock.now = at(after)
    assert (spending.now("day"), spending.now("month")) == (day, month)


def test_a_clock_that_was_wrong() -> None:
    """A clock that was far ahead for a moment does not keep a budget spent until then."""
    clock = Clock(at("2027-06-01T00:00:00"))
    spending = Spending(clock)
    spending.add(5.0)
    clock.now = NOON
    spending.now("day")
    clock.now = at("2026-11-28T12:00:00")
    assert spending.now("day") == 0


# Warnings.


async def test_one_warning(begin: Begin, simulator: Simulator, caplog: pytest.LogCaptureFixture) -> None:
    """At `warn_at` the log says so, once in a day for each of day and month, and with no key."""
    caplog.set_level(logging.WARNING, "octet")
    scene = await begin(daily_usd=PLENTY, monthly_usd=31 * PLENTY, warn_at=0.5)
    scene.spend(PLENTY / 2 - 0.001)
    assert not warnings(caplog)
    for _ in range(3):
        assert await ask(scene.sidecar, SEARCH) == 200
    await scene.sidecar.lines.wait_for(3)
    (said,) = warnings(caplog)
    assert "caller search has spent 50 % of its budget for the day (daily_usd: 1000)" in said
    scene.clock.now = at("2026-11-28T00:00:00")
    scene.spend(PLENTY)
    assert await ask(scene.sidecar, OTHER) == 200
    assert len(warnings(caplog)) == 1
    await reload(scene, simulator, **tree({"daily_usd": 2 * PLENTY, "warn_at": 0.5}))
    assert await ask(scene.sidecar, SEARCH) == 200
    await scene.sidecar.lines.wait_for(5)
    assert len(warnings(caplog)) == 2


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "budget" in record.getMessage()]


async def test_a_warning_for_what_is_spent_already(
    begin: Begin, simulator: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    """A budget that a reload makes smaller than what is spent is warned of with the next charge, and refuses."""
    caplog.set_level(logging.WARNING, "octet")
    scene = await begin(daily_usd=PLENTY)
    scene.spend(5)
    await reload(scene, simulator, **tree({"daily_usd": 5.001}))
    assert await ask(scene.sidecar, SEARCH) == 200
    await scene.sidecar.lines.wait_for(1)
    assert len(warnings(caplog)) == 1
    assert await ask(scene.sidecar, SEARCH) == 429


# Reloads.


async def test_a_reload(begin: Begin, simulator: Simulator) -> None:
    """What was spent counts under a changed budget; a removed one refuses nobody; an added one begins at 0."""
    scene = await begin(daily_usd=1)
    scene.spend(1)
    assert await ask(scene.sidecar, SEARCH) == 429
    await reload(scene, simulator, **tree({"daily_usd": 2}))
    assert await ask(scene.sidecar, SEARCH) == 200
    await reload(scene, simulator, **tree({"monthly_usd": 1}))
    assert await ask(scene.sidecar, SEARCH) == 429
    assert await samples(scene.sidecar, "octet_budget_limit_usd")
    await reload(scene, simulator, **tree(None))
    assert await ask(scene.sidecar, SEARCH) == 200
    assert await samples(scene.sidecar, "octet_budget_limit_usd") == {}
    assert await samples(scene.sidecar, "octet_budget_spent_usd") == {}
    await reload(scene, simulator, **tree({"daily_usd": 1}))
    assert await scene.spent() == 0
    assert await ask(scene.sidecar, SEARCH) == 200


async def test_a_reload_under_a_call(begin: Begin, simulator: Simulator) -> None:
    """A call that began before is charged where its caller's money is now."""
    scene = await begin(daily_usd=PLENTY)
    simulator.always("openai", Behaviour(tokens=5, stall=2))
    async with asking(scene.sidecar, request(f"authorization: Bearer {SEARCH}", stream=True)) as (reader, _):
        await read_head(reader)
        await until(lambda: simulator.report.open_calls == 1)
        await reload(scene, simulator, **tree({"daily_usd": 2 * PLENTY}))
    (line,) = await scene.sidecar.lines.wait_for(1)
    assert await scene.spent() == pytest.approx(line["cost_usd"])
    assert line["cost_usd"] > 0


async def test_what_the_admin_side_shows(begin: Begin) -> None:
    """The gauges have what is spent and what may be, for each budget and period, and nothing else."""
    scene = await begin(daily_usd=3, monthly_usd=4)
    scene.spend(1.5)
    label = {"scope": "caller", "name": "search"}
    limits = await samples(scene.sidecar, "octet_budget_limit_usd")
    assert limits == {tuple(sorted({**label, "period": each}.items())): usd for each, usd in (("day", 3), ("month", 4))}
    spent = await samples(scene.sidecar, "octet_budget_spent_usd")
    assert set(spent) == set(limits)
    assert set(spent.values()) == {1.5}


# Mistakes in the configuration.


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ({}, "bounds nothing"),
        ({"warn_at": 0.5}, "bounds nothing"),
        ({"daily_usd": 0}, "greater than 0"),
        ({"daily_usd": -1}, "greater than 0"),
        ({"daily_usd": True}, "daily_usd"),
        ({"daily_usd": "5"}, "daily_usd"),
        ({"daily_usd": float("nan")}, "daily_usd"),
        ({"daily_usd": float("inf")}, "daily_usd"),
        ({"daily_usd": 1, "warn_at": 0}, "warn_at"),
        ({"daily_usd": 1, "warn_at": 1.5}, "warn_at"),
        ({"weekly_usd": 1}, "weekly_usd"),
        (5, "budget"),
        ([], "budget"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("place", ["caller", "route"])
def test_mistakes(budget: Any, said: str, place: str) -> None:
    """Each is told at start, with its path."""
    with pytest.raises(ConfigError) as caught:
        build(Document("test", document(budget, place)), traits())
    told = str(caught.value)
    assert said in told
    assert ("server.callers[0].budget" if place == "caller" else "routes[0].budget") in told


def document(budget: Any, place: str, prices: Any = None) -> dict[str, Any]:
    upstream = {"provider": "openai", "prices": {"*": {"input_per_million": 1}} if prices is None else prices}
    holder = {"budget": budget}
    return {
        "server": {"callers": [{"name": "a", "key": "sk-a", **(holder if place == "caller" else {})}]},
        "upstreams": {"one": upstream},
        "routes": [{"targets": [{"upstream": "one"}], **(holder if place == "route" else {})}],
    }


@pytest.mark.parametrize("place", ["caller", "route"])
def test_a_budget_without_prices(place: str) -> None:
    """Nothing would ever count."""
    with pytest.raises(ConfigError, match="needs prices"):
        build(Document("test", document({"daily_usd": 1}, place, {})), traits())


@pytest.mark.parametrize("price", [-1, "1", True, float("nan"), float("inf"), 1e10, None])
def test_prices_that_are_none(price: Any) -> None:
    """A price is a number, 0 or more."""
    with pytest.raises(ConfigError, match="input_per_million"):
        build(Document("test", document(None, "", {"*": {"input_per_million": price}})), traits())


def test_what_a_budget_limits() -> None:
    """By period; what is not given limits nothing."""
    assert Budget(daily_usd=1).limits == {"day": 1}
    assert Budget(daily_usd=1, monthly_usd=2).limits == {"day": 1, "month": 2}
    assert Budget().limits == {}
