"""What follows a failed attempt is fixed for every kind of failure, and what is tried next is a pure choice."""

import pytest

from proxy import errors
from proxy.config import Retry
from proxy.errors import TooSlow, UpstreamError
from proxy.resilience.policy import FAULTS, Option, back_off, choose, fault_of, table

NEVER = float("inf")

# DESIGN.md §7: next target, the same one again, the circuit counts it, x-should-retry: false.
FOLLOWS = {
    "RequestRefused": (False, False, False, False),
    "ContextExceeded": ("context", False, False, False),
    "ContentRefused": ("policy", False, False, False),
    "ModelMissing": (True, False, False, False),
    "CallerKeyRefused": (False, False, False, False),
    "CallerNotPermitted": (False, False, False, False),
    "CredentialRefused": (True, False, True, True),
    "PermissionRefused": (True, False, False, True),
    "PaidOut": (True, False, True, True),
    "Limited": (True, True, False, False),
    "Overloaded": (True, True, True, True),
    "PoolFull": (True, True, False, True),
    "Broken": (True, True, True, True),
    "Unreachable": (True, True, True, True),
    "CutShort": (True, True, True, True),
    "CircuitsOpen": (False, False, False, False),
    "TooSlow.connect": (True, True, True, True),
    "TooSlow.upstream": (True, True, True, True),
    "TooSlow.first_token": (True, False, True, True),
    "TooSlow.idle": (True, False, True, True),
    "TooSlow.total": (True, False, True, True),
    "TooSlow.deadline": (False, False, False, True),
}

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, UpstreamError)]
KINDS.remove(UpstreamError)
FAILURES = [kind("it failed") for kind in KINDS if kind is not TooSlow] + [
    TooSlow(clock=name) for name in TooSlow.texts
]


def failure(kind: type[UpstreamError]) -> UpstreamError:
    return kind("it failed", clock="idle") if kind is errors.TooSlow else kind("it failed")


def test_every_failure_is_in_the_table() -> None:
    """A new kind of failure needs an answer here before it can happen."""
    assert {failed.reason for failed in FAILURES} == set(FOLLOWS)


@pytest.mark.parametrize("failed", FAILURES, ids=lambda failed: failed.reason)
def test_what_follows(failed: UpstreamError) -> None:
    """Another target where it may do better, the same one where that does not bill twice, the circuit, the client."""
    fault = fault_of(failed)
    assert (fault.next_target, fault.repeats, fault.counts, fault.final) == FOLLOWS[failed.reason]


def test_a_finer_kind_answers_as_its_parent() -> None:
    """A provider's own kind of failure is decided by the nearest class that the table knows."""

    class ColdStart(errors.Overloaded):
        pass

    assert fault_of(ColdStart("waking up")) is fault_of(errors.Overloaded("busy"))


def test_the_table_shows_every_row() -> None:
    """What people read is what decides: one line for each fault, each with a text in every column."""
    heading, *rows = table()
    assert len(rows) == len(FAULTS)
    assert all(len(row) == len(heading) and all(row) for row in rows)
    told = {row[0]: row for row in rows}
    assert told["limited"][2:5] == ("yes", "yes", "ignored")
    assert told["the conversation is too long"][2] == "by fallback_on: context"
    assert told["overloaded"][5].endswith("x-should-retry: false")


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        ([], None),
        ([Option(0, 0.0, repeat=False), Option(1, 0.0, repeat=False)], 0),
        ([Option(0, 1.0, repeat=False), Option(1, 0.0, repeat=False)], 1),  # the next target comes at once
        ([Option(1, 0.5, repeat=False), Option(0, 0.1, repeat=True)], 0),  # what is free soonest
        ([Option(1, 0.0, repeat=False), Option(0, 0.0, repeat=True)], 1),
        ([Option(0, 0.0, repeat=True)], 0),
        ([Option(0, 6.0, repeat=True)], None),  # above longest_wait_seconds
        ([Option(0, 3.0, repeat=True)], None),  # the call is over before
        ([Option(0, NEVER, repeat=False), Option(1, NEVER, repeat=True)], None),
    ],
)
def test_what_is_tried_next(options: list[Option], chosen: int | None) -> None:
    """The first untried target that is free; else what is free soonest, if that is soon enough."""
    option = choose(options, longest_wait=5.0, time_left=2.5)
    assert (option.place if option is not None else None) == chosen


def test_the_wait_before_a_repeat_has_full_jitter() -> None:
    """Anything from 0 up to a bound that doubles, and no more than the longest wait."""
    retry = Retry(first_wait_seconds=0.2, longest_wait_seconds=5.0)
    assert [back_off(retry, repeats, 1.0) for repeats in (0, 1, 2, 3)] == [0.2, 0.4, 0.8, 1.6]
    assert back_off(retry, 1, 0.25) == 0.1
    assert back_off(retry, 0, 0.0) == 0.0
    assert back_off(retry, 99, 1.0) == 5.0


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (errors.RequestRefused, 400),
        (errors.ModelMissing, 404),
        (errors.CallerKeyRefused, 401),
        (errors.CallerNotPermitted, 403),
        (errors.CredentialRefused, 502),
        (errors.PermissionRefused, 502),
        (errors.PaidOut, 429),
        (errors.Limited, 429),
        (errors.Overloaded, 503),
        (errors.Broken, 502),
        (errors.Unreachable, 502),
        (errors.TooSlow, 504),
        (errors.CutShort, 502),
    ],
)
def test_what_the_caller_is_told(kind: type[UpstreamError], status: int) -> None:
    """The last failure has one status, and a name that metrics can bound."""
    assert failure(kind).status == status
    assert failure(kind).reason.partition(".")[0] == kind.__name__
