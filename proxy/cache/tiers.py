"""Both tiers as one cache: what memory does not have, Redis may; what Redis has comes to memory.

Source: aiocache 0.12.3 (`base.py`): the contract of a cache, of which calls use the parts that wait for nobody.
"""

from collections.abc import Callable, Mapping
from typing import Any

from aiocache.base import BaseCache
from aiocache.serializers import NullSerializer

from proxy.cache.entry import Entry
from proxy.cache.key import Key
from proxy.cache.memory import Kept, MemoryTier
from proxy.cache.redis_tier import RedisTier
from proxy.cache.shelf import Shelf
from proxy.call import Json
from proxy.config import Cache as Settings
from proxy.errors import ProxyFault
from proxy.shared_state import TROUBLE, kind_of


class Tiers(BaseCache, Shelf):  # type: ignore[misc]
    """Entries under `Key`s, in memory and in Redis; what is got is `Kept`. Arguments as `Shelf` has them."""

    NAME = "octet"

    def __init__(
        self,
        settings: Settings,
        memory: MemoryTier,
        redis: RedisTier,
        clock: Callable[[], float],
        **rest: Callable[[], float],
    ) -> None:
        BaseCache.__init__(self, NullSerializer(encoding=None), timeout=None)
        self.redis: RedisTier = redis
        Shelf.__init__(self, settings, memory, clock, **rest)

    def follow(self, settings: Settings, windows: Mapping[str, float]) -> None:
        Shelf.follow(self, settings, windows)
        self.redis.resize(settings.max_entry_bytes)

    def put(self, key: Key, entry: Entry) -> bool:
        """Keep an entry that has just been made; Redis hears of it later. Whether memory has room for it at all."""
        ttl = min(entry.good, self.redis.settings.ttl_seconds)
        self.redis.put(key, entry, ttl + self.stale_seconds(entry.route))
        return Shelf.put(self, key, entry)

    async def fetch(self, key: Key) -> Kept | None:
        """What is kept anywhere, good or stale; Redis is waited for no longer than its settings say."""
        kept: Kept | None = await self.get(key)
        return kept

    async def purge(self, wanted: Mapping[str, str]) -> Json:
        """As `Shelf.purge`, and in Redis.

        Raises:
            ProxyFault: Redis cannot be asked; memory has been.
        """
        gone = await Shelf.purge(self, wanted)
        parts = [wanted.get(name) for name in ("route", "tenant", "key")]
        pattern = ":".join("*" if part is None else part.replace("*", "\\*") for part in parts)
        try:
            gone["removed"]["redis"] = await self.redis.delete_all(pattern)
        except TROUBLE as error:
            told = f"{gone['removed']['memory']} answers have left memory, but Redis cannot be asked: {kind_of(error)}"
            raise ProxyFault(told, code="redis_unavailable", status=503) from error
        return gone

    async def _get(self, key: Key, encoding: str | None = None, _conn: Any = None) -> Kept | None:  # noqa: ARG002
        kept = self.memory.get(key.digest)
        if kept is not None and kept.good_until > self.clock():
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
        return max(int(dropped), await self.redis.delete(key))

    async def _exists(self, key: Key, _conn: Any = None) -> bool:
        return await self._get(key) is not None

    async def _close(self, *_: Any, **__: Any) -> None:
        await self.redis.close()

    def _fill(self, entry: Entry) -> Kept:
        """Bring an entry of Redis to memory. Clocks of two machines differ: what is younger than now is new."""
        kept = self.kept(entry, max(0.0, self.wall() - entry.made))
        known = self.memory.get(entry.digest)
        if known is not None and known.entry.made > entry.made:
            return known
        self.memory.put(kept)
        return kept
