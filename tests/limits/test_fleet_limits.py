"""Limits of several sidecars over a real Redis: one limit for all of them, and no call waits for Redis for long."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from proxy.limits.limiter import Limiter
from proxy.limits.slots import Slots
from proxy.simulator import Behaviour, Simulator
from tests.conftest import Sidecar, Start
from tests.redis_server import RedisServer
from tests.waiting import until

KEY = "octet:limits:upstream:openai"
Fleet = Callable[..., Awaitable[list[Sidecar]]]


@pytest.fixture
def fleet(start: Start, redis: RedisServer) -> Fleet:
    """Starts sidecars that share an upstream's limits; nobody waits for a bucket to fill."""

    async def started(count: int, **limits: Any) -> list[Sidecar]:
        patience = limits.pop("longest_wait_seconds", 0.001)
        route = {"targets": [{"upstream": "openai"}], "retry": {"attempts": 1, "longest_wait_seconds": patience}}
        # a busy machine is no reason to go it alone in these tests, but where they say so
        shared = {"url": redis.url, "timeout_seconds": limits.pop("timeout_seconds", 5.0)}
        tree: dict[str, Any] = {"routes": [route], "upstreams": {"openai": {"limits": limits}}, "redis": shared}
        sidecars = [await start(**tree) for _ in range(count)]
        await until(lambda: all(share(each)._leasing for each in sidecars))
        return sidecars

    return started


def limiter(sidecar: Sidecar) -> Limiter:
    found = sidecar.app.upstreams.now.standings["openai"].limiter
    assert isinstance(found, Limiter)
    return found


def slots(sidecar: Sidecar) -> Slots:
    found = limiter(sidecar).slots
    assert found is not None
    return found


def share(sidecar: Sidecar) -> Any:
    return limiter(sidecar).share


async def statuses(sidecars: list[Sidecar], count: int, **fields: Any) -> Counter[int]:
    """How so many calls at once are answered, dealt out to the sidecars in turn."""

    async def one(number: int) -> int:
        async with await sidecars[number % len(sidecars)].chat("gpt-4o-mini", **fields) as response:
            await response.read()
            return response.status

    return Counter(await asyncio.gather(*map(one, range(count))))


async def test_requests_of_all_together(fleet: Fleet, simulator: Simulator) -> None:
    """Three processes with 30 requests a minute: of 90 at once 30 are sent, and the rest is told when to come back."""
    sidecars = await fleet(3, requests_per_minute=30)
    began = asyncio.get_running_loop().time()
    counted = await statuses(sidecars, 90)
    assert counted == {200: simulator.report.calls, 429: 90 - simulator.report.calls}
    come_back = (asyncio.get_running_loop().time() - began) / 2  # one every 2 s
    assert 30 <= simulator.report.calls <= 31 + come_back
    while True:
        response = await sidecars[0].chat("gpt-4o-mini")
        if response.status == 429:
            break
        assert response.status == 200  # one that has come back
    assert 1 <= int(response.headers["retry-after"]) <= 2


async def test_tokens_of_all_together(fleet: Fleet, simulator: Simulator) -> None:
    """Estimates are reserved across processes: what is sent at once fits into the limit."""
    sidecars = await fleet(4, tokens_per_minute=10_000)
    simulator.always("openai", Behaviour(stall="before_headers"))
    calls = asyncio.gather(*(statuses([each], 25, max_tokens=480) for each in sidecars))
    await until(lambda: simulator.report.calls and not any(limiter(each).calls_asking for each in sidecars))
    await until(lambda: not any(share(each)._errand._task for each in sidecars))
    estimate = 480 + 20  # of each call; its prompt is some 20
    assert 10_000 - 2 * estimate <= simulator.report.calls * estimate <= 10_000 + estimate
    calls.cancel()
    await asyncio.wait([calls])


async def test_real_usage_counts(fleet: Fleet, simulator: Simulator) -> None:
    """What was reserved and not used goes back to all: many small answers fit where few estimates would have."""
    sidecars = await fleet(2, tokens_per_minute=2_000)
    simulator.always("openai", Behaviour(text="one two three"))
    for _ in range(15):
        assert await statuses(sidecars, 2, max_tokens=500) == {200: 2}


async def test_places_of_all_together(fleet: Fleet, simulator: Simulator) -> None:
    """Four places for three processes: never are more calls with the upstream, and each freed place is used again."""
    sidecars = await fleet(3, concurrent=4, queue_seconds=60, longest_wait_seconds=60)
    simulator.always("openai", Behaviour(delay_seconds=0.02))
    calls = [asyncio.create_task(statuses([each], 8)) for each in sidecars]
    most = 0
    while not all(call.done() for call in calls):
        most = max(most, simulator.report.open_calls)
        await asyncio.sleep(0)
    assert [call.result() for call in calls] == [{200: 8}] * 3
    assert most == 4
    assert all(slots(each).in_use == 0 for each in sidecars)


async def test_a_share_goes_back(fleet: Fleet, redis: RedisServer) -> None:
    """A process that stops keeps nothing, and one that does nothing keeps nothing either."""
    sidecars = await fleet(2, requests_per_minute=10, concurrent=5)
    assert await statuses(sidecars, 2) == {200: 2}
    await sidecars[0].close()
    kept: Any = await redis.client.hgetall(KEY)
    assert f"share:{sidecars[0].app.upstreams._shared.me}".encode() not in kept  # type: ignore[union-attr]
    while share(sidecars[1])._timer is not None:
        share(sidecars[1])._look()
        await share(sidecars[1])._errand.ask()
        await asyncio.sleep(0)
        if limiter(sidecars[1]).requests.level == 0:  # type: ignore[union-attr]
            break
    left: Any = await redis.client.hgetall(KEY)
    assert not [name for name in left if name.startswith(b"share:")]
    assert 8 <= float(left[b"level1"]) <= 10


async def test_a_share_of_the_dead_goes_back(fleet: Fleet, redis: RedisServer) -> None:
    """What a killed process held is there again when its lease is over, and not before."""
    (sidecar,) = await fleet(1, requests_per_minute=10)
    now = int((await redis.client.time())[0]) * 1000
    await redis.client.hset(KEY, mapping={"level1": "1", "at": str(now), "share:dead": f"{now + 5_900} 9 0 0"})
    assert await statuses([sidecar], 5) == {200: 1, 429: 4}
    await redis.client.hset(KEY, "share:dead", f"{now} 9 0 0")
    await share(sidecar)._errand.ask()  # by itself it would ask when its own rate promises more
    assert await statuses([sidecar], 5) == {200: 5}
    assert b"share:dead" not in await redis.client.hgetall(KEY)


async def test_a_frozen_redis(fleet: Fleet, simulator: Simulator, redis: RedisServer) -> None:
    """A call whose share is empty waits once; then the process goes by its own count, and shares again later."""
    (sidecar,) = await fleet(1, requests_per_minute=600, timeout_seconds=0.01)
    redis.freeze()
    assert await statuses([sidecar], 20) == {200: 20}
    assert not limiter(sidecar).requests.leased  # type: ignore[union-attr]
    redis.thaw()
    await until(lambda: share(sidecar)._leasing, patience=10)
    assert await statuses([sidecar], 5) == {200: 5}


async def test_redis_goes(fleet: Fleet, redis: RedisServer) -> None:
    """Then each of two processes goes by half of the limit."""
    sidecars = await fleet(2, requests_per_minute=40)
    assert await statuses(sidecars, 4) == {200: 4}
    await asyncio.gather(*(share(each)._errand.ask() for each in sidecars))
    await redis.kill()
    await until(lambda: not any(share(each)._leasing for each in sidecars))
    counted = await statuses(sidecars, 60)
    assert 30 <= counted[200] <= 38
    assert counted[429] == 60 - counted[200]


async def test_foreign_data_under_our_key(fleet: Fleet, redis: RedisServer) -> None:
    """It is left alone, and the limit is this process's own."""
    (sidecar,) = await fleet(1, requests_per_minute=10)
    await redis.client.set(KEY, "theirs")
    counted = await statuses([sidecar], 20)
    assert counted == {200: 10, 429: 10}
    assert await redis.client.get(KEY) == b"theirs"


async def test_a_callers_limit_is_shared_too(start: Start, redis: RedisServer) -> None:
    """The same key at two sidecars has one limit."""
    callers = [{"name": "app", "key": "k", "limits": {"requests_per_minute": 6}}]
    tree: dict[str, Any] = {"server": {"callers": callers}, "redis": {"url": redis.url, "timeout_seconds": 5.0}}
    sidecars = [await start(**tree) for _ in range(2)]
    await until(lambda: all(each.app.upstreams.now.limited_callers["app"].share._leasing for each in sidecars))  # type: ignore[union-attr]
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "x"}]}
    counted: Counter[int] = Counter()
    for number in range(12):
        each = sidecars[number % 2]
        url, headers = f"{each.url}/v1/chat/completions", {"authorization": "Bearer k"}
        async with each.http.post(url, json=body, headers=headers) as response:
            counted[response.status] += 1
    assert counted == {200: 6, 429: 6}
