"""One configuration after another: each made ready whole, then put in force in one step."""

import asyncio
import os
import random
from collections.abc import Mapping
from dataclasses import dataclass

from proxy.admission.auth import Auth
from proxy.cache.answers import Answers
from proxy.config import Config, hold
from proxy.equipment import Equipment
from proxy.limits.callers import CallerLimits
from proxy.pipeline import Snapshot
from proxy.resilience.budget import HedgeBudget
from proxy.resilience.means import Means
from proxy.resources import Resources
from proxy.routing import Router
from proxy.telemetry import Telemetry
from proxy.upstream.model_lists import ModelLists

REMEMBERED = 10  # names of each kind that are gone, whose series are still told


def new_via() -> str:
    """An entry of the `via` header that nobody else has."""
    return f"1.1 octet-{os.urandom(6).hex()}"


@dataclass(frozen=True, slots=True)
class Prepared:
    """A configuration made ready, which is not in force.

    Args:
        needs_restart: paths in the configuration that a running process cannot follow; the old values hold.
    """

    config: Config
    router: Router
    auth: Auth
    equipment: Equipment
    needs_restart: list[str]


class Generations:
    """Makes the snapshots of a process; within a running loop.

    Args:
        config: the first configuration.
        via: our own entry of the `via` header, where several processes have the same.
    """

    def __init__(self, config: Config, telemetry: Telemetry, via: str | None = None) -> None:
        self._telemetry = telemetry
        self._config = config
        self._via = via or new_via()
        self._gone: dict[str, dict[str, None]] = {}  # by label, what was in a configuration and is in none any more
        self._named: Mapping[str, frozenset[str]] = {}  # by label, what is in the one in force
        self._hedging: dict[str, HedgeBudget] = {}
        self.resources = Resources(config, telemetry, self._via)
        self.model_lists = ModelLists()

    async def prepare(self, config: Config) -> Prepared:
        """Make a configuration ready; nothing that is in force changes by it.

        Raises:
            ConfigError: a key or a certificate cannot be read.
        """
        held, needs_restart = hold(self._config, config)
        equipment = await self.resources.prepare(held)
        return Prepared(held, Router(held, random.random), Auth(held.server), equipment, needs_restart)

    def commit(self, prepared: Prepared, generation: int) -> Snapshot:
        """Put it in force; it cannot fail."""
        config, resources, telemetry = prepared.config, self.resources, self._telemetry
        resources.commit(prepared.equipment, prepared.router)
        self._forget(config, prepared.router)
        self._config = config
        self.model_lists.follow(prepared.equipment.endpoints.values())
        means = Means(prepared.equipment.standings, telemetry, random.random, resources.mirrors, self._hedging)
        answers = None
        if resources.shelf is not None:
            clock = asyncio.get_running_loop().time
            answers = Answers(config, resources.shelf, resources.starts, telemetry, clock)
        callers = CallerLimits(prepared.equipment.limited_callers, telemetry)
        telemetry.watched.generation.set(generation)
        return Snapshot(
            generation, config, prepared.auth, prepared.router, means, callers, prepared.equipment.budgets, answers,
            self._via,
        )  # fmt: skip

    def _forget(self, config: Config, router: Router) -> None:
        """Let the series of what is long gone go."""
        routes, labels = [str(route.name) for route in config.routes], {label for _, _, label in router.labels()}
        callers = [caller.name for caller in config.server.callers]
        named = {
            "route": frozenset(routes), "upstream": frozenset(config.upstreams), "model": frozenset(labels),
            "name": frozenset((*callers, *config.upstreams, *routes)), "caller": frozenset(callers),
        }  # fmt: skip
        for label, names in named.items():
            gone = self._gone.setdefault(label, {})
            gone.update(dict.fromkeys(self._named.get(label, frozenset()) - names))
            for name in [*(name for name in gone if name in names), *list(gone)[:-REMEMBERED]]:
                gone.pop(name, None)
        self._named = named
        for gone_route in self._hedging.keys() - named["route"]:
            del self._hedging[gone_route]
        self._telemetry.prune({label: {*names, *self._gone[label]} for label, names in named.items()})

    async def close(self) -> None:
        """Close what is open."""
        await self.model_lists.close()
        await self.resources.close()
