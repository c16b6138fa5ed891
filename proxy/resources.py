"""What the process owns for longer than a configuration: connections, circuits, limits, how upstreams stand."""

import asyncio
from collections.abc import Callable
from functools import partial

from proxy.config import Config, Limits
from proxy.limits.bucket import Bucket
from proxy.limits.callers import CallerLimits
from proxy.limits.limiter import Limiter
from proxy.limits.pace import Pace
from proxy.providers import providers
from proxy.resilience.circuit import Circuit
from proxy.resilience.circuits import Circuits
from proxy.resilience.standing import Standing
from proxy.routing import Router
from proxy.telemetry import Telemetry
from proxy.upstream.credentials import read_credential
from proxy.upstream.endpoint import Endpoint
from proxy.upstream.transport import Transport


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

    def _limiter(self, scope: str, name: str, rules: Limits) -> Limiter | None:
        if rules.concurrent is rules.requests_per_minute is rules.tokens_per_minute is None:
            return None
        limiter, watched = Limiter(rules, self._clock), self._telemetry.watched
        slots = limiter.slots
        if slots is not None:
            watched.slots(scope, name, lambda: slots.in_use, lambda: slots.waiting)
        for limit, bucket in (("requests", limiter.requests), ("tokens", limiter.tokens)):
            if bucket is not None:
                watched.bucket(scope, name, limit, partial(self._level, bucket))
        return limiter

    def _level(self, bucket: Bucket) -> float:
        return bucket.now(self._clock())

    def _circuit_changed(self, circuit: Circuit, state: str) -> None:
        self._telemetry.circuit_changed(self.circuits.upstream_of(circuit), state)

    async def close(self) -> None:
        """Close every connection."""
        for endpoint in self.endpoints.values():
            await endpoint.transport.close()
