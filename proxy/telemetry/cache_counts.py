"""What the cache has done: looks, writes, evictions, shared calls, and what all that has saved."""

from prometheus_client import CollectorRegistry

from proxy.call import Json
from proxy.telemetry.tallies import Cell, Counter


class CacheCounts:
    """The cache's counters; docs/caching.md explains their results."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._lookups = Counter(
            registry, "octet_cache_lookups", "Looks into a tier of the cache, by what was found.", ("tier", "result")
        )
        self._writes = Counter(
            registry, "octet_cache_writes", "Answers given to a tier of the cache, by what became of them.",
            ("tier", "result"),
        )  # fmt: skip
        self._evictions = Counter(
            registry, "octet_cache_evictions", "Answers that left memory: for others (room), or past their time (age).",
            ("reason",),
        )  # fmt: skip
        self._joined = Counter(
            registry, "octet_flights_joined", "Calls that waited for the answer to the same call.", ("route",)
        )
        self._saved = Counter(
            registry, "octet_cost_saved_usd", "What kept and shared answers would have cost, where prices are known.",
            ("route", "upstream"),
        )  # fmt: skip

    def lookups(self, tier: str, result: str) -> Cell:
        """The count of such looks."""
        return self._lookups.bind((tier, result))

    def writes(self, tier: str, result: str) -> Cell:
        """The count of answers that a tier was to keep."""
        return self._writes.bind((tier, result))

    def looked_up(self, tier: str, result: str) -> None:
        """Count a look into a tier; see docs/caching.md for the results."""
        self._lookups.add((tier, result))

    def kept(self, tier: str, result: str) -> None:
        """Count an answer that a tier was to keep."""
        self._writes.add((tier, result))

    def tree(self) -> Json:
        """What the cache has done since the start, for people."""
        return {
            "lookups": self._lookups.tree(),
            "writes": self._writes.tree(),
            "evictions": self._evictions.tree(),
            "joined": self._joined.tree(),
            "cost_saved_usd": self._saved.tree(),
        }

    def evicted(self, reason: str) -> None:
        """Count an answer that is kept no longer."""
        self._evictions.add((reason,))

    def joined(self, route: str) -> None:
        """Count a call that waits for another's answer."""
        self._joined.add((route,))

    def saved(self, route: str, upstream: str, cost: float) -> None:
        """Count what a call would have cost."""
        self._saved.add((route, upstream), cost)
