"""The clocks of a stream: one timer that looks, when it fires, whether anything came in the meantime."""

import asyncio
from collections.abc import Callable

from proxy.config import Timeouts

STREAM_TOTAL_SECONDS = 3600.0
JSON_TOTAL_SECONDS = 600.0
NEVER = float("inf")


def total_seconds(timeouts: Timeouts, *, stream: bool) -> float:
    """The bound of a whole attempt."""
    return timeouts.total_seconds or (STREAM_TOTAL_SECONDS if stream else JSON_TOTAL_SECONDS)


class StreamClock:
    """Bounds the wait for first content, then each gap between bytes, and the whole.

    Args:
        started: when the attempt began, in the loop's time.
        last_came: when bytes last came, in the loop's time.
        expire: called once with the clock that ran out: `first_token`, `idle` or `total`.
    """

    def __init__(
        self, timeouts: Timeouts, started: float, last_came: Callable[[], float], expire: Callable[[str], None]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._idle = timeouts.idle_seconds
        self._first_token = started + timeouts.first_token_seconds
        self._total = started + total_seconds(timeouts, stream=True)
        self._expire = expire
        self._last_came = last_came
        self._began = started  # to wait, for the idle clock
        self._paused = False
        soonest = min(started + self._idle, self._first_token, self._total)  # so that nothing is armed per stream again
        self._timer: asyncio.TimerHandle | None = self._loop.call_at(soonest, self._look)

    def content_began(self) -> None:
        """First content has come: from now on gaps count."""
        self._first_token = NEVER
        self._began = self._loop.time()

    def pause(self) -> None:
        """It is we who do not read: the gap does not count."""
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self._began = self._loop.time()

    def stop(self) -> None:
        """Nothing is called any more; nor is the owner referred to, who refers to us."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            del self._expire, self._last_came

    def _due(self) -> tuple[float, str]:
        """When which clock runs out, if nothing comes."""
        if self._first_token < NEVER:
            return min((self._first_token, "first_token"), (self._total, "total"))
        last = self._loop.time() if self._paused else max(self._began, self._last_came())
        return min((last + self._idle, "idle"), (self._total, "total"))

    def _look(self) -> None:
        due, clock = self._due()
        if due <= self._loop.time():
            self._expire(clock)
        else:
            self._timer = self._loop.call_at(due, self._look)
