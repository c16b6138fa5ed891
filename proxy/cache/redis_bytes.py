"""Redis as aiocache serves it, for values that are bytes.

Source: aiocache 0.12.3 (`backends/redis.py`); its `clear` empties the whole database, and is never called.
"""

import re
from collections.abc import AsyncIterator
from typing import Any

from aiocache import RedisCache
from aiocache.serializers import NullSerializer
from redis.asyncio import RedisCluster

from proxy.config import RedisTier as Settings
from proxy.shared_state import connect

AT_ONCE = 16  # commands; those above wait, and their calls do not
CONNECTIONS = AT_ONCE + 4
_OURS = re.compile(rb"[^:]+:[^:]+:[0-9a-f]{64}")


class Bytes(RedisCache):  # type: ignore[misc]
    """Values as they are; of a value that is too large only so much is read as shows that."""

    def __init__(self, settings: Settings, most_bytes: int) -> None:
        super().__init__(NullSerializer(encoding=None), namespace=f"{settings.namespace}:answer", timeout=None)
        if settings.url is None:
            raise ValueError("a Redis tier needs an address")
        self.client = connect(settings.url, CONNECTIONS, settings.timeout_seconds)
        self._most_bytes = most_bytes

    def resize(self, most_bytes: int) -> None:
        """Read so much at most from now on."""
        self._most_bytes = most_bytes

    async def _get(self, key: str, encoding: str | None = None, _conn: Any = None) -> bytes | None:  # noqa: ARG002
        value: Any = await self.client.getrange(key, 0, self._most_bytes)
        return value or None

    async def keys(self, pattern: str) -> AsyncIterator[bytes]:
        """Keys of ours that fit, a few at a time; not those of a namespace that begins like ours."""
        begins = len(f"{self.namespace}:")
        async for key in self.client.scan_iter(match=f"{self.namespace}:{pattern}", count=500):
            if _OURS.fullmatch(key, begins):
                yield key

    async def remove(self, keys: list[bytes]) -> int:
        """Delete keys as they are in Redis, with their namespace."""
        if isinstance(self.client, RedisCluster):  # which serves several keys only of one slot
            return sum([await self.client.unlink(key) for key in keys])
        return int(await self.client.unlink(*keys))
