"""What is only asked changes nothing, and is what would be done."""

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from proxy.call import Call
from proxy.openai_format.estimate import Estimate
from proxy.routing import Router
from tests.routing.scene import World, call, choose, router

UPSTREAMS = ("a", "b", "c.d")
STRATEGIES = ("ordered", "weighted", "least_latency", "least_busy", "least_cost")
SETTINGS: dict[str, dict[str, Any]] = {
    "a": {"labels": {"region": "eu", "tier": "gold"}, "prices": {"*": {"input_per_million": 3}}},
    "b": {"labels": {"region": "us", "tier": "gold"}, "prices": {"m*": {"input_per_million": 2}}},
    "c.d": {"labels": {"region": "eu"}},
    "d": {"labels": {"region": "us"}, "prices": {"*": {"input_per_million": 0.1, "output_per_million": 9}}},
    "e": {},
}
NAMES = tuple(SETTINGS)


def some_places(random: Random, most: int) -> list[dict[str, Any]]:
    return [some_place(random) for _ in range(random.randint(1, most))]


def some_place(random: Random) -> dict[str, Any]:
    place: dict[str, Any] = {"upstream": random.choice(NAMES)}
    if random.random() < 0.3:
        place["model"] = random.choice(["m1", "n1"])
    if random.random() < 0.3:
        place["max_context_tokens"] = random.choice([10, 300, 1000])
    return place


def some_rule(random: Random, number: int, last: int) -> dict[str, Any]:
    """A rule that may lead to the next, for its own model or any."""
    rule: dict[str, Any] = {
        "name": f"r{number}",
        "match": {"model": f"m{number}"} if number < last else {},
        "strategy": random.choice(STRATEGIES),
        "targets": [{"upstream": "a"}, *some_places(random, 4)],
    }
    if rule["strategy"] in ("weighted", "least_busy"):
        rule["targets"] = [{**each, "weight": random.randint(0, 5)} for each in rule["targets"]]
        rule["targets"][0]["weight"] = 1
    if random.random() < 0.4:
        rule["canary"] = {**some_place(random), "share": random.choice([0.1, 0.3, 0.5, 1])}
    if rule["strategy"] == "weighted" or "canary" in rule:
        rule |= {"sticky": random.choice(["user", "caller", "header:x-s"])} if random.random() < 0.5 else {}
    if random.random() < 0.3:
        rule["require"] = {"region": "eu"}
    if random.random() < 0.4:
        rule["prefer"] = random.choice([{"tier": "gold"}, {"tier": "gold", "region": "us"}])
    if random.random() < 0.5:
        rule["fallback"] = some_places(random, 2)
        if number < last:
            rule["fallback"].insert(0, {"route": f"r{number + 1}"})
    return rule


def some_call(random: Random) -> Call:
    body: dict[str, Any] = {"max_tokens": random.choice([1, 200, 5000])}
    if random.random() < 0.5:
        body["user"] = f"u{random.randint(0, 9)}"
    model = random.choice(["m0", "m1", "m2", "m3", "a/x"])
    headers = {"x-s": "s"} if random.random() < 0.3 else {}
    return call(model, body=body, headers=headers, caller=random.choice([None, "ann"]), stream=random.random() < 0.5)


def some_world(random: Random, chance: Callable[[], float]) -> World:
    world = World(chance)
    world.times = {name: random.choice([None, 0.1, 0.2, 3.0]) for name in NAMES}
    world.busy = {name: random.randint(0, 3) for name in NAMES}
    return world


@pytest.mark.parametrize("seed", range(100))
def test_what_would_be_done_is_done(seed: int) -> None:
    """A hundred random calls to random rules: each is asked thrice, and then done with the same chance as told."""
    random = Random(seed)
    last = random.randint(0, 3)
    routes = router(*(some_rule(random, number, last) for number in range(last + 1)), upstreams=SETTINGS)
    for number in range(100):
        made, world = some_call(random), some_world(random, Random(0).random)
        told = [choose(routes, made, again(world, number), dry=True) for _ in range(3)]
        done = choose(routes, made, again(world, number))
        assert told == [done] * 3


def again(world: World, seed: int) -> World:
    """The same world, whose chance begins anew."""
    other = World(Random(seed).random)
    other.times, other.busy = world.times, world.busy
    return other


@pytest.mark.parametrize("seed", range(20))
def test_asking_does_not_change_what_comes(seed: int) -> None:
    """Two routers of one configuration go the same ways, though one of them is asked all the time."""
    random = Random(1000 + seed)
    rules = [some_rule(random, number, 3) for number in range(4)]
    asked, left_alone = (router(*rules, upstreams=SETTINGS, chance=Random(seed).random) for _ in range(2))
    for number in range(100):
        made, world = some_call(random), some_world(random, Random(0).random)
        for _ in range(random.randint(0, 3)):
            choose(asked, made, again(world, number), dry=True)
        assert choose(asked, made, again(world, number)) == choose(left_alone, made, again(world, number))


def through(routes: Router, made: Call, *, dry: bool) -> tuple[str, ...]:
    choice = routes.choose(made, Estimate(made), World(Random(1).random), dry=dry)
    return tuple(target.name for target in choice.route.targets)


def test_a_rule_that_is_reached_twice() -> None:
    """Along two fallbacks that meet again: what is told of it is what is done."""
    routes = router(
        {"match": {"model": "m"}, "targets": [{"upstream": "e"}], "fallback": [{"route": "left"}, {"route": "right"}]},
        {"name": "left", "match": {"model": "l"}, "targets": [{"upstream": "d"}], "fallback": [{"route": "end"}]},
        {"name": "right", "match": {"model": "r"}, "targets": [{"upstream": "d"}], "fallback": [{"route": "end"}]},
        {"name": "end", "targets": [{"upstream": "b"}], "canary": {"upstream": "c.d", "share": 0.3}},
        upstreams=SETTINGS,
    )
    for _ in range(20):
        assert through(routes, call(), dry=True) == through(routes, call(), dry=False)


@pytest.mark.parametrize("rule", [{}, {"fallback": [{"upstream": "b"}]}, {"prefer": {"tier": "gold"}}])
def test_plain_rules_are_reckoned_once(rule: dict[str, Any]) -> None:
    """Where every call for a model goes the same way, the same choice is given again, and chance is not asked."""
    routes = router({"name": "r", "targets": [{"upstream": "a"}], **rule}, upstreams=SETTINGS)
    first = choose(routes, call(), dry=True)
    assert choose(routes, call(body={"x": 1})) is first
    assert choose(routes, call("other")).route.targets[0].model == "other"


def test_many_names_are_not_kept() -> None:
    """Callers who invent names fill no memory, and are routed right."""
    routes = router({"name": "r", "list": ["m"]})
    for number in range(3000):
        target = choose(routes, call(f"m{number}")).route.targets[0]
        assert (target.model, target.label) == (f"m{number}", "other")
    assert choose(routes, call("m")).route.targets[0].label == "m"
    rule = routes.rules[0]
    assert max(len(rule._choices), len(rule._ready), len(routes._named)) <= 1024
