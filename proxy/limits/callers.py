"""The limits of callers: held while their calls last."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType

from proxy.call import Caller, NoRoom
from proxy.errors import NO_RETRY, LimitReached, TooSlow
from proxy.limits.limiter import NEVER, Held, Limiter, Tokens
from proxy.telemetry import CallRecord, Telemetry

_UNSENT = frozenset({"memory", "redis", "joined"})
UNKNOWN_WAIT = 1.0  # seconds, told to a caller when nobody can tell


class CallerLimits:
    """The limiters of all callers that have limits, by name."""

    def __init__(self, limiters: Mapping[str, Limiter], telemetry: Telemetry) -> None:
        self.limiters = limiters
        self._telemetry = telemetry

    def room(
        self, caller: Caller, record: CallRecord, until: float, tokens: Tokens
    ) -> AbstractAsyncContextManager[object] | None:
        """Holds room for a call while it is entered, and settles it with what the record says; None: no limits.

        Args:
            until: when the call must be over, in the loop's time.

        Raises on entering:
            LimitReached: there was none, nor in the time that a call may wait.
        """
        limiter = self.limiters.get(caller.name) if caller.name is not None and self.limiters else None
        return None if limiter is None else _Room(limiter, caller, record, until, tokens, self._telemetry)


class _Room:
    __slots__ = ("_caller", "_held", "_limiter", "_record", "_telemetry", "_tokens", "_until")

    def __init__(
        self, limiter: Limiter, caller: Caller, record: CallRecord, until: float, tokens: Tokens, telemetry: Telemetry
    ) -> None:
        self._limiter = limiter
        self._caller = caller
        self._record = record
        self._until = until
        self._tokens = tokens
        self._telemetry = telemetry
        self._held: Held | None = None

    async def __aenter__(self) -> None:
        limiter, name = self._limiter, self._caller.name or ""
        held: Held | NoRoom = limiter.take(self._tokens)
        if isinstance(held, NoRoom):
            held = await self._wait(limiter, name, held.limit)
        if isinstance(held, NoRoom) and asyncio.get_running_loop().time() >= self._until:
            raise TooSlow(clock="deadline", headers=NO_RETRY)
        if isinstance(held, NoRoom):
            text = f"you have reached a limit of your key (its limits.{held.key})"
            wait = held.wait if held.wait < NEVER else UNKNOWN_WAIT
            raise LimitReached(text, retry_after=wait, limit=held.limit)
        self._held = held

    async def _wait(self, limiter: Limiter, name: str, limit: str) -> Held | NoRoom:
        """Wait for room. That a share of a fleet's limit was empty, and is filled again, is no want of room."""
        telemetry, record = self._telemetry, self._record
        record.phase = "queue"
        queues = limit == "concurrent"
        if queues:
            telemetry.limited("caller", name, limit)
        began = time.perf_counter()
        patience = max(0.0, self._until - asyncio.get_running_loop().time())
        held: Held | NoRoom | None = None
        try:
            held = await limiter.hold("", self._tokens, patience)
        finally:
            waited = time.perf_counter() - began
            record.waited_seconds += waited
            if not queues and not isinstance(held, Held):
                telemetry.limited("caller", name, limit)
            telemetry.queued("caller", name, waited)
        return held

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        held, record = self._held, self._record
        if held is None:
            return
        if record.cache in _UNSENT:
            held.settle(0)  # it was a request, and nobody upstream has answered it
        elif not record.attempts:
            held.cancel()
        elif record.first_token is None:
            held.settle(0)
        else:
            held.settle(record.facts.total_tokens)
