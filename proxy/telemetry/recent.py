"""The last calls, as they were told: for who asks why one of them went where it went."""

from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from proxy.telemetry.record import CallRecord, Try

REMEMBERED = 1000
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Told(NamedTuple):
    """One call. What is kept is its access line, and not its record: that is freed while it is at hand."""

    line: bytes
    generation: int
    choice: object  # what routing chose, of its room
    tries: tuple[Try, ...]
    cache_key: bytes
    dropped: tuple[str, ...]

    def fields(self) -> dict[str, Any]:
        """The access line's."""
        return _decode(self.line)


class Recent:
    """A bounded number of them, without content."""

    def __init__(self) -> None:
        self._calls: deque[Told] = deque(maxlen=REMEMBERED)

    def add(self, line: bytes, record: CallRecord) -> None:
        """Remember one more."""
        self._calls.append(Told(line, record.generation, record.choice, record.tries, record.cache_key, record.dropped))

    def latest(self) -> Iterator[Told]:
        """The last one first."""
        return reversed(list(self._calls))
