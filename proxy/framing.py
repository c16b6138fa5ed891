"""Bytes as they arrive -> whole frames: server-sent events and newline-delimited JSON.

Frames are found in bytes, never by line readers: reads cut anywhere, also inside a character, and text readers
break lines at U+2028 and its like, which are legal inside JSON.

Source: WHATWG HTML, "Server-sent events"; ndjson.org.
"""

import re
from typing import ClassVar

import msgspec

from proxy.errors import Broken

MAX_FRAME_BYTES = 8 * 1024 * 1024

BOM = b"\xef\xbb\xbf"
NAMED_ERROR = re.compile(rb"(?:^|[\r\n])event: ?error[\r\n]")
_LINE_END = re.compile(rb"\r\n|\n|\r")


class FrameSplitter:
    """Collects bytes until a boundary is complete; the frames, joined, are the bytes that came in.

    Args:
        max_bytes: the largest frame; more without a boundary raises `Broken`.
    """

    _boundary: ClassVar[re.Pattern[bytes]]
    _plain: ClassVar[bytes]  # the boundary as nearly everybody writes it
    _longest: ClassVar[int]  # bytes a boundary can take

    def __init__(self, max_bytes: int = MAX_FRAME_BYTES) -> None:
        self._max_bytes = max_bytes
        self.rest = bytearray()  # what waits for its end
        self._started = False

    def feed(self, data: bytes) -> list[bytes]:
        """Take what arrived; return the frames it completes, each with its boundary."""
        rest = self.rest
        if rest:
            seam = max(0, len(rest) - self._longest)
            rest += data
            if self._boundary.search(rest, seam) is None:
                self._check(len(rest))
                return []
            data = bytes(rest)
            rest.clear()
        frames = self._split(data)
        if frames and not self._started:
            self._started = True
            frames[0] = frames[0].removeprefix(BOM)
        return frames

    def flush(self) -> bytes:
        """The bytes after the last boundary, at the end of the body; empty when it ended cleanly."""
        rest = bytes(self.rest)
        self.rest.clear()
        return rest if self._started else rest.removeprefix(BOM)

    def _split(self, data: bytes) -> list[bytes]:
        if b"\r" in data:
            frames, start = [], 0
            for match in self._boundary.finditer(data):
                frames.append(data[start : match.end()])
                start = match.end()
            self._keep(data[start:])
            return frames
        parts = data.split(self._plain)
        self._keep(parts.pop())
        return [part + self._plain for part in parts]

    def _keep(self, tail: bytes) -> None:
        self._check(len(tail))
        self.rest += tail

    def _check(self, size: int) -> None:
        if size > self._max_bytes:
            raise Broken(
                f"the upstream sent a frame of more than {self._max_bytes} bytes",
                code="upstream_bad_response",
            )


class SseFrames(FrameSplitter):
    """Server-sent events, each up to and with the blank line that ends it; CR, LF and CRLF alike."""

    _boundary = re.compile(rb"(?:\r\n|\n|\r(?=[^\n])){2}")
    _plain = b"\n\n"
    _longest = 4


class JsonLines(FrameSplitter):
    """Newline-delimited JSON, a line each."""

    _boundary = re.compile(rb"\n")
    _plain = b"\n"
    _longest = 1


class JsonValues:
    """JSON objects, arrays and strings written one after the other, with or without something between them."""

    def __init__(self, max_bytes: int = MAX_FRAME_BYTES) -> None:
        self._max_bytes = max_bytes
        self._rest = b""
        self._started = False
        self._at = 0  # how far the rest has been looked through
        self._depth = 0
        self._in_text = False

    def feed(self, data: bytes) -> list[bytes]:
        """Take what arrived; return the values it completes."""
        self._rest += data
        if not self._started and len(self._rest) >= len(BOM):
            self._started = True
            self._rest = self._rest.removeprefix(BOM)
        values, start = [], 0
        for mark in _MARKS.finditer(self._rest, self._at):
            if mark[0] == b"\\":  # the next byte has not come
                break
            self._at = mark.end()
            if self._ends_value(mark[0]):
                values.append(self._rest[start : mark.end()].strip(b" \t\r\n,"))
                start = mark.end()
        else:
            self._at = len(self._rest)
        self._rest, self._at = self._rest[start:], self._at - start
        if len(self._rest) > self._max_bytes:
            raise Broken(
                f"the upstream sent a value of more than {self._max_bytes} bytes", code="upstream_bad_response"
            )
        return values

    def _ends_value(self, mark: bytes) -> bool:
        if self._in_text:
            self._in_text = mark != b'"'
            return not self._in_text and self._depth == 0
        if mark == b'"':
            self._in_text = True
            return False
        if mark in (b"{", b"["):
            self._depth += 1
        elif mark in (b"}", b"]"):
            self._depth -= 1
            return self._depth == 0
        return False

    def flush(self) -> bytes:
        """What is left at the end of the body: nothing when it ended cleanly."""
        rest, self._rest, self._at = self._rest, b"", 0
        return rest.strip(b" \t\r\n,")


_MARKS = re.compile(rb'["{}\[\]]|\\.|\\', re.DOTALL)


def sse_data(frame: bytes) -> list[bytes]:
    """The payloads of one event: none for a comment or an event whose data is absent or empty, mostly one.

    Several `data:` lines make one payload, unless each of them, and not their union, is JSON: then a server
    forgot the blank lines.
    """
    payload = lone_data(frame)
    if payload:
        return [payload]
    lines = [line for line in map(_data_of, _LINE_END.split(frame)) if line is not None]
    if len(lines) < 2 or not any(lines):
        return [line for line in lines[:1] if line]
    joined = b"\n".join(lines)
    if not is_json(joined) and all(line.startswith(b"[DONE]") or is_json(line) for line in lines):
        return lines
    return [joined]


def lone_data(frame: bytes) -> bytes:
    """The payload of an event that is one line of data, as nearly all are; nothing for any other."""
    is_line = frame.startswith(b"data: ") and frame.find(b"\n") == len(frame) - 2 and b"\r" not in frame
    return frame[6:-2] if is_line else b""


def _data_of(line: bytes) -> bytes | None:
    name, _, value = line.partition(b":")
    return value.removeprefix(b" ") if name == b"data" else None


def is_json(text: bytes) -> bool:
    """Whether the text is one JSON value."""
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True
