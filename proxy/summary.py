"""What a person is told at the start: where it listens, where calls go, and where that was read."""

from collections.abc import Iterator, Sequence

from proxy import __version__
from proxy.config import Address, Canary, Config, FallbackRule, Mirror, RouteRule, TargetRule, Upstream


def base_url(address: Address) -> str:
    """What a client is given as its base URL."""
    if address.path:
        return f"http://localhost/v1 (through {address})"
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)  # noqa: S104
    return f"http://{Address(host, address.port)}/v1"


def summary(config: Config, addresses: Sequence[Address], admin: Address | None, origin: str) -> str:
    """The start-up summary; it holds no key."""
    return "\n".join(_lines(config, addresses, admin, origin))


def _lines(config: Config, addresses: Sequence[Address], admin: Address | None, origin: str) -> Iterator[str]:
    yield f"octet {__version__}, configured by {origin}"
    yield f"  base URL   {', '.join(map(base_url, addresses))}"
    yield f"  admin      http://{admin}/metrics (status page: http://{admin}/)"
    if config.server.workers > 1:
        shared = "share limits through Redis" if config.redis is not None else "each has its part of every limit"
        yield f"  workers    {config.server.workers}; {shared}"
    callers = [caller.name for caller in config.server.callers]
    yield f"  callers    {', '.join(callers) if callers else 'anybody who reaches the port'}"
    width = max(map(len, config.upstreams))
    for index, (name, upstream) in enumerate(config.upstreams.items()):
        yield f"  {'' if index else 'upstreams':10} {name:{width}}  {_upstream(upstream)}"
    for index, route in enumerate(config.routes):
        yield f"  {'' if index else 'routes':10} {route.name}: {_route(route)}"
    if config.redis is not None:
        yield f"  redis      circuits and limits are shared (namespace {config.redis.namespace})"
    kept = [route.name or "" for route in config.routes if route.cache is not None]
    if kept:
        places = "memory and Redis" if config.cache.redis is not None else "memory"
        yield f"  cache      answers of {', '.join(kept)} are kept in {places}"
    if not config.routes:
        yield "  routes     none; calls name their upstream: model = upstream/model"


def _upstream(upstream: Upstream) -> str:
    key = "no key"
    if upstream.credential == "caller":
        key = "the caller's key"
    elif upstream.api_key is not None:
        key = "key given"
    elif upstream.api_key_file is not None:
        key = f"key in {upstream.api_key_file}"
    return f"{upstream.provider} ({upstream.wire}) at {upstream.base_url}, {key}"


def _route(route: RouteRule) -> str:
    arrow = ", ".join(map(_target, route.targets))
    if route.strategy == "weighted":
        arrow = ", ".join(f"{_target(target)} (weight {target.weight})" for target in route.targets)
    elif route.strategy != "ordered":
        arrow += f" ({route.strategy})"
    if route.canary is not None:
        arrow = f"{_target(route.canary)} ({route.canary.share:.1%}), else {arrow}"
    then = f", then {', '.join(map(_target, route.fallback))}" if route.fallback else ""
    copied = f"; copied to {_target(route.mirror)} ({route.mirror.share:.1%})" if route.mirror is not None else ""
    return f"{' '.join(route.match.model)} -> {arrow}{then}{copied}"


def _target(target: TargetRule | FallbackRule | Canary | Mirror) -> str:
    if isinstance(target, FallbackRule) and target.route is not None:
        return f"route {target.route}"
    return f"{target.upstream}/{target.model}" if target.model else str(target.upstream)
