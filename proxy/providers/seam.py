"""Where a dialect meets the proxy: pure operations, the same for every provider."""

from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from typing import Protocol

from proxy.call import Call, Json, Sink, Source
from proxy.config import ProviderTraits, Upstream
from proxy.errors import UpstreamError


@dataclass(frozen=True, slots=True)
class Target:
    """A place a call may go: an upstream, and the name of the model there."""

    name: str  # the upstream's
    upstream: Upstream
    model: str
    label: str = "other"  # the model in metrics: a name from the configuration


@dataclass(frozen=True, slots=True)
class Route:
    """Where a call may go, in the order to try."""

    name: str
    targets: tuple[Target, ...]


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """What is sent; `dropped` names what the dialect cannot carry."""

    url: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    dropped: tuple[str, ...] = ()
    method: str = "POST"


class StreamParser(Protocol):
    """Turns the bytes of one stream into OpenAI chunks.

    `feed` and `finish` give what is complete and then raise, so that chunks before a failure are not lost.
    The chunk with `usage` comes last, whenever the upstream told it. `thinking` turns true when the model has
    begun to think, which some upstreams tell without showing the thoughts; `ended` with the terminal event,
    whether or not the body goes on.
    """

    thinking: bool
    ended: bool

    def feed(self, data: bytes) -> Iterable[Json]: ...

    def finish(self) -> Iterable[Json]:
        """The body has ended.

        Raises:
            CutShort: before its terminal event.
        """
        ...


class Provider(Protocol):
    """One dialect."""

    @property
    def traits(self) -> ProviderTraits: ...

    def build_request(self, call: Call, target: Target) -> UpstreamRequest:
        """The call in this dialect; the same call may be built again for a repeat.

        Raises:
            InvalidRequest: the call is at fault, or cannot be carried here.
        """
        ...

    def authorize(self, request: UpstreamRequest, upstream: Upstream, credential: str) -> UpstreamRequest:
        """The request with the credential where this dialect wants it."""
        ...

    def parse_completion(self, call: Call, target: Target, body: bytes) -> Json:
        """A whole answer as an OpenAI completion; raises UpstreamError when it is none."""
        ...

    def open_stream(self, call: Call, target: Target) -> StreamParser:
        """A parser for one stream."""
        ...

    def parse_error(self, target: Target, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """What an answer that is not a success means."""
        ...

    def models_request(self, upstream: Upstream) -> UpstreamRequest:
        """Ask for the upstream's models."""
        ...

    def parse_models(self, body: bytes) -> Iterable[Json]:
        """OpenAI model objects from the answer; raises ValueError when it is not a list of models."""
        ...


class Exchange(Source, Protocol):
    """One request on the wire, and its answer; the body is read, or pushed at a sink."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def content_type(self) -> str: ...

    async def read(self, limit: int) -> bytes: ...

    async def read_up_to(self, limit: int) -> bytes: ...

    def start(self, sink: Sink) -> None: ...


class Endpoint(Protocol):
    """An upstream ready to be called."""

    @property
    def provider(self) -> Provider: ...

    def dress(self, request: UpstreamRequest, call: Call) -> UpstreamRequest:
        """The request with the headers and the key that belong to this upstream and this caller."""
        ...

    def redact(self, text: str) -> str:
        """A text of the upstream's without our key, should it quote it."""
        ...

    def open(self, request: UpstreamRequest) -> AbstractAsyncContextManager[Exchange]:
        """Entering it sends the request and waits for the answer's head."""
        ...


def with_header(request: UpstreamRequest, name: str, value: str) -> UpstreamRequest:
    """The request with one header more."""
    return replace(request, headers={**request.headers, name: value})


JSON_HEADERS: Mapping[str, str] = {"content-type": "application/json"}
