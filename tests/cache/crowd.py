"""Callers by hand, many of them: who speaks which HTTP, reads when it likes, and goes how it likes."""

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tests.cache.conftest import waiting
from tests.cache.stage import Stage, StagedCall
from tests.conftest import Sidecar
from tests.edge.wire import Head, connect, read_chunk, read_head, request
from tests.waiting import until

STREAM: dict[str, Any] = {"stream": True}
WITH_USAGE: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}


@dataclass(frozen=True)
class Heard:
    """One answer, which ended as its head said it would."""

    head: Head
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        """The error object, of an error answer or of a stream's last event."""
        text = self.body if self.head.status != 200 else self.body.rpartition(b"data: ")[2]
        found: dict[str, Any] = json.loads(text)["error"]
        return found


class Person:
    """A caller with a connection of its own."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def say(self, data: bytes) -> None:
        self.writer.write(data)

    async def hear_head(self) -> Head:
        return await asyncio.wait_for(read_head(self.reader), 10)

    async def hear_body(self, head: Head) -> bytes:
        """The rest of an answer."""
        async with asyncio.timeout(20):
            if "content-length" in head:
                return await self.reader.readexactly(int(head["content-length"]))
            if "transfer-encoding" not in head:
                return await self.reader.read()
            body = b""
            while chunk := await read_chunk(self.reader):
                body += chunk
            return body

    async def hear(self) -> Heard:
        """The next answer."""
        head = await self.hear_head()
        return Heard(head, await self.hear_body(head))

    async def hear_end(self) -> bytes:
        """What comes until the connection is closed."""
        with contextlib.suppress(ConnectionError):
            return await asyncio.wait_for(self.reader.read(), 10)
        return b""

    def finish(self) -> None:
        """Send a FIN this very moment."""
        self.writer.get_extra_info("socket").shutdown(socket.SHUT_WR)

    def hang_up(self, *, reset: bool = False) -> None:
        """Close the socket, with FIN, or with RST."""
        if reset:
            made: socket.socket = self.writer.get_extra_info("socket")
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class Crowd:
    """People who call one sidecar."""

    def __init__(self, sidecar: Sidecar) -> None:
        self.sidecar = sidecar
        self.people: list[Person] = []

    async def call(self, data: bytes, *, receive_bytes: int | None = None) -> Person:
        """Somebody new, who has sent this."""
        reader, writer = await connect(self.sidecar, receive_bytes=receive_bytes)
        self.people.append(Person(reader, writer))
        writer.write(data)
        return self.people[-1]

    async def ask(self, *headers: str, receive_bytes: int | None = None, **fields: Any) -> Person:
        """Somebody new, with a chat call."""
        return await self.call(request(*headers, **fields), receive_bytes=receive_bytes)

    async def join(self, *headers: str, receive_bytes: int | None = None, **fields: Any) -> Person:
        """Somebody new, who is now waiting for the call in flight."""
        before = waiting(self.sidecar)
        person = await self.ask(*headers, receive_bytes=receive_bytes, **fields)
        await until(lambda: waiting(self.sidecar) > before)
        return person

    async def start(self, stage: Stage, *headers: str, **fields: Any) -> tuple[Person, StagedCall]:
        """Somebody new, and the call upstream that this is."""
        number = len(stage.calls)
        person = await self.ask(*headers, **fields)
        return person, await stage.call(number)


@asynccontextmanager
async def crowd(sidecar: Sidecar) -> AsyncIterator[Crowd]:
    """People who all go in the end."""
    made = Crowd(sidecar)
    try:
        yield made
    finally:
        for person in made.people:
            person.hang_up()


def flight_of(sidecar: Sidecar) -> Any:
    """The only flight."""
    (start,) = sidecar.app.upstreams.starts.values()
    return start.flight


def grow_older(sidecar: Sidecar, seconds: float) -> None:
    """What is kept in memory is so much older now."""
    answers = sidecar.app.pipeline.snapshot.answers
    assert answers is not None
    for kept in answers.shelf.memory._kept.values():
        kept.came -= seconds
        kept.good_until -= seconds
        kept.until -= seconds
