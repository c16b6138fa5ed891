"""What a route changes in the body of a call: fields set, added or left out; every other value is as sent."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from proxy.call import Call
from proxy.openai_format.encoding import encode
from proxy.openai_format.members import find_members

_read = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Overrides:
    """Changes that are made to each call that goes one way.

    Args:
        given: values that stand there, whatever was sent.
        defaults: values that stand there where none was sent; null is none.
        remove: names that are left out.
    """

    __slots__ = ("_defaults", "_given", "_remove", "text")

    def __init__(self, given: Mapping[str, Any], defaults: Mapping[str, Any], remove: Iterable[str]) -> None:
        self._given = {name: encode(value) for name, value in given.items()}
        self._defaults = {name: encode(value) for name, value in defaults.items()}
        self._remove = tuple(remove)
        self.text = encode([dict(given), dict(defaults), list(self._remove)])  # the same for the same changes

    def __bool__(self) -> bool:
        return bool(self._given or self._defaults or self._remove)

    def apply(self, call: Call) -> Call:
        """The call with other fields; what it loses is in `amended`."""
        fields: dict[str, bytes | msgspec.Raw] = dict(_read(call.body))
        removed = tuple(name for name in self._remove if fields.pop(name, None) is not None)
        for name, value in self._defaults.items():
            if name not in fields or bytes(fields[name]) == b"null":
                fields[name] = value
        fields.update(self._given)
        body = b"{" + b",".join([encode(name) + b":" + bytes(value) for name, value in fields.items()]) + b"}"
        return replace(call, body=body, members=find_members(body), amended=(*call.amended, *removed))
