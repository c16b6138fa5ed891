"""What is kept of answers, where, and for how long: the sections of the cache, and of a route's part in it."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from proxy.config.section import Section
from proxy.config.values import Bytes, CacheUrl, Namespace, Seconds

Window = Annotated[float, Field(ge=0, le=30 * 86400)]


class MemoryTier(Section):
    """This process's own memory."""

    max_bytes: Bytes = 64 * 1024**2
    """Of all answers kept; those used longest ago make room for new ones."""
    ttl_seconds: Seconds = 600.0
    """Most that an answer is kept here; a route's `ttl_seconds` may be shorter."""


class RedisTier(Section):
    """A Redis that several sidecars share, and that outlives them."""

    url: CacheUrl | None = None
    """redis://host:6379/0, rediss://..., unix:///path, redis+sentinel://host:26379,host:26379/service or
    redis+cluster://host:6379,host:6379; "": none. Default: `redis.url`."""
    ttl_seconds: Seconds = 86400.0
    """Most that an answer is kept there."""
    timeout_seconds: Annotated[float, Field(gt=0, le=5)] = 0.05
    """How long a call may wait for it before it goes upstream. Redis counts as gone when it has not answered for as
    long, but not before 0.25 s."""
    namespace: Namespace = "octet"
    """Begins every key; sidecars that share answers have the same one."""


class Cache(Section):
    """Where answers are kept; routes say whose."""

    memory: MemoryTier = MemoryTier()
    redis: RedisTier | None = None
    max_entry_bytes: Bytes = 1024**2
    """A larger answer is not kept."""


def _empty_is_default(value: Any) -> Any:
    return {} if value is None else value


class RouteCache(Section):
    """Answers of the route are kept, and given to calls that ask the same."""

    ttl_seconds: Window | None = None
    """How long an answer is good; 0: it is only shared by calls in flight. Default: as long as the tiers keep it."""
    any_temperature: bool = False
    """Also calls that ask for neither `temperature: 0` nor a `seed`."""
    shared: bool = False
    """Callers get one another's answers. Default: each only its own."""
    replay: Literal["instant", "paced"] = "instant"
    """How a kept answer is streamed: at once, or at the pace at which it once came."""
    stale_if_error_seconds: Window = 0.0
    """How long after its time an answer may serve when every target fails."""
    stale_while_revalidate_seconds: Window = 0.0
    """How long after its time an answer may serve while a new one is fetched behind the caller's back."""
    store_filtered: bool = False
    """Also answers that a content filter stopped."""
    join_seconds: Annotated[float, Field(ge=0, le=600)] = 0.0
    """How long a call waits for the same one in another sidecar (needs `cache.redis`); 0: it does not ask."""


OptionalRouteCache = Annotated[RouteCache | None, BeforeValidator(_empty_is_default)]
