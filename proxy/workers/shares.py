"""What of a configuration each of several processes gets: what is limited for all is divided among them."""

from typing import Any, TypeVar

from proxy.config import Address, Budget, Config, Limits, RouteRule, Section, Server, Upstream

Part = TypeVar("Part", bound=Section)


def share_of(config: Config, number: int, count: int, addresses: list[Address]) -> Config:
    """The configuration of one worker.

    Memory and connections are always divided; limits where Redis does not keep them for all.

    Args:
        number: of the worker, from 0.
        addresses: that all of them listen at.
    """
    divided = _Division(number, count, limits=config.redis is None)
    return _with(
        config,
        server=divided.server(config.server, addresses),
        upstreams={name: divided.upstream(upstream) for name, upstream in config.upstreams.items()},
        routes=tuple(map(divided.route, config.routes)),
        cache=_with(
            config.cache, memory=_with(config.cache.memory, max_bytes=divided.part(config.cache.memory.max_bytes))
        ),
    )


class _Division:
    """The part of one worker.

    Args:
        limits: whether limits are divided too.
    """

    def __init__(self, number: int, count: int, *, limits: bool) -> None:
        self._number, self._count, self._limits = number, count, limits

    def part(self, whole: int) -> int:
        """At least 1 of it; all parts together are the whole, if it is large enough."""
        return max(1, whole // self._count + (self._number < whole % self._count))

    def limits(self, limits: Limits) -> Limits:
        if not self._limits:
            return limits
        whole = {name: getattr(limits, name) for name in ("concurrent", "requests_per_minute", "tokens_per_minute")}
        queue = self.part(limits.queue) if limits.queue and limits.concurrent is not None else limits.queue
        return _with(limits, queue=queue, **{name: self.part(each) for name, each in whole.items() if each is not None})

    def budget(self, budget: Budget) -> Budget:
        if not self._limits:
            return budget
        whole = {"daily_usd": budget.daily_usd, "monthly_usd": budget.monthly_usd}
        return _with(budget, **{name: usd / self._count for name, usd in whole.items() if usd is not None})

    def server(self, server: Server, addresses: list[Address]) -> Server:
        return _with(
            server,
            callers=tuple(
                _with(caller, limits=self.limits(caller.limits), budget=self.budget(caller.budget))
                for caller in server.callers
            ),
            max_buffered_bytes=max(self.part(server.max_buffered_bytes), server.max_body_bytes),
            max_connections=self.part(server.max_connections),
            listen=tuple(addresses),
        )

    def upstream(self, upstream: Upstream) -> Upstream:
        most = upstream.max_connections
        connections = self.part(most) if most is not None else None
        return _with(upstream, limits=self.limits(upstream.limits), max_connections=connections)

    def route(self, route: RouteRule) -> RouteRule:
        mirror, budget = route.mirror, self.budget(route.budget)
        if mirror is not None:
            mirror = _with(mirror, concurrent=self.part(mirror.concurrent))
        return _with(route, mirror=mirror, budget=budget)


def _with(section: Part, **changed: Any) -> Part:
    return section.model_copy(update=changed)
