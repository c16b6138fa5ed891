"""Where the members of a JSON object stand in its bytes, so that one can be replaced and the rest left as it is."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

PLAIN_BYTES = 16 * 1024
PEEKED_BYTES = 300
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_NEXT = re.compile(rb'[ \t\r\n]*[{,][ \t\r\n]*"([^"\\]*(?:\\.[^"\\]*)*)"[ \t\r\n]*:[ \t\r\n]*', re.DOTALL).match
_END = re.compile(rb"[ \t\r\n]*\{?[ \t\r\n]*\}[ \t\r\n]*").fullmatch


class DuplicateKey(ValueError):
    """A top-level key stands twice: two readers could each believe another value."""

    def __init__(self, key: str) -> None:
        super().__init__(f"duplicate key {key[:40]!r}")
        self.key = key


def find_members(text: bytes) -> Mapping[str, slice]:
    """The place of each top-level value: `text[place]`.

    The decoder keeps the last of two equal keys, in the place of the first. A text that is what its members make,
    written one after the other as most clients write them, holds each once; any other is walked through.

    Raises:
        ValueError: not JSON, not an object, or nested too deeply; `DuplicateKey` for a key that stands twice.
    """
    try:
        values = _decode_members(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(str(error)) from error
    punctuation = _punctuation(text, values)
    return _Places(values, *punctuation) if punctuation else _walk(text, values)


class _Places(Mapping[str, slice]):
    """The places of a text that is known to hold each key once; looked for when somebody asks."""

    __slots__ = ("_colon", "_comma", "_values")

    def __init__(self, values: dict[str, msgspec.Raw], colon: bytes, comma: bytes) -> None:
        self._values, self._colon, self._comma = values, colon, comma

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __getitem__(self, key: str) -> slice:
        start = len(b'{"')
        for name, value in self._values.items():
            start += len(name.encode()) + len(self._colon)
            if name == key:
                return slice(start, start + len(memoryview(value)))
            start += len(memoryview(value)) + len(self._comma)
        raise KeyError(key)

    def get(self, key: str, default: Any = None) -> Any:
        return self[key] if key in self._values else default


def _punctuation(text: bytes, values: dict[str, msgspec.Raw]) -> tuple[bytes, bytes] | None:
    """What stands after and before names, if nothing else stands between the members."""
    if len(text) > PLAIN_BYTES:  # a walk needs no copy
        return None
    colon, comma = (b'": ', b', "') if b'": ' in text[:PEEKED_BYTES] else (b'":', b',"')
    members = [key.encode() + colon + bytes(value) for key, value in values.items()]
    return (colon, comma) if b'{"%b}' % comma.join(members) == text else None


def _walk(text: bytes, values: dict[str, msgspec.Raw]) -> dict[str, slice]:
    """Walk the text beside its members: a value or an end that does not fit tells that a key stands twice."""
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
    """The first key that stands twice, if that can be told; read slowly, since nothing will come of this text."""
    seen = set()
    try:
        pairs = json.loads(text, object_pairs_hook=list)
    except RecursionError:  # nested deeper than this reader goes
        return ""
    for key, _ in pairs:
        if key in seen:
            return str(key)
        seen.add(key)
    return ""
