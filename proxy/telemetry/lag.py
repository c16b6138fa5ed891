"""How late the event loop is: what every caller waits for, whatever they asked."""

import asyncio

from proxy.telemetry.tallies import Histogram

LOOK_SECONDS = 0.25


class LagWatch:
    """Comes back at a fixed pace, and notes how late it was called."""

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Watch the running loop, until `stop`."""
        self._arm(asyncio.get_running_loop())

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        due = loop.time() + LOOK_SECONDS
        self._timer = loop.call_at(due, self._look, loop, due)

    def _look(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self._histogram.observe((), max(loop.time() - due, 0.0))
        self._arm(loop)
