"""Which calls go where, and in which order: the sections of routes, their matches and their targets."""

import re
from math import isfinite
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from proxy.config.caching import OptionalRouteCache
from proxy.config.money import Budget
from proxy.config.protection import Hedge, Refusal, Retry
from proxy.config.section import Section
from proxy.config.values import Glob, Globs, HeaderName, HeaderValue, Name, Patterns, Seconds

Strategy = Literal["ordered", "weighted", "least_latency", "least_busy", "least_cost"]
MEMBERS = ("user", "prompt_cache_key", "safety_identifier")  # of a body, that calls can be kept together by
_STICKY = re.compile(rf"(?:{'|'.join(MEMBERS)}|caller|header:[!#$%&'*+.^_`|~0-9A-Za-z-]+)")
_OURS = frozenset({"model", "messages", "prompt", "input", "stream", "stream_options"})


def _check_regex(value: str) -> str:
    try:
        re.compile(value)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"is no regular expression: {error}") from error
    return value


def _check_sticky(value: str) -> str:
    if not _STICKY.fullmatch(value):
        raise ValueError(f"write {', '.join(MEMBERS)}, caller, or header:NAME")
    return value.lower() if value.startswith("header:") else value


def _check_field(value: str) -> str:
    if value in _OURS:
        raise ValueError(f"{value} cannot be changed on the way")
    return value


def _check_given(value: Any) -> Any:
    """A value that JSON can hold."""
    if isinstance(value, float) and not isfinite(value):
        raise ValueError("must be a finite number")
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_given(each)
    return value


def _one_or_many_removed(value: object) -> object:
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


Regex = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_check_regex)]
Sticky = Annotated[
    str, AfterValidator(_check_sticky), WithJsonSchema({"type": "string", "pattern": f"^{_STICKY.pattern}$"})
]
FieldName = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_check_field)]
Given = Annotated[Any, AfterValidator(_check_given)]
FieldNames = Annotated[
    tuple[FieldName, ...],
    BeforeValidator(_one_or_many_removed),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
Weight = Annotated[int, Field(ge=0, le=1_000_000)]
Wanted = dict[Name, Globs]  # labels and globs of their values


class Match(Section):
    """What a call must be for a route; all of it."""

    model: Annotated[Globs, Field(min_length=1)] = ("*",)
    """Globs, any of which fits."""
    model_regex: Regex | None = None
    """A regular expression that fits the whole name, beside `model`."""
    headers: dict[str, Glob] = {}
    """Header names and globs of their values."""
    caller: Patterns = ()
    """Names of callers, any of which fits."""
    stream: bool | None = None
    tools: bool | None = None
    """Whether the call offers tools or functions."""
    images: bool | None = None
    """Whether a message holds an image."""
    min_prompt_tokens: Count | None = None
    """Least estimated size of the prompt (a token is about four bytes)."""
    max_prompt_tokens: Count | None = None
    """Greatest estimated size of the prompt."""
    metadata: dict[str, Glob] = {}
    """Keys of the call's `metadata` and globs of their values."""


class Way(Section):
    """What differs in a call that goes one way."""

    model: str | None = None
    """The name there. Default: as asked."""
    max_context_tokens: Count | None = None
    """A call estimated larger, with the answer it wants, goes to another target, if it fits there."""
    set: dict[FieldName, Given] = {}
    """Fields of the body that are given these values."""
    defaults: dict[FieldName, Given] = {}
    """The same, where the call does not have them."""
    remove: FieldNames = ()
    """Fields of the body that are left out; named in x-octet-dropped."""
    headers: Annotated[dict[HeaderName, HeaderValue], Field(repr=False)] = {}
    """Sent with the call, beside and before those of the upstream."""


class TargetRule(Way):
    """One place a call may go."""

    upstream: str
    weight: Weight = 1


class FallbackRule(Way):
    """One place a call may go when no target answered: an upstream, or the targets of another route."""

    upstream: str | None = None
    route: str | None = None
    """The name of another route: its targets are tried in its own order, then its fallbacks."""


class Canary(Way):
    """A place that gets a share of the route's calls first; the targets follow when it fails."""

    upstream: str
    share: Annotated[float, Field(gt=0, le=1)]


class Mirror(Way):
    """A place that gets copies of calls behind the callers' backs; its answers are thrown away."""

    upstream: str
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    concurrent: Annotated[int, Field(ge=1, le=10_000)] = 10
    """Copies at once; calls above it are not copied."""


class RouteRule(Section):
    """A rule; the first that matches serves the call."""

    name: Name | None = None
    match: Match = Match()
    strategy: Strategy = "ordered"
    """ordered: as they stand; weighted: in turn, by their weights; least_latency: the quicker of two drawn by chance;
    least_busy: the one with fewest calls in flight for its weight; least_cost: the cheapest for the call's size."""
    sticky: Sticky | None = None
    """Keeps calls with the same value on the same target (weighted, and canary): user, prompt_cache_key,
    safety_identifier, caller, or header:NAME."""
    require: Wanted = {}
    """Labels that a target's upstream must have; others are never tried."""
    prefer: Wanted = {}
    """Labels whose upstreams come first; the strategy orders those that have as many of them."""
    prefer_own_region: bool = False
    """Upstreams whose label `region` is `server.region` come first."""
    targets: Annotated[tuple[TargetRule, ...], Field(min_length=1, strict=False)]
    canary: Canary | None = None
    mirror: Mirror | None = None
    fallback: Annotated[tuple[FallbackRule, ...], Field(strict=False)] = ()
    """Tried in order when no target answered."""
    fallback_on: Annotated[tuple[Refusal, ...], Field(strict=False)] = ()
    """Refusals after which `fallback` is tried too: context (the conversation is too long), policy."""
    retry: Retry = Retry()
    hedge: Hedge | None = None
    cache: OptionalRouteCache = None
    budget: Budget = Budget()
    """Of all calls of the route together."""
    total_seconds: Seconds | None = None
    """Bounds a whole call, all its attempts together. Default: no bound but the attempts' own."""
    list: Patterns = ()
    """Model names to show in /v1/models, beside those that `match.model` spells out."""
