"""Weights and canaries get the shares they are given, and who is to stay in one place stays there."""

from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from random import Random
from typing import Any

import pytest

from proxy.call import Call
from proxy.routing import Router
from tests.routing.scene import World, call, order_of, route_of, router, seeded

CALLS = 20_000
NINE_TO_ONE = [{"upstream": "a", "weight": 9}, {"upstream": "b", "weight": 1}]
TWO = [{"upstream": "a"}, {"upstream": "b"}]
BY = ["user", "prompt_cache_key", "safety_identifier", "caller", "header:X-Session"]


def weighted(*, chance: Any = lambda: 0.0, **more: Any) -> Router:
    return router({"strategy": "weighted", "targets": NINE_TO_ONE, **more}, chance=chance)


def canaried(share: float, *, chance: Any = lambda: 0.0, **more: Any) -> Router:
    rule = {"targets": TWO, "canary": {"upstream": "c.d", "share": share}, **more}
    return router({"name": "r", **rule}, chance=chance)


def made_by(by: str, value: str | None) -> Call:
    """A call that has this value where calls are kept together by it."""
    if by == "caller":
        return call(caller=value)
    if by.startswith("header:"):
        return call(headers={} if value is None else {"x-session": value})
    return call(body={} if value is None else {by: value})


def firsts(routes: Router, calls: int, world: World | None = None) -> Counter[str]:
    world = world or World(seeded())
    return Counter(order_of(routes, call(), world)[0] for _ in range(calls))


def test_ninety_to_ten() -> None:
    """Over 20,000 calls each gets what its weight says, within 1 %; with turns it is exact."""
    seen = firsts(weighted(chance=seeded()), CALLS)
    assert abs(seen["a"] / CALLS - 0.9) < 0.01
    assert seen == {"a": 18_000, "b": 2_000}


def test_models_take_turns_together() -> None:
    """A rule's weights are those of all its calls, whatever model they ask for."""
    routes = weighted()
    seen = Counter(order_of(routes, call(f"m-{number % 7}"), World(seeded()))[0] for number in range(1000))
    assert seen == {"a": 900, "b": 100}


def test_weight_0_is_a_last_resort() -> None:
    """It is never first, and always there."""
    targets = [{"upstream": "a", "weight": 0}, {"upstream": "b", "weight": 2}, {"upstream": "c.d", "weight": 1}]
    routes, world = router({"strategy": "weighted", "targets": targets}), World(seeded())
    assert {order_of(routes, call(), world)[2] for _ in range(300)} == {"a"}
    sticky = router({"strategy": "weighted", "targets": targets, "sticky": "user"})
    assert {order_of(sticky, made_by("user", f"u{number}"), world)[2] for number in range(300)} == {"a"}


@pytest.mark.parametrize("by", BY)
def test_the_same_value_stays_in_one_place(by: str) -> None:
    """In every process, wherever its turns began; different values are spread by the weights."""
    one, other = weighted(chance=lambda: 0.1, sticky=by), weighted(chance=Random(9).random, sticky=by)
    places = Counter[str]()
    for number in range(2000):
        made = made_by(by, f"v-{number}")
        place = order_of(one, made)[0]  # chance is not asked
        assert order_of(one, made)[0] == order_of(other, made)[0] == place
        places[place] += 1
    assert abs(places["a"] / 2000 - 0.9) < 0.02


@pytest.mark.parametrize("by", BY)
def test_calls_without_the_value_take_turns(by: str) -> None:
    """They are spread exactly, and those that are kept together take nobody's turn."""
    routes, world = weighted(sticky=by), World(seeded())
    seen = Counter[str]()
    for number in range(1000):
        order_of(routes, made_by(by, f"v-{number % 3}"), world)
        seen[order_of(routes, made_by(by, None), world)[0]] += 1
    assert seen == {"a": 900, "b": 100}


@pytest.mark.parametrize("value", ["", None, 7, ["x"], {"x": 1}])
def test_what_is_no_value(value: Any) -> None:
    """An empty text, null, and what is no text keep nobody together."""
    routes, world = weighted(sticky="user"), World(seeded())
    seen = Counter(order_of(routes, call(body={"user": value}), world)[0] for _ in range(100))
    assert seen == {"a": 90, "b": 10}
    headed = weighted(sticky="header:x-session")
    empty = Counter(order_of(headed, call(headers={"x-session": ""}), world)[0] for _ in range(100))
    assert empty == {"a": 90, "b": 10}


def test_one_value_is_not_looked_for_elsewhere() -> None:
    """Sticky by one thing is blind to the others."""
    routes, world = weighted(sticky="user"), World(seeded())
    made = call(body={"prompt_cache_key": "k"}, caller="ann", headers={"user": "u"})
    assert Counter(order_of(routes, made, world)[0] for _ in range(100)) == {"a": 90, "b": 10}


def test_when_the_first_fails_all_of_a_value_go_to_the_same_next() -> None:
    """The whole order belongs to the value, not only its head."""
    targets = [{"upstream": name} for name in ("a", "b", "c.d")]
    routes = router({"strategy": "weighted", "targets": targets, "sticky": "user"})
    orders = {tuple(order_of(routes, made_by("user", f"u{number}"))) for number in range(200)}
    assert len(orders) == 6
    assert len({tuple(order_of(routes, made_by("user", "ann"))) for _ in range(20)}) == 1


@pytest.mark.parametrize("share", [0.001, 0.05, 0.1, 0.25, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("start", [0.0, 0.37, 0.999])
def test_a_canarys_share_is_exact(share: float, start: float) -> None:
    """Of 2,000 calls as many as it says, wherever the turns began; the targets follow it."""
    routes = canaried(share, chance=lambda: start)
    orders = Counter(tuple(order_of(routes, call())) for _ in range(2000))
    assert orders[("c.d", "a", "b")] == round(2000 * share)
    assert orders[("a", "b")] == 2000 - round(2000 * share)


def test_a_canarys_turns_are_spread() -> None:
    """One in ten is every tenth, not a hundred in a row."""
    routes = canaried(0.1)
    numbers = [number for number in range(1000) if order_of(routes, call())[0] == "c.d"]
    assert {later - earlier for earlier, later in pairwise(numbers)} == {10}


def test_who_is_at_the_canary_stays_there() -> None:
    """The same user sees the same side in every process; over all users it has its share."""
    one, other = canaried(0.2, sticky="user"), canaried(0.2, sticky="user", chance=seeded(4))
    sides = Counter[bool]()
    for number in range(4000):
        made = made_by("user", f"u{number}")
        sides[order_of(one, made)[0] == "c.d"] += 1
        assert order_of(one, made) == order_of(one, made) == order_of(other, made)
    assert abs(sides[True] / 4000 - 0.2) < 0.02
    unnamed = Counter(order_of(one, call())[0] for _ in range(100))
    assert unnamed == {"c.d": 20, "a": 80}


def test_a_growing_canary_keeps_whom_it_has() -> None:
    """With a greater share come more users; none goes back."""
    small, great = canaried(0.1, sticky="user"), canaried(0.3, sticky="user")
    made = [made_by("user", f"u{number}") for number in range(1000)]
    had = {number for number, each in enumerate(made) if order_of(small, each)[0] == "c.d"}
    has = {number for number, each in enumerate(made) if order_of(great, each)[0] == "c.d"}
    assert had < has


def test_a_canary_is_nobodys_failover() -> None:
    """Calls that do not begin there never come there: neither the canary's place nor a fallback is a target's."""
    routes = canaried(0.1, fallback=[{"upstream": "b", "model": "f"}])
    for _ in range(200):
        route = route_of(routes, call())
        names = [target.name for target in route.targets]
        assert names in (["c.d", "a", "b", "b"], ["a", "b", "b"])
        assert route.fallback_from == len(names) - 1
        assert [target.name for target in route.primary] == ["a", "b", "c.d"]


def test_a_canary_is_not_the_failover_of_another_route() -> None:
    """Whoever falls back to a route gets its targets; its canary is for its own calls."""
    routes = router(
        {"match": {"model": "m"}, "fallback": [{"route": "other"}]},
        {"name": "other", "targets": [{"upstream": "b"}], "canary": {"upstream": "c.d", "share": 0.5}},
    )
    assert {tuple(order_of(routes, call())) for _ in range(10)} == {("a", "b")}


@pytest.mark.parametrize(
    "other",
    [
        {"strategy": "weighted", "targets": [{"upstream": "b"}, {"upstream": "c.d"}]},
        {"targets": [{"upstream": "c.d"}], "canary": {"upstream": "b", "share": 0.5}},
    ],
)
def test_a_route_that_falls_back_takes_nobodys_turn(other: Mapping[str, Any]) -> None:
    """A route's shares are those of its own calls, also where each second call is one that only might come."""
    routes = router({"match": {"model": "m"}, "fallback": [{"route": "other"}]}, {"name": "other", **other})
    world, seen = World(seeded()), Counter[str]()
    for _ in range(100):
        order_of(routes, call(), world)
        seen[order_of(routes, call("n"), world)[0]] += 1
    assert seen == {"b": 50, "c.d": 50}


@pytest.mark.parametrize("start", [0.2, 0.5])
def test_a_canary_beside_weights(start: float) -> None:
    """The canary has its share of all calls, and the failure of its calls goes to the targets by their weights."""
    rule = {"strategy": "weighted", "targets": NINE_TO_ONE, "canary": {"upstream": "c.d", "share": 0.3}}
    routes, world = router(rule, chance=lambda: start), World(seeded())
    orders = [order_of(routes, call(), world) for _ in range(1000)]
    assert Counter(order[0] == "c.d" for order in orders) == {True: 300, False: 700}
    assert all(sorted(order[-2:]) == ["a", "b"] for order in orders)


def test_a_canary_leaves_the_weights_as_they_are() -> None:
    """The calls that are not the canary's are shared by the weights."""
    rule = {"strategy": "weighted", "targets": NINE_TO_ONE, "canary": {"upstream": "c.d", "share": 0.1}}
    routes, world = router(rule), World(seeded())
    first = Counter(order_of(routes, call(), world)[0] for _ in range(1000))
    assert first == {"c.d": 100, "a": 810, "b": 90}
