"""`functions` becomes tools on the way in, and the answer's first tool call `function_call` on the way out."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.call import Json
from proxy.errors import InvalidRequest
from proxy.openai_format.chunks import ROLE, ChunkBuilder, collect, replay, tool_arguments, tool_call, tool_start
from proxy.openai_format.chunks import completion as whole
from proxy.openai_format.legacy import is_legacy, modernise, restore_chunk, restore_completion, restore_message
from proxy.openai_format.parameters import MAP, PARAMETERS, PASS, Column
from proxy.openai_format.request import read_chat

BUILD = ChunkBuilder("chatcmpl-1", 1795000000, "m")
USER = {"role": "user", "content": "Hello"}
WEATHER = {"name": "weather", "description": "d", "parameters": {"type": "object"}}
CALL = {"name": "weather", "arguments": '{"city":"Oslo"}'}
ANSWER = {"role": "function", "name": "weather", "content": "12"}


def asking(name: str) -> Json:
    return {"role": "assistant", "content": None, "function_call": {"name": name, "arguments": "{}"}}


def answering(name: str) -> Json:
    return {"role": "function", "name": name, "content": name}


def called(number: int, name: str) -> list[Json]:
    """The tool calls of a message, and the id that is made up for it."""
    return [{"id": f"call_function_{number}", "type": "function", "function": {"name": name, "arguments": "{}"}}]


@pytest.mark.parametrize(
    ("fields", "is_so"),
    [
        ({"messages": [USER]}, False),
        ({"messages": [USER], "tools": []}, False),
        ({"messages": [USER], "functions": [WEATHER]}, True),
        ({"messages": [USER], "function_call": "none"}, True),
        ({"messages": [USER, {"role": "assistant", "function_call": CALL}]}, True),
        ({"messages": [USER, ANSWER]}, True),
        ({"messages": [{"role": "assistant", "content": "Hi", "function_call": None}]}, False),
        ({"messages": "Hello"}, False),
        ({"messages": ["Hello"]}, False),
        ({}, False),
    ],
)
def test_who_speaks_the_old_way(fields: Json, is_so: bool) -> None:
    """A field of the pair or a message of its kind tells; nothing else does, not even nonsense."""
    assert is_legacy(fields) is is_so


@pytest.mark.parametrize(
    ("choice", "meant"),
    [
        ("auto", "auto"),
        ("none", "none"),
        ({"name": "weather"}, {"type": "function", "function": {"name": "weather"}}),
    ],
)
def test_functions_become_tools(choice: Any, meant: Any) -> None:
    """Each function is a tool, and the choice means the same."""
    modern = modernise({"model": "m", "functions": [WEATHER], "function_call": choice, "messages": [USER]})
    assert modern == {
        "model": "m",
        "messages": [USER],
        "tools": [{"type": "function", "function": WEATHER}],
        "tool_choice": meant,
    }


@pytest.mark.parametrize("functions", [{}, {"functions": []}])
def test_a_choice_of_nothing_is_left_out(functions: Json) -> None:
    """Without functions there is nothing to choose."""
    assert modernise({"model": "m", "function_call": "none", **functions}) == {"model": "m"}


def test_functions_that_are_no_array_are_refused() -> None:
    """The mistake is named as the caller wrote it."""
    with pytest.raises(InvalidRequest) as caught:
        modernise({"functions": {"weather": {}}})
    assert (caught.value.param, caught.value.code) == ("functions", "invalid_type")


def test_the_history_gets_ids() -> None:
    """Calls are numbered over the conversation, and each answer finds the latest call of its function."""
    before = [USER, asking("a"), answering("a"), asking("b"), answering("b"), asking("a"), answering("a"), USER]
    after = modernise({"messages": before})["messages"]
    assert [message.get("tool_calls") for message in after if message["role"] == "assistant"] == [
        called(0, "a"),
        called(1, "b"),
        called(2, "a"),
    ]
    assert [message for message in after if message["role"] == "tool"] == [
        {"role": "tool", "tool_call_id": "call_function_0", "content": "a"},
        {"role": "tool", "tool_call_id": "call_function_1", "content": "b"},
        {"role": "tool", "tool_call_id": "call_function_2", "content": "a"},
    ]
    assert (after[0], after[-1]) == (USER, USER)
    assert not any("function_call" in message for message in after)


def test_an_answer_without_a_call_finds_none() -> None:
    """An answer whose call is not in the history gets no id, so that it is refused as any such answer."""
    (message,) = modernise({"messages": [ANSWER]})["messages"]
    assert message == {"role": "tool", "tool_call_id": "", "content": "12"}


def test_an_answer_of_nothing_is_an_empty_one() -> None:
    """A function may return null, for which a tool's message has no place."""
    messages = [USER, asking("a"), {"role": "function", "name": "a", "content": None}]
    expected = {"role": "tool", "tool_call_id": "call_function_0", "content": ""}
    assert modernise({"messages": messages})["messages"][-1] == expected


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "function_call": {"name": [], "arguments": "{}"}},
        {"role": "function", "name": {}, "content": "12"},
    ],
    ids=["call", "answer"],
)
def test_a_name_of_a_wrong_type_is_the_callers_fault(message: Json) -> None:
    """A name that is no text is refused as any wrong request, and breaks nothing."""
    body = json.dumps({"model": "m", "messages": [USER, message]}).encode()
    with pytest.raises(InvalidRequest):
        read_chat(body, Column({parameter.name: PASS for parameter in PARAMETERS}))


def test_what_is_no_message_is_left_to_be_refused() -> None:
    """Nonsense passes through unchanged."""
    for messages in ("Hello", ["Hello", None, 1, [USER]], [{"role": "assistant", "function_call": "weather"}]):
        assert modernise({"messages": messages}) == {"messages": messages}


def test_the_request_is_not_changed() -> None:
    """A repeat reads the same request again."""
    fields = {"functions": [WEATHER], "function_call": "auto", "messages": [USER, asking("a"), answering("a")]}
    before = copy.deepcopy(fields)
    modernise(fields)
    assert fields == before


def test_the_first_call_is_the_answer() -> None:
    """A message can hold one function call: the first; its text stays, and one without calls is as it was."""
    calls = [tool_call("1", "weather", "{}"), tool_call("2", "time", "{}")]
    message = {"role": "assistant", "content": "Let me see.", "refusal": None}
    assert restore_message({**message, "tool_calls": calls}) == {
        **message,
        "function_call": {"name": "weather", "arguments": "{}"},
    }
    assert restore_message(message) is message


@pytest.mark.parametrize("reason", ["stop", "length", "content_filter", "tool_calls"])
def test_only_one_reason_has_another_name(reason: str) -> None:
    """`tool_calls` is called `function_call`; other ends are the same."""
    known = whole("chatcmpl-1", 1795000000, "m", {"content": "Hi"}, reason, None)
    expected = "function_call" if reason == "tool_calls" else reason
    assert restore_completion(known)["choices"][0]["finish_reason"] == expected
    chunk = restore_chunk(BUILD.finish(reason))
    assert chunk == BUILD.finish(expected)


def test_a_stream_of_two_calls() -> None:
    """The first call's pieces are told, chunks of other calls are not, and everything else is as it was."""
    usage = BUILD.usage({"prompt_tokens": 1})
    chunks = [
        BUILD.delta(ROLE),
        BUILD.delta({"content": "Let me see."}),
        BUILD.delta(tool_start(0, "call_1", "weather")),
        BUILD.delta(tool_start(1, "call_2", "time")),
        BUILD.delta(tool_arguments(1, "{}")),
        BUILD.delta(tool_arguments(0, "{}")),
        BUILD.finish("tool_calls"),
        usage,
    ]
    assert [restored for chunk in chunks if (restored := restore_chunk(chunk))] == [
        BUILD.delta(ROLE),
        BUILD.delta({"content": "Let me see."}),
        BUILD.delta({"function_call": {"name": "weather", "arguments": ""}}),
        BUILD.delta({"function_call": {"arguments": "{}"}}),
        BUILD.finish("function_call"),
        usage,
    ]


def test_a_second_call_beside_text_is_taken_out() -> None:
    """A chunk that says more than the second call is told without it."""
    chunk = BUILD.delta({"content": "a", **tool_start(1, "call_2", "time")})
    assert restore_chunk(chunk) == BUILD.delta({"content": "a"})


messages = st.builds(
    lambda text, calls: {
        "content": text,
        **({"tool_calls": [tool_call(*call) for call in calls]} if calls else {}),
    },
    st.text(min_size=1),
    st.lists(st.tuples(st.text(), st.text(min_size=1), st.text()), max_size=3),
)


@given(st.lists(messages, min_size=1, max_size=3))
def test_stream_and_completion_say_the_same(answers: list[Json]) -> None:
    """A restored stream folds to the restored completion."""
    known = whole("chatcmpl-1", 1795000000, "m", {}, "tool_calls", None)
    known["choices"] = [
        {**known["choices"][0], "index": index, "message": {"role": "assistant", "refusal": None, **answer}}
        for index, answer in enumerate(answers)
    ]
    restored = [chunk for each in replay(known) if (chunk := restore_chunk(each))]
    assert collect(restored) == restore_completion(known)


def test_a_history_of_functions_does_not_limit_tools() -> None:
    """Who has moved on to tools, with old calls in the history, may have several calls at once."""
    call = {"name": "f", "arguments": "{}"}
    history = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": None, "function_call": call},
        {"role": "function", "name": "f", "content": "b"},
    ]
    column = Column({parameter.name: MAP for parameter in PARAMETERS})
    tool = {"type": "function", "function": {"name": "f"}}
    body = {"model": "m", "messages": history, "tools": [tool]}
    request = read_chat(json.dumps(body).encode(), column)
    assert not request.legacy
    assert [message.role for message in request.messages] == ["user", "assistant", "tool"]
