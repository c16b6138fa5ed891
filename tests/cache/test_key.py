"""What asks the same has one key, and what does not has another."""

import copy
import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.cache.key import LEFT_OUT, is_cacheable, read
from proxy.call import Json
from tests.cache.keys import bodies, key, sure

BODY: Json = {
    "model": "gpt-4o-mini",
    "messages": [
        {"role": "system", "content": "Be brief: yes or no."},
        {"role": "user", "content": [{"type": "text", "text": "Olá 🦊"}, {"image_url": {"url": "u"}}]},
        {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}]},
    ],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"properties": {"a": {"const": None}}}}}],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "parallel_tool_calls": True,
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"enum": [1, None]}}},
    "temperature": 0,
    "top_p": 0.5,
    "n": 2,
    "seed": 7,
    "max_tokens": 100,
    "max_completion_tokens": 100,
    "presence_penalty": 0.25,
    "frequency_penalty": -1,
    "logit_bias": {"50256": -100},
    "logprobs": True,
    "top_logprobs": 2,
    "stop": ["x", "y"],
    "reasoning_effort": "low",
    "modalities": ["text"],
    "service_tier": "auto",
    "top_k": 40,
    "chat_template_kwargs": {"enable_thinking": None, "depth": 1},
}  # fmt: skip
NOISE: Json = {
    "stream": True,
    "stream_options": {"include_usage": True},
    "user": "somebody: me",
    "metadata": {"a": "b", "c": "d:e"},
    "store": False,
    "safety_identifier": "s",
    "prompt_cache_key": "p",
    "prompt_cache_retention": "24h",
}


def shuffled(value: Any, chance: random.Random) -> Any:
    """The same value with the keys of all its objects in another order."""
    if isinstance(value, dict):
        names = list(value)
        chance.shuffle(names)
        return {name: shuffled(value[name], chance) for name in names}
    return [shuffled(each, chance) for each in value] if isinstance(value, list) else value


def spelled(value: Any, chance: random.Random) -> str:
    """The same value in another spelling: white space, escapes, and numbers written otherwise."""
    gap = chance.choice(["", " ", "\n\t"])
    if isinstance(value, dict):
        members = [f"{spelled(name, chance)}{gap}:{gap}{spelled(each, chance)}" for name, each in value.items()]
        return "{" + gap + f"{gap},{gap}".join(members) + gap + "}"
    if isinstance(value, list):
        return "[" + gap + f",{gap}".join(spelled(each, chance) for each in value) + gap + "]"
    if isinstance(value, str):
        ascii_only, escaped = chance.random() < 0.5, chance.choice(["a", "\\u0061"])
        return '"' + escaped.join(json.dumps(each, ensure_ascii=ascii_only)[1:-1] for each in value.split("a")) + '"'
    if isinstance(value, int) and not isinstance(value, bool):
        return chance.choice([f"{value}", f"{value}.0", f"{value}e0", f"{value}.00E+0"])
    return json.dumps(value)


@settings(max_examples=200)
@given(body=bodies, chance=st.randoms(use_true_random=False))
def test_spelling_does_not_matter(body: Json, chance: random.Random) -> None:
    """Order of keys, white space, escapes and the spelling of numbers, at any depth, leave the key as it is."""
    assert sure(spelled(shuffled(body, chance), chance).encode()) == sure(body)


@given(chance=st.randoms(use_true_random=False))
def test_spelling_of_a_full_call_does_not_matter(chance: random.Random) -> None:
    """A call with all that calls have, however it is written."""
    assert sure(spelled(shuffled(BODY, chance), chance).encode()) == sure(BODY)


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_decides_nothing(name: str) -> None:
    """Calls that differ only in it share an answer."""
    assert sure(BODY | {name: NOISE[name]}) == sure(BODY) == sure(BODY | {name: None})


def test_all_that_decides_nothing_at_once() -> None:
    """Even with colons in it, which are counted."""
    assert sure({**NOISE, **BODY}) == sure(BODY) == sure({**BODY, **NOISE})


@pytest.mark.parametrize("name", BODY)
def test_what_decides(name: str) -> None:
    """Without a field, or with another value, it is another call."""
    without = {each: value for each, value in BODY.items() if each != name}
    assert sure(without) != sure(BODY)
    assert sure({**BODY, name: "another"}) != sure(BODY)


def places_in(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to all simple values."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return (
        [path]
        if not isinstance(value, dict | list)
        else [p for at, each in inner for p in places_in(each, (*path, at))]
    )


@pytest.mark.parametrize("path", places_in(BODY), ids=lambda path: ".".join(map(str, path)))
def test_every_value_decides(path: tuple[Any, ...]) -> None:
    """Any change, at any depth."""
    changed = copy.deepcopy(BODY)
    parent: Any = changed
    for step in path[:-1]:
        parent = parent[step]
    parent[path[-1]] = "changed"
    assert sure(changed) != sure(BODY)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"seed": 1}, {"seed": 2}),
        ({"seed": 2**64}, {"seed": 2**64 + 1}),
        ({"seed": 1}, {"seed": "1"}),
        ({"seed": 1}, {"seed": True}),
        ({"seed": 0}, {"seed": False}),
        ({"temperature": 0.1}, {"temperature": 0.10000000000000002}),
        ({"stop": "x"}, {"stop": ["x"]}),
        ({"stop": ["x", "y"]}, {"stop": ["y", "x"]}),
        ({"messages": [{"content": "a"}]}, {"messages": [{"content": "a "}]}),
        ({"messages": [{"content": "1"}]}, {"messages": [{"content": "1.0"}]}),
        ({"messages": [{"content": "é"}]}, {"messages": [{"content": "e\u0301"}]}),
        ({"messages": [{"content": "null"}]}, {"messages": [{}]}),
        ({"messages": [{"a": 1}, {"b": 1}]}, {"messages": [{"a": 1, "b": 1}]}),
        ({"messages": [{"user": "a"}]}, {"messages": [{"user": "b"}]}),
        ({"messages": [{"metadata": {"a": 1}}]}, {"messages": [{}]}),
        ({"stop": ["a", None]}, {"stop": ["a"]}),
        ({"extra": {}}, {"extra": []}),
    ],
)  # fmt: skip
def test_small_differences(one: Json, other: Json) -> None:
    """Types, order in lists, and what stands in texts; below the top, also names that are left out there."""
    assert sure({"model": "m", **one}) != sure({"model": "m", **other})


@pytest.mark.parametrize(
    ("with_null", "without"),
    [
        ({"top_p": None}, {}),
        ({"extra": None}, {}),
        ({"messages": [{"role": "user", "name": None}]}, {"messages": [{"role": "user"}]}),
        ({"messages": [{"content": [{"text": None, "a": {"b": None}}]}]}, {"messages": [{"content": [{"a": {}}]}]}),
        ({"tools": [{"function": {"strict": None}}]}, {"tools": [{"function": {}}]}),
        ({"response_format": {"json_schema": {"strict": None}}}, {"response_format": {"json_schema": {}}}),
        ({"tool_choice": {"function": None}}, {"tool_choice": {}}),
    ],
)
def test_null_is_nothing(with_null: Json, without: Json) -> None:
    """At the top, and inside OpenAI's own fields."""
    assert sure({"model": "m", **with_null}) == sure({"model": "m", **without})


@pytest.mark.parametrize(
    ("with_null", "without"),
    [
        ({"tools": [{"function": {"parameters": {"const": None}}}]}, {"tools": [{"function": {"parameters": {}}}]}),
        (
            {"response_format": {"json_schema": {"schema": {"properties": {"a": {"const": None}}}}}},
            {"response_format": {"json_schema": {"schema": {"properties": {"a": {}}}}}},
        ),
        ({"functions": [{"parameters": {"default": None}}]}, {"functions": [{"parameters": {}}]}),
        ({"chat_template_kwargs": {"a": None}}, {"chat_template_kwargs": {}}),
        ({"guided_json": {"const": None}}, {"guided_json": {}}),
        ({"extra_body": [{"a": None}]}, {"extra_body": [{}]}),
    ],
)
def test_null_is_a_value(with_null: Json, without: Json) -> None:
    """Inside schemas, and inside fields that only an upstream knows."""
    assert sure({"model": "m", **with_null}) != sure({"model": "m", **without})


def test_where_and_whose() -> None:
    """Another place or tenant is another key; nothing slides from one into the other."""
    assert sure(BODY, tenant="a") != sure(BODY, tenant="b")
    assert sure(BODY, place=b"a") != sure(BODY, place=b"b")
    assert sure(BODY, tenant="ab", place=b"c") != sure(BODY, tenant="b", place=b"ca")


def test_what_a_key_tells() -> None:
    """Route, tenant and a digest of 32 bytes: nothing of the prompt."""
    found = key(BODY, route="chat", tenant="team")
    assert found is not None
    assert (found.route, found.tenant, len(found.digest)) == ("chat", "team", 32)
    assert found.text == f"chat:team:{found.digest.hex()}"


@pytest.mark.parametrize(
    ("body", "cacheable", "at_any_temperature"),
    [
        (b"{}", False, True),
        (b'{"temperature":0}', True, True),
        (b'{"temperature":0.0}', True, True),
        (b'{"temperature":-0e5}', True, True),
        (b'{"temperature":1}', False, True),
        (b'{"temperature":0.001}', False, True),
        (b'{"temperature":false}', False, True),
        (b'{"temperature":null}', False, True),
        (b'{"temperature":"0"}', False, True),
        (b'{"seed":0}', True, True),
        (b'{"seed":null}', False, True),
        (b'{"seed":7,"temperature":1}', True, True),
        (b'{"temperature":0,"store":true}', False, False),
        (b'{"temperature":0,"store":false}', True, True),
        (b'{"temperature":0,"store":null}', True, True),
        (b'{"seed":1,"n":3,"tools":[{}],"stream":true}', True, True),
    ],
)  # fmt: skip
def test_what_may_be_kept(body: bytes, cacheable: bool, at_any_temperature: bool) -> None:
    """A temperature of 0 or a seed, or a route that asks for neither; never what the caller has stored elsewhere."""
    fields = read(body)
    assert fields is not None
    for operation in ("chat", "completions"):
        assert is_cacheable(fields, operation, any_temperature=False) is cacheable
        assert is_cacheable(fields, operation, any_temperature=True) is at_any_temperature
    assert is_cacheable(fields, "embeddings", any_temperature=False) is at_any_temperature
