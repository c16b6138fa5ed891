"""Where the members of a JSON object stand in its bytes, so that one can be replaced and the rest left as it is."""

import json
import re

import msgspec

_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_NEXT = re.compile(rb'[ \t\r\n]*[{,][ \t\r\n]*"([^"\\]*(?:\\.[^"\\]*)*)"[ \t\r\n]*:[ \t\r\n]*', re.DOTALL).match
_END = re.compile(rb"[ \t\r\n]*\{?[ \t\r\n]*\}[ \t\r\n]*").fullmatch


class DuplicateKey(ValueError):
    """A top-level key stands twice: two readers could each believe another value."""

    def __init__(self, key: str) -> None:
        super().__init__(f"duplicate key {key[:40]!r}")
        self.key = key


def find_members(text: bytes) -> dict[str, slice]:
    """The place of each top-level value: `text[place]`.

    The decoder keeps the last of two equal keys, in the place of the first. Walking the text beside its result
    therefore meets a value or an end that does not fit exactly when a key stands twice.

    Raises:
        ValueError: not JSON, not an object, or nested too deeply; `DuplicateKey` for a key that stands twice.
    """
    try:
        values = _decode_members(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(str(error)) from error
    members: dict[str, slice] = {}
    position = 0
    for key, value in values.items():
        name = _NEXT(text, position)
        if name is None or (name[1] != key.encode() and not _is_escaped(name[1], key)):
            raise DuplicateKey(_repeated(text))
        start, raw = name.end(), memoryview(value)  # no copy: it may be nearly the whole text
        position = start + len(raw)
        if not text.startswith(raw, start):
            raise DuplicateKey(_repeated(text))
        members[key] = slice(start, position)
    if _END(text, position) is None:
        raise DuplicateKey(_repeated(text))
    return members


def _is_escaped(token: bytes, key: str) -> bool:
    return b"\\" in token and msgspec.json.decode(b'"%s"' % token) == key


def _repeated(text: bytes) -> str:
    """The first key that stands twice; read slowly, since nothing will come of this text."""
    seen = set()
    for key, _ in json.loads(text, object_pairs_hook=list):
        if key in seen:
            return str(key)
        seen.add(key)
    return ""
