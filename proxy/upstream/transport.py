"""HTTP towards one upstream: its pool of connections, and requests in bytes.

Source: RFC 9112; RFC 9110 §7.2 (host), §9.2.2 (what may be sent again).
"""

import asyncio
import ssl
import time
from collections.abc import Callable, Mapping
from urllib.parse import quote, urlencode, urlsplit

from yarl import URL

from proxy.config import Upstream
from proxy.errors import Broken, PoolFull, ProxyFault, TooSlow, Unreachable
from proxy.providers.seam import UpstreamRequest
from proxy.upstream.connection import Connection
from proxy.upstream.dial import Dialer
from proxy.upstream.exchange import Exchange, Stale

_AS_THEY_ARE = "%/:?=&;,@!$'()*+~"
IDLE_CONNECTION_SECONDS = 4.0  # vLLM and others on uvicorn close at 5
STALE_SECONDS = 0.5  # after the request; a connection that breaks later may have been worked for


class PreparedHeaders(dict[str, str]):
    """Headers that are sent again and again, with the lines they make."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        super().__init__(headers)
        self.lines = header_lines(headers)


def header_lines(headers: Mapping[str, str]) -> str:
    """Headers as they are written."""
    return "".join([f"{name}: {value}\r\n" for name, value in headers.items()])


def _broken() -> Unreachable:
    return Unreachable("the connection to the upstream broke before an answer", code="upstream_disconnected")


def _check_encoding(exchange: Exchange) -> None:
    if exchange.headers.get("content-encoding", "identity").lower() != "identity":
        exchange.close()
        raise Broken("the upstream compresses its answer, which it was not asked to", code="upstream_bad_response")


class Transport:
    """The connections to one upstream; the newest idle one is used first, so that the others can go."""

    def __init__(self, upstream: Upstream, tls: ssl.SSLContext | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._dialer = Dialer(upstream, tls)
        self._connect_seconds = upstream.timeouts.connect_seconds
        self._query = upstream.query
        self._query_text = urlencode(upstream.query)
        self._limit = upstream.max_connections
        self._slots = asyncio.Semaphore(self._limit) if self._limit is not None else None  # one per active connection
        self._active: set[Connection] = set()
        self._idle: dict[Connection, None] = {}  # the newest last
        self._sweeper: asyncio.TimerHandle | None = None
        self._retired = False
        self._closed: asyncio.Event | None = None  # set when the last connection has gone, once we are closing
        dialer, base = self._dialer, str(upstream.base_url)
        self._prefix = base[: len(base) - len(urlsplit(base).path)]  # of every request's address
        self._origin = dialer.origin if dialer.forwards else ""
        self._lines = f" HTTP/1.1\r\nhost: {dialer.host}\r\n{dialer.headers}"
        self._other_lines = self._lines.count("\n") + 1

    @property
    def idle(self) -> int:
        """Connections that wait for a request."""
        return len(self._idle)

    @property
    def active(self) -> int:
        """Connections in use."""
        return len(self._active)

    @property
    def limit(self) -> int | None:
        """How many there may be."""
        return self._limit

    async def open(
        self, request: UpstreamRequest, patience: float, clock: str, asked: Callable[[Exchange], object] = id
    ) -> Exchange:
        """Send a request, and wait for the head of its answer; whoever gets the exchange closes it.

        A kept-alive connection may be closed by the upstream just as it is used again. Then not a byte of an answer
        has come, and the request goes out once more, on a new connection: at once, or not at all, since an upstream
        that has begun to work on it would be paid twice.

        Args:
            patience: seconds until the answer is at its end, or until its body is pushed.
            clock: what the failure is called when they are over.
            asked: takes the exchange as soon as the request has gone out.

        Raises:
            Unreachable, PoolFull, Broken, TooSlow.
        """
        head = self._head(request)
        until, fresh = self._loop.time() + patience, False
        while True:
            connection, reused, connect_seconds = self._take() if self._slots is None and not fresh else None, True, 0.0
            if connection is None:
                connection, reused, connect_seconds = await self._get(until, clock, fresh=fresh)
            sent = self._loop.time()
            exchange = self._send(connection, head, request.body, reused=reused)
            exchange.connect_seconds = connect_seconds
            exchange.bound(until, clock)
            asked(exchange)
            try:
                await exchange.headed
            except Stale as error:
                if self._closed is not None or self._loop.time() - sent > STALE_SECONDS:
                    raise _broken() from error
                fresh = True
            except BaseException:
                exchange.close()
                raise
            else:
                _check_encoding(exchange)
                return exchange

    async def reach(self) -> None:
        """Make a connection, and close it.

        Raises:
            Unreachable, TooSlow: none could be made.
        """
        try:
            async with asyncio.timeout(self._connect_seconds):
                connection = await self._dialer.dial(self._new)
        except TimeoutError as error:
            self._dialer.forget()
            raise TooSlow(clock="connect") from error
        connection.abort()

    def _send(self, connection: Connection, head: bytes, body: bytes, *, reused: bool) -> Exchange:
        if connection.transport is None:  # it was closed as soon as it was made
            if self._slots is not None:
                self._slots.release()
            raise _broken()
        self._active.add(connection)
        return connection.ask(head, body, Exchange(connection, self._loop, reused=reused))

    def retire(self) -> None:
        """Keep no connection any longer than a call needs it: calls that are under way may go on, and make new ones."""
        self._retired = True
        for connection in tuple(self._idle):
            connection.abort()

    async def close(self) -> None:
        """Close every connection."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._closed = asyncio.Event()
        for connection in (*self._active, *self._idle):
            connection.abort()
        if self._active or self._idle:
            await self._closed.wait()

    # The connections' side.

    def freed(self, connection: Connection) -> None:
        """A connection can carry another exchange."""
        self._active.discard(connection)
        if self._slots is not None:
            self._slots.release()
        if self._retired:
            connection.abort()
            return
        connection.idle_since = self._loop.time()
        self._idle[connection] = None
        if self._sweeper is None:
            self._sweep()

    def gone(self, connection: Connection) -> None:
        """A connection is closed."""
        if connection in self._active:
            self._active.discard(connection)
            if self._slots is not None:
                self._slots.release()
        self._idle.pop(connection, None)
        if self._closed is not None and not self._active and not self._idle:
            self._closed.set()

    async def _get(self, until: float, clock: str, *, fresh: bool) -> tuple[Connection, bool, float]:
        """A connection, whether it has been used before, and the seconds that it took to get it."""
        began = time.perf_counter()
        seconds, name = min((self._connect_seconds, "connect"), (until - self._loop.time(), clock))
        waits = held = self._slots is not None
        try:
            async with asyncio.timeout(seconds):
                if self._slots is not None:
                    held = False
                    await self._slots.acquire()
                    waits, held = False, True
                connection = self._take() if held else None
                if connection is not None and not fresh:
                    return connection, True, time.perf_counter() - began
                if connection is not None:  # a new one takes its place, once its socket is closed
                    connection.abort()
                    await asyncio.sleep(0)
                return await self._dialer.dial(self._new), False, time.perf_counter() - began
        except BaseException as error:
            if self._slots is not None and held:
                self._slots.release()
            if not isinstance(error, TimeoutError):
                raise
            self._dialer.forget()
            if waits:
                raise PoolFull("every connection to the upstream is in use (its max_connections)") from error
            raise TooSlow(clock=name) from error

    def _new(self) -> Connection:
        return Connection(self, self._loop)

    def _take(self) -> Connection | None:
        """The newest idle connection that is good."""
        if not self._idle:
            return None
        stale_before = self._loop.time() - IDLE_CONNECTION_SECONDS
        while self._idle:
            connection, _ = self._idle.popitem()
            if connection.usable and connection.idle_since > stale_before:
                return connection
            connection.abort()
        return None

    def _head(self, request: UpstreamRequest) -> bytes:
        """The request's first line and headers.

        Raises:
            ProxyFault: one of them would not be the line it should be; everything is checked where it comes from.
        """
        url = request.url
        if self._query:
            url = str(URL(url, encoded=True).update_query(self._query)) if "?" in url else f"{url}?{self._query_text}"
        if not url.startswith(self._prefix):
            raise ProxyFault("a request leads away from its upstream")
        target = self._origin + url[len(self._prefix) :]
        if not target.isascii():
            target = quote(target, safe=_AS_THEY_ARE)
        headers = request.headers
        lines = headers.lines if isinstance(headers, PreparedHeaders) else header_lines(headers)
        length = f"content-length: {len(request.body)}\r\n" if request.body or request.method == "POST" else ""
        text = f"{request.method} {target}{self._lines}{lines}{length}\r\n"
        expected = len(headers) + self._other_lines + bool(length)
        if text.count("\n") != expected or text.count("\r") != expected or " " in target:
            raise ProxyFault("a request has a header or an address that is none")
        return text.encode()

    def _sweep(self) -> None:
        """Close what has been idle for too long; come back while anything is idle."""
        self._sweeper = None
        loop = self._loop
        stale_before = loop.time() - IDLE_CONNECTION_SECONDS
        for connection in list(self._idle):  # the oldest first
            if connection.idle_since > stale_before:
                due = connection.idle_since + IDLE_CONNECTION_SECONDS
                self._sweeper = loop.call_at(max(due, loop.time() + 0.01), self._sweep)
                break
            del self._idle[connection]
            connection.abort()
