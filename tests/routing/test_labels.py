"""Labels: what a route requires holds wherever its calls go, and what it prefers comes first."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from proxy.routing import Router
from tests.routing.scene import World, call, choose, order_of, route_of, router, seeded

LABELS: Mapping[str, Mapping[str, str]] = {
    "eu-gold": {"region": "eu-1", "tier": "gold"},
    "eu-tin": {"region": "eu-2", "tier": "tin"},
    "us-gold": {"region": "us-1", "tier": "gold"},
    "us-tin": {"region": "us-1", "tier": "tin"},
    "bare": {},
}
UPSTREAMS = {name: {"labels": dict(labels)} for name, labels in LABELS.items()}


def targets(*names: str, **more: Any) -> list[dict[str, Any]]:
    return [{"upstream": name, **more} for name in names]


def labelled(*routes: Mapping[str, Any], server: Mapping[str, Any] | None = None, **more: Any) -> Router:
    """A router over upstreams of two regions and two tiers; a route's targets are all of them unless it says more."""
    whole = [{"targets": targets(*LABELS), **route} for route in routes]
    return router(*whole, upstreams=UPSTREAMS, **(server or {}), **more)


@pytest.mark.parametrize(
    ("require", "allowed"),
    [
        ({"region": "eu-1"}, ["eu-gold"]),
        ({"region": "eu-*"}, ["eu-gold", "eu-tin"]),
        ({"region": ["eu-1", "us-1"]}, ["eu-gold", "us-gold", "us-tin"]),
        ({"region": "*"}, ["eu-gold", "eu-tin", "us-gold", "us-tin"]),
        ({"region": "us-*", "tier": "gold"}, ["us-gold"]),
        ({"tier": "[!g]*"}, ["eu-tin", "us-tin"]),
        ({"tier": "?in"}, ["eu-tin", "us-tin"]),
        ({}, list(LABELS)),
    ],
)
def test_only_what_is_required_is_tried(require: Mapping[str, Any], allowed: list[str]) -> None:
    """All of the labels, each fitting one of its globs; the others are skipped, and that is told."""
    choice = choose(labelled({"require": require}), call())
    assert [target.name for target in choice.route.targets] == allowed
    assert [target.name for target in choice.route.primary] == allowed
    assert [(skipped.target.name, skipped.because) for skipped in choice.skipped] == [
        (name, "require") for name in LABELS if name not in allowed
    ]


def test_a_label_is_not_part_of_another() -> None:
    """The whole value fits, and case counts."""
    more = {"EU": {"labels": {"region": "EU-1"}}, "eu": {"labels": {"region": "my-eu-1"}}}
    routes = router(
        {"require": {"region": "eu-*"}, "targets": targets("EU", "eu", "eu-gold")}, upstreams=UPSTREAMS | more
    )
    assert order_of(routes, call()) == ["eu-gold"]


def test_fallbacks_are_held_to_it_too() -> None:
    """A fallback without the label is never tried; where they begin is still told right."""
    rule = {"targets": targets("us-tin", "eu-tin"), "fallback": targets("us-gold", "bare", "eu-gold")}
    choice = choose(labelled({"require": {"region": "eu-*"}, **rule}), call())
    assert [target.name for target in choice.route.targets] == ["eu-tin", "eu-gold"]
    assert choice.route.fallback_from == 1
    assert [skipped.target.name for skipped in choice.skipped] == ["us-tin", "us-gold", "bare"]


def test_chained_routes_are_held_to_it_too() -> None:
    """What a route requires holds for the targets, fallbacks and chains of those it falls back to, beside their own."""
    rules: list[dict[str, Any]] = [
        {"match": {"model": "m"}, "require": {"region": "eu-*"}, "targets": targets("eu-tin"),
         "fallback": [{"route": "second"}]},
        {"name": "second", "match": {"model": "n"}, "require": {"tier": "gold"},
         "targets": targets("us-gold", "eu-gold", "eu-tin"), "fallback": [{"route": "third"}]},
        {"name": "third", "targets": targets("bare", "us-gold", model="t") + targets("eu-gold", "eu-tin", model="t")},
    ]  # fmt: skip
    routes = labelled(*rules)
    assert [(target.name, target.model) for target in route_of(routes, call()).targets] == [
        ("eu-tin", "m"),
        ("eu-gold", "m"),
        ("eu-gold", "t"),
    ]
    assert order_of(routes, call("n")) == ["us-gold", "eu-gold", "us-gold", "eu-gold"]


def test_a_model_reaches_no_upstream_that_is_not_allowed() -> None:
    """What a route requires holds also where it is told whereto a model may lead."""
    routes = labelled(
        {"match": {"model": "m"}, "require": {"region": "eu-*"}, "targets": targets("eu-tin"),
         "fallback": [{"route": "other"}]},
        {"name": "other", "match": {"model": "n"}, "targets": targets("us-gold")},
    )  # fmt: skip
    assert not routes.reaches("m", "us-gold")


@pytest.mark.parametrize(("upstream", "allowed"), [("eu-gold", True), ("us-gold", False), ("bare", False)])
def test_canary_and_mirror_are_held_to_it_too(upstream: str, allowed: bool) -> None:
    """A canary without the label gets no call, a mirror no copy; only the canary would have been tried, and is told."""
    rule = {
        "require": {"region": "eu-*"},
        "targets": targets("eu-tin"),
        "canary": {"upstream": upstream, "model": "c", "share": 1},
        "mirror": {"upstream": upstream, "model": "r"},
    }
    choice = choose(labelled(rule), call())
    assert [target.name for target in choice.route.targets] == ([upstream, "eu-tin"] if allowed else ["eu-tin"])
    assert ("c" in [target.model for target in choice.route.primary]) is allowed
    assert (choice.route.copies is not None) is allowed
    assert [(skipped.target.model, skipped.because) for skipped in choice.skipped] == (
        [] if allowed else [("c", "require")]
    )


@pytest.mark.parametrize(
    ("prefer", "order"),
    [
        ({"tier": "gold"}, ["eu-gold", "us-gold", "eu-tin", "us-tin", "bare"]),
        ({"region": "us-*"}, ["us-gold", "us-tin", "eu-gold", "eu-tin", "bare"]),
        ({"region": "us-*", "tier": "gold"}, ["us-gold", "eu-gold", "us-tin", "eu-tin", "bare"]),
        ({"region": "*"}, ["eu-gold", "eu-tin", "us-gold", "us-tin", "bare"]),
        ({"region": ["eu-2", "us-1"]}, ["eu-tin", "us-gold", "us-tin", "eu-gold", "bare"]),
        ({"tier": "none"}, list(LABELS)),
    ],
)
def test_what_is_preferred_comes_first(prefer: Mapping[str, Any], order: list[str]) -> None:
    """Those with most of the labels first, equals as they stand; nobody is left out."""
    choice = choose(labelled({"prefer": prefer}), call())
    assert [target.name for target in choice.route.targets] == order
    assert (choice.route.fallback_from, choice.skipped) == (len(LABELS), ())


@pytest.mark.parametrize(("region", "first"), [("us-1", "us-gold"), ("eu-2", "eu-tin")])
def test_the_own_region_comes_first(region: str, first: str) -> None:
    """Upstreams whose label is the very name of the sidecar's region, beside what else is preferred."""
    server = {"region": region}
    assert order_of(labelled({"prefer_own_region": True}, server=server), call())[0] == first
    assert order_of(labelled({}, server=server), call()) == list(LABELS)
    both = labelled({"prefer_own_region": True, "prefer": {"tier": "tin"}}, server={"region": "us-1"})
    assert order_of(both, call()) == ["us-tin", "eu-tin", "us-gold", "eu-gold", "bare"]


def test_fallbacks_are_not_moved_forward() -> None:
    """However much a fallback is liked, the route's own targets come first."""
    rule = {"prefer": {"tier": "gold"}, "targets": targets("us-tin", "bare"), "fallback": targets("us-gold")}
    route = route_of(labelled(rule), call())
    assert ([target.name for target in route.targets], route.fallback_from) == (["us-tin", "bare", "us-gold"], 2)


def test_turns_are_taken_among_those_liked_alike() -> None:
    """Weights decide within a tier: the first call of each cycle too goes to the preferred, at their own weights."""
    weights = {"eu-gold": 3, "us-gold": 1, "eu-tin": 1, "us-tin": 3}
    some = [{"upstream": name, "weight": weight} for name, weight in weights.items()]
    routes = labelled({"strategy": "weighted", "prefer": {"tier": "gold"}, "targets": some}, chance=seeded())
    orders = [order_of(routes, call(), World(seeded(3))) for _ in range(400)]
    assert Counter(order[0] for order in orders) == {"eu-gold": 300, "us-gold": 100}
    assert Counter(order[2] for order in orders) == {"eu-tin": 100, "us-tin": 300}
    assert all(set(order[:2]) == {"eu-gold", "us-gold"} for order in orders)


def test_weights_are_shared_among_those_allowed() -> None:
    """The turns of targets that are not allowed are nobody's."""
    some = [{"upstream": name, "weight": weight} for name, weight in (("bare", 96), ("eu-tin", 3), ("eu-gold", 1))]
    routes = labelled({"strategy": "weighted", "require": {"region": "eu-*"}, "targets": some})
    assert Counter(order_of(routes, call(), World(seeded()))[0] for _ in range(400)) == {"eu-tin": 300, "eu-gold": 100}


def test_the_quickest_of_those_liked_most() -> None:
    """Times decide within a tier; a quicker target of a lower tier waits."""
    world = World(seeded())
    world.times = {"eu-gold": 3.0, "us-gold": 2.0, "eu-tin": 0.2, "us-tin": 0.1, "bare": 0.01}
    routes = labelled({"strategy": "least_latency", "prefer": {"tier": "gold"}, "targets": targets(*LABELS)})
    order = order_of(routes, call(), world)
    assert order[:2] == ["us-gold", "eu-gold"]
    assert set(order[2:]) == {"eu-tin", "us-tin", "bare"}


def test_the_least_busy_and_the_cheapest_of_those_liked_most() -> None:
    """The other strategies, too, order each tier by itself, and tell what they reckoned."""
    world = World(seeded())
    world.busy = {"eu-gold": 9, "us-gold": 8, "eu-tin": 0, "us-tin": 1}
    rule = {"strategy": "least_busy", "prefer": {"tier": "gold"}, "targets": targets(*list(LABELS)[:4])}
    choice = choose(labelled(rule), call(), world)
    assert [target.name for target in choice.route.targets] == ["us-gold", "eu-gold", "eu-tin", "us-tin"]
    assert list(choice.scores) == [8, 9, 0, 1]
    prices: dict[str, Any] = {
        name: {**UPSTREAMS[name], "prices": {"*": {"input_per_million": price, "output_per_million": price}}}
        for name, price in {"eu-gold": 9, "us-gold": 8, "eu-tin": 1}.items()
    }
    cheap = router({**rule, "strategy": "least_cost"}, upstreams=UPSTREAMS | prices)
    assert order_of(cheap, call()) == ["us-gold", "eu-gold", "eu-tin", "us-tin"]
