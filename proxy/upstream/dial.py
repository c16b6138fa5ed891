"""The way to an upstream: its addresses, the socket, a proxy in between, and TLS.

Source: RFC 8305 (happy eyeballs); RFC 9110 §9.3.6 (CONNECT); RFC 9112 §3.2.2 (absolute form, towards a proxy).
"""

import asyncio
import base64
import contextlib
import functools
import socket
import ssl
from collections.abc import Callable
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

import aiohappyeyeballs
from yarl import URL

from proxy.config import ConfigError, Mistake, Upstream, is_metadata_address
from proxy.errors import Unreachable, UpstreamError
from proxy.upstream.connection import Connection
from proxy.upstream.exchange import Exchange

ADDRESSES_FRESH_SECONDS = 10.0  # pods move
HAPPY_EYEBALLS_SECONDS = 0.25
_KEEP_ALIVE = ((socket.SOL_SOCKET, "SO_KEEPALIVE", 1), (socket.IPPROTO_TCP, "TCP_KEEPIDLE", 60))

METADATA = "the upstream's name leads where clouds hand out credentials (allow_metadata_addresses)"

AddressInfo = tuple[int, int, int, str, tuple[str, int]]


class Dialer:
    """Opens connections to one upstream.

    Args:
        tls: how it is trusted, where not as the system trusts.

    With `forwards`, requests go to a proxy, which wants to see the upstream's whole address, and `headers`.
    """

    def __init__(self, upstream: Upstream, tls: ssl.SSLContext | None = None) -> None:
        url = URL(str(upstream.base_url))
        proxy = upstream.proxy or (None if upstream.unix_socket else _proxy_of_environment(url))
        self._host, self._port = url.raw_host or "", url.port or 80
        self._tls = (tls or _usual_tls()) if _is_tls(url) else None
        self._path = upstream.unix_socket
        self._proxy = URL(proxy) if proxy else None
        self._proxy_tls = _usual_tls() if self._proxy is not None and _is_tls(self._proxy) else None
        near = self._proxy or url
        self._addresses = _Addresses(near.raw_host or "", near.port or 80, metadata=upstream.allow_metadata_addresses)
        self._authorization = _basic(self._proxy)
        self.forwards = self._proxy is not None and self._tls is None
        self.origin = str(url.origin())  # in ASCII, for the wire
        self.headers = self._authorization if self.forwards else ""
        bracketed = f"[{self._host}]" if ":" in self._host else self._host
        self.host = bracketed if url.is_default_port() else f"{bracketed}:{self._port}"

    async def dial(self, factory: Callable[[], Connection]) -> Connection:
        """A new connection; the caller bounds the wait.

        Raises:
            Unreachable: there is none to be had.
        """
        try:
            connection = await self._dial(factory)
        except (OSError, ssl.SSLError) as error:
            self.forget()
            raise _translate(error) from error
        _keep_alive(connection)
        return connection

    def forget(self) -> None:
        """Ask for the addresses again: nobody answers where they led."""
        self._addresses.forget()

    async def _dial(self, factory: Callable[[], Connection]) -> Connection:
        loop = asyncio.get_running_loop()
        if self._path is not None:
            name = self._host if self._tls is not None else None
            return (await loop.create_unix_connection(factory, self._path, ssl=self._tls, server_hostname=name))[1]
        plain = await aiohappyeyeballs.start_connection(
            await self._addresses.get(), happy_eyeballs_delay=HAPPY_EYEBALLS_SECONDS, interleave=1, loop=loop
        )
        context, name = (self._tls, self._host) if self._proxy is None else (self._proxy_tls, self._proxy.raw_host)
        try:
            connection = (
                await loop.create_connection(
                    factory, sock=plain, ssl=context, server_hostname=name if context is not None else None
                )
            )[1]
        except BaseException:
            plain.close()
            raise
        if self._proxy is not None and self._tls is not None:
            try:
                await self._tunnel(connection, self._tls)
            except BaseException:
                connection.abort()
                raise
        return connection

    async def _tunnel(self, connection: Connection, context: ssl.SSLContext) -> None:
        """Have the proxy connect us, and speak TLS with whom we reach."""
        there = f"{self._host}:{self._port}" if ":" not in self._host else f"[{self._host}]:{self._port}"
        head = f"CONNECT {there} HTTP/1.1\r\nhost: {there}\r\n{self._authorization}\r\n"
        loop = asyncio.get_running_loop()
        exchange = connection.ask(head.encode(), b"", Exchange(_Tunnel(loop), loop, reused=False))
        await exchange.headed
        if exchange.status != 200:
            raise Unreachable(f"the proxy refuses to connect to the upstream (status {exchange.status})")
        connection.exchange = None  # from now on the bytes are somebody else's
        if connection.transport is None:
            raise Unreachable("the proxy closed the connection")
        connection.transport = await loop.start_tls(
            connection.transport, connection, context, server_hostname=self._host
        )


class _Tunnel(Connection):
    """The line of a CONNECT: whatever its answer says, the connection is not for the pool."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(self, loop)

    def freed(self, connection: Connection) -> None:
        pass

    def gone(self, connection: Connection) -> None:
        pass


class _Addresses:
    """Where a name leads, as far as is known; one question at a time is asked."""

    def __init__(self, host: str, port: int, *, metadata: bool) -> None:
        self._host, self._port, self._metadata = host, port, metadata
        self._known: list[AddressInfo] = []
        self._fresh_until = float("-inf")
        self._asking: asyncio.Task[list[AddressInfo]] | None = None

    async def get(self) -> list[AddressInfo]:
        loop = asyncio.get_running_loop()
        if self._known and loop.time() < self._fresh_until:
            return self._known
        if self._asking is None:
            self._asking = loop.create_task(self._ask())
            self._asking.add_done_callback(self._asked)
        return await asyncio.shield(self._asking)

    def forget(self) -> None:
        """Ask again at the next turn: nobody answers there."""
        self._fresh_until = float("-inf")

    async def _ask(self) -> list[AddressInfo]:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        allowed = [each for each in found if self._metadata or not is_metadata_address(str(each[4][0]))]
        if not allowed:
            raise Unreachable(METADATA)
        self._known = allowed  # type: ignore[assignment]
        self._fresh_until = loop.time() + ADDRESSES_FRESH_SECONDS
        return self._known

    def _asked(self, task: "asyncio.Task[list[AddressInfo]]") -> None:
        self._asking = None
        if not task.cancelled():
            task.exception()  # whoever waited has it; they may all have gone


def _is_tls(url: URL) -> bool:
    return url.scheme == "https"


@functools.cache
def _usual_tls() -> ssl.SSLContext:
    return _context(None, None, None)


def tls_context(name: str, ca_file: str | None, cert_file: str | None, key_file: str | None) -> ssl.SSLContext:
    """How an upstream is trusted that has files of its own; raises ConfigError when they cannot be used."""
    try:
        return _context(ca_file, cert_file, key_file)
    except (OSError, ValueError) as error:  # ssl's errors too
        path = ("upstreams", name, "tls")
        raise ConfigError([Mistake("configuration", None, path, "its files cannot be read, or do not fit")]) from error


def _context(ca_file: str | None, cert_file: str | None, key_file: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca_file)
    context.set_alpn_protocols(["http/1.1"])
    if cert_file:
        context.load_cert_chain(cert_file, key_file, password=lambda: "")  # nobody is there to be asked
    return context


def _proxy_of_environment(url: URL) -> str | None:
    """HTTPS_PROXY or HTTP_PROXY, unless NO_PROXY names the host."""
    named = None if proxy_bypass_environment(url.host or "") else getproxies_environment().get(url.scheme)
    return named if named is None or "://" in named else f"http://{named}"


def _basic(proxy: URL | None) -> str:
    """The header by which a proxy knows us."""
    if proxy is None or proxy.user is None:
        return ""
    word = base64.b64encode(f"{proxy.user}:{proxy.password or ''}".encode()).decode()
    return f"proxy-authorization: Basic {word}\r\n"


def _keep_alive(connection: Connection) -> None:
    """Have the kernel look every minute whether the far side is still there."""
    made = connection.transport.get_extra_info("socket") if connection.transport is not None else None
    if made is not None and made.family != socket.AF_UNIX:
        for level, name, value in _KEEP_ALIVE:
            if hasattr(socket, name):
                with contextlib.suppress(OSError):  # it is closed already: whoever uses it will learn that
                    made.setsockopt(level, getattr(socket, name), value)


def _translate(error: Exception) -> UpstreamError:
    """Failures of connecting in our words; no address or text of the upstream is quoted."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return Unreachable("the upstream's TLS certificate is not trusted")
    if isinstance(error, ssl.SSLError):
        return Unreachable("no TLS connection to the upstream")
    if isinstance(error, socket.gaierror):
        return Unreachable("the upstream's name cannot be resolved")
    return Unreachable("no connection to the upstream")
