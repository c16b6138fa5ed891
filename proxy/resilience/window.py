"""The last outcomes of calls, and whether they are too bad. Pure: time is an argument."""

from collections import deque

import msgspec

from proxy.config import Circuit as Policy

OUTCOME_SECONDS = 60.0  # an older outcome does not count


class Outcome(msgspec.Struct):
    """How one call ended, or how it looks so far."""

    at: float
    failed: bool
    slow: bool


class Window:
    """So many outcomes at most, none of them old."""

    __slots__ = ("_outcomes", "_policy", "failures", "slow_calls")

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._outcomes: deque[Outcome] = deque(maxlen=policy.window)
        self.failures = self.slow_calls = 0

    def __len__(self) -> int:
        return len(self._outcomes)

    def note(self, now: float, *, failed: bool, slow: bool) -> Outcome:
        """Take an outcome in; the oldest make room."""
        outcome = Outcome(now, failed, slow)
        if failed or slow or self.failures or self.slow_calls:  # else nothing is to be counted
            self._forget(now, self._policy.window - 1)
            self.failures += failed
            self.slow_calls += slow
        self._outcomes.append(outcome)
        return outcome

    def fail(self, outcome: Outcome | None, now: float) -> None:
        """A call that had succeeded so far has failed after all."""
        self._forget(now, self._policy.window)
        if outcome is not None and not outcome.failed and any(each is outcome for each in self._outcomes):
            outcome.failed = True
            self.failures += 1
        else:
            self.note(now, failed=True, slow=False)

    def _forget(self, now: float, most: int) -> None:
        """What is old does not count; nor what is above so many."""
        outcomes = self._outcomes
        while outcomes and (len(outcomes) > most or outcomes[0].at < now - OUTCOME_SECONDS):
            gone = outcomes.popleft()
            self.failures -= gone.failed
            self.slow_calls -= gone.slow

    @property
    def is_bad(self) -> bool:
        """Whether too many of the calls have failed, or were slow."""
        count, policy = len(self._outcomes), self._policy
        if count < policy.minimum_calls:
            return False
        too_slow = policy.slow_call_seconds is not None and self.slow_calls / count >= policy.slow_call_rate
        return too_slow or self.failures / count >= policy.failure_rate
