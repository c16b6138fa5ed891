"""What the process owns for longer than a configuration: connections, circuits, limits, how upstreams stand."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from proxy.cache.answers import Starts
from proxy.cache.memory import MemoryTier
from proxy.cache.shelf import Shelf
from proxy.call import NEVER, Json
from proxy.config import Config, HealthCheck, Limits
from proxy.equipment import Equipment, Scope, place_of
from proxy.limits.bucket import Bucket
from proxy.limits.funds import Funds
from proxy.limits.limiter import Limiter
from proxy.limits.pace import Pace
from proxy.process import aside
from proxy.providers import providers
from proxy.resilience.circuit import Circuit
from proxy.resilience.circuits import Circuits
from proxy.resilience.latency import Traffic
from proxy.resilience.mirror import Mirrors
from proxy.resilience.report import describe
from proxy.resilience.standing import Standing
from proxy.routing import Router
from proxy.telemetry import Telemetry
from proxy.upstream.endpoint import Endpoint
from proxy.upstream.health import HealthChecks
from proxy.upstream.material import gather
from proxy.upstream.transport import Transport

if TYPE_CHECKING:  # the client library takes 0.1 s and 7 MiB: it is for those who configure Redis
    from proxy.limits.fleet import FleetShare
    from proxy.resilience.fleet import FleetLink
    from proxy.shared_state import SharedState

logger = logging.getLogger("octet")


class Resources:
    """Built once, within a running loop; closed once. A new configuration takes over what it shares with the old one.

    Args:
        via: our own entry of the `via` header.
    """

    def __init__(self, config: Config, telemetry: Telemetry, via: str) -> None:
        self._telemetry = telemetry
        self._via = via
        self._clock: Callable[[], float] = asyncio.get_running_loop().time
        self._dialects = providers()
        self.now = Equipment(config)
        self._circuits = Circuits(self._clock, self._circuit_changed)
        self._checks = HealthChecks()
        self._traffic = Traffic()
        self.mirrors = Mirrors()
        self._shared: SharedState | None = None
        self._links: dict[str, FleetLink] = {}  # by the circuit's name
        self._shares: dict[Scope, FleetShare] = {}
        self._retired: WeakSet[Transport] = WeakSet()  # which calls may still use
        self._leaving: set[asyncio.Task[None]] = set()
        if config.redis is not None:
            from proxy import shared_state

            self._shared = shared_state.SharedState(config.redis, telemetry.watched.redis("state"))
        self.funds = Funds(telemetry, self._shared)
        self.starts: Starts = {}
        self.shelf: Shelf | None = None
        self._started = False

    async def start(self) -> None:
        """Look for what is shared, once there is a configuration."""
        self._started = True
        if self._shared is not None:
            self._shared.start()
        if self.shelf is not None and self.shelf.redis is not None:
            await self.shelf.redis.start()

    async def prepare(self, config: Config) -> Equipment:
        """Make ready what a configuration needs, and may fail; nothing that is in force changes by it.

        Raises:
            ConfigError: a key or a certificate cannot be read.
        """
        materials = await aside(lambda: {name: gather(name, upstream) for name, upstream in config.upstreams.items()})
        made, now = Equipment(config), self.now
        for name, upstream in config.upstreams.items():
            material = materials[name]
            place = made.places[name] = place_of(upstream, material)
            known = now.transports.get(name) if now.places.get(name) == place else None
            transport = made.transports[name] = known if known is not None else Transport(upstream, material.tls)
            key = material.credential
            made.endpoints[name] = Endpoint(
                name, upstream, self._dialects[upstream.provider], transport, key, self._via
            )
            self._limit(made, ("upstream", name), upstream.limits)
        for caller in config.server.callers:
            self._limit(made, ("caller", caller.name), caller.limits)
        return made

    def _limit(self, made: Equipment, scope: Scope, rules: Limits) -> None:
        """Those who have limits have a limiter: the one that there was, where they are the same."""
        if rules.concurrent is rules.requests_per_minute is rules.tokens_per_minute is None:
            return
        known = self.now.limiters.get(scope) if self.now.rules.get(scope) == rules else None
        made.rules[scope] = rules
        made.limiters[scope] = known if known is not None else Limiter(rules, self._clock, self._share_seconds)

    def commit(self, made: Equipment, router: Router) -> None:
        """Put what was made ready in force; it cannot fail."""
        config, before, self.now = made.config, self.now, made
        made.circuits = self._circuits.build(config.upstreams, router.labels())
        is_timed = any(route.strategy == "least_latency" for route in config.routes)
        for name, endpoint in made.endpoints.items():
            limiter = made.limiters.get(("upstream", name))
            standing = Standing(
                name, endpoint, made.circuits, Pace(), limiter, self._clock, self._traffic, is_timed=is_timed
            )
            if name in before.standings and before.transports[name] is made.transports[name]:
                standing.follow(before.standings[name])
            made.standings[name] = standing
        self._retire([each for name, each in before.transports.items() if made.transports.get(name) is not each])
        self._share(made)
        made.budgets = self.funds.follow(config)
        self._show(made)
        self._telemetry.ledger.follow(router.prices)
        self._telemetry.bind(config.upstreams, router.labels(), [caller.name for caller in config.server.callers])
        self._keep(config)

    def _retire(self, transports: list[Transport]) -> None:
        """Calls that are under way may still use them."""
        for transport in transports:
            transport.retire()
            self._retired.add(transport)

    def _share(self, made: Equipment) -> None:
        """Tie circuits and limiters to their like in other processes, and let go of those that are gone."""
        if self._shared is None:
            return
        from proxy.limits.fleet import FleetShare
        from proxy.resilience.fleet import FleetLink

        links, self._links = self._links, {}
        shares, self._shares = self._shares, {}
        for circuit in made.circuits.all():
            link = self._links[circuit.name] = _kept(links, circuit.name, circuit) or FleetLink(circuit, self._shared)
            if circuit.name in links and links[circuit.name] is not link:  # what was known of it does not hold
                circuit.reset()
        for scope, limiter in made.limiters.items():
            known = _kept(shares, scope, limiter)
            share = known or FleetShare(*scope, limiter, self._shared, made.config.server.workers)
            self._shares[scope] = share
            if scope in shares and shares[scope] is not share:
                self._later(share.follow(shares[scope]))
        for name, each in links.items():
            if self._links.get(name) is not each:
                self._later(each.close())
        for scope, each_share in shares.items():
            if scope not in self._shares:
                self._later(each_share.close())

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    def _show(self, made: Equipment) -> None:
        """Let the gauges show what there is now."""
        watched = self._telemetry.watched
        watched.begin()
        for name, transport in made.transports.items():
            watched.pool(name, transport)
            watched.circuit(name, partial(self._state, name))
        for (scope, name), limiter in made.limiters.items():
            slots = limiter.slots
            if slots is not None:
                watched.slots(scope, name, partial(getattr, slots, "in_use"), partial(getattr, slots, "waiting"))
            for limit, bucket in (("requests", limiter.requests), ("tokens", limiter.tokens)):
                if bucket is not None:
                    watched.bucket(scope, name, limit, partial(self._level, bucket))
        self.funds.show(made.budgets)
        watched.end()

    def _keep(self, config: Config) -> None:
        """Have a place for answers, where a route wants them kept."""
        windows = {
            str(route.name): max(route.cache.stale_if_error_seconds, route.cache.stale_while_revalidate_seconds)
            for route in config.routes
            if route.cache is not None
        }
        if self.shelf is not None:
            self.shelf.follow(config.cache, windows)
        elif windows:
            self.shelf = self._shelf(config)
            self.shelf.follow(config.cache, windows)
            if self._started and self.shelf.redis is not None:
                self._later(self.shelf.redis.start())

    def _shelf(self, config: Config) -> Shelf:
        """Where answers are kept."""
        telemetry = self._telemetry
        memory = MemoryTier(config.cache.memory.max_bytes, self._clock, telemetry.cache.evicted)
        telemetry.watched.cache(memory, self.starts)
        if config.cache.redis is None:
            return Shelf(config.cache, memory, self._clock)
        from proxy.cache.redis_tier import RedisTier
        from proxy.cache.tiers import Tiers

        up = telemetry.watched.redis("cache")
        redis = RedisTier(
            config.cache.redis, config.cache.max_entry_bytes, telemetry.cache.looked_up, telemetry.cache.kept, up
        )
        return Tiers(config.cache, memory, redis, self._clock)

    @property
    def _share_seconds(self) -> float:
        return self._shared.timeout if self._shared is not None else 0.0

    def _level(self, bucket: Bucket) -> float:
        return bucket.now(self._clock())

    def _state(self, name: str) -> str:
        return self.now.circuits.state(name) or "closed"

    def _circuit_changed(self, circuit: Circuit, state: str) -> None:
        name = self.now.circuits.upstream_of(circuit)
        if name is None:
            return
        self._telemetry.circuit_changed(name, state)
        logger.log(logging.WARNING if state == "open" else logging.INFO, "the circuit of %s is %s", circuit.name, state)
        if state == "open":
            self._checks.begin(name, partial(self._to_check, name), partial(self._back, name))

    def _to_check(self, name: str) -> tuple[Endpoint, HealthCheck] | None:
        """Whom to ask whether it is back; None: nobody wants to know."""
        upstream, endpoint = self.now.config.upstreams.get(name), self.now.endpoints.get(name)
        if upstream is None or endpoint is None or upstream.health_check is None or self._state(name) != "open":
            return None
        return endpoint, upstream.health_check

    def _back(self, name: str) -> None:
        """An upstream has answered: its trial calls need not wait any longer."""
        for circuit in self.now.circuits.by_upstream.get(name, ()):
            circuit.hasten()

    def hold_open(self, name: str, seconds: float | None) -> bool:
        """Let no call through to an upstream, for so long or until it is reset; False: there is no such upstream."""
        circuits = self.now.circuits.by_upstream.get(name, ())
        for circuit in circuits:
            circuit.hold_open(NEVER if seconds is None else seconds)
        return bool(circuits)

    def reset(self, name: str) -> bool:
        """Let calls through to it again, and forget its failures; False: there is no such upstream."""
        circuits = self.now.circuits.by_upstream.get(name, ())
        for circuit in circuits:
            circuit.reset()
        return bool(circuits)

    def describe(self) -> list[Json]:
        """How every upstream stands, for people."""
        circuits = self.now.circuits.by_upstream
        return [describe(standing, circuits[name]) for name, standing in self.now.standings.items()]

    def describe_cache(self) -> Json:
        """How the cache stands, for people."""
        told: Json = self.shelf.describe() if self.shelf is not None else {"memory": None, "redis": None}
        return {**told, "in_flight": len(self.starts), **self._telemetry.cache.tree()}

    async def purge(self, wanted: Mapping[str, str]) -> Json:
        """Keep what fits no longer; see `Shelf.purge`."""
        gone: Json = {"removed": {"memory": 0, "redis": None}}
        return await self.shelf.purge(wanted) if self.shelf is not None else gone

    async def close(self) -> None:
        """Stop asking, and close every connection."""
        await self.mirrors.close()
        await self._checks.close()
        for link in self._links.values():
            await link.close()
        for share in self._shares.values():
            await share.close()
        await self.funds.close()
        while self._leaving:
            await asyncio.wait(self._leaving)
        if self._shared is not None:
            await self._shared.close()
        for transport in (*self.now.transports.values(), *self._retired):
            await transport.close()
        if self.shelf is not None:
            await self.shelf.close()


def _kept(ties: Mapping[Any, Any], name: object, subject: object) -> Any:
    """What ties this very circuit or limiter to its like already."""
    tie = ties.get(name)
    return tie if tie is not None and tie.subject is subject else None
