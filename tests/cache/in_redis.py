"""What stands in the Redis behind a cache, and what a sidecar has had to do with it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import msgspec
import pytest

from proxy.cache.entry import Entry, pack, unpack
from proxy.cache.memory import MemoryTier
from proxy.cache.redis_tier import RedisTier
from tests.conftest import Sidecar
from tests.redis_server import RedisServer
from tests.waiting import until

LEASES = "octet:asking:*"
PLENTY = 2**24  # bytes, more than any entry here


def behind(url: str, **more: Any) -> dict[str, Any]:
    """A configuration's part: answers are kept at that address, and a busy machine is no reason to do without."""
    return {"cache": {"redis": {"url": url, "timeout_seconds": 5.0, **more}}}


def be_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look often whether Redis is back."""
    monkeypatch.setattr("proxy.cache.redis_tier.LOOK_SECONDS", 0.02)


def tier(sidecar: Sidecar) -> RedisTier:
    """The sidecar's Redis tier."""
    assert sidecar.app.upstreams.shelf is not None
    found = sidecar.app.upstreams.shelf.redis
    assert found is not None
    return found


def counted(sidecar: Sidecar, kind: str, tier_name: str = "redis") -> dict[str, int]:
    """The `lookups` or `writes` of a tier that have been counted, by their results."""
    tree = sidecar.app.telemetry.cache.tree()[kind].get(tier_name, {})
    return {result: int(value) for result, value in tree.items() if value}


async def written(sidecar: Sidecar, count: int = 1) -> None:
    """Return when Redis has so many of the sidecar's answers."""
    await until(lambda: counted(sidecar, "writes").get("ok", 0) >= count)


async def at_rest(sidecar: Sidecar) -> None:
    """Return when nothing is being asked or written."""
    await until(lambda: not tier(sidecar)._asking and not tier(sidecar)._writing)


def in_memory(sidecar: Sidecar) -> MemoryTier:
    """The sidecar's memory tier."""
    assert sidecar.app.upstreams.shelf is not None
    return sidecar.app.upstreams.shelf.memory


def forget(sidecar: Sidecar) -> None:
    """Empty the sidecar's memory."""
    in_memory(sidecar).drop_if(lambda _: True)


async def names(redis: RedisServer, pattern: str = "*") -> list[str]:
    """Keys that are there."""
    keys: list[Any] = await redis.client.keys(pattern)
    return sorted(key.decode() for key in keys)


async def only_name(redis: RedisServer, pattern: str = "octet:answer:*") -> str:
    """The key of the only answer."""
    (name,) = await names(redis, pattern)
    return name


async def value_of(redis: RedisServer, name: str) -> bytes:
    """The bytes under a key."""
    value = await redis.client.get(name)
    assert isinstance(value, bytes)
    return value


async def read_entry(redis: RedisServer, name: str) -> Entry:
    """The entry under a key."""
    return unpack(await value_of(redis, name), PLENTY)


async def change_entry(redis: RedisServer, name: str, **changes: Any) -> None:
    """Put another entry in place of the one under a key; it keeps its time to live."""
    changed = msgspec.structs.replace(await read_entry(redis, name), **changes)
    await redis.client.set(name, pack(changed), keepttl=True)


async def until_seen(look: Callable[[], Awaitable[object]], patience: float = 5.0) -> None:
    """Return as soon as a look, which asks Redis, finds something; redis-py may swallow the end of a time-out."""
    clock = asyncio.get_running_loop().time
    last = clock() + patience
    while not await look():
        assert clock() < last, "it did not come to that"


async def connections(redis: RedisServer) -> list[dict[str, str]]:
    """Those of sidecars, as the server sees them."""
    return [each for each in await redis.client.client_list() if each["name"] == "octet"]


async def no_connections(redis: RedisServer) -> None:
    """Return when no sidecar is connected to it."""

    async def gone() -> bool:
        return not await connections(redis)

    await until_seen(gone)


def asking(sidecar: Sidecar, **fields: Any) -> "asyncio.Task[aiohttp.ClientResponse]":
    """A call under way."""
    return asyncio.create_task(sidecar.chat(**fields))


async def waits(sidecar: Sidecar, looks: int = 2) -> None:
    """Return when it has looked in vain for what another sidecar keeps."""
    await until(lambda: counted(sidecar, "lookups").get("miss", 0) >= looks + 1)


async def is_released(redis: RedisServer) -> None:
    """Return when nobody holds the right to ask."""

    async def free() -> bool:
        return not await names(redis, LEASES)

    await until_seen(free)
