"""What the simulator saw: calls, how they ended, connections, and the requests themselves."""

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from proxy.simulator.behaviour import Behaviour

Phase = Literal["before_headers", "before_first_token", "mid_stream"]
Outcome = Literal["completed", "aborted", "failed"]
PHASES: tuple[Phase, ...] = ("before_headers", "before_first_token", "mid_stream")
REMEMBERED_REQUESTS = 1_000


@dataclass(frozen=True, slots=True)
class SeenRequest:
    """One request as it arrived; header names are lower case, `path` includes the dialect's prefix."""

    dialect: str
    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    behaviour: Behaviour


@dataclass(slots=True)
class Call:
    """A call in progress, and how far its answer got; its tokens are those of the whole answer."""

    dialect: str
    phase: Phase = "before_headers"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    sent: int = 0  # frames with content, each of one token


class Tally:
    """Counters; calls == completed + aborted + failed + open_calls since the start."""

    def __init__(self) -> None:
        self.calls = 0
        self.completed = 0
        self.aborted = 0
        self.aborted_in: dict[Phase, int] = dict.fromkeys(PHASES, 0)
        self.failed = 0
        self.open_calls = 0
        self.open_connections = 0
        self.frames = 0
        self.prompt_tokens = 0  # what would be billed: of whole answers all, of broken streams what was sent
        self.completion_tokens = 0

    def counts(self) -> dict[str, Any]:
        """Return the counters as plain data."""
        return {
            "calls": self.calls,
            "completed": self.completed,
            "aborted": self.aborted,
            "aborted_in": dict(self.aborted_in),
            "failed": self.failed,
            "open_calls": self.open_calls,
            "open_connections": self.open_connections,
            "frames": self.frames,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
        }

    def clear(self) -> None:
        """Forget what is over; what is still open stays counted."""
        self.calls = self.open_calls
        self.completed = self.aborted = self.failed = self.frames = 0
        self.prompt_tokens = self.completion_tokens = 0
        self.aborted_in = dict.fromkeys(PHASES, 0)


@dataclass(slots=True, eq=False)
class _Wait:
    holds: "Callable[[Report], bool]"
    done: "asyncio.Future[None]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Report(Tally):
    """The tally of all dialects together, one tally per dialect, and the last requests.

    A connection belongs to no dialect until its first request; then to that one.
    """

    def __init__(self, dialects: tuple[str, ...], *, record: bool = True) -> None:
        super().__init__()
        self.dialects: dict[str, Tally] = {name: Tally() for name in dialects}
        self.requests: deque[SeenRequest] = deque(maxlen=REMEMBERED_REQUESTS)
        self.closing = False  # while the server stops, calls that end fail; nobody hung up
        self._record = record
        self._connections: dict[Hashable, str | None] = {}
        self._waits: list[_Wait] = []

    def snapshot(self) -> dict[str, Any]:
        """Return everything countable as plain data."""
        dialects = {name: tally.counts() for name, tally in self.dialects.items()}
        return self.counts() | {"dialects": dialects}

    async def wait_for(self, holds: "Callable[[Report], bool]", timeout: float = 5.0) -> None:  # noqa: ASYNC109
        """Return as soon as the predicate holds; looked at again at every change, never polled.

        Raises:
            TimeoutError: it did not come true in time; the message carries the counters.
        """
        if holds(self):
            return
        wait = _Wait(holds)
        self._waits.append(wait)
        try:
            async with asyncio.timeout(timeout):
                await wait.done
        except TimeoutError:
            raise TimeoutError(f"not within {timeout} s; the report is {self.snapshot()}") from None
        finally:
            self._waits.remove(wait)

    def reset(self) -> None:
        """Forget past calls and requests; open calls and connections stay counted."""
        for tally in (self, *self.dialects.values()):
            tally.clear()
        self.requests.clear()
        self._changed()

    def begin(self, dialect: str) -> Call:
        """Count a call that has arrived."""
        for tally in (self, self.dialects[dialect]):
            tally.calls += 1
            tally.open_calls += 1
        self._changed()
        return Call(dialect)

    def end(self, call: Call, outcome: Outcome) -> None:
        """Count how a call ended; an aborted one also by the phase it was in."""
        if self.closing and outcome == "aborted":
            outcome = "failed"
        for tally in (self, self.dialects[call.dialect]):
            tally.open_calls -= 1
            if outcome == "completed" or call.sent:
                tally.prompt_tokens += call.prompt_tokens
                whole = call.completion_tokens
                tally.completion_tokens += whole if outcome == "completed" else min(call.sent, whole)
            if outcome == "completed":
                tally.completed += 1
            elif outcome == "failed":
                tally.failed += 1
            else:
                tally.aborted += 1
                tally.aborted_in[call.phase] += 1
        self._changed()

    def frame_sent(self, call: Call) -> None:
        """Count one frame of a stream."""
        self.frames += 1
        self.dialects[call.dialect].frames += 1
        self._changed()

    def saw(self, request: SeenRequest) -> None:
        """Remember a request, if the simulator was asked to."""
        if self._record:
            self.requests.append(request)
            self._changed()

    def connection_opened(self, connection: Hashable) -> None:
        """Count a connection."""
        self._connections[connection] = None
        self.open_connections += 1
        self._changed()

    def connection_used(self, connection: Hashable, dialect: str) -> None:
        """Give a connection to the dialect it was first used for."""
        if self._connections.get(connection, dialect) is None:
            self._connections[connection] = dialect
            self.dialects[dialect].open_connections += 1
            self._changed()

    def connection_closed(self, connection: Hashable) -> None:
        """Stop counting a connection."""
        dialect = self._connections.pop(connection)
        self.open_connections -= 1
        if dialect is not None:
            self.dialects[dialect].open_connections -= 1
        self._changed()

    def _changed(self) -> None:
        for wait in self._waits:
            if not wait.done.done() and wait.holds(self):
                wait.done.set_result(None)
