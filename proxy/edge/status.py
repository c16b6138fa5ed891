"""The status page of the admin side, and the events that it lives on.

What it shows is read from the metrics of the process, or of all of them: the numbers are those of /metrics.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from aiohttp import web
from prometheus_client import Metric
from prometheus_client.samples import Sample

from proxy import __version__
from proxy.call import Json
from proxy.errors import Overcrowded, ProxyError
from proxy.openai_format.encoding import encode

EVERY_SECONDS = 1.0
MOST_VIEWERS = 32
SEND_SECONDS = 20.0  # for a viewer to take an event
RECENT_CALLS = 50
_PAGE = Path(__file__).with_name("status.html")
_HEADERS = {"content-type": "text/event-stream", "cache-control": "no-store", "server": "octet"}
_CIRCUITS = ("closed", "half_open", "open")
_FAILED = frozenset({"upstream_error", "cut", "proxy_error"})
_DECISION = ("passed_over", "targets", "skipped", "failed_attempts")


class Source(Protocol):
    """Where all of it is asked."""

    @property
    def ready(self) -> bool: ...

    async def metrics(self) -> Any: ...

    async def ask(self, what: str, **arguments: Any) -> Json: ...


def status_page() -> web.Response:
    """The page, without data."""
    nonce = secrets.token_urlsafe(16)
    policy = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = {
        "content-security-policy": policy,
        "cache-control": "no-store",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
    }
    return web.Response(text=_text().replace("__NONCE__", nonce), content_type="text/html", headers=headers)


@cache
def _text() -> str:
    return _PAGE.read_text(encoding="utf-8")


class Board:
    """What is shown, read once for all who look."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._began = time.time()
        self._viewers = 0
        self._told: Json = {}
        self._at = 0.0  # when that was, in the loop's time
        self._lock = asyncio.Lock()

    async def show(self, request: web.BaseRequest) -> web.StreamResponse:
        """Events, until the viewer has gone.

        Raises:
            Overcrowded: there are too many already.
        """
        if self._viewers >= MOST_VIEWERS:
            raise Overcrowded(f"{MOST_VIEWERS} status pages are open already")
        self._viewers += 1
        try:
            told = await self.read()  # what goes wrong now has an answer of its own
            response = web.StreamResponse(headers=_HEADERS)
            await response.prepare(request)
            await self._go_on(request, response, told)
            return response
        finally:
            self._viewers -= 1

    async def _go_on(self, request: web.BaseRequest, response: web.StreamResponse, told: Json) -> None:
        """Send one event after the other; a page that they end for asks again."""
        with contextlib.suppress(ConnectionError, ProxyError):
            while True:
                try:
                    async with asyncio.timeout(SEND_SECONDS):
                        await response.write(b"data: " + encode(told) + b"\n\n")
                except TimeoutError:
                    if request.transport is not None:
                        request.transport.abort()  # a good end would wait for who reads nothing
                    return
                await asyncio.sleep(EVERY_SECONDS)
                told = await self.read()

    async def read(self) -> Json:
        """How everything stands; not read anew for each who asks within the same second."""
        clock = asyncio.get_running_loop().time
        async with self._lock:
            if not self._told or clock() - self._at > EVERY_SECONDS / 2:
                self._told, self._at = await self._read(), clock()
        return self._told

    async def _read(self) -> Json:
        source = self._source
        registry = await source.metrics()
        numbers = await asyncio.to_thread(lambda: Numbers(registry.collect()))
        reloads = await source.ask("reloads")
        last = reloads["reloads"][0] if reloads["reloads"] else None
        calls = (await source.ask("calls", limit=RECENT_CALLS))["calls"]
        return {
            "time": time.time(),
            "version": __version__,
            "started": numbers.value("process_start_time_seconds") or self._began,
            "ready": source.ready,
            "workers": int(numbers.value("octet_workers")) or 1,
            "generation": reloads["generation"],
            "reload": {
                "ok": last is None or last["ok"],
                "at": last["at"] if last is not None else None,
                "mistakes": last["mistakes"] if last is not None else [],
            },
            **_totals(numbers),
            "upstreams": _upstreams(numbers, (await source.ask("upstreams"))["upstreams"]),
            "routes": _routes(numbers),
            "budgets": _budgets(numbers),
            "recent": [_recent(call) for call in calls],
        }


class Numbers:
    """The values of metrics."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._samples: dict[str, list[Sample]] = {}
        for family in families:
            for sample in family.samples:
                self._samples.setdefault(sample.name, []).append(sample)

    def value(self, name: str, /, **labels: str) -> float:
        """Of all series with these labels together; 0 when there is none."""
        return sum(sample.value for sample in self._fitting(name, labels))

    def by(self, label: str, name: str, /, **labels: str) -> dict[str, float]:
        """The same, for each value of a label."""
        values: dict[str, float] = {}
        for sample in self._fitting(name, labels):
            values[sample.labels[label]] = values.get(sample.labels[label], 0.0) + sample.value
        return values

    def buckets(self, name: str, /, **labels: str) -> list[int]:
        """How many values fell into each bucket of a histogram; the last is above all bounds."""
        upto = self.by("le", f"{name}_bucket", **labels)
        counts = [int(upto[bound]) for bound in sorted(upto, key=float)]
        return [count - before for before, count in zip([0, *counts], counts, strict=False)]

    def bounds(self, name: str) -> list[float]:
        """The bounds of a histogram's buckets."""
        bounds = {float(bound) for bound in self.by("le", f"{name}_bucket")}
        return sorted(bounds - {float("inf")})

    def has(self, name: str) -> bool:
        return name in self._samples

    def _fitting(self, name: str, labels: Mapping[str, str]) -> Iterator[Sample]:
        return (sample for sample in self._samples.get(name, ()) if labels.items() <= sample.labels.items())


def _totals(numbers: Numbers) -> Json:
    """What all calls together have done since the start."""
    duration, first_token = "octet_call_duration_seconds", "octet_first_token_seconds"
    looks = numbers.by("result", "octet_cache_lookups_total", tier="memory")
    kept = looks.get("hit", 0.0) + numbers.value("octet_cache_lookups_total", tier="redis", result="hit")
    return {
        "calls": {
            outcome: int(count) for outcome, count in sorted(numbers.by("outcome", "octet_calls_total").items())
        },
        "open_streams": int(numbers.value("octet_open_streams")),
        "redis": {
            "configured": bool(numbers.value("octet_redis_configured")), "up": bool(numbers.value("octet_redis_up"))
        },
        "tokens": {
            direction: int(numbers.value("octet_tokens_total", direction=direction))
            for direction in ("prompt", "completion")
        },
        "cost_usd": numbers.value("octet_cost_usd_total"),
        "cost_saved_usd": numbers.value("octet_cost_saved_usd_total"),
        "unpriced": int(numbers.value("octet_unpriced_total")),
        "cache": {
            "hits": int(kept), "looks": int(sum(looks.values())),
            "joined": int(numbers.value("octet_flights_joined_total")),
            "bytes": int(numbers.value("octet_cache_bytes")),
        },
        "latency": {
            "bounds": numbers.bounds(duration), "json": numbers.buckets(duration, mode="json"),
            "stream": numbers.buckets(duration, mode="stream"),
            "first_token_bounds": numbers.bounds(first_token), "first_token": numbers.buckets(first_token),
        },
        "memory": {
            "bytes": int(numbers.value("process_resident_memory_bytes")),
            "limit_bytes": int(numbers.value("octet_memory_limit_bytes")) or None,
        },
    }  # fmt: skip


def _upstreams(numbers: Numbers, described: Iterable[Json]) -> list[Json]:
    """Each once; of several processes', the failure that was last."""
    upstreams: dict[str, Json] = {}
    for each in described:
        name = each["name"]
        told = upstreams.setdefault(
            name,
            {
                "name": name, "provider": each["provider"], "host": each["host"],
                "circuit": _CIRCUITS[int(numbers.value("octet_circuit_state", upstream=name))], "held": False,
                "attempts": _whole(numbers.by("outcome", "octet_attempts_total", upstream=name)),
                "active": int(numbers.value("octet_connections", upstream=name, state="active")),
                "idle": int(numbers.value("octet_connections", upstream=name, state="idle")),
                "cost_usd": numbers.value("octet_cost_usd_total", upstream=name), "last_failure": None,
            },
        )  # fmt: skip
        told["held"] |= any(circuit.get("held", False) for circuit in each["circuits"])
        for failure in each["failures"][:1]:
            if told["last_failure"] is None or failure["at"] > told["last_failure"]["at"]:
                told["last_failure"] = failure
    return list(upstreams.values())


def _whole(counts: Mapping[str, float]) -> dict[str, int]:
    return {name: int(count) for name, count in counts.items()}


def _routes(numbers: Numbers) -> list[Json]:
    calls = numbers.by("route", "octet_calls_total")
    failed = dict.fromkeys(calls, 0.0)
    for outcome in _FAILED:
        for route, count in numbers.by("route", "octet_calls_total", outcome=outcome).items():
            failed[route] += count
    return [
        {"name": route, "calls": int(count), "failed": int(failed[route])}
        for route, count in calls.items()
        if route != "none"
    ]


def _budgets(numbers: Numbers) -> list[Json]:
    return [
        {
            "scope": scope, "name": name, "period": period,
            "spent_usd": numbers.value("octet_budget_spent_usd", scope=scope, name=name, period=period),
            "limit_usd": limit,
        }
        for scope in ("caller", "route")
        for period in ("day", "month")
        for name, limit in numbers.by("name", "octet_budget_limit_usd", scope=scope, period=period).items()
    ]  # fmt: skip


def _recent(call: Json) -> Json:
    told = {name: value for name, value in call.items() if name not in _DECISION}
    return {**told, "decision": {name: call.get(name, []) for name in _DECISION}}
