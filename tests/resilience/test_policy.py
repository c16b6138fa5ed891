"""What follows a failed attempt is fixed for every kind of failure."""

import pytest

from proxy import errors
from proxy.errors import UpstreamError
from proxy.resilience.policy import TRIES_NEXT, tries_next

# DESIGN.md §7, column "next target".
NEXT = {
    errors.RequestRefused: False,
    errors.ContextExceeded: False,
    errors.ContentRefused: False,
    errors.ModelMissing: True,
    errors.CallerKeyRefused: False,
    errors.CallerNotPermitted: False,
    errors.CredentialRefused: True,
    errors.PermissionRefused: True,
    errors.PaidOut: True,
    errors.Limited: True,
    errors.Overloaded: True,
    errors.Broken: True,
    errors.Unreachable: True,
    errors.TooSlow: True,
    errors.CutShort: True,
}


KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, UpstreamError)]
KINDS.remove(UpstreamError)


def failure(kind: type[UpstreamError]) -> UpstreamError:
    return kind("it failed", clock="idle") if kind is errors.TooSlow else kind("it failed")


def test_every_failure_is_in_the_table() -> None:
    """A new kind of failure needs an answer here before it can happen."""
    assert set(KINDS) == set(NEXT)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_what_follows(kind: type[UpstreamError]) -> None:
    """The next target is tried where it may do better, and only there."""
    assert tries_next(failure(kind)) is NEXT[kind]


def test_a_finer_kind_answers_as_its_parent() -> None:
    """A provider's own kind of failure is decided by the nearest class that the table knows."""

    class ColdStart(errors.Overloaded):
        pass

    assert tries_next(ColdStart("waking up")) is TRIES_NEXT[errors.Overloaded]


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
