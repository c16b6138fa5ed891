"""The other ends of our connections: servers that take notes, and one that nobody may ever reach."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

GOOD = (
    b'{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"finish_reason":"stop",'
    b'"message":{"role":"assistant","content":"Hi"}}]}'
)


def answer(body: bytes = GOOD, *lines: bytes, status: bytes = b"200 OK") -> bytes:
    """A whole answer."""
    first = [b"HTTP/1.1 " + status, b"Content-Type: application/json", b"Content-Length: %d" % len(body)]
    return b"\r\n".join([*first, *lines, b"", body])


class FarSide:
    """Gives every request the same answer; keeps their bytes."""

    def __init__(self, said: bytes) -> None:
        self.said = said
        self.met = 0  # connections
        self.seen: list[bytes] = []  # heads
        self.bodies: list[bytes] = []
        self.port = 0
        self._talks: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Talk on one connection."""
        self.met += 1
        task = asyncio.current_task()
        assert task is not None
        self._talks.add(task)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                self.seen.append(await reader.readuntil(b"\r\n\r\n"))
                length = _length(self.seen[-1])
                self.bodies.append(await reader.readexactly(length))
                writer.write(self.said)
                await writer.drain()
        self._talks.discard(task)
        writer.transport.abort()

    def end(self) -> None:
        """Leave every connection."""
        for talk in self._talks:
            talk.cancel()


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


@asynccontextmanager
async def far_side(said: bytes | None = None, **settings: Any) -> AsyncIterator[FarSide]:
    """A server on loopback; `settings` are those of `asyncio.start_server`, such as its TLS."""
    side = FarSide(said if said is not None else answer())
    server = await asyncio.start_server(side.take, "127.0.0.1", 0, **settings)
    side.port = server.sockets[0].getsockname()[1]
    try:
        yield side
    finally:
        server.close()
        side.end()


def openai(side: FarSide, **more: Any) -> dict[str, Any]:
    """An upstream of the dialect `openai` that lives there."""
    return {"provider": "openai", "base_url": f"{side.url}/v1", "api_key": "sk-ours", **more}
