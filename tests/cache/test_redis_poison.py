"""What can stand under our keys: nothing of it harms a call."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from proxy.cache.entry import MARK
from proxy.simulator import Simulator
from tests.cache.conftest import StartCached, body_of, calls
from tests.cache.in_redis import (
    be_patient,
    behind,
    change_entry,
    counted,
    forget,
    only_name,
    read_entry,
    value_of,
    written,
)
from tests.conftest import Sidecar
from tests.redis_server import RedisServer

Poison = Callable[[RedisServer, str, bytes], Awaitable[object]]


@pytest.fixture
def sharing(start_cached: StartCached, redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> StartCached:
    """Starts a sidecar that keeps answers in Redis; the rest is the tier's."""
    be_patient(monkeypatch)

    async def started(rules: dict[str, Any] | None = None, **more: Any) -> Sidecar:
        return await start_cached(rules, **behind(redis.url, **more))

    return started


def value(change: Callable[[bytes], bytes]) -> Poison:
    """Another string in place of the good one."""
    return lambda redis, name, good: redis.client.set(name, change(good))


async def as_list(redis: RedisServer, name: str, good: bytes) -> None:
    await redis.client.delete(name)
    await redis.client.rpush(name, good)


async def as_hash(redis: RedisServer, name: str, good: bytes) -> None:
    await redis.client.delete(name)
    await redis.client.hset(name, "value", good)


async def huge(redis: RedisServer, name: str, good: bytes) -> None:
    await redis.client.delete(name)
    await redis.client.setrange(name, 100 * 1024**2, b"x")


async def huge_behind_a_good_one(redis: RedisServer, name: str, good: bytes) -> None:
    await redis.client.set(name, good)
    await redis.client.setrange(name, 100 * 1024**2, b"x")


async def huge_when_unpacked(redis: RedisServer, name: str, good: bytes) -> None:
    """Small in Redis, and a hundred times as large as an entry may be."""
    await change_entry(redis, name, model="x" * 100_000_000)


async def other_digest(redis: RedisServer, name: str, good: bytes) -> None:
    """A good entry, of another key."""
    await change_entry(redis, name, digest=bytes(32))


POISONS: dict[str, Poison] = {
    "truncated": value(lambda good: good[: len(good) // 2]),
    "one byte short": value(lambda good: good[:-1]),
    "only the mark": value(lambda good: good[: len(MARK)]),
    "random bytes": value(lambda good: random.Random(1).randbytes(len(good))),
    "marked random bytes": value(lambda good: MARK + random.Random(2).randbytes(len(good))),
    "one bit turned": value(lambda good: good[:-9] + bytes([good[-9] ^ 1]) + good[-8:]),
    "another version": value(lambda good: good.replace(b"answer-1", b"answer-2", 1)),
    "text": value(lambda _: b"hello"),
    "a pickle": value(lambda _: b"cos\nsystem\n(S'false'\ntR."),
    "a list": as_list,
    "a hash": as_hash,
    "100 MB": huge,
    "100 MB behind a good one": huge_behind_a_good_one,
    "something behind a good one": value(lambda good: good + b"x"),
    "100 MB when unpacked": huge_when_unpacked,
    "of another key": other_digest,
}


@pytest.mark.parametrize("poison", POISONS.values(), ids=POISONS.keys())
@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_none_of_ours(
    sharing: StartCached, simulator: Simulator, redis: RedisServer, poison: Poison, stream: bool
) -> None:
    """Is a miss, counted as foreign: the upstream answers, and its answer stands in Redis in place of it."""
    one, other = await sharing(), await sharing()
    live = await body_of(await one.chat())
    await written(one)
    name = await only_name(redis)
    await poison(redis, name, await value_of(redis, name))
    answer = await other.chat(stream=stream)
    assert answer.headers["x-octet-cache"] == "miss"
    body = await body_of(answer)
    assert stream or len(body) == len(live)
    assert counted(other, "lookups") == {"foreign": 1}
    assert calls(simulator) == 2
    await written(other)
    assert (await read_entry(redis, name)).digest.hex() == answer.headers["x-octet-cache-key"]
    forget(other)
    assert (await other.chat(stream=stream)).headers["x-octet-cache"] == "redis"
    assert await other.metric("octet_cache_lookups_total", tier="redis", result="foreign") == 1
    assert await other.metric("octet_redis_up") == 1


async def test_an_empty_value_is_none(sharing: StartCached, simulator: Simulator, redis: RedisServer) -> None:
    """Redis tells it like a key that is not there: a miss, and the next answer takes its place."""
    sidecar = await sharing()
    await body_of(await sidecar.chat())
    await written(sidecar)
    name = await only_name(redis)
    await redis.client.set(name, b"")
    forget(sidecar)
    assert (await sidecar.chat()).headers["x-octet-cache"] == "miss"
    await written(sidecar, 2)
    forget(sidecar)
    assert (await sidecar.chat()).headers["x-octet-cache"] == "redis"
    assert counted(sidecar, "lookups") == {"miss": 2, "hit": 1}


@pytest.mark.parametrize("changes", [{"upstream": "a\r\nx-evil: 1"}, {"made": -1.0}, {"good": float("nan")}])
async def test_entries_that_nobody_would_make(
    sharing: StartCached, simulator: Simulator, redis: RedisServer, changes: dict[str, Any]
) -> None:
    """Are foreign, though they are packed like ours."""
    sidecar = await sharing()
    await body_of(await sidecar.chat())
    await written(sidecar)
    await change_entry(redis, await only_name(redis), **changes)
    forget(sidecar)
    assert (await sidecar.chat()).headers["x-octet-cache"] == "miss"
    assert counted(sidecar, "lookups") == {"miss": 1, "foreign": 1}


@pytest.mark.parametrize("cost", [float("nan"), float("inf"), -5.0])
async def test_no_entry_spoils_what_is_counted(sharing: StartCached, redis: RedisServer, cost: float) -> None:
    """A cost that is none is not added to what was saved."""
    sidecar = await sharing()
    await body_of(await sidecar.chat())
    await written(sidecar)
    await change_entry(redis, await only_name(redis), cost=cost)
    forget(sidecar)
    await body_of(await sidecar.chat())
    assert await sidecar.metric("octet_cost_saved_usd_total", route="openai", upstream="openai") == 0


@pytest.mark.parametrize("streamed", [float("inf"), 1e12, -1.0])
async def test_no_entry_is_replayed_for_ever(sharing: StartCached, redis: RedisServer, streamed: float) -> None:
    """A pace that no answer has had keeps no caller waiting."""
    sidecar = await sharing({"replay": "paced"})
    live = await body_of(await sidecar.chat(stream=True))
    await written(sidecar)
    await change_entry(redis, await only_name(redis), streamed=streamed)
    forget(sidecar)
    async with asyncio.timeout(5):
        assert await body_of(await sidecar.chat(stream=True)) == live


async def test_headers_cannot_be_smuggled_in(sharing: StartCached, redis: RedisServer) -> None:
    """A model and dropped fields with line ends in them make no header lines."""
    sidecar = await sharing()
    await body_of(await sidecar.chat())
    await written(sidecar)
    await change_entry(redis, await only_name(redis), model="m\r\nx-evil: 1", dropped=("a\r\nx-evil: 2",))
    forget(sidecar)
    answer = await sidecar.chat()
    await body_of(answer)
    assert answer.headers["x-octet-cache"] == "redis"
    assert "x-evil" not in answer.headers
