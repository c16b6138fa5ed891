"""An answer is told in each form that callers ask for, or it is said that it cannot be."""

import json
from typing import Any

import pytest

from proxy.admission.parsing import parse
from proxy.call import Caller, Json
from proxy.openai_format.encoding import DONE, encode_event
from proxy.openai_format.transcript import Form, Retelling, Transcript, form_of, tell
from proxy.providers.exact import ExactRelay

FORMS: tuple[Form, ...] = ("whole", "events", "events_usage")
HEAD: Json = {"id": "c-1", "object": "chat.completion.chunk", "created": 1795000000, "model": "m"}
USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
LOGPROB = {"token": "a", "logprob": -0.1, "bytes": [97], "top_logprobs": []}


def chunk(delta: Json, reason: str | None = None, index: int = 0, **more: Any) -> Json:
    return {**HEAD, "choices": [{"index": index, "delta": delta, "finish_reason": reason, **more}]}


def stream(*chunks: Json) -> bytes:
    return b"".join(map(encode_event, chunks)) + DONE


def exact(*chunks: Json) -> Transcript:
    """Such a stream, as an upstream sent it to a caller who did not ask for usage."""
    return Transcript(None, stream(*chunks))


def whole_of(*chunks: Json) -> Json:
    found: Json = json.loads(tell(exact(*chunks), "whole", chat=True))
    return found


def message_of(*deltas: Json, reason: str = "stop") -> Json:
    found: Json = whole_of(*map(chunk, deltas), chunk({}, reason))["choices"][0]["message"]
    return found


def relayed(events: bytes, *, usage: bool) -> Transcript:
    """What the exact wire gives a caller of that kind."""
    body = {"model": "m", "messages": [{}], "stream": True, "stream_options": {"include_usage": usage}}
    call = parse(json.dumps(body).encode(), caller=Caller(), headers={}, call_id="x", received_at=0.0)
    relay = ExactRelay(call, "m", 1 << 20)
    out = relay.feed(events) + relay.finish()
    assert relay.failure is None
    return Transcript(None, out, relay.usage_event, usage, relay.encoded)


@pytest.mark.parametrize(
    ("streamed", "wants_usage", "form"),
    [(False, False, "whole"), (False, True, "whole"), (True, False, "events"), (True, True, "events_usage")],
)
def test_forms(streamed: bool, wants_usage: bool, form: Form) -> None:
    """Usage in a stream is for those who asked for it."""
    assert form_of(stream=streamed, wants_usage=wants_usage) == form


@pytest.mark.parametrize("usage", [True, False])
def test_its_own_form_is_told_to_the_byte(usage: bool) -> None:
    """Also where it is none of OpenAI's."""
    odd = Transcript(None, b": hi\r\n\r\nwhat?\n\n", b"", usage)
    assert tell(odd, "events_usage" if usage else "events", chat=True) is odd.events
    assert tell(Transcript(whole=b"what?"), "whole", chat=True) == b"what?"


def test_reencoded_streams() -> None:
    """With usage, each chunk says that it has none yet, and the last one has it before the end."""
    chunks, usage = (
        [chunk({"content": "a}\n\n"}), chunk({}, "stop")],
        encode_event({**HEAD, "choices": [], "usage": USAGE}),
    )
    with_null = b"".join(encode_event({**each, "usage": None}) for each in chunks)
    plain = Transcript(None, stream(*chunks), usage, encoded=True)
    full = Transcript(None, with_null + usage + DONE, usage, shows_usage=True, encoded=True)
    assert tell(plain, "events_usage", chat=True) == full.events
    assert tell(full, "events", chat=True) == plain.events


def test_text_that_looks_like_protocol() -> None:
    """What a model says changes nothing of how it is told."""
    says = '"usage":null}\n\ndata: [DONE]\n\n,"usage":null}'
    chunks, usage = [chunk({"content": says}), chunk({}, "stop")], encode_event({**HEAD, "choices": [], "usage": USAGE})
    plain = Transcript(None, stream(*chunks), usage, encoded=True)
    full = tell(plain, "events_usage", chat=True)
    assert tell(Transcript(None, full, usage, shows_usage=True, encoded=True), "events", chat=True) == plain.events
    assert json.loads(tell(plain, "whole", chat=True))["choices"][0]["message"]["content"] == says


USAGE_CHUNK = {**HEAD, "choices": [], "usage": USAGE}
STREAMS = {
    "none": [],
    "last": [USAGE_CHUNK],
    "twice": [USAGE_CHUNK, USAGE_CHUNK],
    "two": [{**HEAD, "choices": [], "usage": {**USAGE, "total_tokens": 8}}, USAGE_CHUNK],
}


@pytest.mark.parametrize("usage", [True, False], ids=["with usage", "without"])
@pytest.mark.parametrize("last", STREAMS.values(), ids=STREAMS.keys())
@pytest.mark.parametrize("between", [(), (b": comment\n\n",)], ids=["in a row", "apart"])
def test_exact_streams(last: list[Json], between: tuple[bytes, ...], usage: bool) -> None:
    """What an upstream said of usage, however often, is there or not there as it would be live."""
    begin = [chunk({"role": "assistant", "content": "a"}), chunk({}, "stop")]
    events = b"".join([*map(encode_event, begin), *(encode_event(each) + b"".join(between) for each in last), DONE])
    kept, live = relayed(events, usage=usage), relayed(events, usage=not usage)
    told = tell(kept, "events" if usage else "events_usage", chat=True)
    if usage:
        assert told == live.events
    else:  # where usage stood among comments is not known
        assert told.replace(b": comment\n\n", b"") == live.events.replace(b": comment\n\n", b"")
    assert json.loads(tell(kept, "whole", chat=True)).get("usage") == (USAGE if last else None)


@pytest.mark.parametrize("usage", [True, False], ids=["with usage", "without"])
def test_usage_before_the_end(usage: bool) -> None:
    """An upstream that tells usage in the middle, and again at the end: the whole answer has the last."""
    early = {**HEAD, "choices": [], "usage": {**USAGE, "total_tokens": 5}}
    events = stream(chunk({"content": "a"}), early, chunk({"content": "b"}), chunk({}, "stop"), USAGE_CHUNK)
    kept = relayed(events, usage=usage)
    told = tell(kept, "events" if usage else "events_usage", chat=True)
    assert told.count(b'"usage"') == (0 if usage else 2)
    assert json.loads(tell(kept, "whole", chat=True))["usage"] == USAGE


def test_in_flight_usage_comes_when_it_comes() -> None:
    """A piece is told with what is known of usage by then, be it told in several."""
    one, other = encode_event({**HEAD, "choices": [], "usage": {**USAGE, "total_tokens": 5}}), encode_event(USAGE_CHUNK)
    first, last = encode_event(chunk({"content": "a"})), encode_event(chunk({}, "stop"))
    retelling = Retelling(Transcript(None, b"", b"", shows_usage=True), wants_usage=False)
    out = retelling.piece(first) + retelling.piece(one, one) + retelling.piece(last, one)
    assert out + retelling.last(other + DONE, one + other) == first + last + DONE


@pytest.mark.parametrize(
    ("deltas", "message"),
    [
        ([{"role": "assistant"}, {"content": "a"}, {"content": "b"}], {"content": "ab", "refusal": None}),
        ([{"content": ""}], {"content": "", "refusal": None}),
        ([{}], {"content": "", "refusal": None}),
        ([{"content": None, "tool_calls": None, "x": None}, {"content": "a"}], {"content": "a", "refusal": None}),
        ([{"refusal": "no"}, {"refusal": "."}], {"content": None, "refusal": "no."}),
        (
            [
                {"tool_calls": [{"index": 0, "id": "1", "type": "function", "function": {"name": "f"}}]},
                {"tool_calls": [{"index": 0, "function": {"arguments": "{"}}]},
                {"tool_calls": [{"index": 1, "id": "2", "function": {"name": "g", "arguments": "[]"}}]},
                {"tool_calls": [{"index": 0, "function": {"arguments": "}"}}]},
            ],
            {
                "content": None,
                "refusal": None,
                "tool_calls": [
                    {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                    {"id": "2", "type": "function", "function": {"name": "g", "arguments": "[]"}},
                ],
            },
        ),
        (
            [
                {"tool_calls": [{"index": 0, "id": "1", "type": "custom", "custom": {"name": "f", "input": ""}}]},
                {"tool_calls": [{"index": 0, "custom": {"input": "a "}}]},
                {"tool_calls": [{"index": 0, "custom": {"input": "b"}}]},
            ],
            {
                "content": None,
                "refusal": None,
                "tool_calls": [{"id": "1", "type": "custom", "custom": {"name": "f", "input": "a b"}}],
            },
        ),
        (
            [{"audio": {"id": "a", "transcript": "He"}}, {"audio": {"transcript": "y", "expires_at": 9}}],
            {"content": None, "refusal": None, "audio": {"id": "a", "transcript": "Hey", "expires_at": 9}},
        ),
        (
            [{"reasoning": "h", "reasoning_content": "h"}, {"reasoning": "m"}, {"content": "a", "annotations": [1]}],
            {"content": "a", "refusal": None, "reasoning": "hm", "reasoning_content": "h", "annotations": [1]},
        ),
    ],
)  # fmt: skip
def test_exact_streams_told_whole(deltas: list[Json], message: Json) -> None:
    """Texts, tool calls of both kinds, audio, reasoning, nulls and extra members come together in one message."""
    assert message_of(*deltas) == {"role": "assistant", **message}


def test_logprobs_choices_and_extras_told_whole() -> None:
    """Log probabilities are joined, choices are in order, extra members stay, what only hides lengths does not."""
    whole = whole_of(
        {**chunk({"content": "b"}, index=1, logprobs={"content": [LOGPROB], "refusal": None}), "obfuscation": "xyz"},
        {**chunk({"content": "a"}, logprobs={"content": [LOGPROB], "refusal": None}), "service_tier": "default"},
        {**chunk({"content": "A"}, "stop", logprobs={"content": [LOGPROB], "refusal": None}), "x_odd": [1]},
        chunk({}, "length", index=1, stop_reason=7),
    )
    assert [choice["message"]["content"] for choice in whole["choices"]] == ["aA", "b"]
    assert [len(choice["logprobs"]["content"]) for choice in whole["choices"]] == [2, 1]
    assert [choice["finish_reason"] for choice in whole["choices"]] == ["stop", "length"]
    assert whole["choices"][1]["stop_reason"] == 7
    assert (whole["service_tier"], whole["x_odd"], "obfuscation" in whole) == ("default", [1], False)
