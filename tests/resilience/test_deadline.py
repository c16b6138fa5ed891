"""What the caller, its client and its route say of time becomes the bounds of a call."""

import pytest

from proxy.call import NEVER, UNBOUNDED, Call, Deadline
from proxy.errors import InvalidRequest
from proxy.resilience.deadline import LONGEST, deadline_of

BEGAN = 1000.0
READ, WHOLE = "x-stainless-read-timeout", "x-stainless-timeout"
NO_TIMES = ["", " ", "-1", "0", "-0.0", "nan", "1_0", "-inf", "tomorrow", "5s", "0x10", "1,5", "5 6"]


def deadline(headers: dict[str, str], route: float | None = None, *, stream: bool = False) -> Deadline:
    call = Call("id", 0.0, b"{}", {}, "any", stream=stream, wants_usage=False, headers=headers)
    return deadline_of(call, route, lambda: BEGAN + 2.0, 2.0)


@pytest.mark.parametrize("stream", [False, True])
def test_who_says_nothing_is_not_bounded(stream: bool) -> None:
    """No header and no bound of the route: only the attempts have clocks."""
    assert deadline({}, stream=stream) is UNBOUNDED
    assert UNBOUNDED == (NEVER, NEVER, NEVER)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("seconds", [0.001, 0.5, 7.0, 86400.0])
def test_our_header_bounds_the_whole_call(seconds: float, stream: bool) -> None:
    """x-octet-timeout is seconds from the call's beginning, of a stream too."""
    assert deadline({"x-octet-timeout": str(seconds)}, stream=stream) == Deadline(BEGAN + seconds)


@pytest.mark.parametrize("text", NO_TIMES)
def test_our_header_must_be_a_time(text: str) -> None:
    """Who means something by it is told that it was not understood."""
    with pytest.raises(InvalidRequest, match="x-octet-timeout") as caught:
        deadline({"x-octet-timeout": text, READ: "5"}, 5.0)
    assert caught.value.code == "invalid_timeout"
    assert caught.value.status == 400


@pytest.mark.parametrize("text", ["1e9", "inf", "86401"])
@pytest.mark.parametrize("name", ["x-octet-timeout", READ, WHOLE])
def test_no_call_lasts_for_ever(name: str, text: str) -> None:
    """A day is the most."""
    assert deadline({name: text}).whole == BEGAN + LONGEST


@pytest.mark.parametrize("name", [READ, WHOLE])
def test_a_clients_timeout_bounds_a_json_call(name: str) -> None:
    """The official client has given up by then."""
    assert deadline({name: "8"}) == Deadline(BEGAN + 8)


@pytest.mark.parametrize("name", [READ, WHOLE])
def test_a_clients_timeout_bounds_the_silence_of_a_stream(name: str) -> None:
    """The wait for first content and each gap; never the whole of it."""
    assert deadline({name: "8"}, stream=True) == Deadline(NEVER, BEGAN + 8, 8.0)


@pytest.mark.parametrize("text", NO_TIMES)
@pytest.mark.parametrize("stream", [False, True])
def test_a_clients_nonsense_is_ignored(text: str, stream: bool) -> None:
    """Its user has not written it; Node's client sends 0 for what is below a second."""
    assert deadline({READ: text, WHOLE: text}, stream=stream) is UNBOUNDED
    assert deadline({READ: text}, 5.0, stream=stream) == Deadline(BEGAN + 5)
    assert deadline({READ: text, WHOLE: "8"}) == Deadline(BEGAN + 8)


def test_the_read_timeout_is_the_nearer_one() -> None:
    """Where a client says both, how long it waits for bytes counts."""
    assert deadline({READ: "3", WHOLE: "600"}) == Deadline(BEGAN + 3)
    assert deadline({READ: "600", WHOLE: "3"}, stream=True) == Deadline(NEVER, BEGAN + 600, 600.0)


@pytest.mark.parametrize("stream", [False, True])
def test_a_route_bounds_its_calls(stream: bool) -> None:
    """All attempts together."""
    assert deadline({}, 20.0, stream=stream) == Deadline(BEGAN + 20)


@pytest.mark.parametrize(
    ("own", "theirs", "route", "whole"),
    [("5", "8", 20.0, 5), ("8", "5", 20.0, 5), ("20", "8", 5.0, 5), ("20", None, 5.0, 5), ("5", None, 20.0, 5)],
)
def test_the_nearest_bound_holds(own: str, theirs: str | None, route: float, whole: float) -> None:
    """Of a JSON call, whoever said it; of a stream, the client's is no bound of the whole."""
    headers = {"x-octet-timeout": own} | ({READ: theirs} if theirs else {})
    assert deadline(headers, route) == Deadline(BEGAN + whole)
    streamed = deadline(headers, route, stream=True)
    assert streamed.whole == BEGAN + min(float(own), route)
    assert streamed.gap == (float(theirs) if theirs else NEVER)
