"""Whatever a caller sends is a call, or is refused as the caller's mistake; a good body is changed only as said."""

import json
from collections.abc import Mapping
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.call import Call, Operation
from proxy.config.load import build
from proxy.config.source import Document
from proxy.errors import CallerError
from proxy.openai_format.encoding import encode
from proxy.openai_format.errors import error_object
from proxy.openai_format.estimate import Estimate
from proxy.openai_format.features import metadata_of, offers_tools, shows_images
from proxy.openai_format.overrides import Overrides
from proxy.providers import providers, traits
from proxy.providers.seam import Target
from tests.fuzz.effort import tries
from tests.fuzz.goldens import REQUESTS, call_of
from tests.fuzz.mutations import Members, is_json, read, spoilt_bytes, spoilt_json
from tests.providers.test_matrix import UPSTREAMS

OPERATIONS = get_args(Operation)
EXACT = ("openai", "vllm", "huggingface", "rayserve", "bentoml")
ours: dict[str, dict[str, Any]] = {**UPSTREAMS, **{f"{name} exact": {"provider": name} for name in EXACT}}
CONFIG = build(
    Document(
        "fuzz",
        {
            "upstreams": {
                name.replace(" ", "-"): {"base_url": "http://upstream.example", **fields}
                for name, fields in ours.items()
            }
        },
    ),
    traits(),
)

USAGE = """{"model": "m", "stream": true, "stream_options": {"x": [1], "include_usage": false, "y": null}, "n": 1,
    "messages": [{"role": "user", "content": "Hi"}], "metadata": {"x": "y"}, "max_tokens": 7, "seed": 1}"""
AUTOCOMPLETION = (
    '{"prompt": ["a", "b"], "model": "m", "stream": true, "stream_options": null, "suffix": "\\u00e9", "n": 2}'
)
seeds = {
    "chat": st.just(USAGE) | st.sampled_from(REQUESTS["chat"]),
    "completions": st.just(AUTOCOMPLETION) | st.sampled_from(REQUESTS["completions"]),
    "embeddings": st.sampled_from(REQUESTS["embeddings"]),
}
operations = st.sampled_from(OPERATIONS)
bodies = {
    operation: seed.map(str.encode) | spoilt_json(seed) | spoilt_json(seed) | spoilt_bytes(seed.map(str.encode))
    for operation, seed in seeds.items()
}
asked = operations.flatmap(lambda operation: st.tuples(st.just(operation), bodies[operation]))
any_bytes = st.tuples(operations, st.binary(max_size=60))


def admitted(body: bytes, operation: Operation) -> Call | None:
    """The call; None where it is refused as callers are to be told."""
    try:
        return call_of(body, operation)
    except CallerError as error:
        assert_told(error)
        return None


def assert_told(error: CallerError) -> None:
    """It is told in OpenAI's shape."""
    assert 400 <= error.status < 500
    told = json.loads(encode(error_object(error, "fuzz")))["error"]
    assert told.keys() == {"message", "type", "param", "code"}
    assert isinstance(told["message"], str)
    assert told["message"]
    assert isinstance(told["type"], str)
    assert isinstance(told["param"], str | None)
    assert isinstance(told["code"], str | None)


@tries(400)
@given(asked | any_bytes)
def test_a_body_is_a_call_or_a_mistake(given: tuple[Operation, bytes]) -> None:
    """What is read of a call is what any other reader of JSON finds in its body."""
    operation, body = given
    call = admitted(body, operation)
    if call is None:
        return
    members = read(body)
    fields = dict(members)
    assert len(members) == len(fields), "two readers could read two things"
    assert set(call.members) == set(fields)
    assert {name: read(body[place]) for name, place in call.members.items()} == fields
    assert call.model == fields["model"]
    assert call.stream == (fields.get("stream") is True and operation != "embeddings")
    options = dict(fields.get("stream_options") or ())
    assert call.wants_usage == (options.get("include_usage") is True)


@tries(130)
@given(asked)
def test_what_is_told_of_a_call_for_its_way(given: tuple[Operation, bytes]) -> None:
    """Size, tools, images and metadata are told of whatever was let in."""
    operation, body = given
    call = admitted(body, operation)
    if call is None:
        return
    tokens = Estimate(call)
    assert tokens.prompt >= 1
    assert tokens.answer >= 0
    assert isinstance(offers_tools(call), bool)
    assert isinstance(shows_images(call), bool)
    assert isinstance(metadata_of(call, "x"), str | None)


@pytest.mark.parametrize("name", CONFIG.upstreams)
@tries(35)
@given(given=asked, renamed=st.sampled_from([None, "other", 'o"\u2028']))
def test_what_is_sent_is_json(name: str, given: tuple[Operation, bytes], renamed: str | None) -> None:
    """A dialect carries a call in a sound request, or refuses it as the caller's mistake."""
    operation, body = given
    call = admitted(body, operation)
    if call is None:
        return
    upstream = CONFIG.upstreams[name]
    try:
        request = providers()[upstream.provider].build_request(call, Target(name, upstream, renamed or call.model))
    except CallerError as error:
        assert_told(error)
        return
    except RecursionError:
        return  # whoever builds it takes that for a refusal
    assert is_json(request.body)
    assert request.url.startswith("http://upstream.example")
    assert request.url.isprintable()
    assert all((key + value).isprintable() for key, value in request.headers.items())
    assert all(isinstance(each, str) for each in request.dropped)


def ordered(body: bytes) -> list[tuple[str, Any]]:
    """The members in their order."""
    found = read(body)
    assert isinstance(found, Members)
    return list(found)


@tries(300)
@given(asked, st.sampled_from([None, "other", 'o"\\\u2028🦊']))
def test_the_exact_wire_changes_what_it_says(given: tuple[Operation, bytes], renamed: str | None) -> None:
    """Members, their order and their values are as sent, but for the model's name and the question for usage."""
    operation, body = given
    call = admitted(body, operation)
    if call is None:
        return
    target = Target("openai-exact", CONFIG.upstreams["openai-exact"], renamed or call.model)
    try:
        sent = providers()["openai"].build_request(call, target).body
    except CallerError as error:
        assert_told(error)
        return
    wanted = [(name, target.model if name == "model" else value) for name, value in ordered(body)]
    if call.stream and not call.wants_usage:
        wanted = _asking(wanted)
    assert ordered(sent) == wanted
    if renamed is None and (call.wants_usage or not call.stream):
        assert sent == body


def _asking(members: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """The members of a stream that asks for usage."""
    asking = ("include_usage", True)
    if "stream_options" not in dict(members):
        return [*members, ("stream_options", [asking])]
    return [(name, _with(value, asking) if name == "stream_options" else value) for name, value in members]


def _with(options: Any, asking: tuple[str, bool]) -> list[tuple[str, Any]]:
    options = options or []
    if "include_usage" in dict(options):
        return [asking if name == "include_usage" else (name, value) for name, value in options]
    return [*options, asking]


names = st.sampled_from(["model", "messages", "stream", "seed", "x", "", "\u2028", 'a"b', "temperature", "input"])
some: Mapping[str, Any] = {"x": [None], "seed": 2**70, "": 1.5, "a": "\u2028"}


@tries(130)
@given(asked, st.lists(names, max_size=3), st.booleans())
def test_what_a_route_changes(given: tuple[Operation, bytes], remove: list[str], default: bool) -> None:
    """The rest of a body stays, whatever its values are."""
    operation, body = given
    call = admitted(body, operation)
    if call is None:
        return
    changed = Overrides({} if default else some, some if default else {}, remove).apply(call)
    before, after = dict(ordered(body)), dict(ordered(changed.body))
    untouched = before.keys() - some.keys() - set(remove)
    assert {name: after[name] for name in untouched} == {name: before[name] for name in untouched}
    assert set(changed.members) == set(after)
    assert changed.amended == tuple(name for name in dict.fromkeys(remove) if name in before)


def test_a_duplicate_beside_deep_nesting() -> None:
    """At any depth it is the caller's mistake."""
    for depth in range(800, 1010):
        body = b'{"model":"m","messages":[{}],"a":1,"a":%b%b}' % (b"[" * depth, b"]" * depth)
        assert admitted(body, "chat") is None
