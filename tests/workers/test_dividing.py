"""What is limited for all workers together is divided among them, or shared through Redis."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config import Address, Config
from proxy.config.load import build
from proxy.config.source import Document
from proxy.providers import traits
from proxy.simulator import Behaviour, Simulator
from proxy.workers.shares import share_of
from tests.redis_server import RedisServer
from tests.workers.conftest import Begin, Fleet, Tree, one, wait_until

LIMITS = ("concurrent", "requests_per_minute", "tokens_per_minute")
AT = [Address("127.0.0.1", 4711)]
wholes = st.integers(1, 100_000)


def config(limits: Tree, *, redis: bool = False, server: Tree | None = None, upstream: Tree | None = None) -> Config:
    """A configuration whose upstream and only caller have these limits."""
    tree: Tree = {
        "server": {**(server or {}), "callers": [{"name": "c", "key": "k", "limits": limits}]},
        "upstreams": {"a": {"provider": "openai", "limits": limits, **(upstream or {})}},
        "routes": [{"name": "one", "targets": [{"upstream": "a"}], "cache": {}}],
    }
    if redis:
        tree["redis"] = {"url": "redis://127.0.0.1:1/0"}
    return build(Document("test", tree), traits())


@given(whole=wholes, count=st.integers(1, 256))
def test_limits_are_divided_without_a_rest(whole: int, count: int) -> None:
    """The parts of all workers are together what the file says, differ by 1 at most, and are at least 1 each."""
    made = config(dict.fromkeys(LIMITS, whole), upstream={"max_connections": whole})
    shares = [share_of(made, number, count, AT) for number in range(count)]
    for name in LIMITS:
        for parts in (
            [getattr(share.upstreams["a"].limits, name) for share in shares],
            [getattr(share.server.callers[0].limits, name) for share in shares],
            [share.upstreams["a"].max_connections or 0 for share in shares],
        ):
            assert sum(parts) == max(whole, count)
            assert min(parts) >= 1
            assert max(parts) - min(parts) <= 1


@given(memory=st.integers(1, 1 << 40), buffered=st.integers(1 << 20, 1 << 40), count=st.integers(1, 64))
def test_memory_is_divided(memory: int, buffered: int, count: int) -> None:
    """Kept answers and bodies of all workers take what the file says; but the largest body fits everywhere."""
    made = config({}, server={"max_body_bytes": 1 << 20, "max_buffered_bytes": buffered})
    tier = made.cache.memory.model_copy(update={"max_bytes": memory})
    made = made.model_copy(update={"cache": made.cache.model_copy(update={"memory": tier})})
    shares = [share_of(made, number, count, AT) for number in range(count)]
    assert sum(share.cache.memory.max_bytes for share in shares) == max(memory, count)
    assert all(share.server.max_buffered_bytes >= share.server.max_body_bytes == 1 << 20 for share in shares)
    if buffered >= count << 20:
        assert sum(share.server.max_buffered_bytes for share in shares) == buffered


@given(whole=wholes, count=st.integers(2, 16))
def test_redis_keeps_limits_for_all(whole: int, count: int) -> None:
    """Where Redis shares limits every worker has the whole of them; memory and connections are divided all the same."""
    made = config(dict.fromkeys(LIMITS, whole), redis=True, upstream={"max_connections": whole})
    shares = [share_of(made, number, count, AT) for number in range(count)]
    assert all(share.upstreams["a"].limits == made.upstreams["a"].limits for share in shares)
    assert all(share.server.callers == made.server.callers for share in shares)
    assert sum(share.upstreams["a"].max_connections or 0 for share in shares) == max(whole, count)


def test_what_is_not_limited_stays_so() -> None:
    """No limit is no limit in every worker; where they listen is where the parent says; the rest is as it was."""
    made = config({})
    share = share_of(made, 1, 3, AT)
    assert share.upstreams["a"] == made.upstreams["a"]
    assert share.routes == made.routes
    assert share.server.listen == tuple(AT)
    assert made.server.listen != share.server.listen


def test_callers_connections_are_divided() -> None:
    """No more connections of callers are held by all workers together than the file allows."""
    made = config({}, server={"max_connections": 100})
    assert sum(share_of(made, number, 3, AT).server.max_connections for number in range(3)) == 100


def test_queues_are_divided() -> None:
    """No more calls wait in all workers together than the file allows."""
    made = config({"concurrent": 3, "queue": 30})
    assert sum(share_of(made, number, 3, AT).upstreams["a"].limits.queue for number in range(3)) == 30


def test_copies_are_divided() -> None:
    """No more copies are under way from all workers together than the file allows."""
    tree: Tree = {
        "upstreams": {"a": {"provider": "openai"}},
        "routes": [{"name": "one", "targets": [{"upstream": "a"}], "mirror": {"upstream": "a", "concurrent": 9}}],
    }
    made = build(Document("test", tree), traits())
    mirrors = [share_of(made, number, 3, AT).routes[0].mirror for number in range(3)]
    assert sum(mirror.concurrent for mirror in mirrors if mirror is not None) == 9


async def outcomes(fleet: Fleet, each: int) -> list[int]:
    """So many calls over a connection to every worker."""
    lines = (await fleet.lines()).values()
    return [await fleet.call(session=line.session) for line in lines for _ in range(each)]


async def shared(fleet: Fleet) -> bool:
    """Whether all workers have found Redis."""
    return "octet_redis_up 1.0" in await fleet.ask("/metrics")


async def test_a_limit_per_minute_holds_for_all(begin: Begin) -> None:
    """Seven calls a minute are seven from all workers together."""
    fleet = await begin(upstream={"limits": {"requests_per_minute": 7}})
    assert sorted(await outcomes(fleet, 4)) == [200] * 7 + [429] * 5
    limits = [each["limits"] for each in (await fleet.ask("/admin/upstreams"))["upstreams"]]
    assert sum(each["requests_per_minute"]["limit"] for each in limits) == 7


async def test_concurrent_calls_are_limited_for_all(begin: Begin, simulator: Simulator) -> None:
    """Four calls at once are four from all workers together."""
    fleet = await begin(upstream={"limits": {"concurrent": 4, "queue": 0}})
    simulator.always("openai", Behaviour(text="one two three", stall=1))
    opened = [
        await line.session.post(*fleet.asks(), json=fleet.body(stream=True)) for line in (await fleet.lines()).values()
    ]
    statuses = {response.status for response in opened}
    while 429 not in statuses or simulator.report.open_calls < 4:
        line = await fleet.line()
        opened.append(await line.session.post(*fleet.asks(), json=fleet.body(stream=True)))
        statuses.add(opened[-1].status)
        assert simulator.report.open_calls <= 4
    assert [response.status for response in opened].count(200) == 4
    for response in opened:
        response.close()


async def test_a_new_limit_is_divided_anew(begin: Begin, simulator: Simulator) -> None:
    """After a reload the parts are those of the new limit."""
    tree = one(simulator, upstream={"limits": {"requests_per_minute": 3}})
    fleet = await begin(tree)
    assert sorted(await outcomes(fleet, 2)) == [200] * 3 + [429] * 3
    tree["upstreams"]["a"]["limits"] = {"requests_per_minute": 6}
    fleet.path.write_text(json.dumps(tree))
    assert (await fleet.ask("/admin/reload", "POST"))["ok"]
    assert sorted(await outcomes(fleet, 3)) == [200] * 6 + [429] * 3


async def test_redis_shares_a_limit(begin: Begin, simulator: Simulator, redis: RedisServer) -> None:
    """With Redis one worker alone can have all of a limit, and what it took the others have not."""
    tree = one(simulator, upstream={"limits": {"requests_per_minute": 10}})
    tree["redis"] = {"url": redis.url, "timeout_seconds": 5.0}
    fleet = await begin(tree)
    await wait_until(lambda: shared(fleet))
    lines = (await fleet.lines()).values()
    statuses = [await fleet.call(session=line.session) for line in lines for _ in range(10)]
    assert 8 <= statuses.count(200) <= 12
    assert statuses[:4] == [200] * 4  # more than a third
    assert set(statuses[-5:]) == {429}
    assert await shared(fleet)


async def test_without_the_redis_that_shares_a_limit(begin: Begin, simulator: Simulator, redis: RedisServer) -> None:
    """Where it was never there, workers have together what the file says all the same."""
    await redis.kill()
    tree = one(simulator, upstream={"limits": {"requests_per_minute": 9, "concurrent": 30}})
    tree["redis"] = {"url": redis.url}
    fleet = await begin(tree)
    assert sorted(await outcomes(fleet, 5)) == [200] * 9 + [429] * 6
    assert not await shared(fleet)


@pytest.mark.parametrize("with_redis", [False, True])
async def test_the_summary_says_how(
    begin: Begin, simulator: Simulator, redis: RedisServer, tmp_path: Path, *, with_redis: bool
) -> None:
    """At the start it is said how many workers there are, and what becomes of limits."""
    tree = one(simulator)
    if with_redis:
        tree["redis"] = {"url": redis.url}
    fleet = await begin(tree)
    (line,) = (line for line in fleet.told if "  workers  " in line)
    assert line.split(None, 1)[1] == "3; " + (
        "share limits through Redis" if with_redis else "each has its part of every limit"
    )
