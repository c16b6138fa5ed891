"""What the attempts of all calls work with."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

from proxy.call import Call
from proxy.providers.seam import Route, Target
from proxy.resilience.budget import HedgeBudget
from proxy.resilience.standing import Standing
from proxy.telemetry import Telemetry


class Copier(Protocol):
    """Sends copies of calls elsewhere."""

    def copy(self, call: Call, route: Route, means: "Means") -> None: ...


class Means:
    """What the attempts of all calls work with, and what routing sees of them; made within a running loop.

    Args:
        chance: uniform in [0, 1).
        hedging: the budgets of the process for second attempts, by route.
    """

    def __init__(
        self,
        standings: Mapping[str, Standing],
        telemetry: Telemetry,
        chance: Callable[[], float],
        mirrors: Copier | None = None,
        hedging: dict[str, HedgeBudget] | None = None,
    ) -> None:
        self.standings = standings
        self.telemetry = telemetry
        self.chance = chance
        self.mirrors = mirrors
        self.clock = asyncio.get_running_loop().time
        self._hedging = {} if hedging is None else hedging  # by route

    def seconds(self, target: Target, *, stream: bool) -> float | None:
        """How long a target has taken of late until its answer, or its first content; None: nobody knows."""
        return self.standings[target.name].load(target).averages[stream].now(self.clock())

    def in_flight(self, target: Target) -> int:
        """Calls that the target is answering for us."""
        return self.standings[target.name].load(target).in_flight

    def hedging(self, route: Route) -> HedgeBudget | None:
        """The budget for second attempts of a route that has them; it notes a call."""
        if route.hedge is None:
            return None
        budget = self._hedging.setdefault(route.name, HedgeBudget())
        budget.called(route.hedge.budget)
        return budget
