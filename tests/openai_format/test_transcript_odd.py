"""Answers of an exact wire that are hardly OpenAI's: told right, or not told; never a failure of another kind."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.call import Json
from proxy.openai_format.encoding import DONE, encode, encode_event
from proxy.openai_format.transcript import Form, Transcript, Untellable, tell

FORMS: tuple[Form, ...] = ("whole", "events", "events_usage")
HEAD: Json = {"id": "c-1", "object": "chat.completion", "created": 1795000000, "model": "m"}
USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
LOGPROBS = {"content": [{"token": "a", "logprob": -0.1, "bytes": [97], "top_logprobs": []}], "refusal": None}


def chunk(delta: Any, reason: Any = "stop", **more: Any) -> Json:
    return {**HEAD, "choices": [{"index": 0, "delta": delta, "finish_reason": reason, **more}]}


def answer(message: Json, reason: str = "stop", **choice: Any) -> Json:
    return {**HEAD, "choices": [{"index": 0, "message": message, "finish_reason": reason, **choice}], "usage": USAGE}


def told(transcript: Transcript, form: Form, *, chat: bool = True) -> bytes | None:
    """None for what cannot be told; any other failure is one of the test."""
    try:
        return tell(transcript, form, chat=chat)
    except Untellable:
        return None


def there_and_back(whole: Json) -> Json:
    """A whole answer told as events, and these as a whole answer."""
    events = tell(Transcript(whole=encode(whole)), "events_usage", chat=True)
    found: Json = json.loads(tell(Transcript(events=events, shows_usage=True), "whole", chat=True))
    return found


def call(**fields: Any) -> Json:
    return {"role": "assistant", "content": None, "refusal": None, "tool_calls": [fields]}


TEXT: Json = {"role": "assistant", "content": "a", "refusal": None}


@pytest.mark.parametrize(
    "whole",
    [
        answer(TEXT, logprobs=None),
        answer(TEXT, logprobs=LOGPROBS),
        answer(TEXT, logprobs=None, stop_reason=7, content_filter_results={"hate": {"filtered": False}}),
        answer(TEXT, logprobs=None) | {"service_tier": "default", "x_odd": {"a": [1]}},
        answer(call(id="1", type="function", function={"name": "f", "arguments": "{}"}), "tool_calls", logprobs=None),
        answer(call(id="1", type="custom", custom={"name": "f", "input": "a b"}), "tool_calls", logprobs=None),
        answer({**TEXT, "content": None, "refusal": "no"}, logprobs=None),
        answer({**TEXT, "content": None, "audio": {"id": "a", "data": "AA", "transcript": "Hey"}}, logprobs=None),
        answer({**TEXT, "annotations": [{"type": "url_citation"}], "reasoning_content": "hm"}, logprobs=None),
        answer({**TEXT, "function_call": {"name": "f", "arguments": "{}"}}, "function_call", logprobs=None),
    ],
)
def test_what_comes_back(whole: Json) -> None:
    """Nothing of a JSON answer is lost in its stream."""
    assert there_and_back(whole) == whole


@pytest.mark.parametrize("value", [7, 0.5, True])
def test_extra_members_of_a_message(value: Any) -> None:
    """Whatever their type: they come back, or the answer cannot be told."""
    whole = answer({**TEXT, "x_extra": value}, logprobs=None)
    events = told(Transcript(whole=encode(whole)), "events")
    if events is not None:
        back = told(Transcript(events=events), "whole")
        assert back is None or json.loads(back)["choices"] == whole["choices"]


@pytest.mark.parametrize(
    "events",
    [
        b"",
        DONE,
        b"data: {}\n\n" + DONE,
        b"data: [1]\n\n" + DONE,
        b"data: what?\n\n" + DONE,
        b'data: {"choices":\n\n' + DONE,
        b"data: \xff\n\n" + DONE,
        b'data: {"choices":null}\n\n' + DONE,
        b'data: {"choices":[null]}\n\n' + DONE,
        b'data: {"choices":[{}]}\n\n' + DONE,
        b"data: " + b"[" * 100_000 + b"\n\n" + DONE,
        *(
            encode_event(each) + DONE
            for each in (
                chunk({"content": "a"}, None),
                chunk({"content": "a"}, index=[]),
                chunk("a"),
                chunk([1]),
                chunk({"tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]}),
                chunk({"tool_calls": [{"index": 1, "id": "1", "function": {"name": "f", "arguments": "{}"}}]}),
                chunk({"tool_calls": [{"index": -1, "id": "1", "function": {"name": "f"}}]}),
                chunk({"tool_calls": [{"index": "0", "id": "1", "function": {"name": "f"}}]}),
                chunk({"tool_calls": [{"index": 0, "function": None}]}),
                chunk({"tool_calls": [None]}),
                chunk({"tool_calls": {"index": 0}}),
                chunk({"content": "a"}, logprobs={"content": "a"}),
                chunk({"content": "a"}, logprobs=[1]),
            )
        ),
    ],
)
def test_streams_that_are_no_answers(events: bytes) -> None:
    """They cannot be told whole; as they are, they can."""
    assert told(Transcript(events=events), "whole") is None
    assert told(Transcript(events=events), "events") == events


@pytest.mark.parametrize(
    "whole",
    [
        b"",
        b"what?",
        b"null",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        b'{"choices":[]}',
        b'{"choices":null}',
        *(
            encode(each)
            for each in (
                {name: value for name, value in answer(TEXT).items() if name != "id"},
                {name: value for name, value in answer(TEXT).items() if name != "created"},
                {name: value for name, value in answer(TEXT).items() if name != "choices"},
                {**HEAD, "choices": [{"index": 0, "finish_reason": "stop"}]},
                {**HEAD, "choices": [{"message": TEXT, "finish_reason": "stop"}]},
                {**HEAD, "choices": [{"index": 0, "message": TEXT}]},
                {**HEAD, "choices": [None]},
                {**HEAD, "choices": {"0": {}}},
                {**HEAD, "choices": [{"index": 0, "message": "a", "finish_reason": "stop"}]},
                answer(call(id="1", function=None)),
                answer(call(function={"name": "f", "arguments": "{}"})),
                answer(call(id="1", function={"arguments": "{}"})),
                answer(call(id="1", function={"name": "f"})),
                answer({**TEXT, "tool_calls": [None]}),
                answer({**TEXT, "tool_calls": 7}),
            )
        ),
    ],
)
def test_whole_answers_that_are_none(whole: bytes) -> None:
    """They cannot be streamed; as they are, they can be told."""
    kept = Transcript(whole=whole)
    assert told(kept, "whole") == whole
    assert told(kept, "events") is None
    assert told(kept, "events_usage") is None


words = st.sampled_from(
    "id object created model choices usage index delta message text finish_reason logprobs content role tool_calls "
    "function custom name arguments input audio refusal error x".split()
)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 3) | st.floats() | st.sampled_from(["", "a", "stop"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=5),
    max_leaves=15,
)
choices = st.fixed_dictionaries(
    {"index": st.integers(-1, 2) | values, "finish_reason": st.sampled_from(["stop", None]) | values},
    optional={"delta": values, "message": values, "text": values, "logprobs": values},
)
tools = st.lists(
    st.fixed_dictionaries(
        {}, optional={"index": st.integers(-2, 3) | values, "id": values, "function": values, "custom": values}
    ),
    max_size=3,
)
saying = choices.flatmap(
    lambda choice: tools.map(lambda calls: {**choice, "delta": {"tool_calls": calls}, "message": {"tool_calls": calls}})
)
heads = st.fixed_dictionaries(
    {"choices": st.lists(choices | saying, max_size=3) | values},
    optional={"id": values, "created": values, "model": values, "usage": values, "x": values},
)


@settings(max_examples=200)
@given(chunks=st.lists(heads, max_size=4), shows_usage=st.booleans(), encoded=st.booleans(), chat=st.booleans())
def test_any_stream(chunks: list[Json], shows_usage: bool, encoded: bool, chat: bool) -> None:
    """Whatever stands where, it is told or it cannot be."""
    events = b"".join(map(encode_event, chunks)) + DONE
    for form in FORMS:
        out = told(Transcript(None, events, b"", shows_usage, encoded), form, chat=chat)
        assert out is None or form != "whole" or json.loads(out)["choices"]


@settings(max_examples=200)
@given(whole=heads | values, chat=st.booleans())
def test_any_whole_answer(whole: Any, chat: bool) -> None:
    """Nor does any JSON do more than not be an answer; what is told ends as a stream does."""
    for form in FORMS:
        out = told(Transcript(whole=encode(whole)), form, chat=chat)
        assert out is None or form == "whole" or out.endswith(DONE)
