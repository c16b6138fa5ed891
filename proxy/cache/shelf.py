"""Where answers are kept: in memory, and for how long. With Redis beside it, it becomes `Tiers`."""

import random
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from proxy.cache.entry import Entry
from proxy.cache.key import Key
from proxy.cache.memory import Kept, MemoryTier
from proxy.call import Json
from proxy.config import Cache as Settings

if TYPE_CHECKING:  # its client library takes 0.1 s and 6 MiB: it is for those who configure Redis
    from proxy.cache.redis_tier import RedisTier

JITTER = 0.1  # of a time to live, so that what was made at once does not end at once


class Shelf:
    """Answers in this process's memory.

    Args:
        clock: of memory, never set back.
        wall: unix time: what processes have in common.
        chance: uniform in [0, 1).
    """

    redis: "RedisTier | None" = None

    def __init__(
        self,
        settings: Settings,
        memory: MemoryTier,
        clock: Callable[[], float],
        wall: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.memory = memory
        self.clock, self.wall = clock, wall
        self._chance = chance
        self.follow(settings, {})

    def follow(self, settings: Settings, windows: Mapping[str, float]) -> None:
        """Go by these settings from now on.

        Args:
            windows: how long after its time the entry of a route may still serve, in seconds, by the route's name.
        """
        self._windows = windows
        self._memory_seconds = settings.memory.ttl_seconds
        self._longest = max(settings.memory.ttl_seconds, settings.redis.ttl_seconds if settings.redis else 0.0)
        self.memory.resize(settings.memory.max_bytes)

    def stale_seconds(self, route: str) -> float:
        """How long after its time an entry may still serve."""
        return self._windows.get(route, 0.0)

    def good_seconds(self, wanted: float | None) -> float:
        """How long an answer made now is good, where a route wants `wanted`; None: as long as it is kept anywhere."""
        seconds = self._longest if wanted is None else min(wanted, self._longest)
        return seconds * (1 - JITTER * self._chance())

    def put(self, key: Key, entry: Entry) -> bool:  # noqa: ARG002  # Redis needs it
        """Keep an entry that has just been made; whether memory has room for it at all."""
        return self.memory.put(self.kept(entry, 0.0))

    async def fetch(self, key: Key) -> Kept | None:
        """What is kept anywhere, good or stale."""
        return self.memory.get(key.digest)

    def kept(self, entry: Entry, age: float) -> Kept:
        """An entry of this age as memory keeps it."""
        good, window = min(max(0.0, entry.good - age), self._memory_seconds), self.stale_seconds(entry.route)
        stale = min(window, max(0.0, entry.good + window - age - good)) if window else 0.0
        return Kept(entry, age, self.clock(), good, stale)

    def describe(self) -> Json:
        """How the tiers stand, for people."""
        memory = self.memory
        told: Json = {"entries": len(memory), "bytes": memory.bytes, "max_bytes": memory.max_bytes}
        return {"memory": told, "redis": {"up": self.redis.up} if self.redis is not None else None}

    async def purge(self, wanted: Mapping[str, str]) -> Json:
        """Keep what fits no longer: a `route`, a `tenant`, a `key` (its digest in hex); how much has gone."""
        route, tenant, key = (wanted.get(name) for name in ("route", "tenant", "key"))

        def fits(entry: Entry) -> bool:
            return (
                (route is None or entry.route == route)
                and (tenant is None or entry.tenant == tenant)
                and (key is None or entry.digest.hex() == key)
            )

        return {"removed": {"memory": self.memory.drop_if(fits), "redis": None}}

    async def close(self) -> None:
        """Nothing is open."""
