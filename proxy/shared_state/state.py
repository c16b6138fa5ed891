"""The one Redis connection: what several sidecars share, always behind the calls' backs.

Whoever asks gets an answer or None within `timeout_seconds`, at least a quarter of a second; whether Redis is there is
known without asking.

Source: redis-py 8.1 (`asyncio/client.py`); its defaults would try eleven times.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from redis.commands.core import AsyncScript
from redis.exceptions import AuthenticationError, ResponseError

from proxy.config import Redis as Settings
from proxy.shared_state.client import TROUBLE, close, connect

logger = logging.getLogger("octet")

LOOK_SECONDS = 1.0  # between two looks whether Redis is there
MOST_AT_ONCE = 4  # scripts; those above wait, with nobody waiting for them
MOST_CONNECTIONS = MOST_AT_ONCE + 4


class SharedState:
    """Scripts that run in Redis, and what other sidecars say of their changes.

    Args:
        on_up: told whenever Redis comes (True) or goes (False).
    """

    def __init__(self, settings: Settings, on_up: Callable[[bool], object] = id) -> None:
        self.me = os.urandom(6).hex()  # this process, for the others
        self.up = False
        self.timeout = settings.timeout_seconds
        self._namespace = settings.namespace
        self._on_up = on_up
        self._client = connect(settings.url, MOST_CONNECTIONS, settings.timeout_seconds)
        self._scripts: dict[str, AsyncScript] = {}
        self._heard: dict[str, Callable[[], object]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._lanes = asyncio.Semaphore(MOST_AT_ONCE)
        self._unwilling: set[str] = set()  # keys under which Redis will not do what it is asked
        self._well: bool | None = None  # as was told last

    def key(self, kind: str, name: str) -> str:
        """A key of ours."""
        return f"{self._namespace}:{kind}:{name}"

    def follow(self, key: str, changed: Callable[[], object]) -> None:
        """Call `changed` when another sidecar has changed what is under a key, and when Redis comes or goes."""
        self._heard[key] = changed

    def leave(self, key: str, changed: Callable[[], object]) -> None:
        """Call it no longer."""
        if self._heard.get(key) == changed:
            del self._heard[key]
        self._unwilling.discard(key)

    def start(self) -> None:
        """Look for Redis, and listen."""
        self._tasks = [asyncio.create_task(self._look()), asyncio.create_task(self._listen())]
        for task in self._tasks:
            task.add_done_callback(_look)

    async def close(self) -> None:
        """Stop, and close every connection."""
        await end_tasks(self._tasks)
        await close(self._client)

    async def run(self, script: str, key: str, *arguments: str | float) -> Sequence[Any] | None:
        """What a script answers; None when Redis is not there, or will not.

        The script gets the channel for changes and this process's name as its first arguments.
        """
        registered = self._scripts.get(script)
        if registered is None:
            registered = self._scripts[script] = self._client.register_script(script)
        try:
            async with self._lanes:
                answer: Sequence[Any] = await registered(keys=[key], args=[self._channel, self.me, *arguments])
        except ResponseError as error:  # no memory, read only, a foreign value under our key: Redis is there
            self._unwilling.add(key)
            self._tell(f"will not do what it is asked: {kind_of(error)}")
            return None
        except TROUBLE as error:
            self._set(False, error)
            return None
        self._unwilling.discard(key)
        self._set(True, None)
        return answer

    @property
    def _channel(self) -> str:
        return f"{self._namespace}:changes"

    async def _look(self) -> None:
        while True:
            try:
                await self._client.ping()
            except TROUBLE as error:
                self._set(False, error)
            else:
                self._set(True, None)
                for key in self._unwilling & self._heard.keys():  # whether it is willing now
                    self._heard[key]()
            await asyncio.sleep(LOOK_SECONDS)

    async def _listen(self) -> None:
        while True:
            try:
                async with self._client.pubsub() as channel:
                    await channel.subscribe(self._channel)
                    async for message in channel.listen():
                        self._take(message)
            except TROUBLE as error:
                self._set(False, error)
            await asyncio.sleep(LOOK_SECONDS)

    def _take(self, message: Any) -> None:
        if message["type"] == "subscribe":  # what was said before has not been heard
            for each in self._heard.values():
                each()
        if message["type"] != "message":
            return
        sender, _, key = message["data"].decode("utf-8", "replace").partition(" ")
        changed = self._heard.get(key)
        if changed is not None and sender != self.me:
            changed()

    def _set(self, up: bool, error: Exception | None) -> None:
        changed, self.up = up is not self.up, up
        self._tell(f"is not there: {kind_of(error)}" if error is not None else "")
        if changed:
            for each in list(self._heard.values()):
                each()

    def _tell(self, trouble: str) -> None:
        """Say so when all becomes well, or no longer is, once; no address, and nothing that Redis says, is quoted."""
        well = self.up and not self._unwilling
        if well is self._well:
            return
        self._well = well
        self._on_up(well)
        if well:
            logger.info("Redis is there; circuits and limits are shared")
        else:
            logger.warning("Redis %s; circuits and limits are this process's own meanwhile", trouble)


def kind_of(error: Exception) -> str:
    if isinstance(error, AuthenticationError):
        return "it refuses the password"
    return type(error).__name__


class Errand:
    """Something that is done in the background, one at a time; when it is asked for meanwhile, it is done once more."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._work = work
        self._next: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None

    def ask(self) -> "asyncio.Future[None]":
        """Done when it has been done, from beginning to end, after this."""
        loop = asyncio.get_running_loop()
        if self._next is None:
            self._next = loop.create_future()
        if self._task is None:
            self._task = loop.create_task(self._run())
            self._task.add_done_callback(_look)
        return self._next

    async def close(self) -> None:
        """Stop."""
        if self._task is not None:
            await end_tasks([self._task])

    async def _run(self) -> None:
        try:
            while self._next is not None:
                done, self._next = self._next, None
                try:
                    await self._work()
                finally:
                    done.set_result(None)
        finally:  # whoever asks from now on, asks for a new task
            self._task = None
            if self._next is not None:
                self._next.set_result(None)
                self._next = None


async def end_tasks(tasks: Sequence["asyncio.Task[None]"]) -> None:
    """Cancel them until they have ended: redis-py swallows a cancellation that comes while it connects."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.05)


def _look(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("sharing state failed", exc_info=error)
