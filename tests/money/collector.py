"""A collector of traces: takes OTLP over HTTP, and behaves as badly as it is told to."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.conftest import Sidecar

KINDS = {Span.SPAN_KIND_SERVER: "server", Span.SPAN_KIND_CLIENT: "client"}
Behave = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Told:
    """A span as it arrived."""

    name: str
    kind: str
    trace: str
    id: str
    parent: str
    state: str
    attributes: dict[str, Any]
    failed: bool
    status: str
    began: int
    ended: int
    events: int


class Collector:
    """What has arrived; `behave` answers instead where it is set."""

    def __init__(self) -> None:
        self.url = ""
        self.spans: list[Told] = []
        self.requests: list[dict[str, str]] = []
        self.bodies = b""  # of all requests
        self.resource: dict[str, Any] = {}
        self.behave: Behave | None = None

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append({name.lower(): value for name, value in request.headers.items()})
        if self.behave is not None:
            return await self.behave(request)
        body = await request.read()
        self.take(gzip.decompress(body) if request.headers.get("content-encoding") == "gzip" else body)
        return web.Response(content_type="application/x-protobuf")

    def take(self, body: bytes) -> None:
        self.bodies += body
        for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resource = {pair.key: value_of(pair.value) for pair in of_resource.resource.attributes}
            for of_scope in of_resource.scope_spans:
                self.spans += map(told, of_scope.spans)

    @property
    def calls(self) -> list[Told]:
        """Spans of calls."""
        return [span for span in self.spans if span.kind == "server"]

    @property
    def attempts(self) -> list[Told]:
        """Spans of attempts, as they were made."""
        return sorted((span for span in self.spans if span.kind == "client"), key=lambda span: span.began)


def told(span: Span) -> Told:
    return Told(
        span.name,
        KINDS.get(span.kind, str(span.kind)),
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.trace_state,
        {pair.key: value_of(pair.value) for pair in span.attributes},
        span.status.code == 2,
        span.status.message,
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        len(span.events),
    )


def value_of(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [value_of(each) for each in value.array_value.values]
    return getattr(value, kind) if kind else None


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    """A collector that listens."""
    collector = Collector()
    server = web.Server(collector.handle)
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    collector.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1/traces"
    try:
        yield collector
    finally:
        await runner.cleanup()


async def flush(sidecar: Sidecar) -> None:
    """Have the sidecar send its spans now; they have arrived, or have not, when this returns."""
    traces: Any = sidecar.app._traces
    await asyncio.to_thread(traces._provider.force_flush, 8000)
