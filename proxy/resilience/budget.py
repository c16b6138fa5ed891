"""How much may be sent on top of what callers send: repeats, and second attempts. Pure: time is an argument."""

from collections import deque

WINDOW = 10.0  # seconds
FLOOR = 3  # repeats in a window that are always possible


class RetryBudget:
    """Repeats at one upstream, as a share of its attempts of late."""

    __slots__ = ("_repeats", "_seconds")

    def __init__(self) -> None:
        self._seconds: deque[list[float]] = deque()  # second, attempts in it
        self._repeats: deque[float] = deque()

    def attempted(self, now: float) -> None:
        """Note an attempt; a repeat is one too."""
        second = now // 1
        if self._seconds and self._seconds[-1][0] == second:
            self._seconds[-1][1] += 1
        else:
            self._seconds.append([second, 1])
            self._forget(now)

    def allows(self, share: float, now: float) -> bool:
        """Whether a repeat is in the budget."""
        self._forget(now)
        attempts = sum(count for _, count in self._seconds)
        return len(self._repeats) < max(FLOOR, int(share * attempts))

    def spend(self, now: float) -> None:
        """Note a repeat."""
        self._repeats.append(now)

    def _forget(self, now: float) -> None:
        while self._seconds and self._seconds[0][0] < (now - WINDOW) // 1:
            self._seconds.popleft()
        while self._repeats and self._repeats[0] < now - WINDOW:
            self._repeats.popleft()


class HedgeBudget:
    """Second attempts of one route, as a share of its calls; a few unused ones are kept."""

    MOST = 10.0

    __slots__ = ("_credit",)

    def __init__(self) -> None:
        self._credit = 0.0

    def called(self, share: float) -> None:
        """Note a call."""
        self._credit = min(self.MOST, self._credit + share)

    @property
    def allows(self) -> bool:
        """Whether a second attempt is in the budget."""
        return self._credit >= 1 - 1e-9

    def spend(self) -> None:
        """Note a second attempt."""
        self._credit -= 1
