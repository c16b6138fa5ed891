"""How long an upstream takes until its answer, or its first content, of late. Pure."""

from collections import deque

REMEMBERED = 200
ENOUGH = 20  # fewer tell nothing
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
