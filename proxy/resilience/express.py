"""The short way of a stream: reads that are alike go from the upstream's connection to the caller's in one step."""

import asyncio
from collections.abc import Callable

from proxy.call import Facts
from proxy.providers.pattern import Pattern, is_plain
from proxy.providers.wire import Behind, Exchange

MOST_GAPS = 256
_TRIES = 4
_MOST_LENGTHS = 32


class Express(asyncio.Protocol):
    """Stands before an upstream's connection while each read is one chunk of a known pattern; a `Shortcut`.

    Such a read is neither parsed nor framed again, and what is noted of it is when it came. Any other goes the
    long way. Between chunks that are far apart nothing is in the processor's caches any more: what is touched is what
    a chunk costs.

    Args:
        write: takes chunks for the caller.
        gaps: takes the seconds between contents.
        count_gaps: counts them and empties the list, when it has grown long.
        facts: of the answer; its text is measured here, too.
    """

    __slots__ = (
        "_after", "_before", "_between", "_count_gaps", "_exchange", "_facts", "_first", "_gaps", "_lacks_last",
        "_last_only", "_leads", "_learnt", "_loop", "_size", "_start", "_stop", "_tail", "_tries", "_write", "behind",
        "last",
    )  # fmt: skip

    def __init__(
        self,
        exchange: Exchange,
        write: Callable[[bytes], object],
        gaps: list[float],
        count_gaps: Callable[[list[float]], None],
        facts: Facts,
    ) -> None:
        self._exchange, self._write, self._facts = exchange, write, facts
        self.behind: Behind  # set by the connection
        self._gaps, self._count_gaps = gaps, count_gaps
        self._loop = asyncio.get_running_loop()
        self._tries = _TRIES
        self._learnt = self.last = 0.0  # when content last came, in the loop's time

    def learn(self, pattern: Pattern, framing: bytes, size: int, now: float) -> None:
        """Take reads of this pattern from now on, unless learning has not been worth it.

        Args:
            framing: the format of a chunk's size line.
            size: of the frame that the pattern was seen in.
        """
        worthwhile = self.last is not self._learnt  # times of two reads may be equal
        self._tries = _TRIES if worthwhile else self._tries - 1
        self._learnt = self.last = now
        if self.given_up:
            self._exchange.shorten(None)
            return
        self._size = framing
        self._first, *self._between, tail = pattern.fixed
        self._tail = tail + b"\r\n"
        self._start, self._stop = len(framing % size) + len(self._first), -len(self._tail)
        self._before, self._after, self._last_only = pattern.before, pattern.after, pattern.last_only
        self._lacks_last = pattern.lacks_last
        self._leads: dict[int, bytes] = {}  # how a read of this length begins
        self._exchange.shorten(self)

    @property
    def given_up(self) -> bool:
        """Whether no read has been like the one before it, several times."""
        return self._tries <= 0

    def data_received(self, data: bytes) -> None:
        lead = self._leads.get(len(data)) or self._lead(len(data))
        if data.startswith(lead) and data.endswith(self._tail):
            text = middle = data[self._start : self._stop]
            for fixed in self._between:
                before, found, text = text.partition(fixed)
                if not found or not before or not is_plain(before):
                    break
            else:
                if (text or self._lacks_last) and is_plain(text):  # no text is no content
                    now, gaps = self._loop.time(), self._gaps
                    gaps.append(now - self.last)
                    self.last = now
                    self._facts.text_bytes += len(before if self._lacks_last else text)
                    if len(gaps) >= MOST_GAPS:
                        self._count_gaps(gaps)
                    if self._before is not None:
                        data = self._before + (text if self._last_only else middle) + self._after
                        data = b"%x\r\n%b\r\n" % (len(data), data)
                    try:
                        self._write(data)
                    except RuntimeError:
                        return  # the caller has gone, and the call is being cancelled
                    return
        self.behind.data_received(data)

    def _lead(self, size: int) -> bytes:
        """How a read of this length begins; nothing begins like what comes back where none can be of the pattern."""
        lead = self._size % (size - (self._start - len(self._first)) - 2) + self._first
        if len(lead) != self._start or size < self._start - self._stop:
            lead = b"\0"
        if len(self._leads) >= _MOST_LENGTHS:
            self._leads.clear()
        self._leads[size] = lead
        return lead

    def eof_received(self) -> bool:
        return self.behind.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self.behind.connection_lost(exc)
