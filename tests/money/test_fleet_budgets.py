"""Budgets of several sidecars over a real Redis: what all have spent, whatever happens to Redis meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from proxy.config import Redis as Settings
from proxy.limits.budgets import Spending
from proxy.limits.fleet_budgets import FleetSpending
from proxy.shared_state import SharedState
from proxy.simulator import Behaviour, Simulator
from tests.cache.in_redis import be_patient, names, no_connections, until_seen
from tests.clock import Clock
from tests.conftest import Start, config_for
from tests.money.scene import ask, cost_of, priced, route, total
from tests.money.test_budgets import NOON, SEARCH, at, tree
from tests.redis_server import RedisServer
from tests.waiting import until

KEY = "octet:budget:caller:search"
PLENTY = 1000.0
DAY, MONTH = b"day:2026-11-27", b"month:2026-11"
Member = Callable[..., Awaitable["One"]]


class One:
    """One process's share in a fleet's spending, without calls."""

    def __init__(self, redis: RedisServer, clock: Clock) -> None:
        self.shared = SharedState(Settings.model_validate({"url": redis.url, "timeout_seconds": 5.0}))
        self.clock = clock
        self.spending = Spending(clock)
        self.spending.turn()
        self.tie = FleetSpending("caller", "search", self.spending, self.shared)

    @property
    def known(self) -> float:
        return self.spending.now("day")

    async def tell(self) -> None:
        """As when half a second is over."""
        await self.tie._errand.ask()

    async def up(self, wanted: bool = True) -> None:
        await until(lambda: self.shared.up is wanted, 10)

    async def close(self) -> None:
        await self.tie.close()
        await self.shared.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long for a look; a busy machine is no reason to do without Redis."""
    be_patient(monkeypatch)
    monkeypatch.setattr("proxy.shared_state.state.LOOK_SECONDS", 0.02)
    monkeypatch.setattr("proxy.limits.fleet_budgets.EVERY_SECONDS", 0.02)


@pytest.fixture
async def member(redis: RedisServer) -> Any:
    """Makes members of one fleet, with one clock; they end in the end, and leave no task."""
    before, made, clock = asyncio.all_tasks(), list[One](), Clock(NOON)

    async def joined() -> One:
        made.append(One(redis, clock))
        made[-1].shared.start()
        await made[-1].up()
        return made[-1]

    yield joined
    for each in made:
        await each.close()
    before |= {task for task in (asyncio.current_task(),) if task is not None}
    await until(lambda: not asyncio.all_tasks() - before)


async def told(redis: RedisServer, key: str = KEY) -> dict[Any, Any]:
    """What stands in Redis."""
    found: dict[Any, Any] = await redis.client.hgetall(key)
    return found


async def spent(redis: RedisServer) -> dict[Any, float]:
    """The sums alone."""
    found = await told(redis)
    return {name: float(value) for name, value in found.items() if name.startswith((b"day:", b"month:"))}


async def sums(redis: RedisServer, key: str = KEY) -> tuple[float, float]:
    """Of the day and of the month."""
    found = await told(redis, key)
    return float(found.get(DAY, 0)), float(found.get(MONTH, 0))


async def reaches(redis: RedisServer, usd: float) -> None:
    """Return when Redis knows of so much, and see that it stays so."""

    async def there() -> bool:
        return list(await sums(redis)) == pytest.approx([usd, usd])

    await until_seen(there)


# What a fleet knows.


async def test_two_add_up(member: Member, redis: RedisServer) -> None:
    """Each hears of the other's within what a look takes; Redis holds the sum, of the day and of the month."""
    one, other = await member(), await member()
    one.spending.add(1.25)
    other.spending.add(2.5)
    await reaches(redis, 3.75)
    for each in (one, other):
        each.tie.asked()
        await until(lambda each=each: each.known == pytest.approx(3.75))  # type: ignore[misc]
        assert each.spending.now("month") == pytest.approx(3.75)


async def test_many_small_sums(member: Member, redis: RedisServer) -> None:
    """A thousand of them from two at once lose nothing, and need few words."""
    one, other = await member(), await member()
    for number in range(1000):
        (one if number % 2 else other).spending.add(0.001)
        if not number % 50:
            await asyncio.sleep(0)
    await reaches(redis, 1.0)
    assert one.tie._number + other.tie._number < 100


async def test_one_that_comes_later(member: Member, redis: RedisServer) -> None:
    """What was spent before it was there counts as soon as it looks."""
    one = await member()
    one.spending.add(5)
    await reaches(redis, 5)
    other = await member()
    other.tie.asked()
    await until(lambda: other.known == pytest.approx(5))


async def test_tiny_and_huge_sums(member: Member, redis: RedisServer) -> None:
    """Redis takes them as Python writes them."""
    one = await member()
    for usd in (1e-9, 5e-324, 123456789.125, 0.0):
        one.spending.add(usd)
        await one.tell()
    day, month = await sums(redis)
    assert day == month == pytest.approx(123456789.125)


# Nothing counts twice.


async def test_an_answer_that_is_lost(member: Member, redis: RedisServer) -> None:
    """The script has run, and nobody heard: telling it again adds nothing."""
    one = await member()
    run, lost = one.shared.run, [True, True, False]

    async def deaf(*arguments: Any) -> Any:
        heard = await run(*arguments)
        return None if lost and lost.pop(0) else heard

    one.shared.run = deaf  # type: ignore[method-assign, assignment]
    one.spending.add(2)
    for _ in range(4):
        await one.tell()
    one.spending.add(3)
    await one.tell()
    assert await sums(redis) == (5, 5)
    assert one.known == 5


async def test_an_end_while_it_tells(member: Member, redis: RedisServer) -> None:
    """Who is told to close while the script runs tells the same again, once."""
    one = await member()
    await redis.tell("CLIENT", "PAUSE", 200, "ALL")
    one.spending.add(2)
    telling = one.tie._errand.ask()
    await until(lambda: one.tie._errand._task is not None)
    await asyncio.sleep(0)
    await one.tie.close()
    await telling
    await reaches(redis, 2)


@pytest.mark.parametrize("trouble", ["killed", "frozen"])
async def test_a_connection_that_breaks(
    member: Member, redis: RedisServer, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of many tellings: the sum is exact in the end."""
    one, other = await member(), await member()
    for number in range(60):
        one.spending.add(1)
        other.spending.add(1)
        telling = [each.tie._errand.ask() for each in (one, other)]
        if number % 10 == 5:
            if trouble == "killed":
                await redis.tell("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            else:
                redis.freeze()
                await asyncio.sleep(0)
                redis.thaw()
        await asyncio.gather(*telling)
    await reaches(redis, 120)
    assert one.known + other.known > 0


async def test_a_budget_that_goes_and_comes(member: Member, redis: RedisServer) -> None:
    """A reload takes a budget away and the next one brings it back: the process tells what is spent then, too."""
    one = await member()
    one.spending.add(1)
    await one.tell()
    await one.tie.close()
    again = Spending(one.clock)
    again.turn()
    one.tie = FleetSpending("caller", "search", again, one.shared)
    again.add(10)
    await one.tie._errand.ask()
    assert await sums(redis) == (11, 11)


async def test_a_budget_that_goes_and_comes_by_reloads(start: Start, redis: RedisServer, simulator: Simulator) -> None:
    """The same with a sidecar and its calls."""
    shared = {"redis": {"url": redis.url, "timeout_seconds": 5.0}}
    sidecar = await start(**tree({"daily_usd": PLENTY}), **shared)
    app = sidecar.app
    await until(lambda: app.upstreams._shared is not None and app.upstreams._shared.up)
    assert await ask(sidecar, SEARCH) == 200
    await until_seen(lambda: told(redis))
    for number, budget in enumerate((None, {"daily_usd": PLENTY})):
        config = config_for(simulator, {**tree(budget), **shared})
        app.take(await app.prepare(config), number + 2)
        await until(lambda: not app.upstreams.funds._leaving)
    assert await ask(sidecar, SEARCH) == 200
    lines = await sidecar.lines.wait_for(2)
    await until(lambda: not app.upstreams.funds._ties["caller", "search"]._untold)
    days = [float(value) for name, value in (await told(redis)).items() if name.startswith(b"day:")]
    assert sum(days) == pytest.approx(sum(map(cost_of, lines)))


# What Redis may do.


async def test_redis_is_away(member: Member, redis: RedisServer) -> None:
    """Each goes by what it knows, and tells the rest when Redis is back with what it knew."""
    one, other = await member(), await member()
    one.spending.add(1)
    await reaches(redis, 1)
    other.tie.asked()
    await until(lambda: other.known == 1)
    await redis.tell("SAVE")
    await redis.kill()
    one.spending.add(2)
    other.spending.add(4)
    await one.up(False)
    await other.up(False)
    assert (one.known, other.known) == (3, 5)
    await redis.start()
    await until_seen(lambda: is_known(one, 7))
    await until_seen(lambda: is_known(other, 7))
    assert (await sums(redis))[0] in (pytest.approx(7), pytest.approx(6))


async def is_known(one: One, usd: float) -> bool:
    one.tie.asked()
    await asyncio.sleep(0)
    return one.known == pytest.approx(usd)


async def test_redis_has_forgotten(member: Member, redis: RedisServer) -> None:
    """After FLUSHALL no process goes below what it has spent itself."""
    one = await member()
    one.spending.add(5)
    await reaches(redis, 5)
    await redis.client.flushall()
    one.tie.asked()
    await one.tell()
    assert one.known == 5
    one.spending.add(1)
    await one.tell()
    assert one.known == 6


async def test_a_fleet_after_redis_has_forgotten(member: Member, redis: RedisServer) -> None:
    """Each process still knows what it has spent itself: together they know all."""
    one, other = await member(), await member()
    one.spending.add(5)
    other.spending.add(5)
    await reaches(redis, 10)
    await redis.client.flushall()
    for each in (one, other, one):
        each.spending.add(1)
        await each.tell()
    assert one.known == 13


@pytest.mark.parametrize("trouble", ["full", "read only", "foreign", "no script"])
async def test_redis_will_not(member: Member, redis: RedisServer, trouble: str) -> None:
    """While it will not, nothing is lost and nobody is stopped; afterwards all is told once."""
    one = await member()
    await one.tell()
    if trouble == "full":
        await redis.tell("CONFIG", "SET", "maxmemory", 1)
    elif trouble == "read only":
        await redis.tell("REPLICAOF", "127.0.0.1", "1")
    elif trouble == "foreign":
        await redis.client.set(KEY, "somebody's")
    else:
        await redis.client.script_flush()
    for _ in range(3):
        one.spending.add(2)
        await one.tell()
    assert one.known == 6
    if trouble != "no script":
        assert await sums_or_none(redis) in ((0, 0), None)
    await redis.tell("CONFIG", "SET", "maxmemory", 0)
    await redis.tell("REPLICAOF", "NO", "ONE")
    if trouble == "foreign":
        await redis.client.delete(KEY)
    await reaches(redis, 6)
    assert one.known == 6


async def sums_or_none(redis: RedisServer) -> tuple[float, float] | None:
    return None if await redis.client.type(KEY) != b"hash" else await sums(redis)


@pytest.mark.parametrize(
    ("field", "nonsense"),
    [
        *((DAY, each) for each in (b"nonsense", b"", b"1e400", b"nan")),
        *((MONTH, each) for each in (b"nonsense", b"", b"nan")),
    ],
)
async def test_nonsense_under_the_key(member: Member, redis: RedisServer, field: bytes, nonsense: bytes) -> None:
    """What is no sum stops nobody, and makes no other sum grow with each try."""
    one = await member()
    await redis.client.hset(KEY, field.decode(), nonsense)
    one.spending.add(2)
    for _ in range(5):
        await one.tell()
    assert one.known >= 2
    assert one.known == one.known  # no NaN
    found = await told(redis)
    other = float(found.get(MONTH if field is DAY else DAY, 0))
    assert other <= 2


async def test_another_day_while_redis_is_away(member: Member, redis: RedisServer) -> None:
    """What was spent yesterday is told for yesterday, what today for today; the month has both."""
    one = await member()
    one.spending.add(1)
    await reaches(redis, 1)
    run = one.shared.run

    async def away(*arguments: Any) -> None:
        return None

    one.shared.run = away  # type: ignore[method-assign, assignment]
    one.spending.add(2)
    await one.tell()
    one.clock.now = at("2026-11-28T00:00:01")
    one.spending.add(4)
    await one.tell()
    assert (one.known, one.spending.now("month")) == (4, 7)
    one.clock.now = at("2026-12-01T00:00:01")
    one.spending.add(8)
    one.shared.run = run  # type: ignore[method-assign]
    await one.tell()
    found = await spent(redis)
    assert (found[b"day:2026-12-01"], found[b"month:2026-12"]) == (8, 8)
    assert (one.known, one.spending.now("month")) == (8, 8)


async def test_midnight(member: Member, redis: RedisServer) -> None:
    """A day begins anew, the month adds up."""
    one, other = await member(), await member()
    one.spending.add(1)
    await one.tell()
    one.clock.now = at("2026-11-28T00:00:00")
    other.spending.add(2)
    await other.tell()
    assert await spent(redis) == {DAY: 1, b"day:2026-11-28": 2, MONTH: 3}
    await one.tell()
    assert (one.known, one.spending.now("month")) == (2, 3)


async def test_one_whose_clock_is_ahead(member: Member, redis: RedisServer) -> None:
    """A process with a wrong clock does not take away what the others have spent today."""
    one, other = await member(), await member()
    one.spending.add(5)
    await reaches(redis, 5)
    other.spending._clock, other.spending._ends = Clock(at("2027-06-01T00:00:00")), 0.0
    other.spending.add(1)
    await other.tell()
    assert await sums(redis) == (5, 5)


# What it leaves.


async def test_closing_tells_the_rest(start: Start, redis: RedisServer, simulator: Simulator) -> None:
    """A sidecar that ends has told all that its calls have cost, and is not connected any more."""
    sidecar = await start(**tree({"daily_usd": PLENTY}), redis={"url": redis.url, "timeout_seconds": 5.0})
    shared = sidecar.app.upstreams._shared
    assert shared is not None
    await until(lambda: shared.up)
    for tie in sidecar.app.upstreams.funds._ties.values():
        tie._due = lambda: None  # type: ignore[method-assign]  # it tells nothing of its own accord
    for _ in range(3):
        assert await ask(sidecar, SEARCH) == 200
    lines = await sidecar.lines.wait_for(3)
    await sidecar.close()
    days = [float(value) for name, value in (await told(redis)).items() if name.startswith(b"day:")]
    assert sum(days) == pytest.approx(sum(map(cost_of, lines)))
    await no_connections(redis)
    sidecar.app.stop = nothing  # type: ignore[method-assign]


async def nothing() -> None:
    pass


async def test_what_stands_in_redis(member: Member, redis: RedisServer) -> None:
    """One key for a caller, with names, sums and numbers; it goes by itself after forty days."""
    one = await member()
    one.spending.add(1)
    await reaches(redis, 1)
    assert await names(redis, "octet:budget:*") == [KEY]
    fields = sorted(await told(redis))
    assert fields == [DAY, b"life", MONTH, b"told:" + one.tie._teller.encode()]
    assert 0 < await redis.client.ttl(KEY) <= 3_456_000


async def test_it_does_not_grow(member: Member, redis: RedisServer) -> None:
    """Days that are long over and processes that have ended go."""
    one = await member()
    for number in range(50):
        await redis.client.hset(KEY, f"told:{number:012x}", f"3 {int(NOON)}")
        await redis.client.hset(KEY, f"day:2026-10-{number % 31 + 1:02}", "5")
    await redis.client.hset(KEY, "month:2026-10", "5")
    now, _ = await redis.client.time()
    stale: dict[Any, Any] = {f"told:{number:012x}": f"3 {now - 90_000}" for number in range(50)}
    await redis.client.hset(KEY, mapping=stale)
    one.spending.add(1)
    await reaches(redis, 1)
    days = [name for name in await told(redis) if name.startswith(b"day:")]
    assert len(days) == 4
    assert DAY in days
    assert len(await told(redis)) == len(days) + len([b"life", b"told", b"month:2026-10", MONTH])


async def test_asking_alone_writes_nothing(member: Member, redis: RedisServer) -> None:
    """A caller who has not spent anything leaves no key."""
    one = await member()
    for _ in range(3):
        one.tie.asked()
        await one.tell()
    assert not await names(redis, "octet:budget:*")


# With sidecars.


async def test_two_sidecars(start: Start, redis: RedisServer, simulator: Simulator) -> None:
    """What one has spent refuses at the other, within a second."""
    shared = {"redis": {"url": redis.url, "timeout_seconds": 5.0}}
    one, other = [await start(**tree({"daily_usd": 0.02}), **shared) for _ in range(2)]
    simulator.always("openai", Behaviour(tokens=50))
    assert await ask(one, SEARCH) == 200
    (line,) = await one.lines.wait_for(1)
    assert line["cost_usd"] > 0.02

    async def refused() -> bool:
        return await ask(other, SEARCH) == 429

    await until_seen(refused)
    assert await total(other, "octet_budget_spent_usd", period="day", scope="caller") >= line["cost_usd"]
    assert await ask(one, "sk-other") == 200


async def test_frozen_redis_stops_no_call(start: Start, redis: RedisServer, simulator: Simulator) -> None:
    """Calls do not wait for it, and are charged here meanwhile."""
    rules = tree({"daily_usd": PLENTY}) | {
        "routes": [route(budget={"daily_usd": PLENTY})],
        "upstreams": priced("openai"),
    }
    sidecar = await start(**rules, redis={"url": redis.url, "timeout_seconds": 0.25})
    await until(lambda: sidecar.app.upstreams._shared is not None and sidecar.app.upstreams._shared.up)
    redis.freeze()
    statuses = await asyncio.wait_for(asyncio.gather(*(ask(sidecar, SEARCH) for _ in range(20))), 5)
    assert statuses == [200] * 20
    lines = await sidecar.lines.wait_for(20)
    spent = await total(sidecar, "octet_budget_spent_usd", period="day", scope="caller")
    assert spent == pytest.approx(sum(map(cost_of, lines)))
    redis.thaw()

    async def is_told() -> bool:
        return sum(float(value) for name, value in (await told(redis)).items() if name.startswith(b"day:")) > 0

    await until_seen(is_told, 10)
    await until(lambda: not any(tie._untold for tie in sidecar.app.upstreams.funds._ties.values()), 10)
    days = [float(value) for name, value in (await told(redis)).items() if name.startswith(b"day:")]
    assert sum(days) == pytest.approx(spent)


async def test_a_frozen_redis_holds_nobody_up(start: Start, redis: RedisServer) -> None:
    """A sidecar with many budgets ends in time, though Redis never answers."""
    callers = [{"name": f"c{number}", "key": f"sk-{number}", "budget": {"daily_usd": 5}} for number in range(40)]
    rules = tree(None) | {"server": {"callers": callers}}
    sidecar = await start(**rules, redis={"url": redis.url, "timeout_seconds": 0.25})
    funds = sidecar.app.upstreams.funds
    await until(lambda: sidecar.app.upstreams._shared is not None and sidecar.app.upstreams._shared.up)
    redis.freeze()
    for spending in funds._spendings.values():
        spending.add(1)
    await asyncio.wait_for(funds.close(), 5)
    redis.thaw()
