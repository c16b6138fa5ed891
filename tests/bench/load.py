"""A client that costs little: keep-alive connections that send one request after another and check what comes."""

import asyncio
import re
import time
from dataclasses import dataclass, field
from typing import cast


class BadAnswer(Exception):
    """An answer that is not what was asked for: the measurement would be worth nothing."""


@dataclass(slots=True)
class Seen:
    """What the load saw; times in seconds."""

    waits: list[float] = field(default_factory=list)  # request sent -> whole answer
    first: list[float] = field(default_factory=list)  # request sent -> first content of a stream
    gaps: list[float] = field(default_factory=list)  # between the reads of a stream


def request(path: str, body: bytes, headers: str = "") -> bytes:
    """A POST in bytes."""
    head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n{headers}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


PATIENCE = 300.0  # seconds; a server that hangs ends the run
CONTENT = (b'"content":"w', b'"text":"w')
_WORD = re.compile(rb'"(?:content|text)":"w(\d+) "')
ENDS = (b"[DONE]", b'"done":true', b"message_stop")


class Connection(asyncio.Protocol):
    """Sends a request `rounds` times, one after the other's answer; `chunks` content chunks are expected, or 0."""

    def __init__(self, request: bytes, rounds: int, chunks: int, seen: Seen) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request, self._rounds, self._chunks, self._seen = request, rounds, chunks, seen
        self._parts: list[bytes] = []
        self._missing = 0
        self._last = self._began = 0.0
        self._open = False  # first content has been seen

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(BadAnswer(f"the connection was closed in the middle: {exc}"))

    def _send(self) -> None:
        self._parts, self._missing, self._open = [], 0, False
        self._began = self._last = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        if not self._parts and not data.startswith(b"HTTP/1.1 200"):
            return self._fail(data)
        self._parts.append(data)
        if self._chunks:
            if self._open:
                self._seen.gaps.append(now - self._last)
            elif any(mark in data for mark in CONTENT):
                self._open = True
                self._seen.first.append(now - self._began)
            self._last = now
            if data.endswith(b"0\r\n\r\n"):
                self._check_stream(b"".join(self._parts))
                self._next(now)
            return None
        if self._missing:
            self._missing -= len(data)
        else:
            text = b"".join(self._parts)
            end = text.find(b"\r\n\r\n")
            if end < 0:
                return None
            head = text[:end].lower()
            length = head.rpartition(b"content-length:")[2].partition(b"\r\n")[0]
            self._missing = end + 4 + int(length) - len(text)
        if self._missing == 0:
            self._next(now)
        return None

    def _check_stream(self, text: bytes) -> None:
        words = [int(number) for number in _WORD.findall(text)]
        if words != list(range(self._chunks)) or not any(end in text for end in ENDS):
            self._fail(b"a stream of %d chunks instead of %d: ...%b" % (len(words), self._chunks, text[-200:]))

    def _next(self, now: float) -> None:
        self._seen.waits.append(now - self._began)
        self._rounds -= 1
        if self._rounds:
            self._send()
        elif not self.done.done():
            self.done.set_result(None)
            self._transport.close()

    def _fail(self, data: bytes) -> None:
        if not self.done.done():
            self.done.set_exception(BadAnswer(data[:600].decode(errors="replace")))
        self._transport.abort()


async def run(port: int, sent: bytes, *, connections: int, rounds: int, chunks: int = 0) -> Seen:
    """Send a request over every connection, `rounds` times each.

    Raises:
        BadAnswer: an answer is not complete, or no success.
    """
    loop, seen = asyncio.get_running_loop(), Seen()
    opened = [
        await loop.create_connection(lambda: Connection(sent, rounds, chunks, seen), "127.0.0.1", port)
        for _ in range(connections)
    ]
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(protocol.done for _, protocol in opened))
    return seen
