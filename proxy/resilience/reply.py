"""What a successful attempt gives: a whole answer, or a stream that has shown its first content."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from proxy.call import Facts
from proxy.config import Upstream
from proxy.errors import Broken, TooSlow
from proxy.providers.relay import Relay
from proxy.providers.seam import Exchange
from proxy.resilience.clock import StreamClock

_CLOCK_TEXTS = {
    "first_token": "no content from the upstream in time",
    "idle": "the upstream's stream stands still",
    "total": "the upstream's answer took too long",
}


def ran_out(clock: str) -> TooSlow:
    """The failure of a clock."""
    return TooSlow(_CLOCK_TEXTS[clock], clock=clock)


@dataclass(frozen=True, slots=True)
class WholeReply:
    """A completion, ready to be sent."""

    headers: Mapping[str, str]  # the upstream's
    dropped: tuple[str, ...]
    body: bytes = field(repr=False)
    facts: Facts


class StreamReply:
    """The sink of an upstream's stream: holds frames back until first content, then pushes them at the caller.

    Until `committed`, nothing has been sent and another target may be tried. `finished` ends with the stream;
    it raises what broke it.
    """

    def __init__(
        self, relay: Relay, sources: Sequence[Exchange], dropped: tuple[str, ...], upstream: Upstream, started: float
    ) -> None:
        loop = asyncio.get_running_loop()
        self.dropped = dropped
        self.headers = sources[0].headers
        self.facts = relay.facts
        self.committed: asyncio.Future[None] = loop.create_future()
        self.finished: asyncio.Future[None] = loop.create_future()
        self._relay = relay
        self._sources = sources
        self._held: list[bytes] = []
        self._before = 0  # bytes of the upstream before first content
        self._limit = upstream.max_frame_bytes
        self._out: Callable[[bytes], None] | None = None
        self._clock = StreamClock(upstream.timeouts, started, self._expire)

    def feed(self, data: bytes) -> None:
        """Take bytes of the upstream."""
        if not self.finished.done():
            self.absorb(len(data), self._relay.feed(data))

    def absorb(self, size: int, out: bytes) -> None:
        """Note that `size` bytes of the upstream came, and pass on what they gave."""
        if self.finished.done():
            return
        self._clock.touch()
        if not self.facts.content:
            self._before += size
        self._pass(out)
        if self._relay.failure is not None:
            self.fail(self._relay.failure)
        elif self.facts.finished:
            self.end()
        elif self._before > self._limit and not self.facts.content:
            self.fail(Broken("the upstream sends much and no content", code="upstream_bad_response"))

    def end(self) -> None:
        """The body, or the stream in it, is at its end."""
        if self.finished.done():
            return
        self._pass(self._relay.finish())
        if self._relay.failure is not None:
            self.fail(self._relay.failure)
            return
        self._finish(None)

    def fail(self, error: Exception) -> None:
        """The stream is broken."""
        if not self.finished.done():
            self._finish(error)

    def connect(self, out: Callable[[bytes], None]) -> None:
        """Push what was held back, and from now on all that comes, at `out`."""
        held, self._held = b"".join(self._held), []
        self._out = out
        if held:
            out(held)

    def pause(self) -> None:
        """The caller reads too slowly: the upstream is to wait."""
        self._clock.pause()
        for source in self._sources:
            source.pause()

    def resume(self) -> None:
        self._clock.resume()
        for source in self._sources:
            source.resume()

    def close(self) -> None:
        """Stop the clocks; nothing is taken any more."""
        self._clock.stop()
        for future in (self.committed, self.finished):
            if future.done():
                future.cancelled() or future.exception()  # looked at, whoever waited for it
            else:
                future.cancel()

    def _pass(self, data: bytes) -> None:
        if self.facts.content and not self.committed.done():
            self._clock.content_began()
            self.committed.set_result(None)
        if not data:
            return
        if self._out is not None:
            self._out(data)
        else:
            self._held.append(data)

    def _finish(self, error: Exception | None) -> None:
        self._clock.stop()
        for future in (self.committed, self.finished):
            if future.done():
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

    def _expire(self, clock: str) -> None:
        self.fail(ran_out(clock))


Reply = WholeReply | StreamReply


def upstream_request_id(headers: Mapping[str, str]) -> str:
    """The upstream's own id of the call; empty when it has none, or none that is fit for headers and logs."""
    given = next((headers[name] for name in ("x-request-id", "request-id") if name in headers), "")
    return given if given.isascii() and given.isprintable() and len(given) <= 200 else ""
