"""One caller who reads what a flight brings, at its own pace."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

from proxy.call import NEVER, Deadline, Facts
from proxy.errors import NO_RETRY, ProxyError, SlowReader, TooSlow
from proxy.openai_format.transcript import Form, Retelling
from proxy.reply import Answered, Out, WholeReply

MOST_BEHIND = 4 * 1024 * 1024  # bytes that wait for a reader while others read on


class Told(Answered, Protocol):
    """What a reader asks of its flight."""

    def changed(self) -> None:
        """A reader has begun to read, or has to wait, or goes on."""
        ...

    def leave(self, reader: "Reader") -> None:
        """A reader wants no more."""
        ...


class Reader:
    """The `Stream` of a caller of a flight. `arrived` is done when there is content; with it, a whole answer.

    Args:
        expire: called, instead of failing, when the reader is to get no more.
    """

    def __init__(
        self, flight: Told, form: Form, deadline: Deadline, expire: Callable[[ProxyError], None] | None = None
    ) -> None:
        loop = asyncio.get_running_loop()
        self.form: Form = form
        self.arrived: asyncio.Future[WholeReply | None] = loop.create_future()
        self.finished: asyncio.Future[None] = loop.create_future()
        self.paused = False
        self.expired = False  # its own time was over
        self._loop = loop
        self._flight = flight
        self._whole_time = deadline.whole
        self._out: Out | None = None
        self._retelling: Retelling | None = None  # where the starter is told otherwise
        self._waiting: list[bytes] = []
        self._behind = 0
        self._last: bytes | None = None  # the last events, when they have come
        self._expire = expire or self.fail
        self._timer: asyncio.TimerHandle | None = None
        self.bound(min(deadline.whole, deadline.content if form != "whole" else NEVER))

    @property
    def headers(self) -> Mapping[str, str]:
        return self._flight.headers

    @property
    def dropped(self) -> tuple[str, ...]:
        return self._flight.dropped

    @property
    def facts(self) -> Facts:
        return self._flight.facts

    @property
    def shown(self) -> float:
        return self._flight.shown

    def bound(self, until: float) -> None:
        """Be over by then, in the loop's time."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(until, self._time_is_over) if until < NEVER else None

    def _time_is_over(self) -> None:
        self.expired = True
        self._expire(TooSlow(clock="deadline", headers=NO_RETRY))

    # The Stream of a caller.

    def connect(self, out: Out) -> None:
        self._out = out
        self._hand_on(out)
        self._flight.changed()

    def pause(self) -> None:
        self.paused = True
        self._flight.changed()

    def resume(self) -> None:
        self.paused = False
        if self._out is not None:
            self._hand_on(self._out)
        self._flight.changed()

    @property
    def write(self) -> Callable[[bytes], object] | None:
        """Takes events framed as HTTP's chunks, where they are the reader's as they are, and it reads them now."""
        return self._out.write if self._out is not None and not self.paused and self._retelling is None else None

    # What the flight tells.

    def begin(self, so_far: list[bytes], retelling: Retelling) -> None:
        """There is a stream, of which this much has come."""
        self._retelling = None if retelling.same else retelling
        self._waiting += so_far
        self._behind += sum(map(len, so_far))
        self.arrive(None)

    def arrive(self, whole: WholeReply | None) -> None:
        """There is content: from now on only the whole of the time counts."""
        if not self.arrived.done():
            self.arrived.set_result(whole)
        self.bound(self._whole_time)

    def push(self, events: bytes, usage_event: bytes) -> None:
        """Take whole events."""
        if self.finished.done():
            return
        if self._out is not None and not self.paused:
            self._out.push(events if self._retelling is None else self._retelling.piece(events, usage_event))
            return
        self._waiting.append(events)
        self._behind += len(events)
        if self._behind > MOST_BEHIND:
            self._expire(SlowReader("you read this stream too slowly, while others who share it read on"))

    def push_last(self, events: bytes, usage_event: bytes) -> None:
        """Take the last events."""
        self._last = events if self._retelling is None else self._retelling.last(events, usage_event)
        if self._out is not None and not self.paused:
            self._hand_on(self._out)

    def fail(self, error: BaseException) -> None:
        """There is no more to come; what has come goes first."""
        if not self.arrived.done():
            self.arrived.set_exception(error)
        if not self.finished.done():
            if self._out is not None and self._waiting:
                self._out.push(self._taken())
            self.finished.set_exception(error)
        self.close()
        self._flight.leave(self)

    def close(self) -> None:
        """Wait for nothing any more."""
        self.bound(NEVER)
        for future in (self.arrived, self.finished):
            if future.done() and not future.cancelled():
                future.exception()  # looked at, whoever waited for it

    def _hand_on(self, out: Out) -> None:
        if self.finished.done():
            return
        if self._last is not None:
            out.push_last(self._taken() + self._last)
            self.finished.set_result(None)
            self.close()
        elif self._waiting:
            out.push(self._taken())

    def _taken(self) -> bytes:
        events, self._behind = b"".join(self._waiting), 0
        self._waiting.clear()
        return events if self._retelling is None else self._retelling.piece(events)
