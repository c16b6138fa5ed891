"""How long an upstream takes until its answer, or its first content, of late. Pure.

Source: Twitter Finagle, `PeakEwma` (a moving average that follows slow answers at once and forgets them slowly).
"""

from collections import deque
from math import exp

REMEMBERED = 200
ENOUGH = 20  # fewer tell nothing
MEMORY_SECONDS = 5.0  # after so long without another a time counts for a third
IDLE_CALLS = 100  # of the process; only after as many an upstream that was not asked is taken for so much quicker
FAILED_SECONDS = 5.0  # what a failure counts for, at least: who fails at once is not quick
_RENEWED = 16  # the percentile is reckoned anew after so many


class Latency:
    """The last times of one upstream, in one mode."""

    __slots__ = ("_p95", "_since", "_times")

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=REMEMBERED)
        self._p95: float | None = None
        self._since = 0

    def add(self, seconds: float) -> None:
        self._times.append(seconds)
        self._since += 1

    @property
    def count(self) -> int:
        """How many times are known."""
        return len(self._times)

    def quantile(self, share: float) -> float | None:
        """The time that this share of calls stays within; None while too few are known."""
        times = sorted(self._times)
        return times[min(len(times) - 1, int(share * len(times)))] if len(times) >= ENOUGH else None

    @property
    def p95(self) -> float | None:
        """The 95th percentile, as it was not long ago."""
        if self._p95 is None or self._since >= _RENEWED:
            self._p95, self._since = self.quantile(0.95), 0
        return self._p95


class Traffic:
    """How many calls the process has made."""

    __slots__ = ("calls",)

    def __init__(self) -> None:
        self.calls = 0


class PeakAverage:
    """A moving average of times that jumps to what is slower, and comes down slowly.

    It also comes down while nobody waits for an answer: who was slow is tried again some time, but by no more than a
    small part of the calls. While somebody does wait, and nothing comes, it goes up: who answers no more is not quick.
    """

    __slots__ = ("_at", "_calls_at", "_heard", "_seconds", "_traffic", "_waiting")

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic
        self._calls_at = 0  # that there had been when a time was noted last
        self._seconds: float | None = None
        self._at = self._heard = 0.0  # when a time was noted last, and when something was heard of those who wait
        self._waiting = 0

    def wait(self, now: float) -> None:
        """A call begins to wait for an answer; `add` or `leave` ends that."""
        if not self._waiting:
            self._heard = now
        self._waiting += 1
        self._traffic.calls += 1

    def leave(self) -> None:
        """It waits no longer, and tells nothing."""
        self._waiting = max(0, self._waiting - 1)

    def add(self, seconds: float, now: float) -> None:
        """It was answered after so long."""
        self.leave()
        known = self._seconds
        if known is None or seconds >= known:
            self._seconds = seconds
        else:
            weight = exp(-max(now - self._at, 0.0) / MEMORY_SECONDS)
            self._seconds = known * weight + seconds * (1 - weight)
        self._at = self._heard = now
        self._calls_at = self._traffic.calls

    def now(self, now: float) -> float | None:
        """What to expect; None: nothing is known."""
        if self._seconds is None:
            return None
        if self._waiting:
            return max(self._seconds, now - self._heard)
        idle = max(now - self._at, 0.0) / MEMORY_SECONDS
        return self._seconds * exp(-min(idle, (self._traffic.calls - self._calls_at) / IDLE_CALLS))


class Load:
    """What one model of an upstream has to do for us, and how quick it is, by whether it is a stream."""

    __slots__ = ("averages", "in_flight")

    def __init__(self, traffic: Traffic) -> None:
        self.in_flight = 0
        self.averages = {False: PeakAverage(traffic), True: PeakAverage(traffic)}
