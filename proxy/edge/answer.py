"""The answer to one call: a whole one, or a stream that bytes are pushed into."""

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Protocol, cast

from aiohttp import web

from proxy.config import Server
from proxy.edge.body import Buffered, Share, read_body
from proxy.edge.render import JSON_TYPE, call_lines, error_response
from proxy.edge.stream import CallerStream
from proxy.edge.written import Connection, Listener, Response, Written
from proxy.errors import ProxyError
from proxy.reply import Reply, Stream, WholeReply
from proxy.telemetry import CallRecord, Telemetry

_JSON = f"content-type: {JSON_TYPE}\r\n"


class Finish(Listener, Protocol):
    """What every response of the listener has."""

    def lines(self, request: web.BaseRequest) -> str:
        """Its headers, as they are written."""
        ...

    def finish(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        """The same for a response of aiohttp's."""
        ...


class CallAnswer:
    """Implements the pipeline's `Answer` on an aiohttp request; `response` is what the handler returns in the end."""

    def __init__(
        self, request: web.BaseRequest, server: Server, telemetry: Telemetry, listener: Finish, buffered: Buffered
    ) -> None:
        self.response: Response | None = None
        self._request = request
        self._server = server
        self._telemetry = telemetry
        self._listener = listener
        self._share = Share(buffered, server.max_buffered_bytes)
        self._stream: CallerStream | None = None
        self._connection = cast(Connection, request.protocol)
        self._gone = False  # the caller is, and the call goes on

    def share(self, leave: Callable[[], bool] | None) -> None:
        """Ask `leave` when the caller goes: True, and this call goes on for others."""
        self._connection.when_lost = None if leave is None else partial(self._left, leave)

    def _left(self, leave: Callable[[], bool]) -> bool:
        self._gone = leave()
        return self._gone

    def dismiss(self, error: ProxyError, record: CallRecord) -> None:
        """Tell the caller at once that it gets nothing more, and close the connection."""
        self._gone = True
        if self._stream is not None and self._stream.is_open:
            record.status = 200
            self._stream.break_off(error)
        else:
            record.status = error.status
            written, response = self._written(), error_response(error, record)
            self._listener.finish(self._request, response)
            written.send(written.failure(response))
        if self._connection.transport is not None:
            self._connection.transport.close()

    def body(self) -> Coroutine[Any, Any, bytes]:
        return read_body(self._request, self._server, self._share)

    def expect(self, record: CallRecord) -> None:
        if record.stream:
            self._stream = CallerStream(
                self._written(),
                self._listener.lines(self._request),
                self._server.keep_alive_seconds,
                record.request_id,
            )

    def _written(self) -> Written:
        return Written(self._request, self._listener, self._server.send_timeout_seconds)

    async def deliver(self, reply: Reply, record: CallRecord) -> None:
        if self._gone:
            self.response = self._written()
            return
        record.status = 200
        if not isinstance(reply, WholeReply):
            await self._deliver_stream(reply, record)
            return
        written, lines = self._written(), self._listener.lines(self._request)
        self.response = written
        if written.send(written.head(f"{_JSON}{lines}{call_lines(record, reply)}", len(reply.body)) + reply.body):
            await written.drained()

    async def _deliver_stream(self, reply: Stream, record: CallRecord) -> None:
        stream = self._stream
        if stream is None:
            raise RuntimeError("a stream was not expected")
        self._telemetry.watched.open_streams += 1
        try:
            stream.open(call_lines(record, reply), record)
            stream.follow(reply)
            await reply.finished
            stream.end()
            self.response = stream.written
            await stream.written.drained()
        finally:
            self._telemetry.watched.open_streams -= 1

    async def fail(self, error: ProxyError, record: CallRecord) -> None:
        if self._gone:
            self.response = self._written()
            return
        stream = self._stream
        if stream is not None and stream.is_open:
            record.status = 200
            stream.break_off(error)
            self.response = stream.written
            return
        if isinstance(self.response, Written):  # a whole answer has gone out: nothing may follow it
            self.response.keep_alive = False
            return
        record.status = error.status
        self.response = error_response(error, record)
        self._listener.finish(self._request, self.response)

    def close(self) -> None:
        """Nothing is sent, or held, any more."""
        self._connection.when_lost = None
        self._share.give_back()
        if self._stream is not None:
            self._stream.close()
