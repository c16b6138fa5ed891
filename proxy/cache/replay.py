"""A kept answer, streamed: at once, or at the pace at which it once came."""

import asyncio
from collections.abc import Mapping

from proxy.call import Facts
from proxy.framing import SseFrames
from proxy.reply import Out

LONGEST_PAUSE = 5.0  # seconds between two events, whatever an entry says
_NO_HEADERS: Mapping[str, str] = {}


class Replay:
    """A `LiveStream` of events that are all there.

    Args:
        streamed: seconds that they are to take together; 0: they go in one piece.
    """

    encoded = False

    def __init__(
        self, events: bytes, dropped: tuple[str, ...], streamed: float = 0.0, usage_event: bytes = b""
    ) -> None:
        self.headers = _NO_HEADERS
        self.dropped = dropped
        self.facts = Facts()
        self.usage_event = usage_event
        self._loop = asyncio.get_running_loop()
        self.finished: asyncio.Future[None] = self._loop.create_future()
        self.shown = self._loop.time()
        self._events = events
        self._frames: list[bytes] = []  # those to come, the last one first
        self._pause = 0.0
        self._out: Out | None = None
        self._timer: asyncio.TimerHandle | None = None
        if streamed > 0:
            frames = SseFrames(len(events) + 1)
            self._frames = [*frames.feed(events)][::-1]
            self._pause = min(streamed / max(1, len(self._frames) - 1), LONGEST_PAUSE)

    def connect(self, out: Out) -> None:
        if not self._frames:
            self._end(out, self._events)
            return
        self._out = out
        self._push()

    def pause(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def resume(self) -> None:
        if self._frames and self._out is not None and self._timer is None:
            self._push()

    def close(self) -> None:
        """Push nothing any more."""
        self.pause()
        self._out = None

    def _push(self) -> None:
        self._timer, out, self.shown = None, self._out, self._loop.time()
        if out is None:
            return
        frame = self._frames.pop()
        if not self._frames:
            self._end(out, frame)
            return
        self._timer = self._loop.call_later(self._pause, self._push)
        out.push(frame)

    def _end(self, out: Out, events: bytes) -> None:
        self._out = None
        self.finished.set_result(None)
        out.push_last(events)
