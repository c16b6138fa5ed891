"""Where a process listens: TCP ports and unix sockets."""

import asyncio
import contextlib
import errno
import socket
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from proxy.config import Address

BACKLOG = 2048
DEFAULT_PORT = 8080

Factory = Callable[[], asyncio.Protocol]


class ListenError(Exception):
    """An address cannot be listened at."""


class NoSuchAddress(ListenError):
    """This machine does not have it."""


class Listeners:
    """The listening sockets of one server.

    Args:
        shared: other processes of ours listen at the same ports; the system deals out connections among them.
    """

    def __init__(self, server: Factory, *, shared: bool = False) -> None:
        self._server = server
        self._shared = shared
        self._open: list[asyncio.Server] = []
        self.addresses: list[Address] = []  # as bound

    async def listen(self, addresses: Sequence[Address] | None) -> None:
        """Listen at all of them; None: at port 8080 of this machine, over IPv4 and, where there is one, IPv6.

        Raises:
            ListenError: one is taken, or is none.
        """
        for address in addresses if addresses is not None else default_addresses():
            try:
                self.addresses.append(await self._bind(address))
            except NoSuchAddress:
                if addresses is not None or not self.addresses:
                    raise

    async def _bind(self, address: Address) -> Address:
        loop = asyncio.get_running_loop()
        with as_listen_errors(address):
            if address.path:
                _remove_stale(Path(address.path))
                listener = await loop.create_unix_server(self._server, address.path, backlog=BACKLOG)
            else:
                reuse = True if self._shared else None
                listener = await loop.create_server(
                    self._server, address.host, address.port, backlog=BACKLOG, reuse_port=reuse
                )
        self._open.append(listener)
        return address if address.path else _bound(listener.sockets[0])

    def close(self) -> None:
        """Take no new connections; those that there are go on."""
        for listener in self._open:
            listener.close()

    def remove(self) -> None:
        """Remove the files of unix sockets."""
        for address in self.addresses:
            if address.path:
                Path(address.path).unlink(missing_ok=True)


class Reserved:
    """Ports that are kept for processes that share them, so that they stay ours while those come and go."""

    def __init__(self, addresses: Sequence[Address] | None) -> None:
        self._sockets: list[socket.socket] = []
        self._locks: list[socket.socket] = []
        self.addresses: list[Address] = []
        try:
            for address in addresses if addresses is not None else default_addresses():
                if address.path:
                    raise ListenError(f"cannot listen at {address}: several processes cannot share a unix socket")
                with as_listen_errors(address):
                    _reserve(address, shared=False).close()  # another program that shares its port would go unnoticed
                    self._sockets.append(_reserve(address, shared=True))
                    self._locks.append(_lock(_bound(self._sockets[-1])))
        except NoSuchAddress:
            if addresses is not None or not self._sockets:
                self.close()
                raise
        except ListenError:
            self.close()
            raise
        self.addresses = [_bound(each) for each in self._sockets]

    def close(self) -> None:
        """Keep them no longer."""
        for each in (*self._sockets, *self._locks):
            each.close()


def default_addresses() -> list[Address]:
    """Where a sidecar listens that is told nothing."""
    return [Address("127.0.0.1", DEFAULT_PORT), Address("::1", DEFAULT_PORT)]


def _lock(address: Address) -> socket.socket:
    """Nobody else who shares ports can have this one: two that begin at once would not notice each other."""
    lock = socket.socket(socket.AF_UNIX)
    try:
        lock.bind(f"\0octet {address}")  # an abstract name: it goes with the process, and counts where the port does
    except BaseException:
        lock.close()
        raise
    return lock


def _reserve(address: Address, *, shared: bool) -> socket.socket:
    kind = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    made = socket.socket(kind, socket.SOCK_STREAM)
    try:
        if kind == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind((address.host, address.port))
    except BaseException:
        made.close()
        raise
    return made


@contextlib.contextmanager
def as_listen_errors(address: Address) -> Iterator[None]:
    """Say what an operator can do about it."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            raise NoSuchAddress(f"cannot listen at {address}: this machine has no such address") from error
        taken = "it is taken; choose another with --listen or --admin"
        reason = taken if _is_taken(error) else error.strerror or error
        raise ListenError(f"cannot listen at {address}: {reason}") from error


def _bound(listening: socket.socket) -> Address:
    host, port = listening.getsockname()[:2]
    return Address(host, port)


def _is_taken(error: OSError) -> bool:
    return error.errno == errno.EADDRINUSE or "address already in use" in str(error)


def _remove_stale(path: Path) -> None:
    """Remove a socket that nobody listens at any more."""
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise ListenError(f"cannot listen at unix:{path}: a file is in the way")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        if probe.connect_ex(str(path)) == 0:
            raise ListenError(f"cannot listen at unix:{path}: it is taken")
    path.unlink()
