"""Where the members of a JSON object stand in its bytes, so that one can be replaced and the rest left as it is."""

import json
import re

import msgspec

from proxy.call import Member

_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_NEXT = re.compile(rb'[ \t\r\n]*[{,][ \t\r\n]*"([^"\\]*(?:\\.[^"\\]*)*)"[ \t\r\n]*:[ \t\r\n]*', re.DOTALL).match
_END = re.compile(rb"[ \t\r\n]*\{?[ \t\r\n]*\}[ \t\r\n]*").fullmatch


class DuplicateKey(ValueError):
    """A top-level key stands twice: two readers could each believe another value."""

    def __init__(self, key: str) -> None:
        super().__init__(f"duplicate key {key[:40]!r}")
        self.key = key


def find_members(text: bytes) -> dict[str, Member]:
    """The place of each top-level value.

    The decoder keeps the last of two equal keys, in the place of the first. Walking the text beside its result
    therefore meets a value or an end that does not fit exactly when a key stands twice.

    Raises:
        ValueError: not JSON, not an object, or nested too deeply; `DuplicateKey` for a key that stands twice.
    """
    try:
        values = _decode_members(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(str(error)) from error
    members: dict[str, Member] = {}
    position = 0
    for key, value in values.items():
        name = _NEXT(text, position)
        if name is None:
            raise DuplicateKey(_repeated(text))
        raw = bytes(value)
        start = name.end()
        if not _is_key(name[1], key) or not text.startswith(raw, start):
            raise DuplicateKey(_repeated(text))
        position = start + len(raw)
        members[key] = Member(start, position)
    if _END(text, position) is None:
        raise DuplicateKey(_repeated(text))
    return members


def _is_key(token: bytes, key: str) -> bool:
    return token == key.encode() or (b"\\" in token and msgspec.json.decode(b'"%s"' % token) == key)


def _repeated(text: bytes) -> str:
    """The first key that stands twice; read slowly, since nothing will come of this text."""
    seen = set()
    for key, _ in json.loads(text, object_pairs_hook=list):
        if key in seen:
            return str(key)
        seen.add(key)
    return ""
