"""Calls changed after an upstream refused them, for what a model family does not take.

Source: DESIGN.md §3 (`amend`).
"""

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec.structs import replace

from proxy.call import Call
from proxy.errors import InvalidRequest
from proxy.openai_format.encoding import decode, decode_object, encode
from proxy.openai_format.members import find_members


def value_of(call: Call, name: str) -> Any:
    """A top-level member of the call's body; None when it is absent or null.

    Raises:
        InvalidRequest: a number in it is out of range.
    """
    place = call.members.get(name)
    if place is None:
        return None
    try:
        return decode(call.body[place])
    except ValueError as error:
        raise InvalidRequest(f"'{name}' cannot be read: {error}", param=name) from error


def changed(
    call: Call, *, remove: Iterable[str] = (), add: Mapping[str, Any] | None = None, names: Iterable[str] = ()
) -> Call:
    """The call with other members.

    Args:
        names: what the caller loses by it, for `x-octet-dropped`.
    """
    fields = {name: value for name, value in decode_object(call.body).items() if name not in set(remove)}
    body = encode({**fields, **(add or {})})
    return replace(call, body=body, members=find_members(body), amended=(*call.amended, *names))
