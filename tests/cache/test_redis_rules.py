"""How long Redis keeps answers, in which shape, under which names, and which calls pass it by."""

from typing import Any

import pytest

from proxy.cache.entry import MARK
from proxy.simulator import Behaviour, Simulator
from tests.cache.conftest import Fleet, StartCached, body_of, cached_routes, calls
from tests.cache.in_redis import (
    be_patient,
    behind,
    counted,
    forget,
    names,
    no_connections,
    only_name,
    read_entry,
    value_of,
    written,
)
from tests.redis_server import RedisServer
from tests.waiting import until


async def test_values_are_small_and_say_what_they_are(fleet: Fleet, simulator: Simulator, redis: RedisServer) -> None:
    """Compressed, and marked with the version of their format."""
    simulator.always("openai", Behaviour(text="many words " * 5000))
    (sidecar,) = await fleet(1)
    whole = await body_of(await sidecar.chat())
    await written(sidecar)
    value = await value_of(redis, await only_name(redis))
    assert value.startswith(MARK)
    assert len(value) < len(whole) / 10


@pytest.mark.parametrize(
    ("rules", "settings", "most", "beyond"),
    [
        ({}, {}, 86_400, 0),
        ({}, {"ttl_seconds": 5000}, 5000, 0),
        ({"ttl_seconds": 500}, {}, 500, 0),
        ({"ttl_seconds": 9000}, {"ttl_seconds": 5000}, 5000, 0),
        ({"ttl_seconds": 500, "stale_if_error_seconds": 4000}, {}, 500, 4000),
        ({"stale_if_error_seconds": 10, "stale_while_revalidate_seconds": 700}, {"ttl_seconds": 300}, 600, 700),
    ],
)
async def test_how_long_redis_keeps_it(
    fleet: Fleet, redis: RedisServer, rules: dict[str, Any], settings: dict[str, Any], most: int, beyond: int
) -> None:
    """The shorter of the route's and the tier's time, up to a tenth less by chance, and the time it may be stale."""
    (sidecar,) = await fleet(1, rules, **settings)
    for number in range(5):
        await body_of(await sidecar.chat(seed=number))
    await written(sidecar, 5)
    most = min(most, settings.get("ttl_seconds", most))
    keys = await names(redis, "octet:answer:*")
    left = [await redis.client.pttl(name) / 1000 - beyond for name in keys]
    assert all(0.9 * most - 10 <= each <= most for each in left), left
    assert max(left) < most or settings
    spread = {(await read_entry(redis, name)).good for name in keys}
    assert len(spread) == 5


async def test_nothing_is_kept_where_answers_are_only_shared(fleet: Fleet, redis: RedisServer) -> None:
    """With `ttl_seconds: 0` Redis is not written to."""
    (sidecar,) = await fleet(1, {"ttl_seconds": 0})
    await body_of(await sidecar.chat())
    assert counted(sidecar, "writes") == {}
    assert await names(redis) == []


async def test_calls_may_pass_redis_by(fleet: Fleet, simulator: Simulator, redis: RedisServer) -> None:
    """`no-cache` does not look but keeps, `no-store` does neither; `only-if-cached` looks and does not ask."""
    one, other = await fleet()
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}

    async def ask(control: str) -> int:
        headers = {"cache-control": control}
        async with other.http.post(f"{other.url}/v1/chat/completions", json=body, headers=headers) as response:
            return response.status

    assert await ask("only-if-cached") == 504
    await body_of(await one.chat())
    await written(one)
    assert (await ask("no-store"), await names(redis), calls(simulator)) == (200, [await only_name(redis)], 2)
    assert (await ask("no-cache"), calls(simulator)) == (200, 3)
    await written(other)
    forget(other)
    assert (await ask("only-if-cached"), calls(simulator)) == (200, 3)
    assert counted(other, "lookups") == {"miss": 1, "hit": 1}


async def test_another_namespace_is_another_cache(fleet: Fleet, simulator: Simulator, redis: RedisServer) -> None:
    """Sidecars share what they keep only under the same one."""
    (one,) = await fleet(1)
    (other,) = await fleet(1, namespace="team:b")
    for sidecar in (one, other):
        assert (await sidecar.chat()).headers["x-octet-cache"] == "miss"
        await written(sidecar)
    assert [name.partition(":answer:")[0] for name in await names(redis)] == ["octet", "team:b"]


@pytest.mark.parametrize("url", [None, ""])
async def test_where_the_cache_is(
    start_cached: StartCached, redis: RedisServer, monkeypatch: pytest.MonkeyPatch, url: str | None
) -> None:
    """Without an address of its own it is where circuits and limits are shared; with an empty one, in memory only."""
    be_patient(monkeypatch)
    shared = {"url": redis.url, "timeout_seconds": 5.0}
    tree = {"redis": shared, "cache": {"redis": {"timeout_seconds": 5.0} | ({} if url is None else {"url": url})}}
    sidecars = [await start_cached(**tree) for _ in range(2)]
    await body_of(await sidecars[0].chat())
    if url is None:
        await written(sidecars[0])
    told = [(await each.chat()).headers["x-octet-cache"] for each in (*sidecars, sidecars[1])]
    assert told == (["memory", "redis", "memory"] if url is None else ["memory", "miss", "memory"])
    await until(lambda: counted(sidecars[1], "writes", "memory") or url is None)
    assert bool(await names(redis, "octet:answer:*")) is (url is None)


async def test_routes_without_a_cache_do_not_touch_redis(start_cached: StartCached, redis: RedisServer) -> None:
    """Where no route keeps answers there is no connection."""
    routes = [{key: value for key, value in each.items() if key != "cache"} for each in cached_routes()]
    sidecar = await start_cached(routes=routes, **behind(redis.url))
    await body_of(await sidecar.chat())
    await no_connections(redis)
    assert await names(redis) == []


async def test_an_answer_that_is_too_large_is_not_written(
    start_cached: StartCached, simulator: Simulator, redis: RedisServer
) -> None:
    """Nor is the limit one for Redis alone: what is not kept in memory is not kept there."""
    simulator.always("openai", Behaviour(text="x" * 5000))
    tree = behind(redis.url)
    tree["cache"]["max_entry_bytes"] = 4000
    sidecar = await start_cached(**tree)
    for _ in range(2):
        assert (await sidecar.chat()).headers["x-octet-cache"] == "miss"
    assert counted(sidecar, "writes", "memory") == {"too_large": 2}
    assert (counted(sidecar, "writes"), await names(redis)) == ({}, [])
