"""The answer to one call: a whole one, or a stream that bytes are pushed into."""

import asyncio
from collections.abc import Callable

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from proxy.call import Call
from proxy.config import Server
from proxy.edge.body import read_body
from proxy.edge.render import JSON_TYPE, call_headers, error_event, error_response
from proxy.errors import ProxyError
from proxy.openai_format.encoding import KEEP_ALIVE
from proxy.resilience.reply import Reply, StreamReply
from proxy.telemetry import CallRecord, Telemetry

# Source: reference/upstreams.md §12.2; x-accel-buffering as nginx documents it.
STREAM_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
}


class CallAnswer:
    """Implements the pipeline's `Answer` on an aiohttp request.

    `response` is what the handler returns in the end. A stream's bytes are written to the connection as they are
    pushed, without a wake-up in between; only a connection that is full makes the upstream wait.
    """

    def __init__(
        self,
        request: web.BaseRequest,
        server: Server,
        telemetry: Telemetry,
        finish: Callable[[web.StreamResponse], None],
    ) -> None:
        self.response: web.StreamResponse | None = None
        self._request = request
        self._server = server
        self._telemetry = telemetry
        self._finish = finish  # sets what every response has: closing, CORS
        self._stream: CallerStream | None = None

    async def body(self) -> bytes:
        return await read_body(self._request, self._server)

    def expect(self, call: Call, record: CallRecord) -> None:
        if call.stream:
            self._stream = CallerStream(self._request, self._server.keep_alive_seconds, record.request_id, self._finish)

    async def deliver(self, reply: Reply, record: CallRecord) -> None:
        record.status = 200
        if isinstance(reply, StreamReply):
            await self._deliver_stream(reply, record)
            return
        self.response = web.Response(
            body=reply.body, status=200, headers=call_headers(record, reply), content_type=JSON_TYPE
        )
        self._finish(self.response)

    async def _deliver_stream(self, reply: StreamReply, record: CallRecord) -> None:
        stream = self._stream
        if stream is None:
            raise RuntimeError("a stream was not expected")
        self._telemetry.open_streams.inc()
        try:
            await stream.open(call_headers(record, reply))
            stream.follow(reply)
            await reply.finished
            await stream.end()
            self.response = stream.response
        finally:
            self._telemetry.open_streams.dec()

    async def fail(self, error: ProxyError, record: CallRecord) -> None:
        stream = self._stream
        if stream is not None and await stream.is_open():
            record.status = 200
            await stream.break_off(error)
            self.response = stream.response
            return
        record.status = error.status
        self.response = error_response(error, record)
        self._finish(self.response)

    def close(self) -> None:
        """Nothing is sent any more."""
        if self._stream is not None:
            self._stream.close()


class CallerStream:
    """A stream of events towards the caller.

    Opened by the first content, or, when that lets wait, by the first keep-alive comment.
    """

    def __init__(
        self,
        request: web.BaseRequest,
        keep_alive_seconds: float,
        request_id: str,
        finish: Callable[[web.StreamResponse], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._request = request
        self._request_id = request_id
        self._finish = finish
        self._writer: AbstractStreamWriter | None = None
        self._chunked = False
        self._source: StreamReply | None = None
        self._waiting: asyncio.Task[None] | None = None  # opens early, or waits for a slow reader
        self._silence = keep_alive_seconds
        self._last = self._loop.time()
        self._timer = self._loop.call_at(self._last + keep_alive_seconds, self._look) if keep_alive_seconds else None
        self.response: web.StreamResponse | None = None

    async def open(self, headers: dict[str, str]) -> None:
        """Send the head; when it has gone out already, tell the headers' gist in a comment."""
        if await self.is_open():
            gist = f": octet upstream={headers['x-octet-upstream']} attempts={headers['x-octet-attempts']}\n\n"
            self.write(gist.encode())
        else:
            await self._open(headers)

    async def is_open(self) -> bool:
        """Whether the head has gone out; waits for it when it is just going."""
        if self._waiting is not None and self._writer is None:
            await self._waiting
        return self._writer is not None

    async def _open(self, headers: dict[str, str]) -> None:
        self.response = web.StreamResponse(headers={**headers, **STREAM_HEADERS})
        self._finish(self.response)
        self._writer = await self.response.prepare(self._request)
        self._chunked = self.response.headers.get("transfer-encoding") == "chunked"
        if not self._chunked:  # HTTP/1.0: only the close tells the end
            self.response.force_close()

    def follow(self, source: StreamReply) -> None:
        """Have the source push at us."""
        self._source = source
        source.connect(self.write)

    def write(self, data: bytes) -> None:
        """Hand bytes to the connection; they are whole events."""
        transport = self._request.transport
        if transport is None or transport.is_closing():
            return
        self._last = self._loop.time()
        transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)
        if self._request.protocol.writing_paused and self._source is not None and self._waiting is None:
            self._source.pause()
            self._waiting = self._loop.create_task(self._resume_when_drained(self._source))

    async def _resume_when_drained(self, source: StreamReply) -> None:
        try:
            if self._writer is not None:
                await self._writer.drain()
        except ConnectionError:  # the caller has gone: the call is being cancelled
            return
        finally:
            self._waiting = None
        source.resume()

    async def end(self) -> None:
        """The body ends properly."""
        self.close()
        if self.response is not None:
            await self.response.write_eof()

    async def break_off(self, error: ProxyError) -> None:
        """The error is the last event; there is no [DONE], and the connection is not used again."""
        self.write(error_event(error, self._request_id))
        if self.response is not None:
            self.response.force_close()
        await self.end()

    def close(self) -> None:
        """Stop waiting and watching."""
        if self._timer is not None:
            self._timer.cancel()
        if self._waiting is not None:
            self._waiting.cancel()

    def _look(self) -> None:
        """After a silence: a comment, so that nobody on the way takes the connection for dead."""
        quiet = self._loop.time() - self._last
        if quiet >= self._silence and self._waiting is None:
            if self._writer is None:
                self._waiting = self._loop.create_task(self._open_early())
            else:
                self.write(KEEP_ALIVE)
            quiet = 0.0
        self._timer = self._loop.call_later(max(self._silence - quiet, 0.001), self._look)

    async def _open_early(self) -> None:
        try:
            await self._open({"x-request-id": self._request_id})
        except ConnectionError:  # the caller has gone: the call is being cancelled
            return
        finally:
            self._waiting = None
        self.write(KEEP_ALIVE)
