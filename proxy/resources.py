"""What the process owns for longer than a configuration: connections, circuits, limits, how upstreams stand."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from proxy.cache.answers import Starts
from proxy.cache.memory import MemoryTier
from proxy.cache.shelf import Shelf
from proxy.call import NEVER, Json
from proxy.config import Config, Limits
from proxy.limits.bucket import Bucket
from proxy.limits.callers import CallerLimits
from proxy.limits.limiter import Limiter
from proxy.limits.pace import Pace
from proxy.providers import providers
from proxy.resilience.circuit import Circuit
from proxy.resilience.circuits import Circuits
from proxy.resilience.mirror import Mirrors
from proxy.resilience.report import describe
from proxy.resilience.standing import Standing
from proxy.routing import Router
from proxy.telemetry import Telemetry
from proxy.upstream.credentials import read_credential
from proxy.upstream.endpoint import Endpoint
from proxy.upstream.health import HealthChecks
from proxy.upstream.transport import Transport

if TYPE_CHECKING:  # the client library takes 0.1 s and 7 MiB: it is for those who configure Redis
    from proxy.limits.fleet import FleetShare
    from proxy.resilience.fleet import FleetLink
    from proxy.shared_state import SharedState

logger = logging.getLogger("octet")


class Resources:
    """Built once, within a running loop; closed once."""

    def __init__(self, config: Config, telemetry: Telemetry) -> None:
        self._config = config
        self._telemetry = telemetry
        self._clock: Callable[[], float] = asyncio.get_running_loop().time
        self.endpoints: dict[str, Endpoint] = {}
        self.standings: dict[str, Standing] = {}
        self.circuits = Circuits(self._clock, self._circuit_changed)
        self.callers = CallerLimits({}, telemetry)
        self._checks = HealthChecks()
        self.mirrors = Mirrors()
        self._shared: SharedState | None = None
        self._links: list[FleetLink | FleetShare] = []
        if config.redis is not None:
            from proxy import shared_state

            self._shared = shared_state.SharedState(config.redis, partial(telemetry.watched.redis, "state"))
        self.starts: Starts = {}
        kept = any(route.cache is not None for route in config.routes)
        self.shelf = self._shelf() if kept else None

    async def build(self, router: Router, via: str) -> None:
        """Make everything.

        Raises:
            ConfigError: a key cannot be read.
        """
        config, telemetry, watched = self._config, self._telemetry, self._telemetry.watched
        keys = {name: read_credential(name, upstream) for name, upstream in config.upstreams.items()}
        dialects = providers()
        await self.circuits.build(config.upstreams, router.labels())
        for name, upstream in config.upstreams.items():
            transport = Transport(upstream)
            endpoint = Endpoint(name, upstream, dialects[upstream.provider], transport, keys[name], via)
            limiter = self._limiter("upstream", name, upstream.limits)
            self.endpoints[name] = endpoint
            self.standings[name] = Standing(name, endpoint, self.circuits, Pace(), limiter, self._clock)
            watched.pool(name, transport)
            watched.circuit(name, partial(self.circuits.state, name))
        callers = {caller.name: self._limiter("caller", caller.name, caller.limits) for caller in config.server.callers}
        self.callers = CallerLimits({name: each for name, each in callers.items() if each is not None}, telemetry)
        telemetry.bind(config.upstreams, router.labels())
        if self._shared is not None:
            from proxy.resilience.fleet import FleetLink

            self._links += [FleetLink(circuit, self._shared) for circuit in self.circuits.all()]
            self._shared.start()
        if self.shelf is not None and self.shelf.redis is not None:
            await self.shelf.redis.start()

    def _shelf(self) -> Shelf:
        """Where answers are kept."""
        config, telemetry = self._config, self._telemetry
        memory = MemoryTier(config.cache.memory.max_bytes, self._clock, telemetry.cache.evicted)
        telemetry.watched.cache(memory, self.starts)
        windows = {
            route.name: max(route.cache.stale_if_error_seconds, route.cache.stale_while_revalidate_seconds)
            for route in config.routes
            if route.cache is not None
        }
        stale = lambda route: windows.get(route, 0.0)  # noqa: E731
        if config.cache.redis is None:
            return Shelf(config.cache, memory, stale, self._clock)
        from proxy.cache.redis_tier import RedisTier
        from proxy.cache.tiers import Tiers

        up = partial(telemetry.watched.redis, "cache")
        redis = RedisTier(
            config.cache.redis, config.cache.max_entry_bytes, telemetry.cache.looked_up, telemetry.cache.kept, up
        )
        return Tiers(config.cache, memory, redis, stale, self._clock)

    def _limiter(self, scope: str, name: str, rules: Limits) -> Limiter | None:
        if rules.concurrent is rules.requests_per_minute is rules.tokens_per_minute is None:
            return None
        limiter, watched = Limiter(rules, self._clock, self._share_seconds), self._telemetry.watched
        if self._shared is not None:
            from proxy.limits.fleet import FleetShare

            self._links.append(FleetShare(scope, name, limiter, self._shared))
        slots = limiter.slots
        if slots is not None:
            watched.slots(scope, name, lambda: slots.in_use, lambda: slots.waiting)
        for limit, bucket in (("requests", limiter.requests), ("tokens", limiter.tokens)):
            if bucket is not None:
                watched.bucket(scope, name, limit, partial(self._level, bucket))
        return limiter

    @property
    def _share_seconds(self) -> float:
        return self._shared.timeout if self._shared is not None else 0.0

    def _level(self, bucket: Bucket) -> float:
        return bucket.now(self._clock())

    def _circuit_changed(self, circuit: Circuit, state: str) -> None:
        name = self.circuits.upstream_of(circuit)
        self._telemetry.circuit_changed(name, state)
        logger.log(logging.WARNING if state == "open" else logging.INFO, "the circuit of %s is %s", circuit.name, state)
        check = self._config.upstreams[name].health_check
        if state == "open" and check is not None:
            is_open = lambda: self.circuits.state(name) == "open"  # noqa: E731
            self._checks.begin(self.endpoints[name], check, is_open, partial(self._back, name))

    def _back(self, name: str) -> None:
        """An upstream has answered: its trial calls need not wait any longer."""
        for circuit in self.circuits.by_upstream[name]:
            circuit.hasten()

    def hold_open(self, name: str, seconds: float | None) -> bool:
        """Let no call through to an upstream, for so long or until it is reset; False: there is no such upstream."""
        circuits = self.circuits.by_upstream.get(name, ())
        for circuit in circuits:
            circuit.hold_open(NEVER if seconds is None else seconds)
        return bool(circuits)

    def reset(self, name: str) -> bool:
        """Let calls through to it again, and forget its failures; False: there is no such upstream."""
        circuits = self.circuits.by_upstream.get(name, ())
        for circuit in circuits:
            circuit.reset()
        return bool(circuits)

    def describe(self) -> list[Json]:
        """How every upstream stands, for people."""
        return [describe(standing, self.circuits.by_upstream[name]) for name, standing in self.standings.items()]

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
        for link in self._links:
            await link.close()
        if self._shared is not None:
            await self._shared.close()
        for endpoint in self.endpoints.values():
            await endpoint.transport.close()
        if self.shelf is not None:
            await self.shelf.close()
