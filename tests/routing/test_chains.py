"""Calls that are too large for a target go elsewhere, and routes lead to the targets of others."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from proxy.call import Call
from proxy.openai_format.estimate import Estimate
from proxy.routing import Choice, Router
from tests.routing.scene import World, call, choose, order_of, route_of, router, seeded

SMALL, MEDIUM, LARGE = 100, 1000, 10_000


def of(tokens: int) -> Call:
    """A call of this estimated size, with its answer."""
    made = (call(body={"max_tokens": tokens - prompt}) for prompt in range(1, 20))
    return next(each for each in made if Estimate(each)() == tokens)


def sized(**sizes: int | None) -> list[dict[str, Any]]:
    """Targets `a`, `b` and `c` by their sizes; None: not said."""
    names = {"a": "a", "b": "b", "c": "c.d"}
    return [
        {"upstream": names[name], **({} if size is None else {"max_context_tokens": size})}
        for name, size in sizes.items()
    ]


def shape(choice: Choice) -> tuple[list[str], int, list[str]]:
    """The order to try, where fallbacks begin, and who is skipped for its size."""
    skipped = [each.target.name for each in choice.skipped if each.because == "max_context_tokens"]
    assert len(skipped) == len(choice.skipped)
    return [target.name for target in choice.route.targets], choice.route.fallback_from, skipped


@pytest.mark.parametrize(
    ("tokens", "targets", "fallback", "order", "first", "skipped"),
    [
        (SMALL, {"a": SMALL, "b": LARGE}, {}, ["a", "b"], 2, []),
        (SMALL + 1, {"a": SMALL, "b": LARGE}, {}, ["b"], 1, ["a"]),
        (MEDIUM, {"a": SMALL, "b": None}, {}, ["b"], 1, ["a"]),
        (MEDIUM, {"a": SMALL, "b": LARGE, "c": SMALL}, {}, ["b"], 1, ["a", "c.d"]),
        (MEDIUM, {"a": LARGE}, {"b": SMALL}, ["a"], 1, ["b"]),
        (MEDIUM, {"a": SMALL, "b": LARGE}, {"c": LARGE}, ["b", "c.d"], 1, ["a"]),
        (MEDIUM, {"a": SMALL}, {"b": LARGE}, ["b"], 0, ["a"]),
        (MEDIUM, {"a": SMALL}, {"b": None}, ["b"], 0, ["a"]),
        (LARGE + 1, {"a": SMALL, "b": LARGE, "c": LARGE}, {}, ["b", "c.d"], 2, ["a"]),
        (LARGE + 1, {"a": SMALL, "b": MEDIUM}, {"c": LARGE}, ["c.d"], 0, ["a", "b"]),
        (LARGE + 1, {"a": LARGE, "b": MEDIUM}, {"c": SMALL}, ["a"], 1, ["b", "c.d"]),
        (LARGE + 1, {"a": SMALL}, {}, ["a"], 1, []),
    ],
)
def test_a_call_goes_where_it_fits(
    tokens: int, targets: Any, fallback: Any, order: list[str], first: int, skipped: list[str]
) -> None:
    """Those that are too small are skipped, fallbacks too; where all are, the largest are left to judge."""
    routes = router({"targets": sized(**targets), "fallback": sized(**fallback)})
    assert shape(choose(routes, of(tokens))) == (order, first, skipped)


def test_the_wanted_answer_counts() -> None:
    """Prompt and answer are in the context together."""
    routes = router({"targets": sized(a=1000, b=None)})
    assert order_of(routes, call(body={"max_tokens": 900})) == ["a", "b"]
    assert order_of(routes, call(body={"max_tokens": 1000})) == ["b"]
    assert order_of(routes, call(body={"x": "y" * 4000, "max_tokens": 1})) == ["b"]


@pytest.mark.parametrize(("tokens", "order"), [(SMALL, ["c.d", "a", "b"]), (MEDIUM, ["a"])])
def test_a_canary_that_is_too_small(tokens: int, order: list[str]) -> None:
    """It is skipped like any target."""
    canary = {"upstream": "c.d", "share": 1, "max_context_tokens": SMALL}
    assert order_of(router({"targets": sized(a=None, b=SMALL), "canary": canary}), of(tokens)) == order


def test_a_mirror_that_is_too_small() -> None:
    """It gets no copy of a call that it could only refuse."""
    routes = router({"mirror": {"upstream": "b", "max_context_tokens": SMALL}})
    assert route_of(routes, of(SMALL)).copies is not None
    assert route_of(routes, of(MEDIUM)).copies is None


def test_scores_stay_with_their_targets() -> None:
    """What was reckoned is told of those that are left, in their order."""
    world = World(seeded())
    world.busy = {"a": 1, "b": 2, "c.d": 3}
    rule = {"strategy": "least_busy", "targets": sized(a=SMALL, b=LARGE, c=LARGE), "fallback": sized(a=None)}
    choice = choose(router(rule), of(MEDIUM), world)
    assert shape(choice) == (["b", "c.d", "a"], 2, ["a"])
    assert choice.scores == (2, 3, None)


def test_primary_targets_are_told_whatever_the_size() -> None:
    """The set of a route's own targets does not change with the call: answers are kept by it."""
    routes = router({"targets": sized(a=SMALL, b=LARGE), "fallback": sized(c=None)})
    assert [target.name for target in route_of(routes, of(MEDIUM)).primary] == ["a", "b"]


def test_sizes_after_what_is_required() -> None:
    """A target that is not allowed is no place where a call would fit."""
    labels = {"a": {"labels": {"region": "eu"}}, "b": {"labels": {"region": "us"}}}
    routes = router({"require": {"region": "eu"}, "targets": sized(a=SMALL, b=LARGE)}, upstreams=labels)
    choice = choose(routes, of(MEDIUM))
    assert [target.name for target in choice.route.targets] == ["a"]
    assert [(each.target.name, each.because) for each in choice.skipped] == [("b", "require")]


def chain(*rules: Mapping[str, Any]) -> Router:
    """Rules for the models 0, 1, ..., by which they are named too."""
    return router(*({"name": f"r{i}", "match": {"model": f"m{i}"}, **rule} for i, rule in enumerate(rules)))


def to(*names: str, **more: Any) -> list[dict[str, Any]]:
    return [{"upstream": name, **more} for name in names]


def test_the_targets_of_another_route_follow() -> None:
    """Then its fallbacks, then what comes after it; what the first route says of retries stays in force."""
    routes = chain(
        {"targets": to("a"), "fallback": [{"route": "r1"}, *to("a", model="last")], "retry": {"attempts": 7}},
        {"targets": to("b", "c.d"), "fallback": [{"route": "r2"}], "retry": {"attempts": 2}, "total_seconds": 3},
        {"targets": to("a", model="deep")},
    )
    route = route_of(routes, call("m0"))
    assert [(target.name, target.model) for target in route.targets] == [
        ("a", "m0"), ("b", "m0"), ("c.d", "m0"), ("a", "deep"), ("a", "last"),
    ]  # fmt: skip
    assert (route.name, route.fallback_from, route.retry.attempts, route.total_seconds) == ("r0", 1, 7, None)
    assert [target.name for target in route.primary] == ["a"]
    assert [target.name for target in route_of(routes, call("m1")).targets] == ["b", "c.d", "a"]


def test_what_is_there_already_does_not_come_again() -> None:
    """A place is its upstream and the model there: the same upstream with another model is another place."""
    routes = chain(
        {"targets": to("a", "b"), "fallback": [*to("c.d", model="x"), {"route": "r1"}, {"route": "r2"}]},
        {"targets": [*to("b"), *to("b", model="x"), *to("c.d", model="x")], "fallback": [{"route": "r2"}]},
        {"targets": [*to("c.d"), *to("a"), *to("b", model="x")]},
    )
    assert [(target.name, target.model) for target in route_of(routes, call("m0")).targets] == [
        ("a", "m0"), ("b", "m0"), ("c.d", "x"), ("b", "x"), ("c.d", "m0"),
    ]  # fmt: skip


def test_a_fallback_that_a_chain_has_brought_does_not_come_again() -> None:
    """Whichever of the two stands first."""
    routes = chain({"targets": to("a"), "fallback": [{"route": "r1"}, *to("b")]}, {"targets": to("b", "c.d")})
    assert order_of(routes, call("m0")) == ["a", "b", "c.d"]


def test_the_other_routes_strategy_is_used() -> None:
    """Its weights, its own preferences and its keys decide among its targets."""
    routes = chain(
        {"targets": to("a"), "fallback": [{"route": "r1"}]},
        {"strategy": "weighted", "targets": [*to("b", weight=3), *to("c.d")]},
    )
    world = World(seeded())
    orders = Counter(tuple(order_of(routes, call("m0"), world)) for _ in range(1000))
    assert set(orders) == {("a", "b", "c.d"), ("a", "c.d", "b")}
    assert abs(orders["a", "b", "c.d"] / 1000 - 0.75) < 0.05
    sticky = chain(
        {"targets": to("a"), "fallback": [{"route": "r1"}]},
        {"strategy": "weighted", "sticky": "user", "targets": to("b", "c.d", model="x")},
    )
    for number in range(50):
        body = {"user": f"u{number}"}
        assert order_of(sticky, call("m0", body=body))[1:] == order_of(sticky, call("m1", body=body))


@pytest.mark.parametrize("strategy", ["least_busy", "least_latency"])
def test_how_things_stand_counts_behind_a_chain_too(strategy: str) -> None:
    """The choice is made anew for each call, though the first route is an ordered one."""
    routes = chain(
        {"targets": to("a"), "fallback": [{"route": "r1"}]}, {"strategy": strategy, "targets": to("b", "c.d")}
    )
    world = World(seeded())
    for b, c in ((1, 2), (2, 1), (1, 2)):
        world.busy, world.times = {"b": b, "c.d": c}, {"b": float(b), "c.d": float(c)}
        assert order_of(routes, call("m0"), world) == (["a", "b", "c.d"] if b < c else ["a", "c.d", "b"])


def test_sizes_count_behind_a_chain_too() -> None:
    """A call goes to the other route's targets where only they are large enough."""
    routes = chain({"targets": sized(a=SMALL), "fallback": [{"route": "r1"}]}, {"targets": sized(b=MEDIUM, c=LARGE)})
    made = [call("m0", body={"max_tokens": size}) for size in (10, MEDIUM - 50, MEDIUM, 5 * LARGE)]
    found = [(order_of(routes, each), route_of(routes, each).fallback_from) for each in made]
    assert found == [(["a", "b", "c.d"], 1), (["b", "c.d"], 0), (["c.d"], 0), (["c.d"], 0)]


def test_the_other_routes_own_conditions_do_not_count() -> None:
    """Who falls back to a route need not fit its match."""
    routes = chain({"targets": to("a"), "fallback": [{"route": "r1"}]}, {"match": {"stream": True}, "targets": to("b")})
    assert order_of(routes, call("m0")) == ["a", "b"]


def test_the_other_routes_mirror_gets_no_copies() -> None:
    """Copies are those of a route's own calls."""
    routes = chain(
        {"targets": to("a"), "fallback": [{"route": "r1"}]},
        {"targets": to("b"), "mirror": {"upstream": "c.d", "model": "r"}},
    )
    assert route_of(routes, call("m0")).copies is None
    assert route_of(routes, call("m1")).copies is not None


def test_labels_of_every_place() -> None:
    """Metrics know every place beforehand: targets, canary, mirror, fallbacks, and those behind chains, each once."""
    routes = chain(
        {"targets": to("a"), "canary": {"upstream": "b", "model": "k", "share": 0.5},
         "mirror": {"upstream": "c.d", "model": "r"}, "fallback": [{"route": "r1"}, *to("a", model="f")]},
        {"targets": [*to("b", model="x"), *to("c.d")], "fallback": to("b", model="x")},
        {"match": {"model": "z*"}, "targets": to("a")},
    )  # fmt: skip
    assert sorted(routes.labels()) == sorted(
        [
            *[("r0", "a", "m0"), ("r0", "b", "k"), ("r0", "c.d", "r"), ("r0", "a", "f")],
            *[
                ("r0", "b", "x"),
                ("r0", "c.d", "m1"),
                ("r0", "c.d", "other"),
                ("r1", "b", "x"),
                ("r1", "c.d", "m1"),
                ("r2", "a", "other"),
            ],
        ]
    )


def test_labels_behind_a_chain_are_known_beforehand() -> None:
    """A target that is reached along a chain has a label that was told."""
    routes = chain({"targets": to("a"), "fallback": [{"route": "r1"}]}, {"targets": to("b")})
    told = {(upstream, label) for route, upstream, label in routes.labels() if route == "r0"}
    assert {(target.name, target.label) for target in route_of(routes, call("m0")).targets} <= told


def test_whereto_a_model_may_lead() -> None:
    """Along chains too, in the order of the file."""
    routes = chain(
        {"targets": to("a"), "canary": {"upstream": "b", "share": 0.1}, "fallback": [{"route": "r1"}]},
        {"targets": [*to("c.d"), *to("c.d", model="x")]},
    )
    assert list(routes.rules[0].leads("m0")) == [("a", "m0"), ("b", "m0"), ("c.d", "m0"), ("c.d", "x")]
    assert routes.reaches("m0", "c.d")
    assert not routes.reaches("m1", "a")


def test_a_rule_tells_what_a_target_adds() -> None:
    """Changes of the body, headers and size go with each place, and with none that has none."""
    more: dict[str, Any] = {"set": {"seed": 1}, "headers": {"X-A": "1"}, "max_context_tokens": 9}
    rule: dict[str, Any] = {"targets": [*to("a", **more), *to("b")], "fallback": to("c.d", **more)}
    rule |= {"canary": {"upstream": "b", "share": 1, **more}, "mirror": {"upstream": "b", **more}}
    route = route_of(router(rule), call(body={"max_tokens": 1}))
    copies = route.copies
    assert copies is not None
    changed = [*route.targets, copies.target]
    assert [target.overrides is not None for target in changed] == [True, True, False, True, True]
    assert [dict(target.headers) for target in changed] == [{"x-a": "1"}, {"x-a": "1"}, {}, {"x-a": "1"}, {"x-a": "1"}]
