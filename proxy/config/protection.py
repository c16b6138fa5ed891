"""How failures are met and loads are bounded: the sections of circuits, retries, limits, hedging and shared state."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, WithJsonSchema

from proxy.config.section import Section
from proxy.config.values import Namespace, RedisUrl, Seconds

Refusal = Literal["context", "policy"]
Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(gt=0, le=1)]


def _check_limit(value: int) -> int:
    if value <= 0:
        raise ValueError("must be at least 1; leave the key out for no limit")
    return value


Limit = Annotated[int, AfterValidator(_check_limit), WithJsonSchema({"type": "integer", "minimum": 1})]


class Limits(Section):
    """How much may be used: at once, and per minute."""

    concurrent: Limit | None = None
    """Calls at once. Those above wait in a queue."""
    requests_per_minute: Limit | None = None
    tokens_per_minute: Limit | None = None
    """Of prompts and answers together: an estimate is reserved, and settled with the real usage."""
    queue: Annotated[int, Field(ge=0)] = 100
    """How many calls may wait for one of `concurrent`; those above it are answered 429."""
    queue_seconds: Annotated[float, Field(ge=0, le=3600)] = 5.0
    """How long they may wait."""


class Circuit(Section):
    """When an upstream that fails is left alone, and how it is tried again."""

    failure_rate: Rate = 0.5
    """Share of failed calls in the window that opens the circuit."""
    window: Annotated[int, Field(ge=1, le=10_000)] = 10
    """How many of the last calls are looked at; those older than 60 s do not count."""
    minimum_calls: Annotated[int, Field(ge=1, le=10_000)] = 5
    """Fewer outcomes than this open nothing."""
    open_seconds: Seconds = 30.0
    trial_calls: Annotated[int, Field(ge=1, le=1000)] = 3
    """Calls that are let through after that; all must succeed for the circuit to close."""
    slow_call_seconds: Seconds | None = None
    """Calls that last longer, until their answer or first content, are slow. Default: none is."""
    slow_call_rate: Rate = 0.5
    """Share of slow calls in the window that opens the circuit too."""
    per: Literal["upstream", "model"] = "upstream"
    """model: each model of the upstream that the configuration names has a circuit of its own; all others share one."""


class Retry(Section):
    """What a route does when an attempt fails."""

    attempts: Annotated[int, Field(ge=1, le=100)] | None = None
    """Of one call, over all targets. Default: 3, or one for each target if there are more."""
    first_wait_seconds: Seconds = 0.2
    """Upper bound of the random wait before the same target is tried again; it doubles each time."""
    longest_wait_seconds: Seconds = 5.0
    """A longer wait, also one that an upstream asks for, is not waited: the caller hears of the failure."""
    budget: Share = 0.2
    """Repeats at one upstream, as a share of the attempts of the last 10 s; three are always possible."""


class Hedge(Section):
    """A second attempt on the next target while the first has no content yet; the first content wins."""

    after_seconds: Seconds | None = None
    """Default: the 95th percentile of the upstream's recent times to first content, once 20 are known."""
    budget: Share = 0.05
    """Second attempts, as a share of the route's calls."""


class HealthCheck(Section):
    """Asks an upstream whose circuit is open whether it is back, so that trials may begin early."""

    kind: Literal["models", "connect"] = "models"
    """models: its list of models answers; connect: a TCP or TLS connection can be made."""
    interval_seconds: Seconds = 5.0


class Redis(Section):
    """Where several sidecars share the state of circuits and limits. No call waits for it but when a share is empty."""

    url: RedisUrl
    """redis://[[user]:password@]host:6379/0, rediss://..., unix:///path or redis+sentinel://host:26379,.../service"""
    timeout_seconds: Annotated[float, Field(gt=0, le=5)] = 0.05
    """How long a call may wait for a share of a limit, once, before it goes by its own count. Redis counts as gone
    when it has not answered for as long, but not before 0.25 s."""
    namespace: Namespace = "octet"
    """Begins every key; sidecars that share state have the same one."""
