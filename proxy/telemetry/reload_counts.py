"""How configurations come into force, or do not."""

from prometheus_client import CollectorRegistry, Gauge

from proxy.telemetry.tallies import Counter

RESULTS = ("loaded", "unchanged", "failed")


class ReloadCounts:
    """The metrics of reloads."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._good = Gauge(
            "octet_config_last_reload_successful",
            "1: the last configuration that was read is in force; 0: it was bad, and the one before is.",
            registry=registry,
        )
        self._reloads = Counter(registry, "octet_config_reloads", "Looks at a new configuration.", ("result",))
        for result in RESULTS:
            self._reloads.bind((result,))

    def loaded(self) -> None:
        """A configuration is in force."""
        self._good.set(1)
        self._reloads.add(("loaded",))

    def unchanged(self) -> None:
        """What was read is in force already."""
        self._good.set(1)
        self._reloads.add(("unchanged",))

    def failed(self) -> None:
        """A configuration cannot be used."""
        self._good.set(0)
        self._reloads.add(("failed",))
