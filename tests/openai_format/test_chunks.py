"""A completion and its stream say the same."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.call import Facts, Json
from proxy.errors import CutShort
from proxy.openai_format.chunks import (
    ROLE,
    ChunkBuilder,
    collect,
    completion,
    reasoning,
    replay,
    tool_arguments,
    tool_call,
    tool_start,
    usage,
)
from proxy.openai_format.observing import carries_content, observe

unhurried = settings(suppress_health_check=[HealthCheck.too_slow])

BUILD = ChunkBuilder("chatcmpl-1", 1795000000, "gpt-4o-mini")
USAGE = usage(7, 5, prompt_tokens_details={"cached_tokens": 3}, completion_tokens_details={}) or {}
LOGPROBS = {"content": [{"token": "a", "logprob": -0.1, "bytes": [97], "top_logprobs": []}], "refusal": None}
OF_REFUSAL = {"content": None, "refusal": LOGPROBS["content"]}
AUDIO = {"id": "audio_1", "data": "AAAA", "transcript": "Hello", "expires_at": 1795003600}
BLOCKS = [{"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "redacted_thinking", "data": "d"}]
NOTES = [{"type": "url_citation", "url_citation": {"url": "https://example.com", "start_index": 0, "end_index": 5}}]
CALLS = [tool_call("call_1", "weather", '{"city":"Oslo"}'), tool_call("call_2", "time", "")]


def whole(message: Json, finish_reason: str = "stop", **more: Any) -> Json:
    return completion("chatcmpl-1", 1795000000, "gpt-4o-mini", message, finish_reason, USAGE) | more


def choices(*messages: Json) -> Json:
    """The `choices` of a completion with several."""
    first = whole({})["choices"][0]
    return {
        "choices": [
            {**first, "index": index, "message": {**first["message"], **message}}
            for index, message in enumerate(messages)
        ]
    }


def with_logprobs(message: Json, logprobs: Json) -> Json:
    return {"choices": [{**whole(message)["choices"][0], "logprobs": logprobs}]}


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(whole({"content": "Hello \u2028 🦊"}), id="text"),
        pytest.param(whole({"content": ""}), id="no text"),
        pytest.param(whole({"content": "Hello"}, "length"), id="cut by the limit"),
        pytest.param(whole({"tool_calls": CALLS}, "tool_calls"), id="tool calls"),
        pytest.param(
            whole({"content": "Let me see.", "tool_calls": CALLS[:1]}, "tool_calls"), id="text and a tool call"
        ),
        pytest.param(whole({"content": "4", **reasoning("2 + 2")}), id="reasoning"),
        pytest.param(whole({}, **with_logprobs({"content": "a"}, LOGPROBS)), id="logprobs"),
        pytest.param(whole({}, **with_logprobs({"refusal": "no"}, OF_REFUSAL)), id="logprobs of a refusal"),
        pytest.param(whole({}, **choices({"content": "one"}, {"content": "two"})), id="two choices"),
        pytest.param(whole({"refusal": "I will not."}), id="refusal"),
        pytest.param(whole({"function_call": CALLS[0]["function"]}, "function_call"), id="function call"),
        pytest.param(whole({"audio": AUDIO}), id="sound"),
        pytest.param(whole({"content": "Hello", "annotations": NOTES}), id="annotations"),
        pytest.param(whole({"content": "Hello", "annotations": []}), id="no annotations"),
        pytest.param(whole({"thinking_blocks": BLOCKS, "tool_calls": CALLS}, "tool_calls"), id="thinking blocks"),
        pytest.param(
            whole({}, **choices({"content": "one"}, {"tool_calls": CALLS}, {"refusal": "no"}, {"audio": AUDIO})),
            id="choices of every kind",
        ),
        pytest.param(whole({"content": "Hello"}, system_fingerprint="fp_1", service_tier="default"), id="fingerprint"),
    ],
)
def test_replay_then_collect_gives_the_same(answer: Json) -> None:
    """A completion sent as a stream and folded again is the completion that it was."""
    assert collect(replay(answer)) == answer


@unhurried
@given(
    st.text(min_size=1),
    st.lists(st.tuples(st.text(), st.text(), st.text()), max_size=4),
    st.sampled_from(["stop", "length", "tool_calls", "content_filter"]),
)
def test_any_text_survives(text: str, calls: list[tuple[str, str, str]], reason: str) -> None:
    """No text, name or arguments are changed on the way."""
    message = {"content": text, **({"tool_calls": [tool_call(*call) for call in calls]} if calls else {})}
    answer = whole(message, reason)
    assert collect(replay(answer)) == answer


def test_a_replayed_stream_looks_like_openais() -> None:
    """The role comes first and once, the finish alone, the usage last and without choices."""
    chunks = replay(whole({"content": "Hello"}))
    assert [choice["delta"] for chunk in chunks for choice in chunk["choices"]] == [ROLE, {"content": "Hello"}, {}]
    assert [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]] == [None, None, "stop"]
    assert (chunks[-1]["choices"], chunks[-1]["usage"]) == ([], USAGE)
    assert not any("usage" in chunk for chunk in chunks[:-1])
    assert {(chunk["id"], chunk["object"], chunk["created"], chunk["model"]) for chunk in chunks} == {
        ("chatcmpl-1", "chat.completion.chunk", 1795000000, "gpt-4o-mini")
    }


def test_unknown_usage_is_left_out() -> None:
    """An answer whose usage nobody told carries none, as a completion and as a stream."""
    answer = completion("chatcmpl-1", 1795000000, "gpt-4o-mini", {"content": "Hello"}, "stop", None)
    assert "usage" not in answer
    assert not any("usage" in chunk for chunk in replay(answer))
    assert collect(replay(answer)) == answer


def test_fragments_are_folded() -> None:
    """Pieces of text, of two tool calls in turn, and of logprobs become whole."""
    chunks = [
        BUILD.delta(ROLE),
        BUILD.delta({"content": "Hel"}, logprobs={"content": [1], "refusal": None}),
        BUILD.delta({"content": "lo"}, logprobs={"content": [2], "refusal": None}),
        BUILD.delta(tool_start(0, "call_1", "weather")),
        BUILD.delta(tool_start(1, "call_2", "time")),
        BUILD.delta(tool_arguments(0, '{"city":')),
        BUILD.delta(tool_arguments(1, "{}")),
        BUILD.delta(tool_arguments(0, '"Oslo"}')),
        BUILD.finish("tool_calls"),
    ]
    choice = collect(chunks)["choices"][0]
    assert choice["message"]["content"] == "Hello"
    assert choice["message"]["tool_calls"] == [
        tool_call("call_1", "weather", '{"city":"Oslo"}'),
        tool_call("call_2", "time", "{}"),
    ]
    assert choice["logprobs"] == {"content": [1, 2], "refusal": None}


def folded(*deltas: Json) -> Json:
    """The message that these deltas amount to."""
    message: Json = collect([*map(BUILD.delta, deltas), BUILD.finish("stop")])["choices"][0]["message"]
    return message


def test_pieces_of_a_function_call_are_folded() -> None:
    """The name comes once, the arguments in pieces; such a message needs no text."""
    pieces = [{"name": "f", "arguments": ""}, {"arguments": '{"a"'}, {"arguments": ":1}"}]
    message = folded(ROLE, *({"function_call": piece} for piece in pieces))
    assert (message["function_call"], message["content"]) == ({"name": "f", "arguments": '{"a":1}'}, None)


def test_pieces_of_sound_are_folded() -> None:
    """Data and transcript go on, a number stands for itself; such a message needs no text."""
    pieces = [{"id": "audio_1"}, {"transcript": "Hel"}, {"data": "AAAA", "transcript": "lo"}, {"data": "BBBB"}]
    message = folded(ROLE, *({"audio": piece} for piece in [*pieces, {"expires_at": 5}]))
    assert message["content"] is None
    assert message["audio"] == {"id": "audio_1", "transcript": "Hello", "data": "AAAABBBB", "expires_at": 5}


@pytest.mark.parametrize("name", ["thinking_blocks", "annotations"])
def test_lists_are_added_up(name: str) -> None:
    """Lists that come in several deltas are one list; that alone is no answer, so the text is empty."""
    assert folded(ROLE, {name: [1]}, {name: []}, {name: [2, 3]})[name] == [1, 2, 3]
    assert folded(ROLE, {name: [1]})["content"] == ""


def test_choices_may_come_in_turn() -> None:
    """Each choice is folded by itself, and they are listed by their index."""
    chunks = [
        BUILD.delta({**ROLE, "content": "two"}, index=1),
        BUILD.delta({**ROLE, "content": "one"}),
        BUILD.delta({"content": "!"}, index=1),
        BUILD.finish("length", index=1),
        BUILD.finish("stop"),
    ]
    told = [(each["index"], each["message"]["content"], each["finish_reason"]) for each in collect(chunks)["choices"]]
    assert told == [(0, "one", "stop"), (1, "two!", "length")]


def test_a_replayed_call_comes_in_two_pieces() -> None:
    """Thinking blocks come once and before the calls, a call's id and name once, the finish after all of them."""
    chunks = replay(whole({"thinking_blocks": BLOCKS, "tool_calls": CALLS[:1]}, "tool_calls"))
    assert [choice["delta"] for chunk in chunks for choice in chunk["choices"]] == [
        ROLE,
        {"thinking_blocks": BLOCKS},
        tool_start(0, "call_1", "weather"),
        tool_arguments(0, '{"city":"Oslo"}'),
        {},
    ]


@pytest.mark.parametrize(
    "chunks",
    [
        pytest.param([], id="nothing"),
        pytest.param([BUILD.usage(USAGE)], id="only usage"),
        pytest.param([BUILD.delta(ROLE), BUILD.delta({"content": "Hel"})], id="no finish"),
        pytest.param([BUILD.delta(ROLE), BUILD.delta(ROLE, index=1), BUILD.finish("stop")], id="one choice of two"),
    ],
)
def test_what_is_unfinished_is_refused(chunks: list[Json]) -> None:
    """No completion is made of a stream that was cut: an end is never invented."""
    with pytest.raises(CutShort):
        collect(chunks)


@pytest.mark.parametrize(
    ("delta", "carries"),
    [
        (ROLE, False),
        ({}, False),
        ({"content": None, "tool_calls": [], "refusal": ""}, False),
        ({"content": "a"}, True),
        (reasoning("a"), True),
        ({"refusal": "no"}, True),
        (tool_start(0, "call_1", "weather"), True),
        ({"audio": {"id": "a"}}, True),
    ],
)
def test_what_counts_as_content(delta: Json, carries: bool) -> None:
    """The first token is text, reasoning, refusal, tool call or audio; a role or an empty frame is not."""
    assert carries_content(delta) is carries


def test_facts_are_noted_in_passing() -> None:
    """Accounting learns of content, finish and usage, each when it comes."""
    facts = Facts()
    observe(facts, BUILD.delta(ROLE))
    assert facts == Facts()
    observe(facts, BUILD.delta({"content": "a"}))
    assert facts == Facts(content=True, pieces=1, text_bytes=1)
    observe(facts, BUILD.finish("length"))
    observe(facts, BUILD.usage(USAGE))
    assert facts == Facts(content=True, pieces=1, text_bytes=1, finish_reason="length", usage=USAGE)
