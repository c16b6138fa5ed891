"""An OpenAI upstream that says what a test has it say, call by call."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

from tests.edge.wire import END, STREAM_HEAD, event, whole

__all__ = ["END", "STREAM_HEAD", "Stage", "event", "staged", "whole"]


class StagedCall(asyncio.Protocol):
    """One connection, and the one request on it."""

    def __init__(self, on_request: Callable[["StagedCall"], None]) -> None:
        self.left = asyncio.Event()
        self._on_request = on_request
        self._seen = b""
        self._told = False

    def say(self, data: bytes) -> None:
        self._transport.write(data)

    def hang_up(self) -> None:
        self._transport.abort()

    @property
    def body(self) -> dict[str, object]:
        """The request's body."""
        found: dict[str, object] = json.loads(self._seen.partition(b"\r\n\r\n")[2])
        return found

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._seen += data
        head, _, body = self._seen.partition(b"\r\n\r\n")
        length = int(head.lower().rpartition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        if not self._told and b"\r\n\r\n" in self._seen and len(body) >= length:
            self._told = True
            self._on_request(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.left.set()


class Stage:
    """The calls that have come, in their order."""

    def __init__(self) -> None:
        self.url = ""
        self.calls: list[StagedCall] = []

    def take(self, call: StagedCall) -> None:
        self.calls.append(call)

    async def call(self, number: int = 0) -> StagedCall:
        """A call, once it has come."""
        async with asyncio.timeout(5):
            while len(self.calls) <= number:  # noqa: ASYNC110  # looked at every turn of the loop
                await asyncio.sleep(0)
        return self.calls[number]


@asynccontextmanager
async def staged() -> AsyncIterator[Stage]:
    """A stage that listens."""
    stage = Stage()
    server = await asyncio.get_running_loop().create_server(lambda: StagedCall(stage.take), "127.0.0.1", 0)
    stage.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield stage
    finally:
        for call in stage.calls:
            call.hang_up()
        server.close()
