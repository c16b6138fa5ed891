"""How long a call may take: what the caller says, its client says, and its route says. Pure."""

from typing import NamedTuple

from proxy.call import Call
from proxy.errors import InvalidRequest

NEVER = float("inf")
LONGEST = 86400.0  # seconds
OWN_HEADER = "x-octet-timeout"
_CLIENTS = ("x-stainless-read-timeout", "x-stainless-timeout")  # of the official SDKs


class Deadline(NamedTuple):
    """The bounds of one call.

    Args:
        whole: when it must be over.
        content: when a stream must have content.
        gap: seconds that may lie between the bytes of a stream.
    """

    whole: float = NEVER
    content: float = NEVER
    gap: float = NEVER


UNBOUNDED = Deadline()


def deadline_of(call: Call, route_seconds: float | None, began: float) -> Deadline:
    """The bounds of a call.

    Args:
        route_seconds: the route's `total_seconds`.
        began: when the call came; the bounds are of the same clock.

    Raises:
        InvalidRequest: `x-octet-timeout` is no time.

    Source: DESIGN.md §4; openai-python `_base_client.py`, openai-node `client.ts` (x-stainless-*).
    """
    headers = call.headers
    own = headers.get(OWN_HEADER)
    theirs = next((seconds for name in _CLIENTS if (seconds := _seconds(headers.get(name))) is not None), None)
    if own is None and theirs is None and route_seconds is None:
        return UNBOUNDED
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


def _seconds(text: str | None) -> float | None:
    """A number of seconds; None when it is none that can be meant."""
    try:
        seconds = float(text) if text is not None else 0.0
    except ValueError:
        return None
    return min(seconds, LONGEST) if seconds > 0 else None  # nan is not
