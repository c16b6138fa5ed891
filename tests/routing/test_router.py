"""The first rule that fits serves a call, and its targets come in the order to try."""

from typing import Any

import pytest

from proxy.errors import NotFound
from proxy.routing import Router
from tests.routing.scene import call, choose, route_of, router


def chosen(routes: Router, model: str, **more: Any) -> str | None:
    """The name of the route that takes a call, if one does."""
    try:
        return route_of(routes, call(model, **more)).name
    except NotFound:
        return None


@pytest.mark.parametrize(
    ("globs", "model", "fits"),
    [
        ("gpt-4o", "gpt-4o", True),
        ("gpt-4o", "gpt-4o-mini", False),
        ("gpt-4o", "GPT-4o", False),
        ("gpt-*", "gpt-4o", True),
        ("gpt-*", "gpt-", True),
        ("gpt-*", "my-gpt-4o", False),
        ("*", "", True),
        ("*", "anything/at\nall", True),
        ("gpt-?o", "gpt-4o", True),
        ("gpt-?o", "gpt-o", False),
        ("o[0-9]*", "o3-mini", True),
        ("o[0-9]*", "omni", False),
        ("[!g]*", "claude", True),
        ("[!g]*", "gpt", False),
        (["gpt-*", "claude-*"], "claude-haiku-4-5", True),
        (["gpt-*", "claude-*"], "qwen3", False),
        ("*/Llama-*", "meta-llama/Llama-3.1-8B", True),
        ("a.c", "abc", False),
        ("a+(b)|c", "a+(b)|c", True),
    ],
)
def test_globs(globs: str | list[str], model: str, fits: bool) -> None:
    """`*`, `?` and `[...]` fit as in a shell, any of several; every other sign is only itself."""
    assert (chosen(router({"name": "r", "match": {"model": globs}}), model) == "r") is fits


@pytest.mark.parametrize(
    ("match", "more", "fits"),
    [
        ({}, {}, True),
        ({"headers": {"X-Team": "search"}}, {"headers": {"x-team": "search"}}, True),
        ({"headers": {"x-team": "s*"}}, {"headers": {"x-team": "search"}}, True),
        ({"headers": {"x-team": "*"}}, {"headers": {"x-team": ""}}, True),
        ({"headers": {"x-team": "*"}}, {}, False),
        ({"headers": {"x-team": "search"}}, {"headers": {"x-team": "Search"}}, False),
        ({"headers": {"x-a": "1", "x-b": "2"}}, {"headers": {"x-a": "1", "x-b": "2", "x-c": "3"}}, True),
        ({"headers": {"x-a": "1", "x-b": "2"}}, {"headers": {"x-a": "1"}}, False),
        ({"caller": "search"}, {"caller": "search"}, True),
        ({"caller": ["search", "batch"]}, {"caller": "batch"}, True),
        ({"caller": "search"}, {"caller": "batch"}, False),
        ({"caller": "search"}, {}, False),
        ({"stream": True}, {"stream": True}, True),
        ({"stream": True}, {}, False),
        ({"stream": False}, {}, True),
        ({"stream": False}, {"stream": True}, False),
        ({"model": "gpt-*", "stream": True, "caller": "search"}, {"stream": True, "caller": "search"}, True),
        ({"model": "o*", "stream": True, "caller": "search"}, {"stream": True, "caller": "search"}, False),
    ],
)
def test_all_of_a_match_must_fit(match: dict[str, Any], more: dict[str, Any], fits: bool) -> None:
    """Header globs, callers and the mode decide together; what is not asked for does not count."""
    callers = [{"name": name, "key": name} for name in ("search", "batch")]
    assert (chosen(router({"name": "r", "match": match}, callers=callers), "gpt-4o", **more) == "r") is fits


def test_the_first_rule_that_fits_wins() -> None:
    """Rules are read in the order of the file."""
    routes = router(
        {"name": "team", "match": {"model": "gpt-*", "headers": {"x-team": "search"}}},
        {"name": "gpt", "match": {"model": "gpt-*"}},
        {"match": {"model": "o3"}},
        {"name": "rest"},
    )
    assert chosen(routes, "gpt-4o", headers={"x-team": "search"}) == "team"
    assert chosen(routes, "gpt-4o") == "gpt"
    assert chosen(routes, "o3") == "route-3"
    assert chosen(routes, "qwen3") == "rest"


def test_no_rule_is_no_model() -> None:
    """A call that no rule takes is a 404 in OpenAI's words."""
    with pytest.raises(NotFound) as caught:
        choose(router({"match": {"model": "gpt-*"}}), call("qwen3"))
    assert (caught.value.status, caught.value.param, caught.value.code) == (404, "model", "model_not_found")


def test_targets_come_in_their_order() -> None:
    """Targets, then fallback; a target without a model takes the name as asked."""
    routes = router(
        {
            "targets": [{"upstream": "b"}, {"upstream": "a", "model": "gpt-4o-mini"}],
            "fallback": [{"upstream": "c.d", "model": "claude-haiku-4-5"}],
        }
    )
    route = route_of(routes, call("gpt-4o"))
    assert [(target.name, target.model) for target in route.targets] == [
        ("b", "gpt-4o"),
        ("a", "gpt-4o-mini"),
        ("c.d", "claude-haiku-4-5"),
    ]
    assert all(target.upstream.provider == "openai" for target in route.targets)


@pytest.mark.parametrize(
    ("model", "upstream", "there"),
    [
        ("a/gpt-4o", "a", "gpt-4o"),
        ("b/meta-llama/Llama-3.1-8B", "b", "meta-llama/Llama-3.1-8B"),
        ("c.d/x", "c.d", "x"),
        ("a/b/c", "a", "b/c"),
        ("a//x", "a", "/x"),
    ],
)
def test_an_upstream_is_addressed_directly(model: str, upstream: str, there: str) -> None:
    """`upstream/model` goes there before any rule is asked; the name may hold slashes of its own."""
    routes = router({"name": "all"})
    route = route_of(routes, call(model))
    assert (route.name, [(target.name, target.model) for target in route.targets]) == ("direct", [(upstream, there)])
    assert routes.direct
    assert routes.takes(model)


@pytest.mark.parametrize("model", ["a", "a/", "/a", "x/gpt-4o", "A/gpt-4o", "meta-llama/Llama-3.1-8B", ""])
def test_what_is_no_address(model: str) -> None:
    """A name that only looks like an address is asked of the rules."""
    assert chosen(router({"name": "all"}), model) == "all"


@pytest.mark.parametrize(
    ("server", "direct"),
    [
        ({}, True),
        ({"direct_models": False}, False),
        ({"callers": [{"name": "search", "key": "k"}]}, False),
        ({"callers": [{"name": "search", "key": "k"}], "direct_models": True}, True),
    ],
)
def test_direct_addressing_is_off_when_there_are_callers(server: dict[str, Any], direct: bool) -> None:
    """Callers see what the rules give them, unless the configuration says otherwise."""
    routes = router({"name": "gpt", "match": {"model": "gpt-*"}}, **server)
    assert routes.direct is direct
    assert routes.takes("a/qwen3") is direct
    assert chosen(routes, "a/qwen3") == ("direct" if direct else None)


def test_labels_are_bounded() -> None:
    """A metric's model is a name from the configuration or `other`, whatever callers ask for."""
    routes = router(
        {"match": {"model": ["gpt-4o", "gpt-*"]}, "list": ["gpt-5"]},
        {"targets": [{"upstream": "b", "model": "qwen3"}]},
    )
    asked = ["gpt-4o", "gpt-5", "gpt-4o-mini", "llama", "a/gpt-4o", "b/qwen3", "b/llama", "b/x/y"]
    labels = [route_of(routes, call(model)).targets[0].label for model in asked]
    assert labels == ["gpt-4o", "gpt-5", "other", "qwen3", "gpt-4o", "qwen3", "other", "other"]


def test_models_are_those_spelled_out() -> None:
    """The list shows concrete names, each once, in the order of the rules, and no globs."""
    routes = router(
        {"match": {"model": ["gpt-4o", "gpt-4*"]}, "list": ["gpt-4.1", "gpt-4o"]},
        {"match": {"model": ["o?", "[a-c]x", "meta/llama"]}},
        {"list": ["z", "gpt-4.1"]},
    )
    assert list(routes.models()) == ["gpt-4o", "gpt-4.1", "meta/llama", "z"]


def test_takes() -> None:
    """A model is taken when some call for it would be routed."""
    routes = router({"match": {"model": "gpt-*", "stream": True}})
    assert routes.takes("gpt-4o")
    assert not routes.takes("qwen3")


def test_reaches() -> None:
    """A model reaches an upstream when its first rule leads there under the same name."""
    routes = router(
        {"match": {"model": "gpt-*"}, "fallback": [{"upstream": "b", "model": "gpt-4o"}]},
        {"match": {"model": ["gpt-4*", "o3"]}, "targets": [{"upstream": "c.d"}]},
    )
    assert routes.reaches("gpt-4o", "a")
    assert routes.reaches("gpt-4o", "b")
    assert not routes.reaches("gpt-4o-mini", "b")
    assert not routes.reaches("gpt-4o", "c.d")
    assert routes.reaches("o3", "c.d")
    assert not routes.reaches("qwen3", "a")
