"""The clocks of an attempt: when each runs out, and for a stream one timer that looks whether anything came."""

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from proxy.call import NEVER, Deadline
from proxy.config import Timeouts

NEARLY = 0.9  # of a clock's time
STREAM_TOTAL_SECONDS = 3600.0
JSON_TOTAL_SECONDS = 600.0


class Bounds(NamedTuple):
    """When what runs out, in the loop's time, under the name of the clock.

    Args:
        began: when the attempt did.
        first: the answer, or the first content of a stream, must be there.
        gap: seconds between the bytes of a stream.
        whole: everything must be over.
    """

    began: float
    first: tuple[float, str]
    gap: tuple[float, str]
    whole: tuple[float, str]


def bounds_of(timeouts: Timeouts, deadline: Deadline, now: float, *, stream: bool) -> Bounds:
    """The clocks of an attempt that begins now; what bounds the call bounds the attempt."""
    total = timeouts.total_seconds or (STREAM_TOTAL_SECONDS if stream else JSON_TOTAL_SECONDS)
    seconds, name = _sooner(total, "total", deadline.whole - now)
    whole = now + seconds, name
    if not stream:
        return Bounds(now, whole, (NEVER, ""), whole)
    seconds, name = _sooner(timeouts.first_token_seconds, "first_token", deadline.content - now)
    return Bounds(now, min((now + seconds, name), whole), _sooner(timeouts.idle_seconds, "idle", deadline.gap), whole)


def json_patience(timeouts: Timeouts, deadline: Deadline, clock: Callable[[], float]) -> tuple[float, str]:
    """The only bound of a JSON call: seconds from now on, and its name."""
    if deadline.whole == NEVER:  # as mostly: nothing is to be reckoned
        return timeouts.total_seconds or JSON_TOTAL_SECONDS, "total"
    bounds = bounds_of(timeouts, deadline, clock(), stream=False)
    return bounds.first[0] - bounds.began, bounds.first[1]


def _sooner(seconds: float, clock: str, left: float) -> tuple[float, str]:
    """An upstream's clock, or what is left to the call.

    Clients' time-outs are often as long as ours: an upstream that has had nearly all of its time was too slow,
    whoever lost patience first.
    """
    return min(seconds, left), clock if left >= NEARLY * seconds else "deadline"


class StreamClock:
    """Bounds the wait for first content, then each gap between bytes, and the whole.

    Args:
        last_came: when bytes last came, in the loop's time.
        expire: called once with the clock that ran out: `first_token`, `idle`, `total` or `deadline`.
    """

    def __init__(self, bounds: Bounds, last_came: Callable[[], float], expire: Callable[[str], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self.bounds = bounds
        self._content = False  # from then on gaps count
        self._expire = expire
        self._last_came = last_came
        self._began = bounds.began  # to wait, for the idle clock
        self._paused = False
        # so that nothing is armed per stream again
        soonest = min(bounds.began + bounds.gap[0], bounds.first[0], bounds.whole[0])
        self._timer: asyncio.TimerHandle | None = self._loop.call_at(soonest, self._look)

    def content_began(self) -> None:
        """First content has come: from now on gaps count."""
        self._content = True
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
        if not self._content:
            return self.bounds.first
        last = self._loop.time() if self._paused else max(self._began, self._last_came())
        seconds, name = self.bounds.gap
        return min((last + seconds, name), self.bounds.whole)

    def _look(self) -> None:
        due, clock = self._due()
        if due <= self._loop.time():
            self._expire(clock)
        else:
            self._timer = self._loop.call_at(due, self._look)
