"""What must agree between the cache's sections, the routes that use it, and Redis."""

from typing import Any

from proxy.config.source import Document, listing, mapping


def check_caching(document: Document, tree: dict[str, Any]) -> None:
    """Note what could not work, or would give answers to those who may not have them."""
    tier = mapping(tree.get("cache")).get("redis")
    if isinstance(tier, dict) and tier.get("url") is None and not mapping(tree.get("redis")).get("url"):
        document.mistake(("cache", "redis", "url"), "is missing: give it here, or once for all at redis.url")
    callers = listing(mapping(tree.get("server")).get("callers"))
    for index, each in enumerate(listing(tree.get("routes"))):
        route = mapping(each)
        rules, path = mapping(route.get("cache")), ("routes", index, "cache")
        if rules.get("shared") is True and not callers and _takes_callers_keys(route, mapping(tree.get("upstreams"))):
            document.mistake(
                (*path, "shared"),
                "would give answers to anybody: with credential: caller only the upstream knows who may ask; "
                "name server.callers, or leave it out",
            )
        if rules.get("join_seconds") and not isinstance(tier, dict):
            document.mistake((*path, "join_seconds"), "does nothing without cache.redis")
        if rules.get("ttl_seconds") == 0:
            for name in ("stale_if_error_seconds", "stale_while_revalidate_seconds"):
                if rules.get(name):
                    document.mistake((*path, name), "does nothing: with ttl_seconds: 0 no answer is kept")


def _takes_callers_keys(route: dict[str, Any], upstreams: dict[str, Any]) -> bool:
    targets = [mapping(target) for target in listing(route.get("targets"))]
    named = [mapping(upstreams.get(str(target.get("upstream")))) for target in targets]
    return any(upstream.get("credential") == "caller" for upstream in named)
