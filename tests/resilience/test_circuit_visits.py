"""A call is judged against the state it entered: late, twice, slow or not at all."""

from collections.abc import Callable
from typing import Any

import pytest
from purgatory.domain.model import CLOSED, HALF_OPENED, OPENED

from proxy.config import Circuit as Policy
from proxy.errors import Broken
from proxy.resilience.circuit import Circuit, Rejected, Visit
from tests.clock import Clock

FAILED = Broken("it failed")


def circuit(clock: Clock, **policy: Any) -> Circuit:
    return Circuit("a", Policy(**policy), clock)


def calls(circuit: Circuit, outcomes: str) -> str:
    """Calls one after the other, F for those that fail; the state after them."""
    for outcome in outcomes:
        visit = circuit.enter()
        visit.judge(FAILED if outcome == "F" else None)
        visit.leave()
    return circuit.state


def trials(circuit: Circuit) -> list[Visit]:
    """Every call that goes through of ten that ask."""
    visits = []
    for _ in range(10):
        try:
            visits.append(circuit.enter())
        except Rejected:
            break
    return visits


def cut(visit: Visit) -> None:
    visit.judge(None)
    visit.judge(FAILED)
    visit.leave()


SAYS: dict[str, Callable[[Visit], None]] = {
    "failed": lambda visit: visit.judge(FAILED),
    "succeeded": lambda visit: visit.judge(None),
    "ignored": lambda visit: visit.leave(),
    "cut after its commit": cut,
}


def enter(circuit: Circuit, state: str) -> Visit:
    """A call that has entered this state."""
    if state == HALF_OPENED:
        circuit.half_open()
    visit = circuit.enter()
    assert circuit.state == state
    return visit


@pytest.mark.parametrize("slow", [False, True], ids=["fast", "slow"])
@pytest.mark.parametrize("says", list(SAYS))
@pytest.mark.parametrize("now", [CLOSED, OPENED, HALF_OPENED])
@pytest.mark.parametrize("entered", [CLOSED, HALF_OPENED])
def test_a_straggler_changes_nothing(entered: str, now: str, says: str, slow: bool) -> None:
    """A call that entered an earlier state tells nothing of this one, even where both have the same name."""
    clock = Clock()
    one = circuit(clock, slow_call_seconds=2.0)
    visit = enter(one, entered)
    change = one.close if now == CLOSED else one.open if now == OPENED else one.half_open
    change()
    state = one.current
    clock.now += 3.0 if slow else 1.0
    waited = one.wait()
    SAYS[says](visit)
    visit.leave()
    assert one.current is state
    assert one.wait() == waited
    if now == CLOSED:  # any further outcome would make the fourth failure the fifth outcome
        assert calls(one, "FFFF") == CLOSED
        assert calls(one, "F") == OPENED
    if now == HALF_OPENED:
        first, second, third = trials(one)
        first.judge(None)
        second.judge(None)
        assert one.current is state
        third.judge(None)
        assert one.state == CLOSED


@pytest.mark.parametrize("says", list(SAYS))
def test_stragglers_of_a_trial_that_failed(says: str) -> None:
    """When one trial call has failed, the others neither lengthen the open time nor count in the next trial."""
    clock = Clock()
    one = circuit(clock)
    one.half_open()
    first, second, third = trials(one)
    first.judge(FAILED)
    clock.now += 10
    SAYS[says](second)
    assert one.wait() == 20.0
    clock.now += 20
    again = trials(one)
    assert len(again) == 3
    SAYS[says](third)
    assert one.state == HALF_OPENED
    assert trials(one) == []
    for visit in again:
        visit.judge(None)
    assert one.state == CLOSED


def test_a_stream_is_judged_again_when_it_is_cut() -> None:
    """Its commit is a success; a break after that makes it a failure, so that a rate above one half is reached too."""
    one = circuit(Clock(), failure_rate=0.8)
    streams = [one.enter() for _ in range(10)]
    for stream in streams:
        stream.judge(None)
    for stream in streams[:8]:
        assert one.state == CLOSED
        stream.judge(FAILED)
        stream.leave()
    assert one.state == OPENED, "eight of ten"


def test_a_break_long_after_is_a_failure_of_its_own() -> None:
    """When the stream's success is out of the window there is nothing left to change."""
    clock = Clock()
    one = circuit(clock, minimum_calls=1, failure_rate=1.0)
    stream = one.enter()
    stream.judge(None)
    clock.now += 61
    stream.judge(FAILED)
    assert one.state == OPENED, "one of one"


def test_a_trial_stream_that_is_cut_reopens() -> None:
    """While the other trials are out; once all have succeeded, the circuit has closed and the break is too late."""
    one = circuit(Clock(), trial_calls=2)
    one.half_open()
    first, second = trials(one)
    first.judge(None)
    first.judge(FAILED)
    assert one.state == OPENED
    one.half_open()
    first, second = trials(one)
    first.judge(None)
    second.judge(None)
    assert one.state == CLOSED
    first.judge(FAILED)
    assert calls(one, "FFFF") == CLOSED


def test_a_success_counts_once() -> None:
    """However often it is told, and a call that was judged tells nothing when it leaves."""
    one = circuit(Clock())
    visit = one.enter()
    for _ in range(3):
        visit.judge(None)
    visit.leave()
    assert calls(one, "FFF") == CLOSED, "four outcomes"
    assert calls(one, "F") == OPENED


def test_a_trial_is_given_back_once() -> None:
    """Leaving twice, or after having been judged, makes no second place."""
    one = circuit(Clock(), trial_calls=2)
    one.half_open()
    first, second = trials(one)
    first.leave()
    first.leave()
    assert len(trials(one)) == 1
    second.judge(None)
    second.leave()
    assert trials(one) == []


def slow_call(circuit: Circuit, clock: Clock, seconds: float, judged: str = ".") -> None:
    """A call that lasts so long, and then succeeds, fails (F) or is left unjudged (i)."""
    visit = circuit.enter()
    clock.now += seconds
    if judged != "i":
        visit.judge(FAILED if judged == "F" else None)
    visit.leave()


def test_no_call_is_slow_by_default() -> None:
    """Without `slow_call_seconds` a success is one, however late, and a call that is left tells nothing."""
    clock = Clock()
    one = circuit(clock)
    for _ in range(10):
        slow_call(one, clock, 50.0)
    assert one.state == CLOSED
    one.half_open()
    slow_call(one, clock, 50.0, "i")
    assert one.state == HALF_OPENED


@pytest.mark.parametrize("judged", [".", "i"], ids=["succeeded", "left unjudged"])
def test_slow_calls_open_the_circuit(judged: str) -> None:
    """From `slow_call_rate` on; a call of just `slow_call_seconds` is not slow, and one that was left may be."""
    clock = Clock()
    one = circuit(clock, slow_call_seconds=2.0, slow_call_rate=0.75, failure_rate=1.0, minimum_calls=4)
    for _ in range(10):
        slow_call(one, clock, 2.0)
    clock.now += 61  # all forgotten
    slow_call(one, clock, 1.0)
    for _ in range(2):
        slow_call(one, clock, 2.25, judged)
    assert one.state == CLOSED
    slow_call(one, clock, 2.25, judged)
    assert one.state == OPENED, "three of four"


@pytest.mark.parametrize("forget", ["window", "age"])
def test_slow_calls_are_forgotten(forget: str) -> None:
    """Like failures: when they are out of the window, or old."""
    clock = Clock()
    one = circuit(clock, slow_call_seconds=2.0)
    for seconds in (*[1.0] * 6, *[3.0] * 4):
        slow_call(one, clock, seconds)
    if forget == "window":
        for _ in range(10):
            slow_call(one, clock, 1.0)
    else:
        clock.now += 61
    for _ in range(4):
        slow_call(one, clock, 3.0)
    assert one.state == CLOSED
    slow_call(one, clock, 3.0)
    assert one.state == OPENED


def test_a_fast_call_that_is_left_tells_nothing() -> None:
    """Where slow calls count, a quick hang-up is still no outcome."""
    clock = Clock()
    one = circuit(clock, slow_call_seconds=2.0)
    for _ in range(10):
        slow_call(one, clock, 2.0, "i")
    assert calls(one, "FFFF") == CLOSED
    assert calls(one, "F") == OPENED


def test_slow_and_failed_are_two_rates() -> None:
    """They do not add up, and a call that failed slowly has failed."""
    clock = Clock()
    one = circuit(clock, slow_call_seconds=2.0)
    for seconds, judged in ((3.0, "."), (3.0, "."), (3.0, "F"), (3.0, "F"), (1.0, ".")):
        slow_call(one, clock, seconds, judged)
    slow_call(one, clock, 3.0, "F")  # two slow, three failed of six
    assert one.state == OPENED
    one.close()
    for seconds, judged in ((3.0, "."), (3.0, "."), (3.0, "F"), (1.0, "."), (1.0, "."), (3.0, "F")):
        slow_call(one, clock, seconds, judged)
    assert one.state == CLOSED


@pytest.mark.parametrize("judged", [".", "i"], ids=["succeeded", "left unjudged"])
def test_a_slow_trial_reopens(judged: str) -> None:
    """An upstream that answers slowly is not back; nor one that nobody waited for so long."""
    clock = Clock()
    one = circuit(clock, slow_call_seconds=2.0, trial_calls=1)
    one.half_open()
    slow_call(one, clock, 3.0, judged)
    assert one.state == OPENED
    assert one.wait() == 30.0
    clock.now += 30
    slow_call(one, clock, 1.0)
    assert one.state == CLOSED


def test_a_stream_is_slow_by_its_commit() -> None:
    """What counts is the time until first content; a long stream is no slow one, whole or cut."""
    clock = Clock()
    one = circuit(clock, slow_call_seconds=2.0, failure_rate=1.0)
    for is_cut in [True, False] * 5:
        visit = one.enter()
        visit.judge(None)
        clock.now += 5
        if is_cut:
            visit.judge(FAILED)
        visit.leave()
    assert one.state == CLOSED
