"""How long a call may take: what the caller says, its client says, and its route says. Pure."""

from collections.abc import Callable

from proxy.call import NEVER, UNBOUNDED, Call, Deadline
from proxy.errors import InvalidRequest

LONGEST = 86400.0  # seconds
OWN_HEADER = "x-octet-timeout"
_CLIENTS = ("x-stainless-read-timeout", "x-stainless-timeout")  # of the official SDKs


def deadline_of(call: Call, route_seconds: float | None, clock: Callable[[], float], since: float) -> Deadline:
    """The bounds of a call.

    Args:
        route_seconds: the route's `total_seconds`.
        clock: of the bounds.
        since: seconds since the call came.

    Raises:
        InvalidRequest: `x-octet-timeout` is no time.

    Source: DESIGN.md §4; openai-python `_base_client.py`, openai-node `client.ts` (x-stainless-*).
    """
    headers = call.headers
    own, theirs = headers.get(OWN_HEADER), None
    for name in _CLIENTS:
        told = headers.get(name)
        theirs = _seconds(told) if told is not None and theirs is None else theirs
    if own is None and theirs is None and route_seconds is None:
        return UNBOUNDED
    began = clock() - since
    whole = NEVER if route_seconds is None else began + route_seconds
    if own is not None:
        seconds = _seconds(own)
        if seconds is None:
            raise InvalidRequest(f"{OWN_HEADER} must be a number of seconds above 0", code="invalid_timeout")
        whole = min(whole, began + seconds)
    if theirs is None:
        return Deadline(whole)
    if call.stream:
        return Deadline(whole, began + theirs, theirs)
    return Deadline(min(whole, began + theirs))


def _seconds(text: str) -> float | None:
    """A number of seconds; None when it is none that can be meant."""
    try:
        seconds = float(text) if "_" not in text else 0.0  # which Python would read
    except ValueError:
        return None
    return min(seconds, LONGEST) if seconds > 0 else None  # nan is not
