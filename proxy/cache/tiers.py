"""Both tiers as one cache: what memory does not have, Redis may; what Redis has comes to memory.

Source: aiocache 0.12.3 (`base.py`): the contract of a cache, of which calls use the parts that wait for nobody.
"""

import random
import time
from collections.abc import Callable, Mapping
from typing import Any

from aiocache.base import BaseCache
from aiocache.serializers import NullSerializer
from redis.exceptions import RedisError

from proxy.cache.entry import Entry
from proxy.cache.key import Key
from proxy.cache.memory import Kept, MemoryTier
from proxy.cache.redis_tier import RedisTier
from proxy.call import Json
from proxy.config import Cache as Settings
from proxy.errors import ProxyFault
from proxy.shared_state import kind_of

JITTER = 0.1  # of a time to live, so that what was made at once does not end at once


class Tiers(BaseCache):  # type: ignore[misc]
    """Entries under `Key`s, in memory and in Redis. The cache's own values are `Kept`.

    Args:
        clock: of memory, never set back.
        wall: unix time: what processes have in common.
        stale_seconds: how long after its time the entry of a route may still serve, by the route's name.
        chance: uniform in [0, 1).
    """

    NAME = "octet"

    def __init__(
        self,
        settings: Settings,
        memory: MemoryTier,
        redis: RedisTier | None,
        stale_seconds: Callable[[str], float],
        clock: Callable[[], float],
        wall: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        super().__init__(NullSerializer(encoding=None), timeout=None)
        self.memory = memory
        self.redis = redis
        self._settings = settings
        self._stale_seconds = stale_seconds
        self._clock, self._wall, self._chance = clock, wall, chance

    def good_seconds(self, wanted: float | None) -> float:
        """How long an answer made now is good, where a route wants `wanted`; None: as long as the tiers keep it."""
        longest = self._settings.memory.ttl_seconds
        if self._settings.redis is not None:
            longest = max(longest, self._settings.redis.ttl_seconds)
        seconds = longest if wanted is None else min(wanted, longest)
        return seconds * (1 - JITTER * self._chance())

    def put(self, key: Key, entry: Entry) -> bool:
        """Keep an entry that has just been made; Redis hears of it later. Whether memory keeps it."""
        kept = self._kept(entry, 0.0)
        if self.redis is not None:
            ttl = min(entry.good, self._settings.redis.ttl_seconds) if self._settings.redis is not None else 0.0
            self.redis.put(key, entry, ttl + self._stale_seconds(entry.route))
        return self.memory.put(kept)

    def describe(self) -> Json:
        """How the tiers stand, for people."""
        memory, redis = self.memory, self.redis
        told: Json = {"memory": {"entries": len(memory), "bytes": memory.bytes, "max_bytes": memory.max_bytes}}
        return {**told, "redis": {"up": redis.up} if redis is not None else None}

    async def purge(self, wanted: Mapping[str, str]) -> Json:
        """Keep what fits no longer: a `route`, a `tenant`, a `key` (its digest in hex); how much has gone.

        Raises:
            ProxyFault: Redis cannot be asked; memory has been.
        """
        route, tenant, key = (wanted.get(name) for name in ("route", "tenant", "key"))

        def fits(entry: Entry) -> bool:
            return (
                (route is None or entry.route == route)
                and (tenant is None or entry.tenant == tenant)
                and (key is None or entry.digest.hex() == key)
            )

        removed: Json = {"memory": self.memory.drop_if(fits), "redis": None}
        if self.redis is not None:
            pattern = ":".join("*" if each is None else each.replace("*", "\\*") for each in (route, tenant, key))
            try:
                removed["redis"] = await self.redis.delete_all(pattern)
            except (RedisError, OSError) as error:
                told = f"{removed['memory']} answers have left memory, but Redis cannot be asked ({kind_of(error)})"
                raise ProxyFault(told, code="redis_unavailable", status=503) from error
        return {"removed": removed}

    async def _get(self, key: Key, encoding: str | None = None, _conn: Any = None) -> Kept | None:  # noqa: ARG002
        kept = self.memory.get(key.digest)
        if self.redis is None or (kept is not None and kept.good_until > self._clock()):
            return kept
        entry = await self.redis.get(key, self._fill)
        return self._fill(entry) if entry is not None else kept

    async def _set(
        self,
        key: Key,
        value: Entry,
        ttl: float | None = None,  # noqa: ARG002  # the entry knows
        _cas_token: Any = None,
        _conn: Any = None,
    ) -> bool:
        return self.put(key, value)

    async def _delete(self, key: Key, _conn: Any = None) -> int:
        dropped = self.memory.drop(key.digest)
        removed = await self.redis.delete(key) if self.redis is not None else 0
        return int(dropped) or removed

    async def _exists(self, key: Key, _conn: Any = None) -> bool:
        return await self._get(key) is not None

    async def _close(self, *_: Any, **__: Any) -> None:
        if self.redis is not None:
            await self.redis.close()

    def _fill(self, entry: Entry) -> Kept:
        """Bring an entry of Redis to memory. Clocks of two machines differ: what is older than now is new."""
        kept = self._kept(entry, max(0.0, self._wall() - entry.made))
        known = self.memory.get(entry.digest)
        if known is not None and known.entry.made > entry.made:
            return known
        self.memory.put(kept)
        return kept

    def _kept(self, entry: Entry, age: float) -> Kept:
        good = min(max(0.0, entry.good - age), self._settings.memory.ttl_seconds)
        stale = max(0.0, entry.good + self._stale_seconds(entry.route) - age - good)
        return Kept(entry, age, self._clock(), good, min(stale, self._stale_seconds(entry.route)))
