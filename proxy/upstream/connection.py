"""A connection to an upstream: a socket that carries one exchange after another."""

import asyncio
from typing import Protocol, cast

from proxy.providers.wire import Shortcut
from proxy.upstream.exchange import NEVER, Exchange

DRAIN_SECONDS = 1.0
JOINED_BYTES = 64 * 1024  # up to here a copy costs less than a second packet


class Owner(Protocol):
    """The pool that a connection belongs to."""

    def freed(self, connection: "Connection") -> None:
        """Its exchange is over, and the connection can carry another."""
        ...

    def gone(self, connection: "Connection") -> None:
        """It is closed. Told once."""
        ...


class Connection(asyncio.Protocol):
    """One socket, in use or idle; implements the exchange's `Line`."""

    __slots__ = (
        "_drain", "_ended", "_looks_at", "_loop", "_owner", "_reading_paused", "_shortcut", "_watch", "exchange",
        "idle_since", "transport",
    )  # fmt: skip

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        self._owner = owner
        self._loop = loop
        self._drain: asyncio.TimerHandle | None = None
        self._ended = False  # the upstream has said that it sends no more
        self._reading_paused = False
        self._shortcut: Shortcut | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._looks_at = NEVER
        self.transport: asyncio.Transport | None = None
        self.exchange: Exchange | None = None
        self.idle_since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class

    def data_received(self, data: bytes) -> None:
        if self.exchange is not None:
            self.exchange.receive(data)
        else:  # an answer to nothing: whatever it is, it must not be taken for the next one
            self.abort()

    def eof_received(self) -> bool:
        self._ended = True
        return False  # nobody who has stopped sending is sent anything more

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._stop_draining()
        if self._watch is not None:
            self._watch.cancel()
        exchange, self.exchange = self.exchange, None
        self._owner.gone(self)
        if exchange is not None:
            exchange.lost(exc, clean=self._ended and exc is None)

    @property
    def usable(self) -> bool:
        """Whether a request may be sent on it, as far as we know."""
        return self.transport is not None and not self._ended and not self.transport.is_closing()

    def ask(self, head: bytes, body: bytes, exchange: Exchange) -> Exchange:
        """Send a request; its answer is for the exchange."""
        if self.transport is None:
            raise RuntimeError("the connection is closed")
        self.exchange = exchange
        if len(body) <= JOINED_BYTES:
            self.transport.write(head + body)
        else:
            self.transport.write(head)
            self.transport.write(body)
        return exchange

    def abort(self) -> None:
        """Close it now; what was not sent yet is not sent."""
        if self.transport is not None:
            self.transport.abort()

    # The exchange's side.

    def pause(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()
            self._reading_paused = True

    def resume(self) -> None:
        if self._reading_paused and self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()
        self._reading_paused = False

    def shorten(self, shortcut: Shortcut | None) -> None:
        if self.transport is None or shortcut is self._shortcut:
            return
        self._shortcut = shortcut
        if shortcut is not None:
            shortcut.behind = self
        self.transport.set_protocol(self if shortcut is None else cast(asyncio.Protocol, shortcut))

    def release(self, *, reusable: bool) -> None:
        self.exchange = None
        transport = self.transport
        if self._shortcut is not None:
            self.shorten(None)
        if self._drain is not None:
            self._stop_draining()
        if self._reading_paused:
            self.resume()
        # An answer that came before the request was sent whole: the rest of it would be read as the next request.
        if (
            reusable
            and transport is not None
            and not self._ended
            and not transport.is_closing()
            and not transport.get_write_buffer_size()
        ):
            self._owner.freed(self)
        else:
            self.abort()

    def drain(self) -> None:
        self._stop_draining()
        self._drain = self._loop.call_later(DRAIN_SECONDS, self.abort)

    def watch(self, until: float) -> None:
        if until < self._looks_at:
            if self._watch is not None:
                self._watch.cancel()
            self._looks_at = until
            self._watch = self._loop.call_at(until, self._look)

    def _look(self) -> None:
        """Is it the exchange of now whose clock has run out? One timer serves many exchanges, one after another."""
        self._looks_at, self._watch = NEVER, None
        if self.exchange is not None:
            until = self.exchange.expire(self._loop.time())
            if until < NEVER:
                self.watch(until)

    def _stop_draining(self) -> None:
        if self._drain is not None:
            self._drain.cancel()
            self._drain = None
