"""A circuit opens at a rate of failures, stays open for a while, and closes after trial calls that all succeed."""

import itertools
import tracemalloc
from typing import Any

import pytest
from purgatory.domain.model import CLOSED, HALF_OPENED, OPENED

from proxy.config import Circuit as Policy
from proxy.errors import Broken
from proxy.resilience.circuit import Circuit, Rejected, Visit
from tests.clock import Clock


def circuit(clock: Clock, **policy: Any) -> Circuit:
    """By default: 50 % of the last 10 calls, at least 5; open for 30 s; 3 trial calls."""
    return Circuit("a", Policy(**policy), clock)


def call(circuit: Circuit, outcome: str) -> None:
    """One call from its beginning to its end: F fails, `.` succeeds, i is ignored."""
    visit = circuit.enter()
    if outcome != "i":
        visit.judge(Broken("it failed") if outcome == "F" else None)
    visit.leave()


def opened(clock: Clock, **policy: Any) -> Circuit:
    """A circuit that has just opened."""
    one = circuit(clock, **policy)
    one.open()
    return one


def ask(circuit: Circuit, askers: int = 50) -> list[Visit]:
    """So many calls ask at once; those that are let through."""
    visits = []
    for _ in range(askers):
        is_free = circuit.wait() == 0
        try:
            visits.append(circuit.enter())
        except Rejected:
            assert not is_free
        else:
            assert is_free
    return visits


@pytest.mark.parametrize(
    ("outcomes", "state"),
    [
        ("", CLOSED),
        ("FFFF", CLOSED),  # fewer than minimum_calls
        ("FFFFF", OPENED),
        ("...FF", CLOSED),
        ("..FFF", OPENED),
        ("..F.F.", CLOSED),
        ("..F.FF", OPENED),  # half of six
        (".....FFFF", CLOSED),
        (".....FFFFF", OPENED),
        ("......FFFF", CLOSED),
        ("......FFFFF", OPENED),  # the first one is out of the window
        ("....F.....FFFF", OPENED),  # the early failure is the last that counts
        ("....F......FFFF", CLOSED),
        ("FFFFiiiiii", CLOSED),
        ("iiiiiiFFFFi", CLOSED),
        ("FiFiFiFiF", OPENED),
    ],
)
def test_it_opens_at_a_rate(outcomes: str, state: str) -> None:
    """At half of the last ten failed, of at least five; what was ignored is not one of them."""
    one = circuit(Clock())
    for outcome in outcomes:
        call(one, outcome)
    assert one.state == state


@pytest.mark.parametrize(
    ("policy", "outcomes", "at"),
    [
        ({"failure_rate": 1.0}, ".FFFFFFFFFF", 11),
        ({"failure_rate": 0.2}, "....F", 5),
        ({"failure_rate": 0.2}, ".....F......F", 13),
        ({"minimum_calls": 1}, "F", 1),
        ({"window": 3, "minimum_calls": 3}, "...FF", 5),
        ({"window": 1, "minimum_calls": 1}, ".....F", 6),
    ],
    ids=str,
)
def test_rate_window_and_minimum_are_as_configured(policy: dict[str, Any], outcomes: str, at: int) -> None:
    """It opens with the very outcome that reaches the rate."""
    one = circuit(Clock(), **policy)
    for number, outcome in enumerate(outcomes, 1):
        call(one, outcome)
        assert (one.state == OPENED) == (number == at)


@pytest.mark.parametrize(("percent", "window"), [(50, 10), (29, 100), (1, 100), (28, 25), (7, 100), (55, 100)])
def test_the_rate_itself_is_enough(percent: int, window: int) -> None:
    """7 failed of 25 are 28 %, however floats multiply."""
    one = circuit(Clock(), failure_rate=percent / 100, window=window, minimum_calls=window)
    failures = percent * window // 100
    for outcome in "." * (window - failures) + "F" * (failures - 1):
        call(one, outcome)
    assert one.state == CLOSED
    call(one, "F")
    assert one.state == OPENED


@pytest.mark.parametrize(("seconds", "state"), [(0.0, OPENED), (60.0, OPENED), (60.25, CLOSED)])
def test_old_outcomes_do_not_count(seconds: float, state: str) -> None:
    """What is older than 60 s is forgotten, and no sooner."""
    clock = Clock()
    one = circuit(clock)
    for _ in range(4):
        call(one, "F")
    clock.now += seconds
    call(one, "F")
    assert one.state == state


def test_old_successes_do_not_count_either() -> None:
    """Failures are compared with what succeeded lately, not with all that ever did."""
    clock = Clock()
    one = circuit(clock)
    for _ in range(9):
        call(one, ".")
    clock.now += 61
    for _ in range(4):
        call(one, "F")
    assert one.state == CLOSED
    call(one, "F")
    assert one.state == OPENED


def test_it_stays_open_for_its_time() -> None:
    """Nothing goes through for `open_seconds`, `wait` says how long still, and then a trial call does."""
    clock = Clock()
    one = opened(clock, open_seconds=8.0)
    assert one.wait() == 8.0
    clock.now += 7.75
    assert one.wait() == 0.25
    assert ask(one) == []
    assert one.state == OPENED
    clock.now += 0.25
    assert one.wait() == 0
    assert one.state == OPENED, "asking alone changes nothing"
    assert one.enter().is_trial
    assert one.state == HALF_OPENED


@pytest.mark.parametrize("trials", [1, 3, 7])
def test_half_open_admits_the_trial_calls_and_no_more(trials: int) -> None:
    """Of fifty who ask at once, `trial_calls` go through, and later askers do not either."""
    clock = Clock()
    one = opened(clock, trial_calls=trials)
    clock.now += 30
    visits = ask(one)
    assert len(visits) == trials
    assert all(visit.is_trial for visit in visits)
    clock.now += 3600
    assert ask(one) == []


def test_all_trial_calls_must_succeed() -> None:
    """It closes with the last success, not before, and then everything goes through."""
    clock = Clock()
    one = opened(clock)
    clock.now += 30
    for visit in ask(one):
        assert one.state == HALF_OPENED
        assert ask(one) == [], "a success makes room for no further trial"
        visit.judge(None)
        visit.leave()
    assert one.state == CLOSED
    assert len(ask(one)) == 50
    assert not one.enter().is_trial


def test_a_closed_circuit_has_forgotten() -> None:
    """Failures from before it opened do not count any more."""
    clock = Clock()
    one = circuit(clock, trial_calls=1)
    for _ in range(5):
        call(one, "F")
    clock.now += 30
    call(one, ".")
    for _ in range(4):
        call(one, "F")
    assert one.state == CLOSED
    call(one, "F")
    assert one.state == OPENED


@pytest.mark.parametrize("order", sorted(set(itertools.permutations("F.."))), ids="".join)
def test_one_failed_trial_reopens(order: tuple[str, ...]) -> None:
    """Whichever of the trial calls fails, the circuit is open for a full period from then on."""
    clock = Clock()
    one = opened(clock)
    clock.now += 30
    for visit, outcome in zip(ask(one), order, strict=True):
        clock.now += 5
        failed_before = one.state == OPENED
        visit.judge(Broken("it failed") if outcome == "F" else None)
        visit.leave()
        if outcome == "F":
            assert one.wait() == 30.0
        assert one.state == (OPENED if outcome == "F" or failed_before else HALF_OPENED)
    left = one.wait()
    clock.now += left
    assert len(ask(one)) == 3, "and then there are as many trials as before"


def test_an_ignored_trial_is_given_back() -> None:
    """A trial call that tells nothing makes room for another, which must succeed in its stead."""
    clock = Clock()
    one = opened(clock)
    clock.now += 30
    first, second, third = ask(one)
    second.leave()
    (fourth,) = ask(one)
    for visit in (first, third):
        visit.judge(None)
    assert one.state == HALF_OPENED
    fourth.judge(None)
    assert one.state == CLOSED


def test_ignored_trials_never_use_the_circuit_up() -> None:
    """However many trial calls tell nothing, there are always as many to come."""
    clock = Clock()
    one = opened(clock)
    clock.now += 30
    for _ in range(100):
        visits = ask(one, 5)
        assert len(visits) == 3
        for visit in visits:
            visit.leave()
    assert one.state == HALF_OPENED


def test_rejections_cost_no_memory() -> None:
    """Ten thousand rejections raise fresh exceptions, with no trace or context of earlier ones, and leave nothing."""
    one = opened(Clock())

    def reject() -> tuple[int, bool]:
        depth, chained = 0, False
        try:
            one.enter()
        except Rejected as error:
            trace, chained = error.__traceback__, error.__context__ is not None
            while trace is not None:
                depth, trace = depth + 1, trace.tb_next
        return depth, chained

    first = reject()
    for _ in range(100):
        reject()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        seen = {reject() for _ in range(10_000)}
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert seen == {first}
    assert after - before < 4096
