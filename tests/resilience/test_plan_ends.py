"""When nothing is left to try, the caller is told the truth, and whether to come again."""

from typing import Any, cast

import pytest

from proxy.call import NoRoom
from proxy.config import Retry, Upstream
from proxy.errors import (
    Broken,
    CircuitsOpen,
    ContextExceeded,
    CredentialRefused,
    Limited,
    LimitReached,
    ModelMissing,
    Overloaded,
    PaidOut,
    TooSlow,
    Unreachable,
    UpstreamError,
)
from proxy.providers.seam import Route, Target
from proxy.resilience.plan import Plan
from tests.clock import Clock
from tests.resilience.standings import Standings, standings

NEVER = float("inf")
UPSTREAM = Upstream(provider="openai")


def scene(names: str = "ab", retry: Retry | None = None) -> tuple[Plan, Standings]:
    """A plan over these upstreams, and how they stand."""
    targets = tuple(Target(name, UPSTREAM, "any") for name in names)
    standing = standings(names)
    return Plan(Route("r", targets, retry or Retry()), cast(Any, standing), lambda: 100, Clock()), standing


@pytest.mark.parametrize(
    ("error", "final"),
    [
        (Broken("it failed"), True),
        (Overloaded("busy"), True),
        (Unreachable("away"), True),
        (PaidOut("empty"), True),
        (CredentialRefused("no"), True),
        (TooSlow(clock="first_token"), True),
        (TooSlow(clock="connect"), True),
        (Limited("slowly", retry_after=9.0), False),
        (ModelMissing("none"), False),
    ],
    ids=str,
)
def test_the_last_failure_is_told(error: UpstreamError, final: bool) -> None:
    """As it is; its client is told not to try again where we have tried enough, and not after a mere limit."""
    plan, standing = scene()
    error.headers["x-theirs"] = "kept"
    plan.leave(0, Broken("an earlier one"), 0.0)
    plan.leave(1, error, 0.0)
    standing["a"].circuit_wait = 9.0
    for time_left in (10.0, 0.0):
        assert plan.give_up(time_left) is error
    assert error.headers.get("x-should-retry") == ("false" if final else None)
    assert error.headers["x-theirs"] == "kept"


def test_a_refusal_is_told_without_advice() -> None:
    """A conversation that is too long is no reason for x-should-retry."""
    plan, _ = scene()
    with pytest.raises(ContextExceeded) as caught:
        plan.leave(0, ContextExceeded("too long"), 0.0)
    assert "x-should-retry" not in caught.value.headers


def test_all_circuits_open() -> None:
    """503, with the time until the first of them may be tried."""
    plan, standing = scene()
    standing["a"].circuit_wait, standing["b"].circuit_wait = 20.0, 8.0
    error = plan.give_up(10.0)
    assert isinstance(error, CircuitsOpen)
    assert (error.status, error.code, error.retry_after) == (503, "circuit_open", 8.0)
    assert "x-should-retry" not in error.headers


def test_the_upstreams_own_limits() -> None:
    """429, with the time until the first of them has room."""
    plan, standing = scene()
    standing["a"].pace_wait, standing["b"].pace_wait = 7.0, 9.0
    error = plan.give_up(10.0)
    assert isinstance(error, Limited)
    assert (error.status, error.retry_after) == (429, 7.0)
    assert "x-should-retry" not in error.headers


@pytest.mark.parametrize(
    ("refusal", "wait", "key"),
    [
        (NoRoom("requests", 7.0), 7.0, "limits.requests_per_minute"),
        (NoRoom("tokens", 0.5), 0.5, "limits.tokens_per_minute"),
        (NoRoom("concurrent", NEVER), 1.0, "limits.concurrent"),
    ],
)
@pytest.mark.parametrize("remembered", [False, True])
def test_our_limits_of_the_upstream(refusal: NoRoom, wait: float, key: str, remembered: bool) -> None:
    """429 with the limit's name and the wait; a second where nobody can tell."""
    plan, standing = scene("a")
    if remembered:
        plan.no_room(0, refusal)
    else:
        standing["a"].room = refusal
    error = plan.give_up(10.0)
    assert isinstance(error, LimitReached)
    assert (error.status, error.retry_after, error.limit) == (429, wait, refusal.limit)
    assert key in error.message


@pytest.mark.parametrize(
    ("circuit", "pace", "room", "kind"),
    [(3.0, 4.0, 5.0, CircuitsOpen), (5.0, 3.0, 4.0, Limited), (5.0, 4.0, 3.0, LimitReached)],
)
def test_of_several_reasons_the_one_that_ends_soonest(circuit: float, pace: float, room: float, kind: type) -> None:
    """That is when coming again is worth it."""
    plan, standing = scene("abc")
    standing["a"].circuit_wait, standing["b"].pace_wait = circuit, pace
    standing["c"].room = NoRoom("requests", room)
    error = plan.give_up(10.0)
    assert type(error) is kind
    assert getattr(error, "retry_after", None) == 3.0


def test_what_was_dropped_is_no_reason() -> None:
    """Only targets that could still be tried are."""
    plan, standing = scene()
    standing["a"].circuit_wait, standing["b"].pace_wait = 2.0, 9.0
    plan.drop(0)
    assert isinstance(plan.give_up(10.0), Limited)


@pytest.mark.parametrize("time_left", [0.0, -1.0])
def test_the_calls_time_is_over(time_left: float) -> None:
    """504 whatever the targets are; its client has no time left either."""
    plan, standing = scene()
    standing["a"].circuit_wait = 2.0
    error = plan.give_up(time_left)
    assert isinstance(error, TooSlow)
    assert (error.status, error.reason) == (504, "TooSlow.deadline")
    assert error.headers["x-should-retry"] == "false"
