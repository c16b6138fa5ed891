"""What the other side of the seam offers: requests on the wire, and upstreams that are ready to be called."""

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol

from proxy.call import Call, Sink, Source
from proxy.providers.seam import Provider, UpstreamRequest


class Behind(Protocol):
    """Who is called with what comes over a connection; asyncio's protocol."""

    def data_received(self, data: bytes) -> None: ...

    def eof_received(self) -> bool: ...

    def connection_lost(self, exc: Exception | None) -> None: ...


class Shortcut(Behind, Protocol):
    """Stands before somebody who is called with what comes, and calls him with what it cannot take."""

    behind: Behind


class Exchange(Source, Protocol):
    """One request on the wire, and its answer; the body is read, or pushed at a sink. Whoever opened it closes it."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def connect_seconds(self) -> float:
        """How long it took to connect; 0 on a connection that was there."""
        ...

    def bound(self, until: float, clock: str) -> None:
        """Fail with TooSlow at this time of the loop's, unless the body is at its end by then, or pushed."""
        ...

    async def read(self, limit: int) -> bytes:
        """The whole body; raises UpstreamError when it breaks off or is longer than `limit` bytes."""
        ...

    async def read_up_to(self, limit: int) -> bytes:
        """The body's beginning, at least `limit` bytes if it has as many; raises UpstreamError when it breaks off."""
        ...

    def start(self, sink: Sink) -> None:
        """Push the body at `sink`."""
        ...

    def framing(self, body: bytes) -> bytes | None:
        """How the size of the chunk is written that brought what is being pushed; None when it is not just one."""
        ...

    def shorten(self, shortcut: Shortcut | None) -> None:
        """Have the connection bring what comes to `shortcut` first; None ends that."""
        ...

    def close(self, *, drain: bool = False) -> None:
        """Free the connection, at once or, with `drain`, when the end of a good answer has passed by."""
        ...


class Endpoint(Protocol):
    """An upstream ready to be called."""

    @property
    def provider(self) -> Provider: ...

    @property
    def dialect(self) -> str:
        """The provider's name."""
        ...

    @property
    def host(self) -> str:
        """Host and port, for people."""
        ...

    def dress(self, request: UpstreamRequest, call: Call, more: Mapping[str, str]) -> UpstreamRequest:
        """The request with the headers and the key that belong to this upstream and this caller, and `more` headers."""
        ...

    def redact(self, text: str, more: Mapping[str, str]) -> str:
        """A text of the upstream's without our key, or those headers, should it quote them."""
        ...

    def open(
        self, request: UpstreamRequest, patience: float, clock: str, asked: Callable[[Exchange], object]
    ) -> Coroutine[Any, Any, Exchange]:
        """Send the request and wait for the answer's head.

        Args:
            patience: seconds until the whole answer is there, or until it is pushed.
            clock: the clock that then has run out.
            asked: takes the exchange as soon as the request has gone out.

        Raises:
            UpstreamError: there is no answer.
        """
        ...
