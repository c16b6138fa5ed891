"""When an upstream is left alone: a circuit's three states, on purgatory's skeleton.

purgatory's own count consecutive failures and let everybody through at half-open; these judge a rate over a window, and
count their trial calls. A call is judged against the state it entered: when that is over, it tells nothing any more.

Source: DESIGN.md §7; purgatory 3.0.1, `domain/model.py`.
"""

from collections.abc import Callable

from proxy.call import NEVER
from proxy.config import Circuit as Policy
from proxy.resilience.sharing import Fleet
from proxy.resilience.skeleton import CLOSED, HALF_OPENED, OPENED, Context, Event, State
from proxy.resilience.window import Outcome, Window

FULL_WAIT = 1.0  # seconds; how soon to ask again while all trial calls are out: one of them may end any time


class Rejected(Exception):
    """The circuit lets no call through."""


class Circuit(Context):
    """Whether calls are let through to one upstream, or to one of its models.

    Args:
        clock: seconds that never go back.
        deliver: takes what happened, for purgatory's bus.
    """

    def __init__(
        self, name: str, policy: Policy, clock: Callable[[], float], deliver: Callable[[Event], object] = id
    ) -> None:
        super().__init__(name, policy.minimum_calls, policy.open_seconds)
        self.policy = policy
        self.clock = clock
        self.fleet: Fleet | None = None
        self._deliver = deliver
        self._state: CircuitState = Closed(policy)

    @property
    def current(self) -> "CircuitState":
        """The state object: a call that has entered another one is no longer judged."""
        return self._state

    def wait(self) -> float:
        """Seconds until a call may be let through; 0: now."""
        return self._state.wait(self)

    def peek(self) -> float:
        """The same, asked by somebody who only wants to know: nothing changes by it."""
        return self._state.peek(self)

    def enter(self) -> "Visit":
        """Let a call through.

        Raises:
            Rejected: `wait` is not 0.
        """
        self._state.handle_new_request(self)
        return Visit(self, self._state)

    def set_state(self, state: State) -> None:
        super().set_state(state)
        while self.messages:
            self._deliver(self.messages.pop(0))

    def retire(self) -> None:
        """Another has taken its place: calls that are still behind it are nobody's business."""
        self.fleet = None
        self._deliver = id

    @property
    def is_closed(self) -> bool:
        return isinstance(self._state, Closed)

    def open(self, seconds: float | None = None) -> None:
        """Let nothing through for so long; None: for `open_seconds`."""
        self.set_state(Opened(self.clock() + (self.policy.open_seconds if seconds is None else seconds)))

    def hold_open(self, seconds: float = NEVER) -> None:
        """The same by an operator's word."""
        self.set_state(Opened(self.clock() + seconds, held=True))

    def hasten(self) -> None:
        """The upstream seems to be back: if the circuit is open by itself, trial calls may begin."""
        if isinstance(self._state, Opened) and not self._state.held:
            self._state.until = min(self._state.until, self.clock())
            if self.fleet is not None:
                self.fleet.hasten()

    def close(self) -> None:
        """Let everything through, and forget what was."""
        self.set_state(Closed(self.policy))

    def reset(self) -> None:
        """The same by an operator's word."""
        self.set_state(Closed(self.policy, reset=True))

    def half_open(self, until: float = NEVER) -> None:
        """Let trial calls through; they must begin and end before `until`."""
        self.set_state(HalfOpened(self.policy.trial_calls, until))


class CircuitState(State):
    """What purgatory asks of a state, of circuits of ours; and a third outcome: ignored."""

    def wait(self, circuit: Circuit) -> float:
        """Seconds until a call may be let through."""
        raise NotImplementedError

    def peek(self, circuit: Circuit) -> float:  # noqa: ARG002
        """The same, without doing anything about it."""
        return 0.0

    def handle_slow(self, circuit: Circuit) -> None:
        """A call has succeeded, or told nothing, and took longer than `slow_call_seconds`."""

    def handle_ignored(self, circuit: Circuit) -> None:
        """A call has ended and tells nothing of the upstream."""

    def handle_break(self, circuit: Circuit, outcome: Outcome | None) -> None:
        """A call that had succeeded so far has failed after all."""


class Closed(CircuitState):
    """Everything goes through, and the last outcomes are looked at."""

    name = CLOSED

    def __init__(self, policy: Policy, *, reset: bool = False) -> None:
        self.reset = reset  # by an operator
        self.window = Window(policy)
        self.last: Outcome | None = None  # noted

    def wait(self, circuit: Circuit) -> float:  # noqa: ARG002
        return 0.0

    def handle_new_request(self, context: Context) -> None:
        """Nobody is kept out."""

    def handle_exception(self, context: Circuit, exc: BaseException) -> None:  # type: ignore[override]  # noqa: ARG002
        self._note(context, failed=True)

    def handle_end_request(self, context: Circuit) -> None:  # type: ignore[override]
        self._note(context)

    def handle_slow(self, circuit: Circuit) -> None:
        self._note(circuit, slow=True)

    def handle_break(self, circuit: Circuit, outcome: Outcome | None) -> None:
        self.window.fail(outcome, circuit.clock())
        self._judge(circuit, failed=True, slow=False)

    def _note(self, circuit: Circuit, *, failed: bool = False, slow: bool = False) -> None:
        self.last = self.window.note(circuit.clock(), failed=failed, slow=slow)
        self._judge(circuit, failed=failed, slow=slow)

    def _judge(self, circuit: Circuit, *, failed: bool, slow: bool) -> None:
        if circuit.fleet is not None:
            circuit.fleet.tell(failed=failed, slow=slow)
        if (self.window.failures or self.window.slow_calls) and self.window.is_bad:
            circuit.open()


class Opened(CircuitState):
    """Nothing goes through until a moment; then trial calls may."""

    name = OPENED

    def __init__(self, until: float, *, held: bool = False, lapsed: bool = False) -> None:
        self.until = until
        self.held = held  # by an operator
        self.lapsed = lapsed  # since the trial calls were not made in time
        self.opened_at = until
        self.rejected = 0

    def peek(self, circuit: Circuit) -> float:
        return max(self.until - circuit.clock(), 0.0)

    def wait(self, circuit: Circuit) -> float:
        left = self.until - circuit.clock()
        if left <= 0 and (circuit.fleet is None or circuit.fleet.may_try()):
            return 0.0
        self.rejected += 1
        return max(left, 0.001)

    def handle_new_request(self, context: Circuit) -> None:  # type: ignore[override]
        if self.wait(context) > 0:
            raise Rejected
        context.half_open()
        context.handle_new_request()

    def handle_exception(self, context: Circuit, exc: BaseException) -> None:  # type: ignore[override]
        """No call is in this state."""

    def handle_end_request(self, context: Circuit) -> None:  # type: ignore[override]
        """No call is in this state."""


class HalfOpened(CircuitState):
    """So many calls go through and no more; when all have succeeded the circuit closes, when one fails it opens."""

    name = HALF_OPENED

    def __init__(self, trials: int, until: float) -> None:
        self.left = self.wanted = trials
        self.until = until
        self.under_way = 0

    def peek(self, circuit: Circuit) -> float:
        over = circuit.clock() >= self.until and not self.under_way
        return 0.0 if self.left or over else FULL_WAIT

    def wait(self, circuit: Circuit) -> float:
        if circuit.clock() >= self.until:  # the fleet's trial calls are no longer ours
            if self.under_way:
                return FULL_WAIT
            circuit.set_state(Opened(circuit.clock(), lapsed=True))
            return circuit.wait()
        return 0.0 if self.left else FULL_WAIT

    def handle_new_request(self, context: Circuit) -> None:  # type: ignore[override]  # noqa: ARG002
        if not self.left:
            raise Rejected
        self.left -= 1
        self.under_way += 1

    def handle_exception(self, context: Circuit, exc: BaseException) -> None:  # type: ignore[override]  # noqa: ARG002
        context.open()

    def handle_end_request(self, context: Circuit) -> None:  # type: ignore[override]
        self.under_way -= 1
        self.wanted -= 1
        if not self.wanted:
            context.close()

    def handle_slow(self, circuit: Circuit) -> None:
        circuit.open()

    def handle_break(self, circuit: Circuit, outcome: Outcome | None) -> None:  # noqa: ARG002
        circuit.open()

    def handle_ignored(self, circuit: Circuit) -> None:  # noqa: ARG002
        self.under_way -= 1
        self.left += 1


class Visit:
    """One call behind a circuit. It is judged once when its outcome is known, and again if its stream then breaks."""

    __slots__ = ("_began", "_circuit", "_judged", "_outcome", "_state")

    def __init__(self, circuit: Circuit, state: CircuitState) -> None:
        self._circuit = circuit
        self._state = state
        self._judged = False
        self._outcome: Outcome | None = None
        self._began = 0.0 if circuit.policy.slow_call_seconds is None else circuit.clock()

    @property
    def is_trial(self) -> bool:
        """Whether the call was let through to see how the upstream is."""
        return isinstance(self._state, HalfOpened)

    def judge(self, failure: Exception | None) -> None:
        """The call has failed, or has succeeded so far (None)."""
        circuit, state, again, self._judged = self._circuit, self._state, self._judged, True
        if circuit.current is not state:
            return
        if failure is not None and again:
            state.handle_break(circuit, self._outcome)
        elif failure is not None:
            state.handle_exception(circuit, failure)
        elif not again:
            if self._slow:
                state.handle_slow(circuit)
            else:
                state.handle_end_request(circuit)
            if isinstance(state, Closed):
                self._outcome = state.last

    def leave(self) -> None:
        """The call is over; if it was not judged it tells nothing, or at most that it was slow."""
        if self._judged:
            return
        self._judged = True
        if self._circuit.current is self._state:
            if self._slow:
                self._state.handle_slow(self._circuit)
            else:
                self._state.handle_ignored(self._circuit)

    @property
    def _slow(self) -> bool:
        limit = self._circuit.policy.slow_call_seconds
        return limit is not None and self._circuit.clock() - self._began > limit
