"""Gauges: how things stand at the moment when somebody scrapes."""

from collections.abc import Callable, Sized
from typing import Protocol

from prometheus_client import CollectorRegistry, Gauge

from proxy import __version__
from proxy.telemetry.tallies import unit_of

CIRCUIT_STATES = {"closed": 0, "half_open": 1, "open": 2}


class Pool(Protocol):
    """The connections to one upstream."""

    @property
    def active(self) -> int: ...

    @property
    def idle(self) -> int: ...

    @property
    def limit(self) -> int | None: ...


class Memory(Sized, Protocol):
    """Answers kept in memory."""

    @property
    def bytes(self) -> int: ...


class Watched:
    """The gauges of one process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.open_streams = 0
        self._shown: dict[tuple[Gauge, tuple[str, ...]], None] = {}
        self._before: dict[tuple[Gauge, tuple[str, ...]], None] = {}

        self.labels: dict[str, tuple[str, ...]] = {}  # of each gauge

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            self.labels[name] = labels
            return Gauge(name, text, labels, registry=registry, unit=unit_of(name))

        gauge("octet_build_info", "1; its label says which version runs.", "version").labels(__version__).set(1)
        gauge("octet_open_streams", "Streams being answered now.").set_function(lambda: self.open_streams)
        self.connections = gauge("octet_caller_connections", "Connections of callers.")
        self.buffered = gauge("octet_buffered_bytes", "Bodies of calls in flight, held in memory.")
        self._pools = gauge(
            "octet_connections", "Connections to an upstream: `active`, or `idle` until the next request.",
            "upstream", "state",
        )  # fmt: skip
        self._pool_limits = gauge(
            "octet_connections_limit", "How many connections to an upstream there may be; absent: no limit.", "upstream"
        )
        self._circuits = gauge(
            "octet_circuit_state", "0: closed, 1: half-open, 2: open; of several, the worst.", "upstream"
        )
        self._slots = gauge("octet_slots_in_use", "Calls that hold a place under limits.concurrent.", "scope", "name")
        self._waiting = gauge("octet_queue_length", "Calls that wait for such a place.", "scope", "name")
        self._levels = gauge(
            "octet_limit_remaining",
            "What is left of a limit per minute, with Redis of this process's share; below 0: used above the estimate.",
            "scope", "name", "limit",
        )  # fmt: skip
        self._cache_bytes = gauge("octet_cache_bytes", "Of answers kept in memory.")
        self._cache_entries = gauge("octet_cache_entries", "Answers kept in memory.")
        self._flights = gauge("octet_flights", "Calls upstream that others may join.")
        self._redis_users: dict[str, bool] = {}
        self._redis = gauge(
            "octet_redis_up",
            "1: Redis is there for all that use it, limits and the cache; 0: it is not, or none is configured.",
        )
        self._redis_there = gauge("octet_redis_configured", "1: there is one to be used; 0: there is none.")
        self._spent = gauge(
            "octet_budget_spent_usd", "Of a budget, in the day or month that is; with Redis, by all sidecars together.",
            "scope", "name", "period",
        )  # fmt: skip
        self._budgets = gauge("octet_budget_limit_usd", "What may be spent in it.", "scope", "name", "period")
        self.generation = gauge("octet_config_generation", "Counts the configurations that have been in force.")

    def redis(self, user: str) -> Callable[[bool], None]:
        """Show whether Redis is there for all who use it; the user tells, and until then it is not."""

        def tell(up: bool) -> None:
            self._redis_users[user] = up
            self._redis.set(all(self._redis_users.values()))

        self._redis_there.set(1)
        tell(False)
        return tell

    def cache(self, memory: Memory, flights: Sized) -> None:
        """Show what is kept, and what is being fetched."""
        self._cache_bytes.set_function(lambda: memory.bytes)
        self._cache_entries.set_function(lambda: len(memory))
        self._flights.set_function(lambda: len(flights))

    def begin(self) -> None:
        """What is shown of upstreams and limits from now on is all there is, once it ends with `end`."""
        self._before, self._shown = self._shown, {}

    def end(self) -> None:
        """Show no longer what was shown before, and has not been since `begin`."""
        for gauge, labels in self._before.keys() - self._shown.keys():
            gauge.remove(*labels)

    def _show(self, gauge: Gauge, labels: tuple[str, ...], value: Callable[[], float]) -> None:
        gauge.labels(*labels).set_function(value)
        self._shown[gauge, labels] = None

    def pool(self, upstream: str, pool: Pool) -> None:
        """Show an upstream's connections."""
        self._show(self._pools, (upstream, "active"), lambda: pool.active)
        self._show(self._pools, (upstream, "idle"), lambda: pool.idle)
        limit = pool.limit
        if limit is not None:
            self._show(self._pool_limits, (upstream,), lambda: limit)

    def circuit(self, upstream: str, state: Callable[[], str]) -> None:
        """Show the state of an upstream's circuit."""
        self._show(self._circuits, (upstream,), lambda: CIRCUIT_STATES[state()])

    def slots(self, scope: str, name: str, in_use: Callable[[], int], waiting: Callable[[], int]) -> None:
        """Show places under a limit."""
        self._show(self._slots, (scope, name), in_use)
        self._show(self._waiting, (scope, name), waiting)

    def budget(self, scope: str, name: str, period: str, limit: float, spent: Callable[[], float]) -> None:
        """Show what of a budget has been spent."""
        labels = scope, name, period
        self._show(self._budgets, labels, lambda: limit)
        self._show(self._spent, labels, spent)

    def bucket(self, scope: str, name: str, limit: str, level: Callable[[], float]) -> None:
        """Show what is left of a limit per minute."""
        self._show(self._levels, (scope, name, limit), level)
