"""A circuit is also moved from outside: by an operator, a health check, and other sidecars."""

from typing import Any

import pytest
from purgatory.domain.model import CLOSED, HALF_OPENED, OPENED

from proxy.config import Circuit as Policy
from proxy.errors import Broken
from proxy.resilience.circuit import Circuit, Closed, Opened, Rejected
from tests.clock import Clock


class Fleet:
    """Other sidecars, scripted."""

    def __init__(self) -> None:
        self.told: list[tuple[bool, bool]] = []
        self.allows = False
        self.hastened = 0

    def tell(self, *, failed: bool, slow: bool) -> None:
        self.told.append((failed, slow))

    def may_try(self) -> bool:
        return self.allows

    def hasten(self) -> None:
        self.hastened += 1

    def changed(self) -> None:
        """Purgatory's bus says so, not the circuit itself."""


def circuit(clock: Clock, fleet: Fleet | None = None, **policy: Any) -> Circuit:
    one = Circuit("a", Policy(**policy), clock)
    one.fleet = fleet
    return one


def admitted(circuit: Circuit, askers: int = 50) -> int:
    """How many of so many calls are let through."""
    count = 0
    for _ in range(askers):
        try:
            circuit.enter()
        except Rejected:
            continue
        count += 1
    return count


def call(circuit: Circuit, outcome: str) -> None:
    visit = circuit.enter()
    if outcome != "i":
        visit.judge(Broken("it failed") if outcome == "F" else None)
    visit.leave()


def test_it_can_be_opened_and_closed() -> None:
    """For as long as is said, or for the usual time; closing lets everything through."""
    clock = Clock()
    one = circuit(clock)
    assert (one.wait(), one.state, one.is_closed) == (0, CLOSED, True)
    one.open(5.0)
    assert (one.wait(), one.state, one.is_closed) == (5.0, OPENED, False)
    one.open()
    assert (one.wait(), one.state, one.is_closed) == (30.0, OPENED, False)
    one.close()
    assert (one.wait(), one.state, one.is_closed) == (0, CLOSED, True)
    one.half_open()
    assert (one.wait(), one.state, one.is_closed) == (0, HALF_OPENED, False)
    assert admitted(one) == 3


@pytest.mark.parametrize("by_operator", [False, True])
def test_closing_forgets(by_operator: bool) -> None:
    """What failed before does not count, and who closed it can be seen."""
    one = circuit(Clock())
    for _ in range(4):
        call(one, "F")
    (one.reset if by_operator else one.close)()
    for _ in range(4):
        call(one, "F")
    state = one.current
    assert isinstance(state, Closed)
    assert state.reset == by_operator
    call(one, "F")
    assert one.state == OPENED


def test_an_operator_holds_it_open() -> None:
    """For ever or for a time; a health check does not hasten what an operator wants."""
    clock = Clock()
    one = circuit(clock)
    one.hold_open()
    clock.now += 1e9
    assert admitted(one) == 0
    one.hold_open(50.0)
    one.hasten()
    assert one.wait() == 50.0
    clock.now += 50
    assert admitted(one) == 3


def test_a_health_check_hastens_the_trial() -> None:
    """An open circuit lets its trial calls through at once; a closed or half-open one stays as it is."""
    clock = Clock()
    one = circuit(clock)
    one.hasten()
    assert one.state == CLOSED
    one.open()
    one.hasten()
    assert one.wait() == 0
    assert one.state == OPENED
    assert admitted(one) == 3
    one.hasten()
    assert one.state == HALF_OPENED
    assert admitted(one) == 0


def test_hastening_never_delays() -> None:
    """What is already due is not put off."""
    clock = Clock()
    one = circuit(clock)
    one.open(1.0)
    due = clock.now + 1
    clock.now += 10
    one.hasten()
    state = one.current
    assert isinstance(state, Opened)
    assert state.until == due


def test_a_fleet_is_told_outcomes() -> None:
    """Those in the closed state, slow ones as such; no others."""
    clock, fleet = Clock(), Fleet()
    one = circuit(clock, fleet, slow_call_seconds=1.0, trial_calls=1)
    for outcome in "F.i":
        call(one, outcome)
    visit = one.enter()
    clock.now += 2
    visit.judge(None)
    told = [(True, False), (False, False), (False, True)]
    assert fleet.told == told
    one.half_open()
    call(one, "i")
    call(one, ".")
    assert one.state == CLOSED
    assert fleet.told == told


def test_a_fleet_allows_trial_calls() -> None:
    """When the open time is over they begin with its leave, not before; hastening asks it too."""
    clock, fleet = Clock(), Fleet()
    one = circuit(clock, fleet)
    fleet.allows = True
    one.open()
    assert admitted(one) == 0
    fleet.allows = False
    one.hasten()
    assert fleet.hastened == 1
    assert one.wait() > 0
    assert admitted(one) == 0
    assert one.state == OPENED
    fleet.allows = True
    assert admitted(one) == 3


def test_rejections_are_counted() -> None:
    """So that the fleet can see whether anybody asks while the circuit is open."""
    one = circuit(Clock())
    one.open()
    state = one.current
    assert isinstance(state, Opened)
    assert state.rejected == 0
    admitted(one, 7)
    assert state.rejected == 7


def test_leased_trial_calls_run_out() -> None:
    """After their time no trial begins without the fleet; those under way are still waited for."""
    clock, fleet = Clock(), Fleet()
    one = circuit(clock, fleet)
    one.half_open(until=clock.now + 10)
    first, second = one.enter(), one.enter()
    clock.now += 10
    one.wait()
    assert one.state == HALF_OPENED
    first.judge(None)
    second.leave()
    assert one.wait() > 0
    state = one.current
    assert isinstance(state, Opened)
    assert state.lapsed
    fleet.allows = True
    assert admitted(one) == 3


def test_no_trial_begins_after_the_lease() -> None:
    """Trial calls begin before `until`, also when one of them is still out by then."""
    clock, fleet = Clock(), Fleet()
    one = circuit(clock, fleet)
    one.half_open(until=clock.now + 10)
    one.enter()
    clock.now += 11
    assert one.wait() > 0
