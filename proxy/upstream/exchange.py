"""One request to an upstream and its answer: a head, and a body that is read whole or pushed at a sink.

What a read brought of the body is handed on in one piece, within the callback that brought it: no task and no wake-up
stands between the upstream's bytes and the sink.
"""

import asyncio

from httptools import HttpParserError, HttpParserUpgrade

from proxy.call import Sink
from proxy.errors import Broken, CutShort, ProxyError, ProxyFault, TooSlow, Unreachable
from proxy.providers.wire import Shortcut
from proxy.upstream.answer import MAX_HEAD_BYTES, Answer
from proxy.upstream.line import Line

NEVER = float("inf")
WAITING_BYTES = 64 * 1024  # of a body that nobody has asked for yet


class Stale(Exception):
    """A kept-alive connection was closed under the request, before any byte of an answer."""


class Exchange(Answer):
    """One request and its answer; implements the seam's `Exchange`.

    Header names are in lower case. Whoever opened it closes it, at any moment; closing an answer that is not at its
    end closes its connection.
    """

    __slots__ = (
        "_body", "_clock", "_draining", "_failure", "_fed", "_limit", "_line", "_loop", "_paused", "_read",
        "_reader", "_reused", "_silent", "_sink", "_size", "_until", "connect_seconds", "headed",
    )  # fmt: skip

    def __init__(self, line: Line, loop: asyncio.AbstractEventLoop, *, reused: bool) -> None:
        super().__init__()
        self._loop = loop
        self._line: Line | None = line
        self._reused = reused
        self.connect_seconds = 0.0
        self.headed: asyncio.Future[None] = loop.create_future()
        """Done when the head of the answer has come; raises Stale, Unreachable, Broken, TooSlow."""
        self._fed = False  # any byte of an answer has come
        self._body: list[bytes] = []  # what of the body waits here to be asked for, a piece for each read
        self._size = 0  # of the body, in bytes, while it is held or passes by unwanted
        self._silent = 0  # bytes that came since there was last any body in them
        self._read = b""  # what brought the body that is just being pushed
        self._reader: asyncio.Future[None] | None = None
        self._sink: Sink | None = None
        self._failure: ProxyError | None = None
        self._limit = WAITING_BYTES  # how much of the body may wait here
        self._draining = self._paused = False
        self._clock, self._until = "", NEVER

    # What the connection tells us.

    def receive(self, data: bytes) -> None:
        """Bytes of the answer have come."""
        self._fed = True
        try:
            if self._parser is not None:
                self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self._excess = True
            if not self._complete:
                self._break(error)
                return
        parts = self._parts
        if parts:
            body = parts[0] if len(parts) == 1 else b"".join(parts)
            parts.clear()
            self._silent = 0
            if self._sink is None:
                self._hold(body)
            else:
                self._read = data
                try:
                    self._sink.feed(body)
                except Exception as error:  # noqa: BLE001  # our own bug must end the stream, not leave it standing
                    self._fail(ProxyFault("the sidecar failed on this stream"), error)
                self._read = b""
        else:
            self._silent += len(data)
            if self._silent > MAX_HEAD_BYTES and not self._complete:
                self._break(None)
                return
        if self._complete:
            self._end()
        elif self.status and not self.headed.done():
            self.headed.set_result(None)

    def _break(self, error: Exception | None) -> None:
        self._fail(Broken("the upstream's answer is not HTTP", code="upstream_bad_response"), error)

    def lost(self, error: Exception | None, *, clean: bool) -> None:
        """The connection is gone; `clean` when the upstream said that it sends no more."""
        self._line = None
        if clean and self.status and self._until_close:
            self._complete = True
            self._end()
        elif self.status:
            self._fail(CutShort("the upstream's answer broke off"), error)
        elif self._reused and not self._fed:
            if not self.headed.done():
                self.headed.set_exception(Stale())
        else:
            text = "the connection to the upstream broke before an answer"
            self._fail(Unreachable(text, code="upstream_disconnected"), error)

    def expire(self, now: float) -> float:
        """Fail if the clock has run out by now; the time until which it runs."""
        if now < self._until:
            return self._until
        self._fail(TooSlow(clock=self._clock))
        return NEVER

    # What the attempt asks for.

    def bound(self, until: float, clock: str) -> None:
        """Fail with TooSlow at this time of the loop's, unless the body is at its end by then, or pushed."""
        self._clock, self._until = clock, until
        if self._line is not None:
            self._line.watch(until)

    async def read(self, limit: int) -> bytes:
        """The whole body.

        Raises:
            CutShort: it broke off.
            Broken: it is longer than `limit` bytes.
            TooSlow: the clock of `bound` ran out.
        """
        body = await self.read_up_to(limit)
        if not self._complete or self._size > limit:
            raise Broken(f"the upstream's answer is larger than {limit} bytes", code="upstream_bad_response")
        return body

    async def read_up_to(self, limit: int) -> bytes:
        """The body's beginning: at least `limit` bytes if it has as many. Raises as `read`."""
        if not self._complete and self._failure is None and self._size <= limit:
            self._limit = limit
            self._reader = self._loop.create_future()
            self.resume()
            await self._reader
        if self._failure is not None:
            raise self._failure
        body, self._body = self._body, []
        return body[0] if len(body) == 1 else b"".join(body)

    def start(self, sink: Sink) -> None:
        """Push the body at `sink`, to its end or failure; what has come of it already comes at once."""
        self._until = NEVER
        self._sink = sink
        if self._body:
            body, self._body = self._body, []
            sink.feed(b"".join(body))
        if self._failure is not None:
            sink.fail(self._failure)
        elif self._complete:
            sink.end()
        elif self._line is not None:
            self.resume()

    def framing(self, body: bytes) -> bytes | None:
        """How the size of the chunk is written that brought what is being pushed; None when it is not just one."""
        for size in (b"%x\r\n", b"%X\r\n"):
            line = size % len(body)
            if self._read.startswith(line) and len(self._read) == len(line) + len(body) + 2:
                return size
        return None

    def shorten(self, shortcut: Shortcut | None) -> None:
        """Have the connection bring what comes to `shortcut` first; None ends that."""
        if self._line is not None:
            self._line.shorten(shortcut)

    def pause(self) -> None:
        """Push nothing until `resume`; what the upstream sends then waits in the network."""
        if self._line is not None and not self._paused:
            self._paused = True
            self._line.pause()

    def resume(self) -> None:
        if self._line is not None and self._paused:
            self._paused = False
            self._line.resume()

    def close(self, *, drain: bool = False) -> None:
        """Free the connection. Nothing is awaited here: a cancelled clean-up would clean nothing.

        Args:
            drain: the answer was good, and its end must be near: the connection may be worth the wait.
        """
        self._until = NEVER
        self._sink = None
        if not self.headed.done():
            self.headed.cancel()
        elif not self.headed.cancelled():
            self.headed.exception()  # looked at, whoever waited for it
        if drain and self._line is not None and self._failure is None and self._reusable:
            self._draining, self._size, self._limit = True, 0, WAITING_BYTES
            self.resume()
            self._line.drain()
        else:
            self._let_go(reusable=False)

    # What follows.

    def _hold(self, body: bytes) -> None:
        """Something of the body has come, and there is nobody to hand it on to."""
        self._size += len(body)
        if not self._draining:
            self._body.append(body)
        if self._size > self._limit and self._draining:
            self._let_go(reusable=False)
        elif self._size > self._limit:
            self._wake()
            self.pause()

    def _end(self) -> None:
        """The answer is at its end."""
        if self._failure is not None:
            return
        self._let_go(reusable=self._reusable)
        if not self.headed.done():
            self.headed.set_result(None)
        self._wake()
        if self._sink is not None:
            try:
                self._sink.end()
            except Exception as error:  # noqa: BLE001  # as in `receive`
                self._fail(ProxyFault("the sidecar failed on this stream"), error)

    def _fail(self, failure: ProxyError, cause: Exception | None = None) -> None:
        """There is no more to come; the first failure counts."""
        if self._failure is not None:
            return
        failure.__cause__ = cause
        self._failure = failure
        self._let_go(reusable=False)
        if not self.headed.done():
            self.headed.set_exception(failure)
        self._wake()
        if self._sink is not None:
            self._sink.fail(failure)

    def _let_go(self, *, reusable: bool) -> None:
        line, self._line = self._line, None
        self._parser = None  # it refers to us
        if line is not None:
            line.release(reusable=reusable)

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
