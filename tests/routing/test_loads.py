"""Calls go where they are served soonest, where least is to do, or where they are cheapest."""

from collections import Counter
from collections.abc import Callable, Mapping
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import Any

import pytest

from proxy.openai_format.estimate import Estimate
from proxy.providers.seam import Target
from proxy.resilience.latency import FAILED_SECONDS, IDLE_CALLS, MEMORY_SECONDS, Load, PeakAverage
from proxy.resilience.latency import Traffic as Calls
from proxy.routing import Router
from tests.clock import Clock
from tests.routing.scene import World, call, choose, order_of, router, seeded

NEVER = float("inf")
RATE = 50.0  # calls a second


class Traffic:
    """Upstreams that take their time, told as attempts tell it, on a clock that is turned from event to event."""

    def __init__(self, routes: Router, *names: str, seed: int = 3) -> None:
        self._routes = routes
        self._random = Random(seed)
        self._numbers = count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self.clock = Clock(0.0)
        calls = Calls()
        self.loads = {name: Load(calls) for name in names}
        self.takes: dict[str, float] = dict.fromkeys(names, 0.1)  # seconds; inf: there is no answer
        self.sent: list[tuple[float, str]] = []
        self.busiest = Counter[str]()

    def chance(self) -> float:
        return self._random.random()

    def seconds(self, target: Target, *, stream: bool) -> float | None:
        return self.loads[target.name].averages[stream].now(self.clock())

    def in_flight(self, target: Target) -> int:
        return self.loads[target.name].in_flight

    def shares(self, since: float) -> dict[str, float]:
        """Of the calls since then, what each upstream got."""
        seen = Counter(name for at, name in self.sent if at >= since)
        return {name: seen[name] / max(1, seen.total()) for name in self.loads}

    def run(self, seconds: float, rate: float = RATE) -> None:
        """Calls come by chance, so many a second."""
        end = self.clock.now + seconds
        arrival = self.clock.now
        while (arrival := arrival + self._random.expovariate(rate)) < end:
            self._turn(arrival)
            self._call()
        self._turn(end)

    def _turn(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            self.clock.now, _, happens = heappop(self._events)
            happens()
        self.clock.now = until

    def _call(self) -> None:
        made = call()
        target = self._routes.choose(made, Estimate(made), self).route.targets[0]
        began, load, takes = self.clock.now, self.loads[target.name], self.takes[target.name]
        self.sent.append((began, target.name))
        load.in_flight += 1
        load.averages[False].wait(began)
        self.busiest[target.name] = max(self.busiest[target.name], load.in_flight)

        def answered() -> None:
            load.in_flight -= 1
            load.averages[False].add(self.clock.now - began, self.clock.now)

        if takes < NEVER:
            lasts = takes * self._random.uniform(0.8, 1.2)
            heappush(self._events, (began + lasts, next(self._numbers), answered))


def quickest(*names: str, **more: Any) -> Router:
    rule = {"strategy": "least_latency", "targets": [{"upstream": name} for name in names], **more}
    known = {name: {"provider": "openai"} for name in names}
    return router(rule, upstreams=known)


def traffic(*names: str, seed: int = 3) -> Traffic:
    return Traffic(quickest(*names), *names, seed=seed)


@pytest.mark.parametrize("seed", range(5))
def test_calls_leave_who_becomes_slow_and_come_back(seed: int) -> None:
    """Ten times slower: within five seconds more than 80 % go to the other; as quick again: it gets its half again."""
    scene = traffic("a", "b", seed=seed)
    scene.run(20)
    assert all(0.35 < share < 0.65 for share in scene.shares(10).values())
    scene.takes["a"] = 1.0
    scene.run(20)
    assert scene.shares(25)["b"] > 0.8
    assert scene.shares(25)["a"] > 0.005  # it is still tried
    scene.takes["a"] = 0.1
    scene.run(30)
    assert 0.35 < scene.shares(60)["a"] < 0.65


@pytest.mark.parametrize("seed", range(5))
def test_within_five_seconds(seed: int) -> None:
    """Of the calls that come in the five seconds after the change more than 80 % go to the faster one."""
    scene = traffic("a", "b", seed=seed)
    scene.run(20)
    scene.takes["a"] = 1.0
    scene.run(5)
    assert scene.shares(20)["b"] > 0.8


@pytest.mark.parametrize("names", [("a", "b"), ("a", "b", "c", "d"), tuple("abcdefgh")])
def test_a_newcomer_is_not_flooded(names: tuple[str, ...]) -> None:
    """Who has not answered yet gets one call, and then what is its due: never much more at once than the others."""
    scene = traffic(*names)
    newcomer = names[-1]
    for name in names[:-1]:
        scene.loads[name].averages[False].add(0.1, 0.0)
    scene.takes[newcomer] = 1.0
    scene.run(0.9)
    assert scene.busiest[newcomer] == 1
    scene.takes[newcomer] = 0.1
    scene.run(20)
    most = max(scene.busiest[name] for name in names[:-1])
    assert scene.busiest[newcomer] <= most + 3
    assert 0.5 / len(names) < scene.shares(10)[newcomer] < 2.0 / len(names)


def test_many_processes_make_no_herd() -> None:
    """Of eight upstreams the quickest does not get every call, though everybody knows it to be the quickest."""
    routes = quickest(*"abcdefgh")
    world = World(seeded())
    world.times = {name: 1.0 + number / 100 for number, name in enumerate("abcdefgh")}
    first = Counter(order_of(routes, call(), world)[0] for _ in range(8000))
    assert first["a"] < 8000 * 0.3
    assert first["a"] > first["d"] > first["g"] > first["h"] == 0


@pytest.mark.parametrize("names", [("a", "b"), ("a", "b", "c", "d")])
def test_who_answers_no_more_is_left_alone(names: tuple[str, ...]) -> None:
    """An upstream that hangs gets fewer and fewer calls, not all of them once its last answer is forgotten."""
    scene = traffic(*names)
    scene.run(20)
    scene.takes["a"] = NEVER
    scene.run(40)
    assert scene.shares(40)["a"] < 0.2
    assert scene.loads["a"].in_flight < 200


def test_a_target_that_nobody_knows_comes_first_once() -> None:
    """With nothing in flight it is tried at once; with one call there it is the last choice."""
    world = World(seeded())
    world.times = {"a": 0.1, "b": None}
    assert order_of(quickest("a", "b"), call(), world) == ["b", "a"]
    world.busy = {"a": 50, "b": 1}
    assert order_of(quickest("a", "b"), call(), world) == ["a", "b"]


def test_scores_are_told() -> None:
    """In the order of the targets: seconds, times the calls that would be there."""
    world = World(seeded())
    world.times, world.busy = {"a": 0.5, "b": 0.1}, {"a": 0, "b": 2}
    choice = choose(quickest("a", "b", fallback=[{"upstream": "c.d"}]), call(), world)
    assert [target.name for target in choice.route.targets] == ["b", "a", "c.d"]
    assert list(choice.scores) == [pytest.approx(0.3), 0.5, None]


def test_streams_and_whole_answers_are_told_apart() -> None:
    """The time of a stream's first content says nothing of whole answers."""

    class Modes(World):
        def seconds(self, target: Target, *, stream: bool) -> float | None:
            return 1.0 if (target.name == "a") is stream else 2.0

    world = Modes(seeded())
    assert order_of(quickest("a", "b"), call(stream=True), world) == ["a", "b"]
    assert order_of(quickest("a", "b"), call(stream=False), world) == ["b", "a"]


def test_an_average_jumps_up_and_comes_down_slowly() -> None:
    """A slow answer counts at once; after some seconds a third of it is left, whether or not others came."""
    clock, calls = Clock(100.0), Calls()
    average = PeakAverage(calls)
    assert average.now(clock()) is None
    average.add(1.0, clock())
    average.add(9.0, clock())
    assert average.now(clock()) == 9.0
    average.add(1.0, clock())
    assert average.now(clock()) == 9.0
    clock.now += MEMORY_SECONDS
    assert average.now(clock()) == 9.0, "nobody has called meanwhile"
    calls.calls += IDLE_CALLS
    assert average.now(clock()) == pytest.approx(9.0 / 2.718281828)
    average.add(1.0, clock())
    assert average.now(clock()) == pytest.approx(1.0 + 8.0 / 2.718281828)
    assert average.now(clock() - 50.0) == average.now(clock())  # a clock that went back
    assert FAILED_SECONDS >= 1.0


@pytest.mark.parametrize(
    ("busy", "order"),
    [
        ({"a": 3, "b": 1, "c.d": 2}, ["b", "c.d", "a"]),
        ({"a": 0, "b": 1, "c.d": 2}, ["a", "b", "c.d"]),
        ({"a": 5, "b": 4, "c.d": 3}, ["c.d", "b", "a"]),
    ],
)
def test_the_least_busy_comes_first(busy: Mapping[str, int], order: list[str]) -> None:
    """By the calls in flight, the others after it in the same order."""
    world = World(seeded())
    world.busy = dict(busy)
    assert (
        order_of(router({"strategy": "least_busy", "targets": places({"a": 1, "b": 1, "c.d": 1})}), call(), world)
        == order
    )


def places(weights: Mapping[str, int]) -> list[dict[str, Any]]:
    return [{"upstream": name, "weight": weight} for name, weight in weights.items()]


def test_the_least_busy_for_its_weight() -> None:
    """A target of weight 4 holds four times as many calls; one of weight 0 is a last resort."""
    routes = router({"strategy": "least_busy", "targets": places({"a": 4, "b": 1, "c.d": 0})})
    world, held = World(seeded()), Counter[str]()
    world.busy = held
    for _ in range(100):
        order = order_of(routes, call(), world)
        assert order[2] == "c.d"
        held[order[0]] += 1
    assert held == {"a": 80, "b": 20}


def test_equally_busy_ones_are_drawn() -> None:
    """At rest nobody is everybody's first."""
    routes = router({"strategy": "least_busy", "targets": places({"a": 1, "b": 1, "c.d": 1})})
    world = World(seeded())
    first = Counter(order_of(routes, call(), world)[0] for _ in range(3000))
    assert all(abs(first[name] / 3000 - 1 / 3) < 0.05 for name in ("a", "b", "c.d"))


def price(into: float, out: float) -> dict[str, Any]:
    return {"prices": {"cheap-*": {"input_per_million": 0, "output_per_million": 0},
                       "m": {"input_per_million": into, "output_per_million": out}}}  # fmt: skip


@pytest.mark.parametrize(
    ("body", "order"),
    [
        ({"max_tokens": 1, "x": "y" * 40_000}, ["b", "a", "c.d"]),
        ({"max_tokens": 10_000}, ["a", "b", "c.d"]),
        ({"max_tokens": 1, "max_completion_tokens": 10_000}, ["a", "b", "c.d"]),
        ({"max_tokens": 10, "n": 100, "x": "y" * 400}, ["a", "b", "c.d"]),
    ],
)
def test_the_cheapest_for_this_call(body: Mapping[str, Any], order: list[str]) -> None:
    """Long prompts go where prompts are cheap, long answers where answers are; who tells no price comes last."""
    rule = {"strategy": "least_cost", "targets": places({"c.d": 1, "a": 1, "b": 1})}
    routes = router(rule, upstreams={"a": price(10, 1), "b": price(1, 10)})
    choice = choose(routes, call(body=body))
    assert [target.name for target in choice.route.targets] == order
    assert choice.scores[2] is None
    assert [score is None for score in choice.scores] == [False, False, True]


def test_equal_prices_keep_their_order() -> None:
    """Also those that nobody knows; the price is that of the target's own model."""
    rule = {"strategy": "least_cost", "targets": [{"upstream": "b"}, {"upstream": "a"}]}
    same = router(rule, upstreams={"a": price(2, 2), "b": price(2, 2)})
    assert order_of(same, call()) == ["b", "a"]
    assert order_of(same, call("unknown")) == ["b", "a"]
    renamed = {"strategy": "least_cost", "targets": [{"upstream": "b"}, {"upstream": "a", "model": "cheap-1"}]}
    assert order_of(router(renamed, upstreams={"a": price(9, 9), "b": price(2, 2)}), call()) == ["a", "b"]
