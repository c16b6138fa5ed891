"""What a process knows of money that was spent: for longer than a configuration, and together with its fleet."""

import asyncio
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from proxy.config import Budget, Config
from proxy.limits.budgets import Budgets, Purse, Scope, Spending
from proxy.telemetry import Telemetry

if TYPE_CHECKING:  # loads the client library
    from proxy.limits.fleet_budgets import FleetSpending
    from proxy.shared_state import SharedState


class Funds:
    """The spendings of all callers and routes that have budgets.

    Args:
        shared: where a fleet's are added up; None: this process goes by its own.
        clock: unix time.
    """

    def __init__(
        self, telemetry: Telemetry, shared: "SharedState | None", clock: Callable[[], float] = time.time
    ) -> None:
        self._telemetry = telemetry
        self._shared = shared
        self._clock = clock
        self._spendings: dict[Scope, Spending] = {}
        self._ties: dict[Scope, FleetSpending] = {}
        self._leaving: set[asyncio.Task[None]] = set()

    def follow(self, config: Config) -> Budgets | None:
        """The budgets of a configuration; what was spent before it counts. None: there are none."""
        wanted = dict(_budgets(config))
        for scope in self._spendings.keys() - wanted.keys():
            del self._spendings[scope]
            if scope in self._ties:
                self._later(self._ties.pop(scope))
        purses = {}
        for scope, rules in wanted.items():
            spending = self._spendings.get(scope)
            if spending is None:
                spending = self._spendings[scope] = Spending(self._clock)
                spending.turn()
                self._tie(scope, spending)
            purses[scope] = Purse(scope, rules, spending)
        budgets = Budgets(purses, self._telemetry) if purses else None
        self._telemetry.ledger.on_cost = budgets.charge if budgets is not None else None
        return budgets

    def show(self, budgets: Budgets | None) -> None:
        """Let the gauges show them."""
        for (scope, name), purse in (budgets.purses if budgets is not None else {}).items():
            for period, limit in purse.limits.items():
                spent = partial(purse.spending.now, period)
                self._telemetry.watched.budget(scope, name, period, limit, spent)

    def _tie(self, scope: Scope, spending: Spending) -> None:
        if self._shared is not None:
            from proxy.limits.fleet_budgets import FleetSpending

            self._ties[scope] = FleetSpending(*scope, spending, self._shared)

    def _later(self, tie: "FleetSpending") -> None:
        task = asyncio.get_running_loop().create_task(tie.close())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def close(self) -> None:
        """Tell the rest."""
        await asyncio.gather(*(tie.close() for tie in self._ties.values()))
        while self._leaving:
            await asyncio.wait(self._leaving)


def _budgets(config: Config) -> Iterator[tuple[Scope, Budget]]:
    """All that limit something."""
    for caller in config.server.callers:
        if caller.budget.limits:
            yield ("caller", caller.name), caller.budget
    for route in config.routes:
        if route.budget.limits:
            yield ("route", str(route.name)), route.budget
