"""A stream of events towards the caller: bytes are written as they are pushed, with no wake-up in between."""

import asyncio
from collections.abc import Callable

from proxy.edge.render import error_event
from proxy.edge.written import LAST_CHUNK, Written
from proxy.errors import ProxyError
from proxy.openai_format.encoding import KEEP_ALIVE
from proxy.reply import Stream
from proxy.telemetry import CallRecord

# Source: reference/upstreams.md §12.2; x-accel-buffering as nginx documents it.
STREAM_LINES = "content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\nx-accel-buffering: no\r\n"


class CallerStream:
    """Opened by the first content, or, when that lets wait, by the first keep-alive comment.

    Its head leaves with the first events. Only a connection that is full makes the upstream wait, and only a caller
    who then takes nothing for long is let go.

    Args:
        common: headers that every response of the listener has, as they are written.
    """

    def __init__(self, written: Written, common: str, keep_alive_seconds: float, request_id: str) -> None:
        self._loop = asyncio.get_running_loop()
        self.written = written
        self._connection = written.connection
        self._common = common
        self._request_id = request_id
        self._head = b""  # not sent yet
        self._ended = False
        self._source: Stream | None = None
        self._waiting: asyncio.Task[None] | None = None  # for a slow reader
        self._silence = keep_alive_seconds
        self._last = self._loop.time()
        self._timer = self._loop.call_at(self._last + keep_alive_seconds, self._look) if keep_alive_seconds else None
        self.is_open = self._chunked = False

    def open(self, lines: str, record: CallRecord) -> None:
        """Begin, with these headers; when the head has gone out already, tell their gist in a comment."""
        if self.is_open:
            self.push(f": octet upstream={record.upstream} attempts={record.attempts}\n\n".encode())
        else:
            self._begin(lines)

    def _begin(self, lines: str) -> None:
        self._head = self.written.head(f"{STREAM_LINES}{self._common}{lines}", None)
        self._chunked = self.written.chunked
        self.is_open = True

    def follow(self, source: Stream) -> None:
        """Have the source push at us; the head goes out even when there is nothing to show yet."""
        self._source = source
        self._connection.when_full = self._wait
        if self._connection.full:
            self._wait()
        source.connect(self)
        if self._head:
            self._send(b"")

    def push(self, data: bytes) -> None:
        """Hand whole events to the connection."""
        transport = self._connection.transport
        if self._ended or transport is None or transport.is_closing():
            return
        self._last = self._loop.time()
        if self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        if self._head:
            data, self._head = self._head + data, b""
        transport.write(data)

    @property
    def write(self) -> Callable[[bytes], object] | None:
        """Takes bytes that are framed as HTTP's chunks; None where they are not to be, or the caller has gone."""
        transport = self._connection.transport
        return transport.write if self._chunked and transport is not None else None

    def push_last(self, data: bytes) -> None:
        """The last events, if any, and the end of the body."""
        if self._ended:
            return
        self._ended = True
        if self._chunked:
            data = (b"%x\r\n%b\r\n" % (len(data), data) if data else b"") + LAST_CHUNK
        self._send(data)

    def _send(self, data: bytes) -> None:
        head, self._head = self._head, b""
        self.written.send(head + data)

    def _wait(self) -> None:
        """The connection is full: the upstream waits until the caller has read."""
        if self._source is not None and self._waiting is None:
            self._source.pause()
            self._waiting = self._loop.create_task(self._resume_when_drained(self._source))

    async def _resume_when_drained(self, source: Stream) -> None:
        try:
            await self.written.drained()
        except ConnectionError:  # the caller has gone: the call is being cancelled
            return
        finally:
            self._waiting = None
        source.resume()

    def end(self) -> None:
        """The body ends properly."""
        self.push_last(b"")
        self.close()

    def break_off(self, error: ProxyError) -> None:
        """The error is the last event; there is no [DONE], and the connection is given up."""
        self.push_last(error_event(error, self._request_id))
        if self.written.keep_alive:
            self.written.connection.retire()
        self.close()

    def close(self) -> None:
        """Stop waiting and watching."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._source = self._connection.when_full = None
        if self._waiting is not None:
            self._waiting.cancel()

    def _look(self) -> None:
        """After a silence: a comment, so that nobody on the way takes the connection for dead."""
        last = max(self._last, self._source.shown) if self._source is not None else self._last
        quiet = self._loop.time() - last
        if quiet >= self._silence and self._waiting is None:
            if not self.is_open:
                self._begin(f"x-request-id: {self._request_id}\r\n")
            self.push(KEEP_ALIVE)
            quiet = 0.0
        self._timer = self._loop.call_later(max(self._silence - quiet, 0.001), self._look)
