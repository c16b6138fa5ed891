"""The Redis tier: what other sidecars have been answered, and what outlives this one. Calls wait for it briefly.

Source: DESIGN.md §8.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from redis.asyncio import RedisCluster
from redis.exceptions import ResponseError

from proxy.cache.entry import Entry, Foreign, pack, unpack
from proxy.cache.key import Key
from proxy.cache.redis_bytes import AT_ONCE, Bytes
from proxy.config import RedisTier as Settings
from proxy.shared_state import PATIENCE_SECONDS, TROUBLE, close, end_tasks, kind_of

logger = logging.getLogger("octet")

MOST_ASKED = 256  # calls that wait for an answer; those above do without
MOST_WRITING = 64  # answers on their way
LARGE_BYTES = 64 * 1024  # of an answer that is not packed on the loop
BESIDE_BYTES = 64 * 1024  # of an entry, beside its answer
LOOK_SECONDS = 1.0  # between two looks whether Redis is well again
_LEAST_TTL = 0.001
_RELEASE = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0"


class RedisTier:
    """Answers in Redis.

    Args:
        most_bytes: of an answer; what is larger is neither written nor read.
        looked_up, kept: told of each look-up and each write, and how it went.
        on_up: told whenever Redis comes (True) or goes (False).
    """

    def __init__(
        self,
        settings: Settings,
        most_bytes: int,
        looked_up: Callable[[str, str], object],
        kept: Callable[[str, str], object],
        on_up: Callable[[bool], object] = id,
    ) -> None:
        self.settings = settings
        self._most_bytes = most_bytes + BESIDE_BYTES
        self._bytes = Bytes(settings, self._most_bytes)
        self.up = not isinstance(self._bytes.client, RedisCluster)  # which must be looked at before it is used
        self._looked_up = partial(looked_up, "redis")
        self._kept = partial(kept, "redis")
        self._on_up = on_up
        self._me = os.urandom(8).hex()
        self._lanes = asyncio.Semaphore(AT_ONCE)
        self._asking: set[asyncio.Task[Any]] = set()
        self._writing: set[asyncio.Task[Any]] = set()
        self._releasing: set[asyncio.Task[Any]] = set()
        self._looking: asyncio.Task[None] | None = None
        self._closed = False
        self._release = self._bytes.client.register_script(_RELEASE)

    def resize(self, most_bytes: int) -> None:
        """Keep answers of this size, and no larger, from now on."""
        self._most_bytes = most_bytes + BESIDE_BYTES
        self._bytes.resize(self._most_bytes)

    async def start(self) -> None:
        """Look whether Redis is there; a cluster, which cannot be asked before, is waited for a moment."""
        self._looking = self._spawn(self._look(), set())
        if not self.up:
            await asyncio.wait((self._looking,), timeout=PATIENCE_SECONDS)

    async def close(self) -> None:
        """Stop, and close every connection; what is being written gets a moment."""
        self._closed = True
        if self._writing or self._releasing:
            await asyncio.wait(self._writing | self._releasing, timeout=0.25)
        await end_tasks([*self._asking, *self._writing, *self._releasing, *([self._looking] if self._looking else [])])
        await close(self._bytes.client)

    async def get(self, key: Key, late: Callable[[Entry], object]) -> Entry | None:
        """The entry under a key, if Redis tells it in time.

        Args:
            late: takes it when it comes later.
        """
        if not self.up or len(self._asking) >= MOST_ASKED:
            self._looked_up("skipped")
            return None
        task = self._spawn(self._read(key), self._asking)
        done, _ = await asyncio.wait((task,), timeout=self.settings.timeout_seconds)
        if not done:
            self._looked_up("timeout")
            self._trouble(TimeoutError())
            task.add_done_callback(lambda ended: _hand_on(ended, late))
            return None
        if task.cancelled() or task.exception() is not None:  # it has been logged
            self._looked_up("error")
            return None
        found: str | Entry = task.result()
        if isinstance(found, Entry):
            return found
        self._looked_up(found)
        return None

    async def holds(self, key: Key) -> bool | None:
        """Whether there is an entry, for somebody who only wants to know: nothing is counted; None: nobody can tell."""
        if not self.up or len(self._asking) >= MOST_ASKED:
            return None
        task = self._spawn(self._has(key), self._asking)
        done, _ = await asyncio.wait((task,), timeout=self.settings.timeout_seconds)
        return None if not done or task.cancelled() or task.exception() is not None else task.result()

    async def _has(self, key: Key) -> bool | None:
        try:
            return bool(await self._bytes.exists(key.text))
        except TROUBLE as error:
            self._trouble(error)
            return None

    def put(self, key: Key, entry: Entry, ttl: float) -> None:
        """Write an entry behind the caller's back, for so many seconds."""
        if not self.up or len(self._writing) >= MOST_WRITING:
            self._kept("skipped")
        elif ttl > _LEAST_TTL:
            self._spawn(self._write(key, entry, ttl), self._writing)

    async def delete(self, key: Key) -> int:
        """Remove an entry; raises RedisError, OSError."""
        return int(await self._bytes.delete(key.text))

    async def delete_all(self, pattern: str) -> int:
        """Remove the entries whose keys fit a glob, behind the namespace; raises RedisError, OSError."""
        removed, batch = 0, list[bytes]()
        async for found in self._bytes.keys(pattern):
            batch.append(found)
            if len(batch) >= 500:
                removed += await self._bytes.remove(batch)
                batch = []
        return removed + (await self._bytes.remove(batch) if batch else 0)

    async def claim(self, key: Key, seconds: float) -> bool:
        """Whether this process is to ask upstream, and no other; also when Redis cannot say so in time."""
        if not self.up:
            return True
        task = self._spawn(self._take(key, seconds), self._asking)
        try:
            done, _ = await asyncio.wait((task,), timeout=self.settings.timeout_seconds)
        except asyncio.CancelledError:
            task.add_done_callback(lambda _: self.release(key))
            raise
        if not done:
            self._trouble(TimeoutError())
            task.add_done_callback(lambda _: self.release(key))
            return True
        return task.cancelled() or task.exception() is not None or bool(task.result())

    async def _take(self, key: Key, seconds: float) -> bool:
        try:
            async with self._lanes:
                told = await self._bytes.client.set(self._lease(key), self._me, nx=True, px=max(1, int(seconds * 1000)))
        except ResponseError:  # full, or read only: nobody can be told to wait
            return True
        except TROUBLE as error:
            self._trouble(error)
            return True
        return bool(told)

    def release(self, key: Key) -> None:
        """Let others ask upstream, behind the caller's back; writes begun before this come first."""
        if not self._closed:
            self._spawn(self._let_go(key, list(self._writing)), self._releasing)

    def _lease(self, key: Key) -> str:
        return f"{self.settings.namespace}:asking:{key.text}"

    async def _let_go(self, key: Key, before: list[asyncio.Task[Any]]) -> None:
        if before:
            await asyncio.wait(before)
        try:
            async with self._lanes:
                await self._release(keys=[self._lease(key)], args=[self._me])
        except ResponseError as error:
            logger.debug("Redis gives no lease back: %s", kind_of(error))
        except TROUBLE as error:
            self._trouble(error)

    async def _read(self, key: Key) -> Entry | str:
        """The entry, or why there is none."""
        try:
            async with self._lanes:
                data = await self._bytes.get(key.text)
        except ResponseError as error:
            if str(error).startswith("WRONGTYPE"):
                return "foreign"
            self._trouble(error)
            return "error"
        except TROUBLE as error:
            self._trouble(error)
            return "error"
        if data is None:
            return "miss"
        try:
            if len(data) > self._most_bytes:
                raise Foreign("too large")
            entry = unpack(data, self._most_bytes)
        except Foreign:
            return "foreign"
        return entry if entry.digest == key.digest else "foreign"

    async def _write(self, key: Key, entry: Entry, ttl: float) -> None:
        try:
            data = pack(entry) if entry.size < LARGE_BYTES else await asyncio.to_thread(pack, entry)
            if len(data) > self._most_bytes:
                self._kept("too_large")
                return
            async with self._lanes:
                await self._bytes.set(key.text, data, ttl=float(ttl))
        except ResponseError as error:  # no memory, read only: answers can still be read
            self._kept("error")
            logger.debug("Redis keeps no answer: %s", kind_of(error))
        except TROUBLE as error:
            self._kept("error")
            self._trouble(error)
        else:
            self._kept("ok")

    def _trouble(self, error: Exception) -> None:
        """Ask no more until Redis is seen to be well."""
        if not self.up:
            return
        self.up = False
        self._on_up(False)
        logger.warning("Redis does not serve the cache: %s; answers are kept in memory meanwhile", kind_of(error))
        if self._looking is None or self._looking.done():
            self._looking = self._spawn(self._look(pause=True), set())

    async def _look(self, *, pause: bool = False) -> None:
        """Until Redis answers."""
        while True:
            if pause:
                await asyncio.sleep(LOOK_SECONDS)
            pause = True
            try:
                if isinstance(self._bytes.client, RedisCluster):
                    await self._bytes.client.initialize()
                await self._bytes.client.ping()
            except Exception as error:  # noqa: BLE001  # also the client's own bugs: nobody else would look again
                self._trouble(error)
            else:
                self._back()
                return

    def _back(self) -> None:
        was, self.up = self.up, True
        self._on_up(True)
        if not was:
            logger.info("Redis serves the cache again")

    def _spawn(self, work: Coroutine[Any, Any, Any], among: set[asyncio.Task[Any]]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        among.add(task)
        task.add_done_callback(among.discard)
        task.add_done_callback(_look_at)
        return task


def _hand_on(task: asyncio.Task[Entry | str], late: Callable[[Entry], object]) -> None:
    if not task.cancelled() and task.exception() is None and isinstance(found := task.result(), Entry):
        late(found)


def _look_at(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("the cache's Redis tier failed", exc_info=error)
