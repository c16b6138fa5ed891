"""The exact wire changes no byte but those it says."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.admission.parsing import parse
from proxy.call import Call, Caller
from proxy.config.load import build
from proxy.config.source import Document
from proxy.errors import Broken, CutShort, InvalidRequest, Limited, UpstreamError
from proxy.framing import SseFrames
from proxy.providers import providers, traits
from proxy.providers.exact import ExactRelay, relay_completion
from proxy.providers.seam import Target
from proxy.providers.splice import splice_request

unhurried = settings(suppress_health_check=[HealthCheck.too_slow])

UPSTREAM = build(Document("test", {"upstreams": {"up": {"provider": "openai"}}}), traits()).upstreams["up"]
MESSAGES = '[{"role": "user", "content": "Say \\"model\\":\\"x\\" \u2028 🦊", "name": null}]'

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.just('"model":"gpt-4o","usage":{}')
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts | st.just("model"), inner, max_size=3),
    max_leaves=6,
)
ours = {"model", "messages", "stream", "stream_options", "n"}
theirs = {"model", "choices", "usage", "error"}
spaces = st.text(" \t\r\n", max_size=2)
places = st.lists(st.integers(0, 2000), max_size=10)


def shown(value: Any) -> st.SearchStrategy[str]:
    """Ways to write a JSON value."""
    return st.builds(
        lambda ascii_only, indent: json.dumps(value, ensure_ascii=ascii_only, indent=indent),
        st.booleans(),
        st.sampled_from([None, 1, "\t"]),
    )


@st.composite
def objects(draw: st.DrawFn, fixed: dict[str, str], names: set[str]) -> str:
    """An object with these members among unknown ones, in any order, oddly spaced."""
    unknown = draw(st.dictionaries(texts.filter(lambda name: name not in names), values, max_size=3))
    members = fixed | {name: draw(shown(value)) for name, value in unknown.items()}
    order = draw(st.permutations(sorted(members)))
    gap = draw(spaces)
    inside = f",{gap}".join(f"{gap}{draw(shown(name))}{gap}:{draw(spaces)}{members[name]}{gap}" for name in order)
    return f"{gap}{{{inside}}}{draw(spaces)}"


def call_of(body: bytes) -> Call:
    return parse(body, caller=Caller(), headers={}, call_id="id", received_at=0.0)


def sent(body: bytes, model: str) -> bytes:
    """What goes upstream."""
    return providers()["openai"].build_request(call_of(body), Target("up", UPSTREAM, model)).body


def digest(data: bytes) -> str:
    return sha256(data).hexdigest()


PLAIN = {"model": '"gpt-4o"', "messages": MESSAGES}
ASKING = PLAIN | {"stream": "true", "stream_options": '{"include_usage": true, "new": null}'}
whole_requests = st.sampled_from(
    [PLAIN, PLAIN | {"stream": "false"}, PLAIN | {"stream": "null", "stream_options": "null", "n": "null"}, ASKING]
).flatmap(lambda fixed: objects(fixed, ours))


@unhurried
@given(whole_requests)
def test_a_request_goes_through_untouched(body: str) -> None:
    """A JSON call, and a stream that asks for usage, are sent as they came: the SHA-256 is the same."""
    assert digest(sent(body.encode(), "gpt-4o")) == digest(body.encode())


@unhurried
@given(st.sampled_from([PLAIN, ASKING]).flatmap(lambda fixed: objects(fixed, ours)), texts.filter(bool))
def test_a_renamed_model_changes_only_its_value(body: str, model: str) -> None:
    """All bytes before and after the top-level model's value stay, whatever else is called `model`."""
    raw = body.encode()
    place = call_of(raw).members["model"]
    out = sent(raw, model)
    if model == "gpt-4o":
        assert out == raw
        return
    assert out.startswith(raw[: place.start])
    assert out.endswith(raw[place.stop :])
    assert json.loads(out[place.start : len(out) - (len(raw) - place.stop)]) == model
    assert json.loads(out) == json.loads(raw) | {"model": model}


OPTIONS = [
    "{}",
    "{ }",
    "null",
    '{"include_usage":false}',
    '{ "include_usage" : null , "new": [1] }',
    '{"new":"\\u2028"}',
]


@unhurried
@given(st.sampled_from([None, *OPTIONS]), st.data())
def test_usage_is_asked_for_and_nothing_else_changes(options: str | None, data: st.DataObject) -> None:
    """A stream that does not ask for usage gets the question; every other byte stays in its place."""
    fixed = PLAIN | {"stream": "true"} | ({} if options is None else {"stream_options": options})
    raw = data.draw(objects(fixed, ours)).encode()
    out = sent(raw, "gpt-4o")
    members = call_of(raw).members
    end = max(member.stop for member in members.values())
    start, end = (end, end) if options is None else (members["stream_options"].start, members["stream_options"].stop)
    assert out.startswith(raw[:start])
    assert out.endswith(raw[end:])
    asked = json.loads(options or "{}") or {}
    assert json.loads(out) == json.loads(raw) | {"stream_options": asked | {"include_usage": True}}


@pytest.mark.parametrize("twice", ['"include_usage":false,"include_usage":false', '"new":1,"new":2'])
def test_a_duplicate_in_the_options_is_the_callers_fault(twice: str) -> None:
    """Options that two readers could read differently are refused by name, and are no failure of ours."""
    body = f'{{"model":"gpt-4o","messages":{MESSAGES},"stream":true,"stream_options":{{{twice}}}}}'
    with pytest.raises(InvalidRequest) as caught:
        sent(body.encode(), "gpt-4o")
    assert (caught.value.param or "").startswith("stream_options")


def test_the_same_call_is_built_again() -> None:
    """A repeat sends the same bytes, and the call itself is left as it was."""
    raw = f'{{"model":"gpt-4o","messages":{MESSAGES},"stream":true}}'.encode()
    call = call_of(raw)
    assert splice_request(call, "gpt-4o-mini") == splice_request(call, "gpt-4o-mini") != raw
    assert call.body == raw


ANSWER = {"choices": '[{"index":0,"message":{"content":"\\"model\\":\\"up\\""},"finish_reason":"stop"}]'}


@unhurried
@given(objects(ANSWER | {"model": '"gpt-4o-2024"', "usage": "null"}, theirs))
def test_an_answer_goes_through_untouched(body: str) -> None:
    """A completion reaches the caller with the SHA-256 it came with."""
    call = call_of(b'{"model":"gpt-4o","messages":[{}]}')
    out, facts = relay_completion(call, "gpt-4o", body.encode())
    assert digest(out) == digest(body.encode())
    assert (facts.finished, facts.finish_reason, facts.usage) == (True, "stop", None)


@unhurried
@given(objects(ANSWER | {"model": '"up"'}, theirs))
def test_an_answer_is_given_the_asked_name(body: str) -> None:
    """Where the target renames the model, only the top-level value changes on the way back."""
    call = call_of(b'{"model":"asked","messages":[{}]}')
    out, _ = relay_completion(call, "up", body.encode())
    assert json.loads(out) == json.loads(body) | {"model": "asked"}
    assert len(out) == len(body.encode()) + len(b"asked") - len(b"up")


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", Broken),
        (b"<html>", Broken),
        (b"{}", Broken),
        (b'{"choices":[]}', Broken),
        (b'{"error":{"message":"m","code":"rate_limit_exceeded"},"choices":[{}]}', Limited),
    ],
)
def test_what_is_no_answer_is_a_failure(body: bytes, kind: type[UpstreamError]) -> None:
    """Vector 33: an error in a 200, or nonsense, never passes as a completion."""
    with pytest.raises(kind):
        relay_completion(call_of(b'{"model":"m","messages":[{}]}'), "m", body)


@dataclass
class Stream:
    """The frames of a stream, its lines ended in one way."""

    frames: list[str]
    end: str

    @property
    def data(self) -> bytes:
        return "".join(frame.replace("\n", self.end) for frame in self.frames).encode()

    def cut(self, cuts: list[int]) -> Iterator[bytes]:
        ends = sorted(place for place in cuts if place < len(self.data))
        return (self.data[start:end] for start, end in zip([0, *ends], [*ends, len(self.data)], strict=True))


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    """Chunks with unknown fields, some comments, and the usage frame that was asked for."""
    delta = '{"index":0,"delta":{"content":"\\"model\\":\\"up\\" \u2028 🦊","model":1},"finish_reason":null}'
    last = '{"index":0,"delta":{},"finish_reason":"stop"}'
    fixed = [{"model": '"up"', "choices": f"[{choice}]"} for choice in (delta, delta, last)]
    fixed.append({"model": '"up"', "choices": "[]", "usage": '{"prompt_tokens":1}'})
    frames = []
    for members in fixed:
        chunk = draw(objects(members, theirs)).replace("\r", " ").replace("\n", " ")
        frames += [f"data:{draw(st.sampled_from(['', ' ']))}{chunk}\n\n", *draw(st.sampled_from([[], [": ping\n\n"]]))]
    return Stream([*frames, "data: [DONE]\n\n"], draw(st.sampled_from(["\n", "\r\n"])))


def relayed(stream: Stream, cuts: list[int], model: str) -> tuple[bytes, ExactRelay]:
    """What a caller gets who asked for `model` and for usage."""
    body = {"model": model, "messages": [{}], "stream": True, "stream_options": {"include_usage": True}}
    relay = ExactRelay(call_of(json.dumps(body).encode()), "up", 1 << 20)
    out = b"".join(map(relay.feed, stream.cut(cuts))) + relay.finish()
    return out, relay


@unhurried
@given(streams(), places)
def test_a_stream_goes_through_untouched(stream: Stream, cuts: list[int]) -> None:
    """However it is cut, a stream reaches the caller with the SHA-256 it came with, and accounting reads along."""
    out, relay = relayed(stream, cuts, "up")
    assert digest(out) == digest(stream.data)
    assert relay.failure is None
    facts = relay.facts
    assert (facts.content, facts.finished, facts.finish_reason) == (True, True, "stop")
    assert facts.usage == {"prompt_tokens": 1}


@unhurried
@given(streams(), places)
def test_a_stream_is_given_the_asked_name(stream: Stream, cuts: list[int]) -> None:
    """In every frame the top-level model is the asked one; no other `model`, escaped or nested, changes."""
    out, relay = relayed(stream, cuts, "asked")
    assert relay.failure is None
    for came, left in zip(SseFrames().feed(stream.data), SseFrames().feed(out), strict=True):
        if b"{" not in came:
            assert left == came
            continue
        assert json.loads(left[5:]) == json.loads(came[5:]) | {"model": "asked"}
        assert len(left) == len(came) + len(b"asked") - len(b"up")


def test_a_comment_with_braces_hides_no_name() -> None:
    """The name is put right also behind a comment that looks like JSON."""
    out, _ = relayed(
        Stream([': {"a":1}\ndata: {"model":"up","choices":[{"index":0,"delta":{}}]}\n\n'], "\n"), [], "asked"
    )
    assert b'"asked"' in out
    assert b'"up"' not in out


def test_a_stream_that_is_cut_is_a_failure() -> None:
    """Vector 18: what came is passed on, the end is not invented."""
    stream = Stream(['data: {"model":"up","choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'], "\n")
    out, relay = relayed(stream, [], "up")
    assert out == stream.data
    assert isinstance(relay.failure, CutShort)
    assert not relay.facts.finished
