"""aiohttp's server, with our errors in place of its own, and a bound on connections."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import HttpVersion11, http_parser, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler, _ErrInfo
from prometheus_client import Gauge
from yarl import URL

from proxy.edge.body import CHUNKED, listed
from proxy.edge.render import error_response, request_id
from proxy.edge.written import Connection, Response
from proxy.errors import InvalidRequest, ProxyError, ProxyFault
from proxy.telemetry import CallRecord, Telemetry

logger = logging.getLogger("octet")

# Most smuggling faults of aiohttp's past were in its pure Python parser, which is its silent fall-back.
C_PARSER = http_parser.HttpRequestParser is not http_parser.HttpRequestParserPy

Handler = Callable[[web.BaseRequest], Awaitable[Response]]
KEEP_ALIVE_SECONDS = 75.0  # idle connections of callers
_NOWHERE = URL("/")


class HttpServer(web.Server):
    """Serves a handler; what goes wrong before or outside it is answered in OpenAI's shape too.

    Args:
        max_connections: those above it are answered 503 and closed.
        gauge: shows how many there are.
    """

    def __init__(
        self, handler: Handler, telemetry: Telemetry, max_connections: int, gauge: Gauge | None = None
    ) -> None:
        super().__init__(
            handler,  # type: ignore[arg-type]  # see Written
            request_factory=_request,  # type: ignore[arg-type]  # every connection is one of ours
            handler_cancellation=True,
        )
        self.telemetry = telemetry
        self.max_connections = max_connections
        self._gauge = gauge

    async def refuse(self, request: web.BaseRequest) -> web.StreamResponse:  # noqa: ARG002
        """The handler of connections above the limit."""
        self.telemetry.refused("too_many_connections")
        error = ProxyFault("too many connections (server.max_connections)", code="overloaded", status=503)
        error.headers["retry-after"] = "1"
        return _last_response(error)

    def counted(self, change: int) -> None:
        """A connection has come (1) or gone (-1)."""
        if self._gauge is not None:
            self._gauge.inc(change)

    def __call__(self) -> RequestHandler:
        return _Connection(
            self,
            loop=asyncio.get_running_loop(),
            access_log=None,
            keepalive_timeout=KEEP_ALIVE_SECONDS,
            logger=logger,
        )


def _request(
    message: http_parser.RawRequestMessage,
    payload: StreamReader,
    protocol: Connection,
    writer: AbstractStreamWriter,
    task: "asyncio.Task[None]",
) -> web.BaseRequest:
    """A request of what the parser has read; aiohttp lets the whole connection fail where this does."""
    if message.chunked and (message.version < HttpVersion11 or listed(message.headers, "transfer-encoding") != CHUNKED):
        message = message._replace(should_close=True)  # RFC 9112 §6.1: others may have framed it otherwise
    protocol.body = payload
    loop = asyncio.get_running_loop()
    try:
        return web.BaseRequest(message, payload, protocol, writer, task, loop)
    except ValueError:  # its address names a host that is none
        return web.BaseRequest(message._replace(url=_NOWHERE), payload, protocol, writer, task, loop)


class _Connection(Connection):
    """One connection of a caller."""

    __slots__ = ("_server",)

    def __init__(self, server: HttpServer, **settings: Any) -> None:
        super().__init__(server, **settings)
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._server.counted(1)
        if len(self._server.connections) > self._server.max_connections:
            self._request_handler = self._server.refuse

    def connection_lost(self, exc: BaseException | None) -> None:
        self._server.counted(-1)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._messages and isinstance(self._messages[-1][0], _ErrInfo):
            self._break_off()

    def _break_off(self) -> None:
        """What cannot be read stands in the middle of a body: whoever waits for the rest must know."""
        body = self._messages[-2][1] if len(self._messages) > 1 else self.body
        if body is not None and not body.is_eof():
            body.set_exception(web.RequestPayloadError("the body cannot be read"))

    def log_exception(self, *told: Any, **more: Any) -> None:
        """What aiohttp has to say of itself; not of what is left of a body that was broken, and has been answered."""
        if not isinstance(more.get("exc_info"), web.RequestPayloadError | HttpProcessingError):
            super().log_exception(*told, **more)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002  # quotes what the caller sent
    ) -> web.StreamResponse:
        """What aiohttp's parser refuses, or a handler lets through; nothing of the input is quoted or logged."""
        if request.writer.output_size > 0:
            raise ConnectionError("part of another answer has been sent")
        error: ProxyError
        if status == 400:
            error = InvalidRequest("this is not an HTTP request that can be read: check its first line and headers")
            self._server.telemetry.refused("malformed")
        else:
            error = ProxyFault("the sidecar failed on this call")
            logger.error("a request failed: %s", type(exc).__name__, exc_info=exc)
        return _last_response(error)


def _last_response(error: ProxyError) -> web.Response:
    """An error after which the connection is closed."""
    response = error_response(error, CallRecord(request_id({}), time.perf_counter()))
    response.headers["server"] = "octet"
    response.force_close()
    return response
