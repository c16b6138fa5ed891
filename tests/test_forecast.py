"""What another configuration would have done with calls that were served."""

from collections.abc import Iterable
from typing import Any

import pytest

from proxy.call import Json
from proxy.config import Config
from proxy.config.load import build
from proxy.config.source import Document
from proxy.forecast import Forecast, Served, forecast, read_served
from proxy.providers import traits

A, B, C = ({"upstream": name, "model": "m"} for name in "abc")


def config(*routes: Json, callers: Iterable[str] = (), **server: Any) -> Config:
    """Three upstreams, and routes whose targets are `a` unless they say more."""
    known = [{"name": name, "key": f"key-{name}"} for name in callers]
    upstreams = {name: {"provider": "openai", "api_key": "x", "labels": {"zone": name}} for name in "abc"}
    tree = {
        "server": {**server, **({"callers": known} if known else {})},
        "upstreams": upstreams,
        "routes": [{"name": "one", "targets": [A], **route} for route in routes],
    }
    return build(Document("test", tree), traits())


def calls(count: int, upstream: str = "a", **more: Any) -> list[Served]:
    """Calls that went to one place."""
    return [Served(**{"model": "x", "stream": False, "caller": None, "route": "one", "upstream": upstream,
                      "there": "m", **more})] * count  # fmt: skip


def elsewhere(told: Forecast) -> dict[tuple[str, str], Any]:
    """The expected numbers, as far as they can be compared; those that are 0 are not told to anybody."""
    return {way: pytest.approx(count) for way, count in told.elsewhere.items() if count > 1e-9}


def test_no_difference_is_none() -> None:
    """With the same configuration every call goes where it went."""
    same = config({})
    told = forecast(same, same, calls(7))
    assert (told.calls, told.same, dict(told.elsewhere), told.refused.total(), told.unknown.total()) == (7, 7, {}, 0, 0)


def test_no_calls_are_none() -> None:
    """Of no calls nothing is told."""
    told = forecast(config({}), config({"targets": [B]}), [])
    assert (told.calls, told.same, dict(told.elsewhere)) == (0, 0, {})


def test_another_first_target() -> None:
    """In an ordered route all calls go to the new first target, those that were there already stay."""
    told = forecast(config({"targets": [A, B]}), config({"targets": [B, A]}), [*calls(5), *calls(2, "b")])
    assert told.same == 2
    assert told.elsewhere == {("one: a/m", "one: b/m"): 5}


def test_another_model_at_the_same_upstream() -> None:
    """A place is an upstream and a model."""
    told = forecast(config({}), config({"targets": [{"upstream": "a"}]}), calls(3))
    assert told.elsewhere == {("one: a/m", "one: a/x"): 3}


def test_a_second_target_that_served() -> None:
    """A call that the second target of an ordered route served would end there again."""
    same = config({"targets": [A, B]})
    assert forecast(same, same, calls(4, "b")).same == 4


@pytest.mark.parametrize(
    "route",
    [
        {"fallback": [B]},
        {"targets": [A, B], "prefer": {"zone": "a"}},
        {"strategy": "weighted", "targets": [{**A, "weight": 1}, {**C, "weight": 1}], "fallback": [B]},
    ],
)
def test_a_call_that_a_fallback_has_served(route: Json) -> None:
    """With the same configuration it is no difference that a call went to a fallback."""
    same = config(route)
    told = forecast(same, same, calls(4, "b"))
    assert (told.same, dict(told.elsewhere)) == (4, {})


def weighted(a: int, b: int, c: int = 0) -> Json:
    """A weighted route."""
    shares = zip((A, B, C), (a, b, c), strict=True)
    return {"strategy": "weighted", "targets": [{**each, "weight": weight} for each, weight in shares]}


@pytest.mark.parametrize(
    ("old", "new", "served", "same", "ways"),
    [
        ((9, 1), (5, 5), (900, 100), 600, {("a", "b"): 400}),
        ((5, 5), (9, 1), (500, 500), 600, {("b", "a"): 400}),
        ((1, 1), (1, 1), (30, 70), 100, {}),
        ((1, 1), (0, 1), (10, 10), 10, {("a", "b"): 10}),
        ((2, 2), (1, 1, 2), (30, 30), 30, {("a", "b"): 5, ("a", "c"): 10, ("b", "a"): 5, ("b", "c"): 10}),
    ],
)  # fmt: skip
def test_weights(old: Any, new: Any, served: tuple[int, int], same: float, ways: dict[tuple[str, str], float]) -> None:
    """Of a place whose share falls, as many calls move as its share has lost, to the others by their weights."""
    told = forecast(config(weighted(*old)), config(weighted(*new)), [*calls(served[0]), *calls(served[1], "b")])
    assert told.same == pytest.approx(same)
    named = {(f"one: {before}/m", f"one: {after}/m"): count for (before, after), count in ways.items()}
    assert elsewhere(told) == named
    assert told.same + sum(told.elsewhere.values()) == pytest.approx(told.calls)


def test_a_new_canary() -> None:
    """A canary takes its share of the calls, and gives it back when it goes."""
    canary = config({"canary": {"upstream": "b", "model": "n", "share": 0.25}})
    told = forecast(config({}), canary, calls(100))
    assert told.same == pytest.approx(75)
    assert elsewhere(told) == {("one: a/m", "one: b/n"): 25}
    back = forecast(canary, config({}), [*calls(75), *calls(25, "b", there="n")])
    assert back.same == pytest.approx(75)
    assert elsewhere(back) == {("one: b/n", "one: a/m"): 25}


def test_a_canary_whose_share_grows() -> None:
    """Calls that the canary had stay there; of the others the rest moves."""
    old, new = (config({"canary": {"upstream": "b", "share": share}}) for share in (0.2, 0.6))
    told = forecast(old, new, [*calls(80), *calls(20, "b", there="x")])
    assert told.same == pytest.approx(20 + 80 * 0.4 / 0.8)
    assert elsewhere(told) == {("one: a/m", "one: b/x"): 40}


def test_where_load_decides_all_are_alike() -> None:
    """Of strategies that go by the load each target is expected to have the same share."""
    told = forecast(config({}), config({"strategy": "least_busy", "targets": [A, B, C]}), calls(30))
    assert told.same == pytest.approx(10)
    assert elsewhere(told) == {("one: a/m", "one: b/m"): 10, ("one: a/m", "one: c/m"): 10}


def test_a_route_that_is_gone() -> None:
    """Calls of a removed route are refused, or go to the route that takes them now."""
    old = config({"match": {"model": "x"}}, {"name": "two", "match": {"model": "y"}})
    served = [*calls(3), *calls(2, model="y", route="two")]
    told = forecast(old, config({"match": {"model": "x"}}), served)
    assert (told.same, told.refused) == (3, {"two": 2})
    told = forecast(old, config({"name": "all", "targets": [B]}), served)
    assert told.elsewhere == {("one: a/m", "all: b/m"): 3, ("two: a/m", "all: b/m"): 2}


def test_another_route_to_the_same_place() -> None:
    """A route's name is no place: the call stays where it was."""
    assert forecast(config({}), config({"name": "other"}), calls(3)).same == 3


def test_direct_calls() -> None:
    """Calls that name their upstream go there, unless the new configuration does not let them."""
    direct = calls(4, "b", model="b/z", route="direct", there="z")
    told = forecast(config({}), config({"targets": [C]}), direct)
    assert (told.same, dict(told.elsewhere)) == (4, {})
    told = forecast(config({}), config({}, direct_models=False), direct)
    assert told.elsewhere == {("direct: b/z", "one: a/m"): 4}
    told = forecast(config({}), config({"match": {"model": "x"}}, direct_models=False), direct)
    assert told.refused == {"direct": 4}


def test_a_route_whose_calls_are_direct_now() -> None:
    """A model that begins to name an upstream goes there, past the routes."""
    told = forecast(config({}, direct_models=False), config({}), calls(2, model="c/z"))
    assert told.elsewhere == {("one: a/m", "direct: c/z"): 2}


@pytest.mark.parametrize(
    ("match", "served", "moves"),
    [
        ({"stream": True}, {"stream": True}, True),
        ({"stream": True}, {"stream": False}, False),
        ({"caller": ["c"]}, {"caller": "c"}, True),
        ({"caller": ["c"]}, {"caller": None}, False),
        ({"model": "x*"}, {}, True),
        ({"model_regex": "y+"}, {}, False),
    ],
)
def test_what_an_access_line_answers(match: Json, served: Json, moves: bool) -> None:
    """Model, mode and caller of a call are known, and decide about a new route in front."""
    new = config({"name": "new", "match": match, "targets": [B]}, {}, callers=["c", "d"])
    told = forecast(config({}, callers=["c", "d"]), new, calls(5, **served))
    assert (told.same, sum(told.elsewhere.values()), told.unknown.total()) == ((0, 5, 0) if moves else (5, 0, 0))


HIDDEN: list[Json] = [
    {"headers": {"x-team": "a"}},
    {"tools": True},
    {"images": False},
    {"min_prompt_tokens": 9},
    {"metadata": {"k": "v"}},
]


@pytest.mark.parametrize("match", HIDDEN)
def test_what_no_access_line_answers(match: Json) -> None:
    """Where a new rule asks what is not known of a call, it cannot be told; what does not concern it can."""
    new = config({"name": "new", "match": {**match, "model": "x"}, "targets": [B]}, {})
    told = forecast(config({}), new, [*calls(3), *calls(2, model="y")])
    assert (told.same, told.unknown, dict(told.elsewhere)) == (2, {"one": 3}, {})


@pytest.mark.parametrize("match", HIDDEN)
def test_a_rule_that_both_have(match: Json) -> None:
    """Where both configurations have the rule it is known whether it took the call."""
    rule = {"name": "odd", "match": match}
    old, new = config({**rule, "targets": [A]}, {}), config({**rule, "targets": [B]}, {"targets": [C]})
    told = forecast(old, new, [*calls(3, route="odd"), *calls(2)])
    assert told.elsewhere == {("odd: a/m", "odd: b/m"): 3, ("one: a/m", "one: c/m"): 2}
    assert told.unknown.total() == 0


def test_a_rule_that_was_never_asked() -> None:
    """A rule that stood behind and stands in front now is one of which it cannot be told."""
    odd, front = {"name": "odd", "match": {"tools": True}, "targets": [B]}, {"match": {"model": "x*"}}
    told = forecast(config(front, odd), config(odd, front), calls(4))
    assert told.unknown == {"one": 4}


def test_labels_that_are_required() -> None:
    """Targets without the labels that a new configuration requires are no places any more."""
    told = forecast(config({"targets": [A, B]}), config({"targets": [A, B], "require": {"zone": "b"}}), calls(3))
    assert told.elsewhere == {("one: a/m", "one: b/m"): 3}


def test_lines_of_which_calls_can_be_read() -> None:
    """Lines of calls that were not routed, or that are no access lines, are left out."""
    good: Json = {"model_asked": "x", "route": "one", "upstream": "a", "model": "m", "stream": True, "caller": "c"}
    names, values = ("model_asked", "route", "upstream", "model"), list[Any]([None, "", 5, ["x"], {}])
    bad: list[Json] = [{}, *({**good, name: value} for name in names for value in values)]
    assert list(read_served([*bad, good])) == [Served("x", True, "c", "one", "a", "m")]
    (odd,) = read_served([{**good, "stream": "yes", "caller": 7}])
    assert (odd.stream, odd.caller) == (False, None)
