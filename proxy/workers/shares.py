"""What of a configuration each of several processes gets: what is limited for all is divided among them."""

from proxy.config import Address, Config, Limits, RouteRule


def share_of(config: Config, number: int, count: int, addresses: list[Address]) -> Config:
    """The configuration of one worker.

    Memory and connections are always divided; limits where Redis does not keep them for all.

    Args:
        number: of the worker, from 0.
        addresses: that all of them listen at.
    """

    def part(whole: int) -> int:
        return max(1, whole // count + (number < whole % count))

    def limited(limits: Limits) -> Limits:
        if config.redis is not None:
            return limits
        whole = {name: getattr(limits, name) for name in ("concurrent", "requests_per_minute", "tokens_per_minute")}
        queue = part(limits.queue) if limits.queue and limits.concurrent is not None else limits.queue
        parts = {name: part(each) for name, each in whole.items() if each is not None}
        return limits.model_copy(update={**parts, "queue": queue})

    def copied(route: RouteRule) -> RouteRule:
        if route.mirror is None:
            return route
        return route.model_copy(
            update={"mirror": route.mirror.model_copy(update={"concurrent": part(route.mirror.concurrent)})}
        )

    server, memory = config.server, config.cache.memory
    upstreams = {
        name: upstream.model_copy(
            update={
                "limits": limited(upstream.limits),
                "max_connections": part(upstream.max_connections) if upstream.max_connections is not None else None,
            }
        )
        for name, upstream in config.upstreams.items()
    }
    callers = tuple(caller.model_copy(update={"limits": limited(caller.limits)}) for caller in server.callers)
    buffered = max(part(server.max_buffered_bytes), server.max_body_bytes)
    memory = memory.model_copy(update={"max_bytes": part(memory.max_bytes)})
    return config.model_copy(
        update={
            "server": server.model_copy(
                update={
                    "callers": callers,
                    "max_buffered_bytes": buffered,
                    "max_connections": part(server.max_connections),
                    "listen": tuple(addresses),
                }
            ),
            "routes": tuple(map(copied, config.routes)),
            "upstreams": upstreams,
            "cache": config.cache.model_copy(update={"memory": memory}),
        }
    )
