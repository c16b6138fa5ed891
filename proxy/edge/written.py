"""Good answers, written as bytes: their head is built in one go, and leaves in one packet with what follows it.

aiohttp's own response objects cost a third of a whole call; errors and cold pages use them all the same.

Source: RFC 9112 §6, §7.1 (chunked), §9.3 (persistence); RFC 9110 §6.6.1 (Date).
"""

import asyncio
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any, Protocol, cast

from aiohttp import HttpVersion11, StreamReader, web
from aiohttp.web_protocol import RequestHandler

LAST_CHUNK = b"0\r\n\r\n"
RETIRED_SECONDS = 0.25  # long enough for a call that was on its way when its connection was given up


class Connection(RequestHandler):
    """A connection of a caller that says when it is full.

    Waiting for room is its own affair: a wait of aiohttp's that is given up spoils the next one.
    """

    __slots__ = ("_room", "body", "full", "retired", "when_full", "when_lost")

    def __init__(self, server: web.Server, **settings: Any) -> None:
        super().__init__(server, **settings)
        self.body: StreamReader | None = None  # of the request that is being answered
        self.full = False
        self.retired = False  # it is closed in a moment, and its next answer says so
        self.when_full: Callable[[], None] | None = None
        self.when_lost: Callable[[], bool] | None = None
        """Asked when the caller has gone: True, and the handler goes on for others."""
        self._room: asyncio.Future[None] | None = None  # done when there is room again, or nobody left

    def retire(self) -> None:
        """Close it soon, without having said so: a call that is on its way already is still answered."""
        self.retired = True
        self._loop.call_later(RETIRED_SECONDS, self._end_if_idle)

    def _end_if_idle(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self.force_close()
        elif self.transport is not None:
            self._loop.call_later(RETIRED_SECONDS, self._end_if_idle)

    async def drained(self, patience: float) -> None:
        """Until the caller has taken most of what was written.

        Raises:
            ConnectionResetError: the caller has gone, or has taken nothing for `patience` seconds.
        """
        while self.full:
            transport = self.transport
            if transport is None:
                raise ConnectionResetError("the caller has gone")
            before = transport.get_write_buffer_size()
            if self._room is None:
                self._room = self._loop.create_future()
            told, _ = await asyncio.wait([self._room], timeout=patience)
            if not told and transport.get_write_buffer_size() >= before:
                transport.abort()
                raise ConnectionResetError("the caller takes nothing")

    def _tell(self) -> None:
        if self._room is not None:
            self._room.set_result(None)
            self._room = None

    def connection_lost(self, exc: BaseException | None) -> None:
        if self.when_lost is not None and self.when_lost():
            self._task_handler = None  # or it would be cancelled
        super().connection_lost(exc)
        self._tell()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """aiohttp calls this for every body that was read, to parse and read on where nothing had been paused."""
        if self._reading_paused or not resume_parser:
            super().resume_reading(resume_parser)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.full = True
        if self.when_full is not None:
            self.when_full()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.full = False
        self._tell()


class Dates:
    """The Date header's value, made once a second."""

    def __init__(self) -> None:
        self._second = 0
        self._text = ""

    def now(self) -> str:
        second = int(time.time())
        if second != self._second:
            self._second, self._text = second, formatdate(second, usegmt=True)
        return self._text


_dates = Dates()


class Listener(Protocol):
    """What a listener says of its connections."""

    @property
    def closing(self) -> bool:
        """Whether they are not used again."""
        ...


class Written:
    """An answer that is written to the connection by us; what aiohttp asks of a response afterwards.

    Args:
        listener: says whether the connection may be used again.
        patience: seconds that the caller may take nothing before the connection is dropped.
    """

    prepared = True
    status = 200

    def __init__(self, request: web.BaseRequest, listener: Listener, patience: float) -> None:
        self._request = request
        self.connection = cast(Connection, request.protocol)
        self._patience = patience
        self._modern = request.version >= HttpVersion11
        self._listener = listener
        self.keep_alive = request.keep_alive

    @property
    def chunked(self) -> bool:
        """Whether a body of unknown length can be told from the next answer; else its end is the connection's."""
        return self._modern

    def head(self, lines: str, length: int | None) -> bytes:
        """The status line and headers of a success.

        Args:
            lines: headers as they are written, each with its line end.
            length: of the body, in bytes; None for a stream.
        """
        if self._listener.closing or self.connection.retired:
            self.keep_alive = False
        if length is not None:
            body = f"content-length: {length}\r\n"
        elif self._modern:
            body = "transfer-encoding: chunked\r\n"
        else:
            self.keep_alive, body = False, ""
        if self.keep_alive is not self._modern:  # what is not the version's own habit is said
            body += "connection: keep-alive\r\n" if self.keep_alive else "connection: close\r\n"
        self._request.writer.output_size = 1  # or aiohttp would answer a failure in the middle of this answer
        version = "1.1" if self._modern else "1.0"
        return f"HTTP/{version} 200 OK\r\ndate: {_dates.now()}\r\n{lines}{body}\r\n".encode("latin-1")

    def failure(self, response: web.Response) -> bytes:
        """An error as it is written at once; the connection ends with it."""
        self.keep_alive = False
        self._request.writer.output_size = 1
        headers = "".join(f"{name}: {value}\r\n" for name, value in response.headers.items())
        body = response.body if isinstance(response.body, bytes) else b""
        version = "1.1" if self._modern else "1.0"
        head = f"HTTP/{version} {response.status} {response.reason}\r\ndate: {_dates.now()}\r\n{headers}"
        return f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode("latin-1") + body

    def send(self, data: bytes) -> bool:
        """Hand bytes to the connection; whether it is full. To a caller who has gone nothing is sent."""
        protocol = self.connection
        transport = protocol.transport
        if transport is None or transport.is_closing():
            return False
        if data:
            transport.write(data)
        return protocol.full

    async def drained(self) -> None:
        """Until the caller has taken most of it; raises ConnectionResetError as `Connection.drained`."""
        if self.connection.full:
            await self.connection.drained(self._patience)

    async def prepare(self, request: web.BaseRequest) -> None:
        """aiohttp would send the head here."""

    async def write_eof(self, data: bytes = b"") -> None:  # noqa: ARG002
        """aiohttp's last word: everything has been written, and is to leave."""
        if self.connection.full:
            await self.drained()


Response = web.StreamResponse | Written
