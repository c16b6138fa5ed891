"""HTTP by hand: requests in bytes, answers as they came, and an upstream that pours out what it is told to."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

from tests.conftest import Sidecar

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def request(*headers: str, version: str = "1.1", **fields: Any) -> bytes:
    """A chat call."""
    whole = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}], **fields}
    body = json.dumps(whole).encode()
    said = ["Host: octet", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    lines = [f"POST /v1/chat/completions HTTP/{version}", *said, *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def connect(sidecar: Sidecar, *, receive_bytes: int | None = None) -> Streams:
    """A connection to the sidecar; with `receive_bytes` the kernel keeps little of what is not read."""
    address = sidecar.app.addresses[0]
    made = socket.socket()
    made.setblocking(False)
    if receive_bytes is not None:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    await asyncio.get_running_loop().sock_connect(made, (address.host, address.port))
    return await asyncio.open_connection(sock=made, limit=1024 if receive_bytes else 65_536)


@dataclass(frozen=True)
class Head:
    """The first line and the headers of an answer, names in lower case, in their order."""

    line: str
    headers: list[tuple[str, str]]

    @property
    def status(self) -> int:
        return int(self.line.split()[1])

    def __getitem__(self, name: str) -> str:
        """The value of a header that is there exactly once."""
        (value,) = self.all(name)
        return value

    def all(self, name: str) -> list[str]:
        """The values of a header, however often it is there."""
        return [value for key, value in self.headers if key == name]

    def __contains__(self, name: str) -> bool:
        return any(key == name for key, _ in self.headers)


async def read_head(reader: asyncio.StreamReader) -> Head:
    """The next answer's head."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    return Head(lines[0], [(name.lower(), value) for name, _, value in (line.partition(": ") for line in lines[1:])])


async def read_chunk(reader: asyncio.StreamReader) -> bytes:
    """The next chunk of a chunked body; empty when it was the last one."""
    size = int((await reader.readuntil(b"\r\n")).removesuffix(b"\r\n"), 16)
    data = await reader.readexactly(size + 2)
    assert data.endswith(b"\r\n")
    return data[:-2]


async def read_answer(reader: asyncio.StreamReader) -> tuple[Head, bytes]:
    """The next answer, whose end must be told by its head."""
    head = await read_head(reader)
    if "content-length" in head:
        return head, await reader.readexactly(int(head["content-length"]))
    assert head["transfer-encoding"] == "chunked"
    body = b""
    while chunk := await read_chunk(reader):
        body += chunk
    return head, body


@asynccontextmanager
async def asking(sidecar: Sidecar, data: bytes = b"", *, receive_bytes: int | None = None) -> AsyncIterator[Streams]:
    """A connection on which this has been sent."""
    reader, writer = await connect(sidecar, receive_bytes=receive_bytes)
    try:
        writer.write(data)
        async with asyncio.timeout(10):
            yield reader, writer
    finally:
        writer.transport.abort()


async def call(sidecar: Sidecar, data: bytes) -> tuple[Head, bytes]:
    """One request on a connection of its own."""
    async with asking(sidecar, data) as (reader, _):
        return await read_answer(reader)


def event(content: str, **more: Any) -> bytes:
    """An event of an OpenAI stream."""
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": None, **more}
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return b"data: %b\n\n" % json.dumps(chunk).encode()


END = event("", delta={}, finish_reason="stop") + b"data: [DONE]\n\n"
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


def whole(size: int) -> bytes:
    """A JSON answer with a text of so many bytes, as an upstream sends it."""
    choice = {"index": 0, "message": {"role": "assistant", "content": "x" * size}, "finish_reason": "stop"}
    fields = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    body = json.dumps(fields).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


class Upstream(asyncio.Protocol):
    """Answers one request: with `parts`, as fast as they are taken, and the close; or with what it is told to `say`.

    `sent` counts the bytes of the parts; `asked` and `left` are set by a request, and by the end of its connection.
    """

    def __init__(self, parts: tuple[bytes, ...]) -> None:
        self.url = ""
        self.sent = 0
        self.asked, self.left = asyncio.Event(), asyncio.Event()
        self._parts = iter(parts) if parts else None
        self._head = b""
        self._full = False

    def say(self, data: bytes) -> None:
        self._transport.write(data)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._head += data
        if b"\r\n\r\n" in self._head and not self.asked.is_set():
            self.asked.set()
            self._pour()

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        asyncio.get_running_loop().call_soon(self._pour)  # asyncio's transport must not be closed from in here

    def connection_lost(self, exc: Exception | None) -> None:
        self.left.set()

    def _pour(self) -> None:
        while self._parts is not None and not self._full:
            part = next(self._parts, None)
            if part is None:
                self._transport.close()
                return
            self._transport.write(part)
            self.sent += len(part)


@asynccontextmanager
async def pouring(*parts: bytes) -> AsyncIterator[Upstream]:
    """A listening upstream of the kind above."""
    upstream = Upstream(parts)
    server = await asyncio.get_running_loop().create_server(lambda: upstream, "127.0.0.1", 0)
    upstream.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield upstream
    finally:
        server.close()
