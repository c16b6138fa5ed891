"""Each clock of an attempt runs out under its own name, and the call's bounds are the attempt's."""

from typing import Any

import pytest

from proxy.call import NEVER, UNBOUNDED, Deadline
from proxy.config import Timeouts
from proxy.resilience.clock import Bounds, bounds_of, json_patience

NOW = 1000.0


def bounds(deadline: Deadline = UNBOUNDED, *, stream: bool, **timeouts: Any) -> Bounds:
    return bounds_of(Timeouts(**timeouts), deadline, NOW, stream=stream)


@pytest.mark.parametrize(
    "deadline", [UNBOUNDED, Deadline(whole=NOW + 7), Deadline(whole=NOW + 5000), Deadline(content=NOW)]
)
def test_the_patience_of_a_json_call(deadline: Deadline) -> None:
    """It is the first of its bounds, from now on."""
    for timeouts in (Timeouts(), Timeouts(total_seconds=50.0)):
        found = bounds_of(timeouts, deadline, NOW, stream=False)
        assert json_patience(timeouts, deadline, lambda: NOW) == (found.first[0] - NOW, found.first[1])


def test_the_defaults_of_a_json_call() -> None:
    """Ten minutes for everything, and no other clock."""
    whole = (NOW + 600, "total")
    found = bounds(stream=False)
    assert (found.began, found.first, found.whole) == (NOW, whole, whole)
    assert found.gap[0] == NEVER


def test_the_defaults_of_a_stream() -> None:
    """Ten minutes to the first content, two between bytes, an hour for all."""
    assert bounds(stream=True) == (NOW, (NOW + 600, "first_token"), (120.0, "idle"), (NOW + 3600, "total"))


def test_a_stream_has_the_clocks_of_its_upstream() -> None:
    """As configured."""
    found = bounds(stream=True, first_token_seconds=20.0, idle_seconds=30.0, total_seconds=50.0)
    assert found == (NOW, (NOW + 20, "first_token"), (30.0, "idle"), (NOW + 50, "total"))


def test_a_json_call_has_no_clock_of_a_stream() -> None:
    """First token and idle mean nothing there."""
    found = bounds(stream=False, first_token_seconds=20.0, idle_seconds=30.0, total_seconds=50.0)
    assert (found.first, found.whole) == ((NOW + 50, "total"), (NOW + 50, "total"))
    assert found.gap[0] == NEVER


@pytest.mark.parametrize("stream", [False, True])
def test_the_calls_bound_is_the_attempts(stream: bool) -> None:
    """What is left of the call's time is all an attempt has, and the deadline is named."""
    found = bounds(Deadline(whole=NOW + 7), stream=stream)
    assert found.whole == (NOW + 7, "deadline")
    assert found.first == (NOW + 7, "deadline")


@pytest.mark.parametrize("stream", [False, True])
def test_a_later_deadline_changes_nothing(stream: bool) -> None:
    """The upstream's own clocks are nearer."""
    assert bounds(Deadline(NOW + 5000, NOW + 5000, 5000.0), stream=stream) == bounds(stream=stream)


def test_a_clients_patience_bounds_a_streams_silence() -> None:
    """First content and gaps; the whole stays."""
    found = bounds(Deadline(content=NOW + 7, gap=9.0), stream=True)
    assert found == (NOW, (NOW + 7, "deadline"), (9.0, "deadline"), (NOW + 3600, "total"))


@pytest.mark.parametrize(
    ("deadline", "timeouts", "first"),
    [
        (Deadline(content=NOW + 30), {"first_token_seconds": 20.0}, (NOW + 20, "first_token")),
        (Deadline(content=NOW + 10), {"first_token_seconds": 20.0}, (NOW + 10, "deadline")),
        (Deadline(whole=NOW + 5, content=NOW + 10), {"first_token_seconds": 20.0}, (NOW + 5, "deadline")),
        (UNBOUNDED, {"first_token_seconds": 20.0, "total_seconds": 3.0}, (NOW + 3, "total")),
    ],
)
def test_the_nearest_clock_waits_for_first_content(
    deadline: Deadline, timeouts: dict[str, float], first: tuple[float, str]
) -> None:
    """Whichever it is, under its own name."""
    assert bounds(deadline, stream=True, **timeouts).first == first


@pytest.mark.parametrize(("left", "clock"), [(20.0, "ours"), (10.0, "ours"), (9.0, "ours"), (8.75, "deadline")])
def test_who_had_nearly_all_of_its_time_was_too_slow(left: float, clock: str) -> None:
    """Where the call's bound comes only just before a clock's, the clock is named; the nearer time holds."""
    within = min(left, 10.0)

    def named(name: str) -> str:
        return name if clock == "ours" else clock

    found = bounds(Deadline(NOW + left), stream=False, total_seconds=10.0)
    assert found.whole == found.first == (NOW + within, named("total"))
    found = bounds(Deadline(content=NOW + left, gap=left), stream=True, first_token_seconds=10.0, idle_seconds=10.0)
    assert found.first == (NOW + within, named("first_token"))
    assert found.gap == (within, named("idle"))


def test_what_is_over_is_over() -> None:
    """A deadline that has passed is no later than now."""
    found = bounds(Deadline(whole=NOW - 1), stream=True)
    assert found.first == found.whole == (NOW - 1, "deadline")
