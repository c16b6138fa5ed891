"""Every metric and log field, named once; one record per call, settled once.

Label values come from the configuration only; what callers invent becomes `other`.

Source: DESIGN.md §9.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from proxy.call import Facts
from proxy.errors import ProxyError

DURATION_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
FIRST_TOKEN_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
OVERHEAD_BUCKETS = (50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3)

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, of no use to us

_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class CallRecord:
    """What is to be told of one call when it is over. Times are seconds of `time.perf_counter`.

    `phase` says where the call is: `admission`, `connect`, `first_token`, `stream` or `json`.
    """

    request_id: str
    started: float
    caller: str = ""
    route: str = ""
    upstream: str = ""
    model_asked: str = ""
    model: str = ""
    model_label: str = "other"
    stream: bool = False
    status: int = 0
    outcome: str = ""
    reason: str = ""
    phase: str = "admission"
    attempts: int = 0
    dropped: tuple[str, ...] = ()
    upstream_request_id: str = ""
    rate_limits: Mapping[str, str] = field(default_factory=dict)  # what the upstream says, in OpenAI's names
    upstream_seconds: float = 0.0  # spent waiting for upstreams, until the first content
    first_token: float | None = None  # when the first content was there
    facts: Facts = field(default_factory=Facts)
    cut_off_by: ProxyError | None = None  # why we, not the caller, end the call


class Telemetry:
    """The metrics of one process, and its access log.

    Args:
        write_line: takes each access line, as bytes with their line end.
    """

    def __init__(self, write_line: Callable[[bytes], object]) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._write_line = write_line
        self._children: dict[tuple[Any, ...], Any] = {}
        by_call = ("route", "upstream", "model", "outcome")
        by_mode = ("upstream", "mode")
        self._calls = self._metric(Counter, "octet_calls", "Calls, by how they ended.", by_call)
        self._duration = self._metric(
            Histogram, "octet_call_duration_seconds", "From a call's first byte to its answer's last.", by_mode,
            buckets=DURATION_BUCKETS,
        )  # fmt: skip
        self._first_token = self._metric(
            Histogram, "octet_first_token_seconds", "From a streamed call's first byte to its first content.", by_mode,
            buckets=FIRST_TOKEN_BUCKETS,
        )  # fmt: skip
        self._overhead = self._metric(
            Histogram, "octet_overhead_seconds", "The sidecar's own share of the time to the answer or first content.",
            by_mode, buckets=OVERHEAD_BUCKETS,
        )  # fmt: skip
        self._attempts = self._metric(Counter, "octet_attempts", "Tries at an upstream.", ("upstream", "outcome"))
        self._failovers = self._metric(
            Counter, "octet_failovers", "Calls that went on to the next target.", ("route", "upstream", "reason")
        )
        self._tokens = self._metric(
            Counter, "octet_tokens", "Tokens, as upstreams count them.", ("upstream", "model", "direction", "source")
        )
        self._hangups = self._metric(Counter, "octet_hangups", "Callers that left before the end.", ("phase",))
        self._refusals = self._metric(
            Counter, "octet_refusals", "Requests refused before they became a call.", ("reason",)
        )
        self.open_streams = self._metric(Gauge, "octet_open_streams", "Streams being answered now.", ())
        self.connections = self._metric(Gauge, "octet_caller_connections", "Connections of callers.", ())
        self.generation = self._metric(
            Gauge, "octet_config_generation", "Counts the configurations that have been in force.", ()
        )

    def _metric(self, kind: Any, name: str, text: str, labels: tuple[str, ...], **rest: Any) -> Any:
        return kind(name, text, labels, registry=self.registry, **rest)

    def _child(self, metric: Any, *labels: str) -> Any:
        """The bound child; looking one up by its labels costs more than counting."""
        key = (metric, *labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = metric.labels(*labels)
        return child

    def bind(self, upstreams: Iterable[str], targets: Iterable[tuple[str, str, str]]) -> None:
        """Make the series of every good call now: they begin at 0, and no call pays for making them.

        Args:
            targets: route, upstream and model of each.
        """
        for upstream in upstreams:
            self._child(self._attempts, upstream, "ok")
            self._child(self._first_token, upstream, "stream")
            for mode in ("json", "stream"):
                self._child(self._duration, upstream, mode)
                self._child(self._overhead, upstream, mode)
        for route, upstream, model in targets:
            self._child(self._calls, route, upstream, model, "ok")
            for direction in ("prompt", "completion"):
                self._child(self._tokens, upstream, model, direction, "provider")

    def attempted(self, upstream: str, outcome: str) -> None:
        """Count one try; `outcome` is `ok`, `hangup` or a failure's class."""
        self._child(self._attempts, upstream, outcome).inc()

    def failed_over(self, route: str, upstream: str, reason: str) -> None:
        """Count a call that leaves an upstream for the next."""
        self._child(self._failovers, route, upstream, reason).inc()

    def refused(self, reason: str) -> None:
        """Count a request that never became a call."""
        self._child(self._refusals, reason).inc()

    def settle(self, record: CallRecord) -> None:
        """Count the call and write its line. Called once per call, whatever happened to it."""
        now = time.perf_counter()
        duration = now - record.started
        upstream = record.upstream or "none"
        mode = "stream" if record.stream else "json"
        self._child(self._calls, record.route or "none", upstream, record.model_label, record.outcome).inc()
        self._child(self._duration, upstream, mode).observe(duration)
        if record.outcome == "hangup":
            self._child(self._hangups, record.phase).inc()
        if record.first_token is not None:
            if record.stream:
                self._child(self._first_token, upstream, mode).observe(record.first_token - record.started)
            own = record.first_token - record.started - record.upstream_seconds
            self._child(self._overhead, upstream, mode).observe(max(own, 0.0))
        usage = record.facts.usage or {}
        for direction, name in (("prompt", "prompt_tokens"), ("completion", "completion_tokens")):
            count = _count(usage.get(name))
            if count:
                self._child(self._tokens, upstream, record.model_label, direction, "provider").inc(count)
        self._write_line(_encode(_line(record, duration)) + b"\n")


def _count(value: object) -> int | None:
    """A count as an upstream sent it, if it is one that can be believed."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else None


def _line(record: CallRecord, duration: float) -> dict[str, Any]:
    usage = record.facts.usage or {}
    waited = None if record.first_token is None else round(record.first_token - record.started, 6)
    return {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "request_id": record.request_id,
        "caller": record.caller or None,
        "route": record.route or None,
        "upstream": record.upstream or None,
        "model_asked": record.model_asked or None,
        "model": record.model or None,
        "stream": record.stream,
        "status": record.status,
        "outcome": record.outcome,
        "reason": record.reason or None,
        "attempts": record.attempts,
        "cache": "bypass",
        "prompt_tokens": _count(usage.get("prompt_tokens")),
        "completion_tokens": _count(usage.get("completion_tokens")),
        "usage_source": "provider" if usage else None,
        "first_token_seconds": waited if record.stream else None,
        "duration_seconds": round(duration, 6),
        "upstream_request_id": record.upstream_request_id or None,
    }


class LineWriter:
    """Access lines on their way to a file descriptor, a batch at a time, by a thread of its own.

    A reader that is gone or too slow costs lines, never calls, and never the end of the process.
    """

    MAX_WAITING = 10_000
    FLUSH_SECONDS = 0.25

    def __init__(self, descriptor: int = 1) -> None:
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
        batch = b"".join(self._waiting.popleft() for _ in range(len(self._waiting)))
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
