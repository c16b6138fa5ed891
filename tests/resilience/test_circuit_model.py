"""Whatever calls do, and whenever, a circuit is as a slow and obvious model says."""

from dataclasses import dataclass, field
from fractions import Fraction

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from proxy.config import Circuit as Policy
from proxy.errors import Broken
from proxy.resilience.circuit import Circuit, Rejected, Visit
from tests.clock import Clock


@dataclass
class Reference:
    """All outcomes of all times, looked at anew each time; each period between two changes has a number."""

    policy: Policy
    state: str = "closed"
    period: int = 0
    until: float = 0.0
    outcomes: list[tuple[float, set[str]]] = field(default_factory=list)  # of this period
    out: int = 0  # trial calls under way
    succeeded: int = 0

    def change(self, state: str, until: float = 0.0) -> None:
        self.state, self.until, self.period = state, until, self.period + 1
        self.outcomes, self.out, self.succeeded = [], 0, 0

    def admits(self, now: float) -> bool:
        if self.state == "opened":
            return now >= self.until
        return self.state == "closed" or self.out + self.succeeded < self.policy.trial_calls

    def enter(self) -> int:
        if self.state == "opened":
            self.change("half-opened")
        if self.state == "half-opened":
            self.out += 1
        return self.period

    def outcome(self, what: str, now: float) -> set[str]:
        """One outcome in this period: failed, slow or succeeded; what is known of the call from now on."""
        kinds = {what}
        if self.state == "half-opened":
            self.out, self.succeeded = self.out - 1, self.succeeded + 1
            if what != "succeeded":
                self.change("opened", now + self.policy.open_seconds)
            elif self.succeeded == self.policy.trial_calls:
                self.change("closed")
        else:
            self.outcomes.append((now, kinds))
            self.judge(now)
        return kinds

    def recent(self, now: float) -> list[set[str]]:
        return [kinds for at, kinds in self.outcomes if now - at <= 60][-self.policy.window :]

    def broken(self, kinds: set[str], now: float) -> None:
        """A call that had succeeded so far, or was slow, has failed after all."""
        if self.state == "half-opened":
            self.change("opened", now + self.policy.open_seconds)
        elif any(each is kinds for each in self.recent(now)) and "failed" not in kinds:
            kinds.add("failed")
            self.judge(now)
        else:
            self.outcome("failed", now)

    def judge(self, now: float) -> None:
        recent = self.recent(now)
        if len(recent) < self.policy.minimum_calls:
            return
        failed, slow = (Fraction(sum(kind in each for each in recent), len(recent)) for kind in ("failed", "slow"))
        if failed >= Fraction(self.policy.failure_rate) or (
            self.policy.slow_call_seconds is not None and slow >= Fraction(self.policy.slow_call_rate)
        ):
            self.change("opened", now + self.policy.open_seconds)


@dataclass
class Caller:
    """A call that is let through: our side of it, and the model's."""

    visit: Visit
    period: int
    began: float
    known: set[str] | None = None  # once it is judged
    gone: bool = False


RATES = st.sampled_from([0.125, 0.25, 0.5, 0.75, 1.0])  # floats that are what they look like
TIMES = st.sampled_from([0.25, 1.0, 2.0, 2.25, 9.75, 10.0, 20.0, 59.75, 60.25, 90.0])
POLICIES = st.builds(
    Policy,
    failure_rate=RATES,
    slow_call_rate=RATES,
    window=st.integers(1, 8),
    minimum_calls=st.integers(1, 5),
    open_seconds=st.sampled_from([1.0, 10.0, 30.0]),
    trial_calls=st.integers(1, 4),
    slow_call_seconds=st.sampled_from([None, 2.0]),
)


class Interleaved(RuleBasedStateMachine):
    """Calls that enter, are judged, are cut and leave in any order, while time goes on."""

    callers = Bundle("callers")

    @initialize(policy=POLICIES)
    def begin(self, policy: Policy) -> None:
        self.clock = Clock()
        self.model = Reference(policy)
        self.circuit = Circuit("a", policy, self.clock)

    @rule(target=callers, count=st.integers(1, 6))
    def enter(self, count: int) -> object:
        entered = []
        for _ in range(count):
            admitted = self.model.admits(self.clock.now)
            try:
                visit = self.circuit.enter()
            except Rejected:
                assert not admitted
            else:
                assert admitted
                entered.append(Caller(visit, self.model.enter(), self.clock.now))
        return multiple(*entered)

    @rule(seconds=TIMES)
    def turn(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(caller=callers)
    def succeed(self, caller: Caller) -> None:
        if caller.gone:
            return
        caller.visit.judge(None)
        if caller.known is None:
            self._tell(caller, "slow" if self._is_slow(caller) else "succeeded")

    @rule(caller=callers)
    def fail(self, caller: Caller) -> None:
        """Before its commit or after it."""
        if caller.gone:
            return
        caller.visit.judge(Broken("it failed"))
        self._tell(caller, "failed")

    @rule(caller=callers)
    def leave(self, caller: Caller) -> None:
        caller.visit.leave()
        if caller.known is None and not caller.gone and self._is_slow(caller):
            self._tell(caller, "slow")
        elif caller.known is None and not caller.gone and caller.period == self.model.period:
            self.model.out -= self.model.state == "half-opened"
        caller.gone = True

    def _tell(self, caller: Caller, what: str) -> None:
        known, caller.known = caller.known, caller.known or set()
        if caller.period != self.model.period:
            return
        if known is None:
            caller.known = self.model.outcome(what, self.clock.now)
        else:
            self.model.broken(known, self.clock.now)

    def _is_slow(self, caller: Caller) -> bool:
        limit = self.model.policy.slow_call_seconds
        return limit is not None and self.clock.now - caller.began > limit

    @invariant()
    def same(self) -> None:
        assert self.circuit.state == self.model.state
        assert (self.circuit.wait() == 0) == self.model.admits(self.clock.now)
        if self.model.state == "opened" and self.model.until > self.clock.now:
            assert self.circuit.wait() == self.model.until - self.clock.now


TestInterleaved = Interleaved.TestCase
TestInterleaved.settings = settings(max_examples=150, stateful_step_count=60)
