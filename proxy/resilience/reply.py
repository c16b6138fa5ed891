"""A stream of an upstream: held back until its first content, then pushed at the caller."""

import asyncio
from collections.abc import Callable, Sequence

from proxy.errors import Broken, TooSlow
from proxy.providers.relay import Relay
from proxy.providers.wire import Exchange
from proxy.reply import Out
from proxy.resilience.clock import Bounds, StreamClock
from proxy.resilience.express import MOST_GAPS, Express

_FLOOD = "the upstream sends much and no content"


class StreamReply:
    """The sink of an upstream's stream, and the `LiveStream` that a caller gets.

    Until `committed`, nothing has been sent and another target may be tried. `finished` ends with the stream;
    it raises what broke it.

    Args:
        most_before: bytes that the upstream may send before its first content.
        gaps: takes the seconds between contents.
        count_gaps: counts them and empties the list, when it has grown long.
    """

    def __init__(
        self,
        relay: Relay,
        sources: Sequence[Exchange],
        dropped: tuple[str, ...],
        bounds: Bounds,
        most_before: int,
        gaps: list[float],
        count_gaps: Callable[[list[float]], None],
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
        self._ends = False  # what is held back is all there is
        self._before = 0  # bytes of the upstream before first content
        self._limit = most_before
        self._out: Out | None = None
        self._express: Express | None = None
        self._gaps, self._count_gaps = gaps, count_gaps
        self._came = self._shown = (
            bounds.began
        )  # when bytes, and when content, last came the long way, in the loop's time
        self._pieces = 0  # of content, as far as they have been counted
        self._loop = loop
        self._clock = StreamClock(bounds, self._last_came, self._expire)

    def feed(self, data: bytes) -> None:
        """Take bytes of the upstream."""
        if self.finished.done():
            return
        out = self._relay.feed(data)
        self.absorb(len(data), out)
        if self._out is not None and not self.finished.done():
            self._shorten(self._out, data, out)

    def _shorten(self, to: Out, data: bytes, out: bytes) -> None:
        """Give the reads that come to the express, as long as they are like this one."""
        if self._express is not None and self._express.given_up:
            return
        source, pattern = self._sources[0], self._relay.pattern(data, out)
        framing = source.framing(data) if pattern is not None else None
        if pattern is not None and framing is not None and (write := to.write) is not None:
            if self._express is None:
                self._express = Express(source, write, self._gaps, self._count_gaps, self.facts)
            self._express.learn(pattern, framing, len(data), self.shown)
        elif self._express is not None:
            source.shorten(None)

    @property
    def usage_event(self) -> bytes:
        """The events that hold usage and nothing else."""
        return self._relay.usage_event

    @property
    def encoded(self) -> bool:
        """Whether the events are written by us."""
        return self._relay.encoded

    @property
    def shown(self) -> float:
        """When content last came, in the loop's time."""
        return self._shown if self._express is None else max(self._shown, self._express.last)

    def _last_came(self) -> float:
        return max(self._came, self.shown)

    def absorb(self, size: int, out: bytes) -> None:
        """Note that `size` bytes of the upstream came, and pass on what they gave."""
        if self.finished.done():
            return
        now, relay = self._loop.time(), self._relay
        self._came = now
        if not self.committed.done():
            self._before += size
            if self._before > self._limit and not self.facts.content:
                relay.failure = relay.failure or Broken(_FLOOD, code="upstream_bad_response")
        elif self.facts.pieces > self._pieces:
            self._gaps.append(now - self.shown)
            if len(self._gaps) >= MOST_GAPS:
                self._count_gaps(self._gaps)
        if self.facts.pieces > self._pieces:
            self._shown, self._pieces = now, self.facts.pieces
        if self.facts.finished and relay.failure is None:
            out += relay.finish()
            self._conclude(out)
        else:
            self._pass(out)
            if relay.failure is not None:
                self.fail(relay.failure)

    def end(self) -> None:
        """The body, or the stream in it, is at its end."""
        if self.finished.done():
            return
        self._conclude(self._relay.finish())

    def fail(self, error: Exception) -> None:
        """The stream is broken."""
        if not self.finished.done():
            self._finish(error)

    def bound(self, bounds: Bounds) -> None:
        """Other clocks count from now on."""
        self._clock.bounds = bounds

    def connect(self, out: Out) -> None:
        """Push what was held back, and from now on all that comes, at `out`."""
        held, self._held = b"".join(self._held), []
        self._out = out
        if self._ends:
            out.push_last(held)
        elif held:
            out.push(held)

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
        """Stop the clocks; nothing is taken any more. What refers to us is let go of: no garbage is left to collect."""
        self._clock.stop()
        self._sources, self._out, self._express = (), None, None
        for future in (self.committed, self.finished):
            if future.done():
                future.cancelled() or future.exception()  # looked at, whoever waited for it
            else:
                future.cancel()

    def _conclude(self, out: bytes) -> None:
        failure = self._relay.failure
        self._pass(out, ends=failure is None)
        if failure is not None:
            self.fail(failure)
        else:
            self._finish(None)

    def _pass(self, data: bytes, *, ends: bool = False) -> None:
        if self.facts.content and not self.committed.done():
            self._clock.content_began()
            self.committed.set_result(None)
        if self._out is None:
            self._held.append(data)
            self._ends = ends
        elif ends:
            self._out.push_last(data)
        elif data:
            self._out.push(data)

    def _finish(self, error: Exception | None) -> None:
        if self._express is not None and self._sources:
            self._sources[0].shorten(None)
        self._clock.stop()
        for future in (self.committed, self.finished):
            if future.done():
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

    def _expire(self, clock: str) -> None:
        self.fail(TooSlow(clock=clock))
