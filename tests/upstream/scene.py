"""A connection fed by hand: its socket, its pool, its clock and its sink are played by the test."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

from proxy.upstream.connection import Connection
from proxy.upstream.exchange import Exchange


class Socket(asyncio.Transport):
    """A socket that notes what is done to it."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._protocol = protocol
        self.sent = b""
        self.unsent = 0  # bytes that the network has not taken yet
        self.reading = True
        self.aborted = False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = cast(asyncio.Protocol, protocol)

    def get_protocol(self) -> asyncio.Protocol:
        return self._protocol

    def write(self, data: Any) -> None:
        self.sent += data

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Timer:
    """Something that is due."""

    def __init__(self, due: float, act: Callable[[], object]) -> None:
        self.due, self.act = due, act
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Clock:
    """The running loop, but for its time, which is turned by hand."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.began = self._now = 1000.0
        self._timers: list[Timer] = []

    def create_future(self) -> asyncio.Future[None]:
        future: asyncio.Future[None] = self._loop.create_future()
        future.add_done_callback(lambda future: future.cancelled() or future.exception())  # looked at
        return future

    def time(self) -> float:
        return self._now

    def call_at(self, when: float, act: Callable[[], object]) -> Timer:
        self._timers.append(Timer(when, act))
        return self._timers[-1]

    def call_later(self, delay: float, act: Callable[[], object]) -> Timer:
        return self.call_at(self._now + delay, act)

    @property
    def timers(self) -> list[Timer]:
        """Those that run."""
        self._timers = [timer for timer in self._timers if not timer.cancelled]
        return self._timers

    def turn(self, seconds: float) -> None:
        """Let time pass, and do what is due on the way."""
        self._now += seconds
        while due := [timer for timer in self.timers if timer.due <= self._now]:
            first = min(due, key=lambda timer: timer.due)
            self._timers.remove(first)
            first.act()


class Scene:
    """One connection, its far side and its pool."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.loop = cast(asyncio.AbstractEventLoop, self.clock)
        self.heard: list[str] = []  # by the pool
        self.connection = Connection(self, self.loop)
        self.socket = Socket(self.connection)
        self.connection.connection_made(self.socket)

    def freed(self, connection: Connection) -> None:
        assert connection is self.connection
        assert connection.usable
        assert connection.exchange is None
        assert self.socket.reading
        assert self.socket.get_protocol() is connection
        self.heard.append("freed")

    def gone(self, connection: Connection) -> None:
        assert connection is self.connection
        self.heard.append("gone")

    def ask(self, *, reused: bool = False) -> Exchange:
        return self.connection.ask(b"", b"", Exchange(self.connection, self.loop, reused=reused))

    def come(self, *reads: bytes) -> None:
        """The upstream sends; as on a real socket, nothing is read when it is closed."""
        for read in reads:
            if not self.socket.aborted:
                self.socket.get_protocol().data_received(read)

    def leave(self, error: Exception | None = None) -> None:
        """The upstream is gone, in peace or with an error; or we are, and now the loop says so."""
        if error is None and not self.socket.aborted:
            self.socket.get_protocol().eof_received()
        self.socket.get_protocol().connection_lost(error)

    @property
    def fate(self) -> str:
        """What became of the connection."""
        if self.socket.aborted:
            return "aborted" if "freed" not in self.heard else "freed and aborted"
        return "kept" if self.heard == ["freed"] else "in use" if not self.heard else ", ".join(self.heard)


class Notes:
    """A sink that keeps what it is pushed; whatever comes after the end is an error."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.last: list[Exception | None] = []  # None: the end

    def feed(self, data: bytes) -> None:
        assert data
        assert not self.last
        self.pieces.append(data)

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    def end(self) -> None:
        self.last.append(None)

    def fail(self, error: Exception) -> None:
        self.last.append(error)
