"""The access log: one JSON line per call, written a batch at a time behind the calls' backs."""

import os
import select
import sys
import threading
from collections import deque
from datetime import UTC, datetime

import msgspec

from proxy.telemetry.ledger import Used
from proxy.telemetry.record import CallRecord

_encode = msgspec.json.Encoder().encode


class _Line(msgspec.Struct):
    """The fields of a line, in their order."""

    time: datetime
    request_id: str
    caller: str | None
    route: str | None
    upstream: str | None
    model_asked: str | None
    model: str | None
    stream: bool
    status: int
    outcome: str
    reason: str | None
    attempts: int
    cache: str
    prompt_tokens: int | None
    completion_tokens: int | None
    usage_source: str | None
    cost_usd: float | None
    first_token_seconds: float | None
    duration_seconds: float
    upstream_request_id: str | None


def access_line(record: CallRecord, duration: float, used: Used) -> bytes:
    """The line of a call that took `duration` seconds."""
    waited = None
    if record.stream and record.first_token is not None:
        waited = round(record.first_token - record.started, 6)
    line = _Line(
        datetime.now(UTC),
        record.request_id,
        record.caller or None,
        record.route or None,
        record.upstream or None,
        record.model_asked or None,
        record.model or None,
        record.stream,
        record.status,
        record.outcome,
        record.reason or None,
        record.attempts,
        record.cache,
        used.prompt,
        used.completion,
        used.source,
        used.cost if used.cost is None else round(used.cost, 9),
        waited,
        round(duration, 6),
        record.upstream_request_id or None,
    )
    return _encode(line) + b"\n"


class LineWriter:
    """Access lines on their way to a file descriptor, a batch at a time, by a thread of its own.

    A reader that is gone or too slow costs lines, never calls, and never the end of the process.

    Args:
        shared: other processes write there too: no more is written at once than a pipe takes whole.
    """

    MAX_WAITING = 10_000
    FLUSH_SECONDS = 0.25

    def __init__(self, descriptor: int = 1, *, shared: bool = False) -> None:
        self._most_bytes = select.PIPE_BUF if shared else sys.maxsize
        self.lost = 0
        self._descriptor = descriptor
        self._waiting: deque[bytes] = deque()  # filled by the loop, emptied by the thread
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Write now and then, until `close`."""
        self._thread = threading.Thread(target=self._run, name="access log", daemon=True)
        self._thread.start()

    def write(self, line: bytes) -> None:
        """Take a line."""
        if len(self._waiting) >= self.MAX_WAITING:
            self.lost += 1
        else:
            self._waiting.append(line)

    def flush(self) -> None:
        """Write what is waiting; may block, so never on the loop."""
        batch, size = list[bytes](), 0
        for _ in range(len(self._waiting)):
            line = self._waiting.popleft()
            if size + len(line) > self._most_bytes:
                self._write(b"".join(batch))
                batch, size = [], 0
            batch.append(line)
            size += len(line)
        self._write(b"".join(batch))

    def _write(self, batch: bytes) -> None:
        try:
            while batch:
                batch = batch[os.write(self._descriptor, batch) :]
        except OSError:
            self.lost += batch.count(b"\n")

    def close(self, patience: float = 1.0) -> None:
        """Write the rest, if that takes no longer than `patience` seconds."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(patience)

    def _run(self) -> None:
        while not self._stopping.wait(self.FLUSH_SECONDS):
            self.flush()
        self.flush()
