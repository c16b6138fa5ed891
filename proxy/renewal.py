"""Calls made once more behind their callers' backs, so that what is kept becomes new."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from proxy.call import Call
from proxy.errors import ProxyError
from proxy.reply import Reply, read_out
from proxy.telemetry import CallRecord

logger = logging.getLogger("octet")

MOST_AT_ONCE = 64
_THEIR_PATIENCE = ("x-octet-timeout", "x-stainless-timeout", "x-stainless-read-timeout")


class Nobody:
    """An answer that nobody reads; it brings the body of a call that came before."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def body(self) -> bytes:
        return self._body

    def expect(self, record: CallRecord) -> None:
        """There is nobody to keep waiting."""

    async def deliver(self, reply: Reply, record: CallRecord) -> None:
        """See the answer to its end."""
        record.status = 200
        await read_out(reply)

    async def fail(self, error: ProxyError, record: CallRecord) -> None:
        record.status = error.status

    def share(self, leave: Callable[[], bool] | None) -> None:
        """Nobody hangs up."""

    def dismiss(self, error: ProxyError, record: CallRecord) -> None:
        """Nobody is told."""


Serve = Callable[[Mapping[str, str], Nobody, CallRecord], Coroutine[Any, Any, None]]


class Renewals:
    """Those under way."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, call: Call, serve: Serve, done: Callable[[], object]) -> None:
        """Make a call again; `done` is called in the end."""
        if len(self._tasks) >= MOST_AT_ONCE:
            done()
            return
        task = asyncio.get_running_loop().create_task(self._make(call, serve))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: done())

    async def close(self) -> None:
        """Stop."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _make(self, call: Call, serve: Serve) -> None:
        headers = {name.lower(): value for name, value in call.headers.items()}
        for name in _THEIR_PATIENCE:
            headers.pop(name, None)
        headers["cache-control"] = "no-cache"
        try:
            await serve(headers, Nobody(call.body), CallRecord(f"{call.id}-renewal", time.perf_counter()))
        except Exception:
            logger.exception("asking again for call %s failed", call.id)
