"""Routers over a few upstreams, calls, and a world as a test wants it."""

from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from proxy.call import Call, Caller
from proxy.config import ProviderTraits
from proxy.config.load import build
from proxy.config.source import Document
from proxy.openai_format.encoding import encode
from proxy.openai_format.estimate import Estimate
from proxy.openai_format.members import find_members
from proxy.providers.seam import Route, Target
from proxy.routing import Choice, Router

TRAITS = {"openai": ProviderTraits("http://upstream.example/v1", ("exact", "normalise"))}
UPSTREAMS = ("a", "b", "c.d")


def never() -> float:
    raise AssertionError("chance is asked only where weights are drawn")


class World:
    """How things stand: `times` and `busy` by upstream.

    Args:
        chance: or none, where it must not be asked.
    """

    def __init__(self, chance: Callable[[], float] = never) -> None:
        self._chance = chance
        self.times: dict[str, float | None] = {}
        self.busy: dict[str, int] = {}

    def chance(self) -> float:
        return self._chance()

    def seconds(self, target: Target, *, stream: bool) -> float | None:
        return self.times.get(target.name)

    def in_flight(self, target: Target) -> int:
        return self.busy.get(target.name, 0)


def router(
    *routes: Mapping[str, Any],
    upstreams: Mapping[str, Mapping[str, Any]] | None = None,
    chance: Callable[[], float] = lambda: 0.0,
    **server: Any,
) -> Router:
    """A router over three upstreams, and those that are given; a route's targets are `a` unless it says more."""
    known = {name: {"provider": "openai"} for name in UPSTREAMS}
    known |= {name: {"provider": "openai", **more} for name, more in (upstreams or {}).items()}
    rules = [{"targets": [{"upstream": "a"}], **route} for route in routes]
    return Router(build(Document("test", {"server": server, "upstreams": known, "routes": rules}), TRAITS), chance)


def call(
    model: str = "m",
    *,
    headers: Mapping[str, str] | None = None,
    caller: str | None = None,
    body: Mapping[str, Any] | None = None,
    **more: Any,
) -> Call:
    """A call whose body holds these fields."""
    fields = {"stream": False, "wants_usage": False} | more
    text = encode(dict(body or {}))
    return Call("id", 0.0, text, find_members(text), model, caller=Caller(caller), headers=headers or {}, **fields)


def choose(routes: Router, made: Call, world: World | None = None, *, dry: bool = False) -> Choice:
    return routes.choose(made, Estimate(made), world or World(), dry=dry)


def route_of(routes: Router, made: Call, world: World | None = None) -> Route:
    return choose(routes, made, world).route


def order_of(routes: Router, made: Call, world: World | None = None) -> list[str]:
    """The upstreams in the order to try."""
    return [target.name for target in route_of(routes, made, world).targets]


def seeded(seed: int = 7) -> Callable[[], float]:
    return Random(seed).random
