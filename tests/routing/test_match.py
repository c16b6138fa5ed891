"""Every key of `match`, alone and together with the others, and what is told of rules that passed."""

from collections.abc import Mapping
from typing import Any

import pytest

from proxy.config import Match
from proxy.errors import NotFound
from proxy.openai_format.estimate import Estimate
from proxy.routing import Passed
from proxy.routing.match import Matcher
from tests.routing.scene import call, choose, router

IMAGE = {"type": "image_url", "image_url": {"url": "https://example/x.png"}}


def says(*parts: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts)}]}


def fits(match: Mapping[str, Any], **made: Any) -> bool:
    """Whether a rule with this match takes a call; where it does not, the key that did not fit is told."""
    callers = [{"name": name, "key": name} for name in ("search", "batch")]
    routes = router({"name": "r", "match": match}, {"name": "rest"}, callers=callers)
    choice = choose(routes, call("gpt-4o", **made))
    assert choice.passed == (() if choice.route.name == "r" else (Passed("r", told(match)),))
    return choice.route.name == "r"


def told(match: Mapping[str, Any]) -> str:
    """The name under which the only key of a match is told."""
    ((key, value),) = match.items()
    return f"{key}.{next(iter(value))}" if isinstance(value, dict) else key


@pytest.mark.parametrize(
    ("regex", "model", "key"),
    [
        ("gpt-[0-9]o", "gpt-4o", None),
        ("gpt-[0-9]o", "gpt-4o-mini", "model_regex"),
        ("gpt-[0-9]o", "my-gpt-4o", "model_regex"),
        ("a|ab", "ab", None),
        ("gpt-4o$", "gpt-4o\n", "model_regex"),
        ("(?i)GPT-4O", "gpt-4o", None),
        ("GPT-4O", "gpt-4o", "model_regex"),
        ("meta-llama/.*", "meta-llama/Llama-3.1-8B", None),
    ],
)
def test_a_regular_expression_fits_the_whole_name(regex: str, model: str, key: str | None) -> None:
    """Not only a part of it; case counts unless it says otherwise."""
    assert Matcher(Match(model_regex=regex)).model_key(model) == key


@pytest.mark.parametrize(
    ("model", "key"), [("gpt-4o", None), ("gpt-3", "model_regex"), ("o-4o", "model"), ("o3", "model")]
)
def test_a_name_fits_globs_and_regular_expression(model: str, key: str | None) -> None:
    """Both must, and of two that do not the globs are told."""
    assert Matcher(Match(model=("gpt-*",), model_regex=".*-4o")).model_key(model) == key


def test_rules_for_other_models_are_not_told() -> None:
    """A choice tells of the rules that were for the call's model, and of no other."""
    routes = router(
        {"name": "glob", "match": {"model": "o*"}},
        {"name": "regex", "match": {"model_regex": "o.*"}},
        {"name": "stream", "match": {"stream": True}},
        {"name": "rest", "match": {"model": "gpt-*"}},
        {"name": "later"},
    )
    choice = choose(routes, call("gpt-4o"))
    assert (choice.route.name, choice.passed) == ("rest", (Passed("stream", "stream"),))


@pytest.mark.parametrize(
    ("glob", "value", "fit"),
    [
        ("search", "search", True),
        ("search", "Search", False),
        ("s*", "search", True),
        ("*", "", True),
        ("*", None, False),
        ("[ab]?", "b1", True),
        ("[!ab]?", "b1", False),
    ],
)
def test_headers(glob: str, value: str | None, fit: bool) -> None:
    """The glob fits the whole value, of a header that is there; the name's case does not count."""
    assert fits({"headers": {"X-Team": glob}}, headers={} if value is None else {"x-team": value}) is fit


@pytest.mark.parametrize(
    ("names", "caller", "fit"),
    [
        ("search", "search", True),
        (["search", "batch"], "batch", True),
        ("search", "batch", False),
        ("search", None, False),
    ],
)
def test_callers(names: Any, caller: str | None, fit: bool) -> None:
    """One of those named, and none who has no name."""
    assert fits({"caller": names}, caller=caller) is fit


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("stream", [True, False])
def test_streams(wanted: bool, stream: bool) -> None:
    """Streams alone, or all that are none."""
    assert fits({"stream": wanted}, stream=stream) is (wanted is stream)


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize(
    ("body", "offered"),
    [
        ({}, False),
        ({"tools": []}, False),
        ({"tools": None}, False),
        ({"functions": []}, False),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, True),
        ({"functions": [{"name": "f"}]}, True),
        ({"tools": [], "functions": [{"name": "f"}]}, True),
        ({"tool_choice": "none"}, False),
        ({"messages": [{"role": "user", "content": "tools"}]}, False),
    ],
)
def test_tools(wanted: bool, body: Mapping[str, Any], offered: bool) -> None:
    """Tools, or functions as they were once called; an empty list offers none."""
    assert fits({"tools": wanted}, body=body) is (wanted is offered)


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ({}, False),
        (says(IMAGE), True),
        (says({"type": "text", "text": "see"}, IMAGE), True),
        (says({"type": "input_image", "image_url": "https://example/x.png"}), True),
        (says({"type": "text", "text": "an image_url of an image"}), False),
        ({"messages": [{"role": "user", "content": "image_url"}]}, False),
        ({"messages": [{"role": "user", "content": "a"}, *says(IMAGE)["messages"]]}, True),
        ({"messages": [{"role": "user"}, {"role": "user", "content": None}]}, False),
        ({"image": IMAGE}, False),
    ],
)
def test_images(wanted: bool, body: Mapping[str, Any], shown: bool) -> None:
    """A part of a message is one; the word in a text is none."""
    assert fits({"images": wanted}, body=body) is (wanted is shown)


def tokens_of(**made: Any) -> int:
    return Estimate(call("gpt-4o", **made)).prompt


@pytest.mark.parametrize(("key", "off", "fit"), [
    ("min_prompt_tokens", 0, True), ("min_prompt_tokens", 1, False), ("min_prompt_tokens", -1, True),
    ("max_prompt_tokens", 0, True), ("max_prompt_tokens", 1, True), ("max_prompt_tokens", -1, False),
])  # fmt: skip
def test_sizes(key: str, off: int, fit: bool) -> None:
    """Both bounds belong to what they allow; the wanted answer does not count."""
    body = {"messages": [{"role": "user", "content": "x" * 4000}], "max_tokens": 100_000}
    size = tokens_of(body=body)
    assert 900 < size < 1100
    assert fits({key: size + off}, body=body) is fit


@pytest.mark.parametrize(
    ("metadata", "fit"),
    [
        ({"project": "papers-1"}, True),
        ({"project": "papers-1", "other": 1}, True),
        ({"project": "Papers-1"}, False),
        ({"project": 1}, False),
        ({"project": None}, False),
        ({"other": "papers-1"}, False),
        ({}, False),
        ([{"project": "papers-1"}], False),
        (None, False),
    ],
)
def test_metadata(metadata: Any, fit: bool) -> None:
    """A text of the body's `metadata` under this very key."""
    assert fits({"metadata": {"project": "papers-*"}}, body={"metadata": metadata}) is fit
    assert not fits({"metadata": {"project": "papers-*"}}, body={"project": "papers-1"})


ALL = {
    "model": "gpt-*",
    "model_regex": ".*o",
    "headers": {"X-Team": "s*", "x-tier": "gold"},
    "caller": ["search"],
    "stream": True,
    "tools": True,
    "images": True,
    "min_prompt_tokens": 100,
    "max_prompt_tokens": 200,
    "metadata": {"project": "p*", "run": "?"},
}
GOOD: dict[str, Any] = {
    "headers": {"x-team": "search", "x-tier": "gold"},
    "caller": "search",
    "stream": True,
    "body": {**says(IMAGE), "tools": [{"type": "function"}], "metadata": {"project": "p1", "run": "1"}, "x": "y" * 300},
}


def body_without(**changed: Any) -> dict[str, Any]:
    return {**GOOD, "body": {**GOOD["body"], **changed}}


@pytest.mark.parametrize(
    ("key", "made"),
    [
        (None, GOOD),
        ("headers.X-Team", {**GOOD, "headers": {"x-tier": "gold"}}),
        ("headers.x-tier", {**GOOD, "headers": {"x-team": "search", "x-tier": "tin"}}),
        ("caller", {**GOOD, "caller": "batch"}),
        ("stream", {**GOOD, "stream": False}),
        ("tools", body_without(tools=[])),
        ("images", body_without(messages=[{"role": "user", "content": "x"}])),
        ("min_prompt_tokens", body_without(x="")),
        ("max_prompt_tokens", body_without(x="y" * 3000)),
        ("metadata.project", body_without(metadata={"run": "1"})),
        ("metadata.run", body_without(metadata={"project": "p1", "run": "12"})),
    ],
)
def test_all_keys_together(key: str | None, made: Mapping[str, Any]) -> None:
    """Each of them can keep a call away that fits all others, and is told by its name."""
    routes = router({"name": "all", "match": ALL}, {"name": "rest"}, callers=[{"name": "search", "key": "k"}])
    choice = choose(routes, call("gpt-4o", **made))
    assert choice.passed == (() if key is None else (Passed("all", key),))
    assert choice.route.name == ("all" if key is None else "rest")


def test_every_rule_that_passed_is_told() -> None:
    """In their order, each with its own key; a call that none takes is told so."""
    rules: list[dict[str, Any]] = [
        {"name": "one", "match": {"stream": True}},
        {"name": "two", "match": {"tools": True}},
        {"name": "three", "match": {"max_prompt_tokens": 1000}},
        {"name": "four"},
    ]
    choice = choose(router(*rules), call())
    assert (choice.route.name, choice.passed) == ("three", (Passed("one", "stream"), Passed("two", "tools")))
    with pytest.raises(NotFound):
        choose(router(*rules[:2]), call())
