"""What the attempts of all calls work with."""

import asyncio
from collections.abc import Callable, Mapping

from proxy.providers.seam import Route
from proxy.resilience.budget import HedgeBudget
from proxy.resilience.standing import Standing
from proxy.telemetry import Telemetry


class Means:
    """What the attempts of all calls work with; made within a running loop.

    Args:
        chance: uniform in [0, 1).
    """

    def __init__(self, standings: Mapping[str, Standing], telemetry: Telemetry, chance: Callable[[], float]) -> None:
        self.standings = standings
        self.telemetry = telemetry
        self.chance = chance
        self.clock = asyncio.get_running_loop().time
        self._hedging: dict[str, HedgeBudget] = {}  # by route

    def hedging(self, route: Route) -> HedgeBudget | None:
        """The budget for second attempts of a route that has them; it notes a call."""
        if route.hedge is None:
            return None
        budget = self._hedging.setdefault(route.name, HedgeBudget())
        budget.called(route.hedge.budget)
        return budget
