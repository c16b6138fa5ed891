"""How several processes on one port fare."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry

from proxy.telemetry.tallies import Counter, Reading


class CrewCounts:
    """The metrics of workers, which their parent tells.

    Args:
        serving: how many there are.
    """

    def __init__(self, registry: CollectorRegistry, serving: Callable[[], int]) -> None:
        self._workers = Reading(
            registry, "octet_workers", "Processes that serve calls; only with `server.workers` above 1.", serving
        )
        self._restarts = Counter(
            registry, "octet_worker_restarts", "Workers that died and were replaced; only with several.", ()
        )
        self._restarts.bind(())

    def replaced(self) -> None:
        """Count one."""
        self._restarts.add(())
