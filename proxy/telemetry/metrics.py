"""Every metric, named once; one record per call, settled once.

Label values come from the configuration only; what callers invent becomes `other`.

Source: DESIGN.md §9.
"""

import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector

from proxy.call import Operation
from proxy.telemetry.access_log import access_line
from proxy.telemetry.cache_counts import CacheCounts
from proxy.telemetry.ledger import Ledger
from proxy.telemetry.memory import memory_limit
from proxy.telemetry.recent import Recent
from proxy.telemetry.record import CallRecord, Traces
from proxy.telemetry.reload_counts import ReloadCounts
from proxy.telemetry.tallies import Cell, Counter, Histogram, Reading, Series, Tally
from proxy.telemetry.watched import Watched

DURATION_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
FIRST_TOKEN_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
OVERHEAD_BUCKETS = (50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3)
LAG_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)

GAP_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
PHASES = ("admission", "upstream", "answer", "body", "connect", "queue")
QUEUE_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

_SAMPLED = re.compile(  # W3C Trace Context, §3.2
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f][13579bdf]"
)


class Telemetry:
    """The metrics of one process, and its access log.

    Args:
        write_line: takes each access line, as bytes with their line end.
        lost: how many of them did not reach their reader.
    """

    def __init__(self, write_line: Callable[[bytes], object], lost: Callable[[], int] = int) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self._write_line = write_line
        self.traces: Traces | None = None
        self.recent = Recent()
        by_mode = ("upstream", "mode")
        self._calls = Counter(
            registry,
            "octet_calls",
            "Calls, by how they ended: `ok`, `caller_error`, `limited` (by us), `upstream_error`, `cut` (after first "
            "content), `hangup`, `proxy_error`; `upstream` is `none` where none was involved: kept answers, refusals.",
            ("route", "upstream", "model", "outcome"),
        )
        self._duration = Histogram(
            registry, "octet_call_duration_seconds", "From a call's first byte to its answer's last.", by_mode,
            DURATION_BUCKETS,
        )  # fmt: skip
        self._first_token = Histogram(
            registry, "octet_first_token_seconds", "From a streamed call's first byte to its first content.", by_mode,
            FIRST_TOKEN_BUCKETS,
        )  # fmt: skip
        self._gaps = Histogram(
            registry, "octet_inter_token_seconds", "Between the contents of a stream, as they came.", by_mode,
            GAP_BUCKETS,
        )  # fmt: skip
        self._overhead = Histogram(
            registry, "octet_overhead_seconds",
            "The sidecar's own share of the time to the answer or first content.", by_mode, OVERHEAD_BUCKETS,
        )  # fmt: skip
        self._phases = Counter(
            registry, "octet_phase_seconds",
            "Time of calls until their answer or first content: `body` (waiting for the caller's), `admission`, "
            "`queue` (waiting for room, or to try again), `connect`, `upstream`; `answer`: sending it.",
            ("phase",),
        )  # fmt: skip
        self._spent = [self._phases.bind((phase,)) for phase in PHASES]
        self._of_calls: dict[tuple[str, str, str, str, bool], _OfCalls] = {}
        self._attempts = Counter(
            registry,
            "octet_attempts",
            "Tries at an upstream: `ok`, `hangup`, `lost` to a second attempt, or the kind of failure.",
            ("upstream", "outcome"),
        )
        self._failovers = Counter(
            registry, "octet_failovers", "Calls that went on to the next target.", ("route", "upstream", "reason")
        )
        self._retries = Counter(registry, "octet_retries", "Repeats at the same upstream.", ("upstream", "reason"))
        self._exhausted = Counter(
            registry, "octet_retry_budget_exhausted", "Repeats that a retry budget did not allow.", ("upstream",)
        )
        self._transitions = Counter(
            registry, "octet_circuit_transitions", "Changes of a circuit, by the state entered.", ("upstream", "state")
        )
        self._limited = Counter(
            registry, "octet_limited",
            "Calls that found a limit or a budget of ours used up, of a `caller`, an `upstream` or a `route`; they "
            "waited, went elsewhere, or were refused.",
            ("scope", "name", "limit"),
        )  # fmt: skip
        self._queued = Histogram(
            registry, "octet_queue_seconds", "Waiting for a place under limits.concurrent.", ("scope", "name"),
            QUEUE_BUCKETS,
        )  # fmt: skip
        self._hedges = Counter(
            registry,
            "octet_hedges",
            "Second attempts: `won`, `lost`, or `failed` together with the first.",
            ("route", "outcome"),
        )
        self._wasted = Counter(
            registry, "octet_hedge_wasted_tokens", "Estimated tokens of attempts that lost to another.", ("upstream",)
        )
        self._mirrored = Counter(
            registry,
            "octet_mirrored",
            "Copies of calls: `ok`, `dropped` (too many at once), or the kind of failure.",
            ("route", "upstream", "outcome"),
        )
        self.ledger = Ledger(registry)
        self._hangups = Counter(
            registry, "octet_hangups",
            "Callers that left before the end: in `admission`, `queue`, `back_off`, `connect` (until the upstream's "
            "answer begins), `first_token`, `stream`, `json`, or `joined` to the same call.",
            ("phase",),
        )  # fmt: skip
        self.cache = CacheCounts(registry)
        self.reloads = ReloadCounts(registry)
        self._refusals = Counter(registry, "octet_refusals", "Requests refused before they became a call.", ("reason",))
        self.loop_lag = Histogram(
            registry, "octet_loop_lag_seconds", "How late the event loop comes to what is due.", (), LAG_BUCKETS
        )
        self.watched = Watched(registry)
        Reading(
            registry, "octet_access_lines_lost", "Lines of the access log that their reader was too slow for.", lost,
            counts=True,
        )  # fmt: skip
        Reading(registry, "octet_memory_limit_bytes", "What the process may use; absent: no limit.", memory_limit)

    def bind(
        self, upstreams: Iterable[str], targets: Iterable[tuple[str, str, str]], callers: Sequence[str] = ()
    ) -> None:
        """Make the series of every good call now: they begin at 0.

        Args:
            targets: route, upstream and model of each.
        """
        self.loop_lag.bind(())
        for upstream in upstreams:
            self._attempts.bind((upstream, "ok"))
            self._first_token.bind((upstream, "stream"))
            self._gaps.bind((upstream, "stream"))
            for mode in ("json", "stream"):
                self._duration.bind((upstream, mode))
                self._overhead.bind((upstream, mode))
        for route, upstream, model in targets:
            self._calls.bind((route, upstream, model, "ok"))
            self.ledger.bind(route, upstream, model, callers)

    def prune(self, names: Mapping[str, Collection[str]]) -> None:
        """Forget what is in no configuration any more, that series do not grow in number with each that is loaded.

        Args:
            names: by label, what may stay; beside it, what is no name from a configuration does.
        """
        known = {label: {*each, "none", "other", "direct", ""} for label, each in names.items()}
        for tally in (*vars(self).values(), *vars(self.cache).values()):
            if isinstance(tally, Tally):
                tally.prune(known)
        self.ledger.prune(known)
        self._of_calls = {
            key: series for key, series in self._of_calls.items()
            if key[0] in known["route"] and key[1] in known["upstream"] and key[2] in known["model"]
        }  # fmt: skip

    def trace(self, record: CallRecord, headers: Mapping[str, str], operation: Operation) -> None:
        """Note the trace that a call belongs to: its caller's, when somebody keeps it, or one of ours."""
        if self.traces is not None:
            self.traces.begin(record, headers, operation)
        elif match := _SAMPLED.fullmatch(headers["traceparent"]):
            record.trace_id = match[1]

    def attempted(self, upstream: str, outcome: str) -> None:
        """Count one try; `outcome` is `ok`, `hangup` or a failure's class."""
        self._attempts.add((upstream, outcome))

    def failed_over(self, route: str, upstream: str, reason: str) -> None:
        """Count a call that leaves an upstream for the next."""
        self._failovers.add((route, upstream, reason))

    def retried(self, upstream: str, reason: str) -> None:
        """Count a repeat at the same upstream."""
        self._retries.add((upstream, reason))

    def budget_exhausted(self, upstream: str) -> None:
        """Count a repeat that was not made."""
        self._exhausted.add((upstream,))

    def hedged(self, route: str, outcome: str) -> None:
        """Count a second attempt; `outcome` is `won`, `lost` (the first attempt was quicker) or `failed` (both)."""
        self._hedges.add((route, outcome))

    def wasted(self, upstream: str, tokens: int) -> None:
        """Count the tokens of an attempt whose answer nobody gets."""
        self._wasted.add((upstream,), tokens)

    def mirrored(self, route: str, upstream: str, outcome: str) -> None:
        """Count a copy; `outcome` is `ok`, `dropped` (there were too many) or a failure's class."""
        self._mirrored.add((route, upstream, outcome))

    def circuit_changed(self, upstream: str, state: str) -> None:
        """Count a circuit's change; `state` is `closed`, `half_open` or `open`."""
        self._transitions.add((upstream, state))

    def limited(self, scope: str, name: str, limit: str) -> None:
        """Count a call that found no room; `scope` is `caller` or `upstream`."""
        self._limited.add((scope, name, limit))

    def queued(self, scope: str, name: str, seconds: float) -> None:
        """Note how long a call waited for a place."""
        self._queued.observe((scope, name), seconds)

    def refused(self, reason: str) -> None:
        """Count a request that never became a call."""
        self._refusals.add((reason,))

    def streamed(self, upstream: str, gaps: list[float]) -> None:
        """Count the times between a stream's contents, and empty the list."""
        observe = self._gaps.bind((upstream, "stream")).observe
        for gap in gaps:
            observe(gap)
        gaps.clear()

    def settle(self, record: CallRecord) -> None:
        """Count the call and write its line. Called once per call, whatever happened to it."""
        now, first = time.perf_counter(), record.first_token
        duration = now - record.started
        upstream = record.upstream if record.attempts else ""  # of a kept answer, it is not the one that was asked
        key = (record.route, upstream, record.model_label, record.outcome, record.stream)
        series = self._of_calls.get(key) or self._bind_calls(key)
        series.calls[0] += 1
        series.duration.observe(duration, record.trace_id)
        if record.outcome == "hangup":
            self._hangups.add((record.phase,))
        if first is not None and record.attempts:
            self._settle_times(record, series, first, now)
        used = self.ledger.settle(record)
        if record.trace is not None:
            record.trace.end(record, used.prompt, used.completion)
        line = access_line(record, duration, used)
        self.recent.add(line, record)
        self._write_line(line)

    def _settle_times(self, record: CallRecord, series: "_OfCalls", first: float, now: float) -> None:
        """Where the time of a call that had content has gone."""
        series.overhead.observe(record.own_seconds(first))
        admission, waiting, answer, body, connect, queue = self._spent
        admission[0] += record.routed - record.started - record.body_seconds
        waiting[0] += max(0.0, record.upstream_seconds - record.connect_seconds)
        queue[0] += record.waited_seconds
        body[0] += record.body_seconds
        connect[0] += record.connect_seconds
        if record.stream:
            series.first_token.observe(first - record.started, record.trace_id)
            if record.gaps:
                self.streamed(record.upstream, record.gaps)
        else:
            answer[0] += now - first

    def _bind_calls(self, key: tuple[str, str, str, str, bool]) -> "_OfCalls":
        route, upstream, model, outcome, stream = key
        by_mode = (upstream or "none", "stream" if stream else "json")
        made = self._of_calls[key] = _OfCalls(
            self._calls.bind((route or "none", upstream or "none", model, outcome)),
            self._duration.bind(by_mode),
            self._overhead.bind(by_mode) if upstream else Series(OVERHEAD_BUCKETS),
            self._first_token.bind(by_mode) if upstream and stream else Series(FIRST_TOKEN_BUCKETS),
        )
        return made


class _OfCalls(NamedTuple):
    """The series of calls that are alike, looked up once for all of them."""

    calls: Cell
    duration: Series
    overhead: Series
    first_token: Series
