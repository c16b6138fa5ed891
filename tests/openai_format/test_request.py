"""A request is read in full: what is wrong with it is refused by name, and null is the same as absent."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from proxy.call import Json
from proxy.errors import InvalidRequest, UnsupportedParameter
from proxy.openai_format.messages import Message, ToolCall
from proxy.openai_format.parameters import DROP, EMULATE, PARAMETERS, PASS, REJECT, Column
from proxy.openai_format.request import ChatRequest, read_chat
from proxy.openai_format.tools import Tool, ToolChoice

USER = {"role": "user", "content": "Hello"}
ALL = Column({parameter.name: PASS for parameter in PARAMETERS})
NOTHING = ALL.but(dict.fromkeys((parameter.name for parameter in PARAMETERS if parameter.name != "tools"), REJECT))
LITTLE = ALL.but({"seed": DROP, "user": DROP, "n": EMULATE, "logprobs": REJECT})


def function(name: Any = "weather", **fields: Any) -> Json:
    return {"type": "function", "function": {"name": name, **fields}}


def asking(*ids: str) -> Json:
    """An assistant message that makes these tool calls."""
    calls = [{"id": call, "type": "function", "function": {"name": "f", "arguments": "{}"}} for call in ids]
    return {"role": "assistant", "tool_calls": calls}


def answering(call: Any) -> Json:
    return {"role": "tool", "tool_call_id": call, "content": "42"}


def read(column: Column = ALL, **fields: Any) -> ChatRequest:
    return read_chat(json.dumps({"model": "m", "messages": [USER], **fields}).encode(), column)


def with_call(**fields: Any) -> Json:
    """A conversation whose one tool call has these fields changed."""
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}, **fields}
    return {"messages": [{"role": "assistant", "tool_calls": [call]}, answering("a")]}


def each(param: str, *values: Any, within: Callable[[Any], Json] | None = None) -> list[tuple[str, Json]]:
    """The fields of one wrong request per value."""
    return [(param, within(value) if within else {param: value}) for value in values]


def user(content: Any) -> Json:
    return {"messages": [{"role": "user", "content": content}]}


def schema_form(wanted: Any) -> Json:
    return {"response_format": {"type": "json_schema", "json_schema": wanted}}


def choosing(choice: Any) -> Json:
    return {"tools": [function()], "tool_choice": choice}


def allowing(allowed: Any) -> Json:
    return choosing({"type": "allowed_tools", "allowed_tools": allowed})


WRONG = [
    *each("temperature", "1", True, [], -0.1, 2.1),
    *each("top_p", "1", True, [], -0.1, 1.1),
    *each("presence_penalty", {}, -2.1, 2.1),
    *each("frequency_penalty", {}, -2.1, 2.1),
    *each("max_tokens", "9", 1.5, True, 0, -1),
    *each("max_completion_tokens", "9", 1.5, True, 0, -1),
    *each("seed", "1", 1.5, True),
    *each("parallel_tool_calls", "yes", 1),
    *each("n", "2", 1.5, 0, 129),
    *each("logprobs", "yes", 1),
    *each("top_logprobs", "2", -1, 21, within=lambda top: {"logprobs": True, "top_logprobs": top}),
    *each("top_logprobs", 2),
    *each("reasoning_effort", "much", 1),
    *each("response_format", "json", {}, {"type": "xml"}),
    *each("response_format.json_schema", None, [], within=lambda wanted: schema_form(wanted)),
    *each("response_format.json_schema.schema", "object", within=lambda schema: schema_form({"schema": schema})),
    *each("stop", 1, [1], {"a": 1}, list("abcde"), 0, False, {}),
    *each("stream_options", {"include_usage": True}),
    *each("messages", None, [], {}, "Hello"),
    *each("messages[0]", "Hello", 1, None, within=lambda message: {"messages": [message]}),
    *each("messages[1].role", "owner", 1, None, [], within=lambda role: {"messages": [USER, {**USER, "role": role}]}),
    *each("messages[0].content", None, 1, {}, within=user),
    *each("messages[0].content", {"role": "assistant"}, within=lambda message: {"messages": [message]}),
    *each("messages[0].content[0]", "Hello", None, within=lambda part: user([part])),
    *each("messages[0].content[0].text", 1, None, within=lambda text: user([{"type": "text", "text": text}])),
    *each("messages[1].tool_call_id", 1, None, within=lambda call: {"messages": [asking("a"), answering(call)]}),
    *each(
        "messages[0].tool_calls", {}, within=lambda calls: {"messages": [{"role": "assistant", "tool_calls": calls}]}
    ),
    *each("messages[0].tool_calls[0].id", 1, None, within=lambda call: with_call(id=call)),
    *each("messages[0].tool_calls[0].function.name", 1, None, within=lambda name: with_call(function={"name": name})),
    *each(
        "messages[0].tool_calls[0].function.arguments",
        *("[1]", "{", {"a": 1}, 1),
        within=lambda arguments: with_call(function={"name": "f", "arguments": arguments}),
    ),
    *each("tools", {}, "weather", [function(), function()]),
    *each("tools[0]", "weather", within=lambda tool: {"tools": [tool]}),
    *each(
        "tools[0].function", "weather", None, within=lambda named: {"tools": [{"type": "function", "function": named}]}
    ),
    *each("tools[0].function.name", "", "a b", "é", "x" * 65, 1, within=lambda name: {"tools": [function(name)]}),
    *each("tools[0].function.parameters", "object", within=lambda schema: {"tools": [function(parameters=schema)]}),
    *each("tools[0].function.description", 5, within=lambda text: {"tools": [function(description=text)]}),
    *each("tools[0].function.strict", "yes", within=lambda strict: {"tools": [function(strict=strict)]}),
    *each("tool_choice", "maybe", 1, [], {}, {"type": "function"}, function("time"), within=choosing),
    *each("tool_choice", [], None, {"tools": 5}, {"tools": None}, {"tools": [function("time")]}, within=allowing),
]
UNCARRIED = [
    ("n", {"n": 2}),
    ("response_format", {"response_format": {"type": "json_object"}}),
    ("logprobs", {"logprobs": True}),
    ("modalities", {"modalities": ["text", "audio"]}),
    ("reasoning_effort", {"reasoning_effort": "low"}),
    ("audio", {"audio": {}}),
    ("functions", {"functions": []}),
    ("function_call", {"function_call": "auto"}),
    ("messages[0].role", {"messages": [{"role": "developer", "content": "Be brief"}]}),
    ("tools", {"tools": [{"type": "custom", "custom": {"name": "x"}}]}),
    ("tool_choice", {"tool_choice": {"type": "custom", "custom": {"name": "x"}}}),
    ("messages[0].content[0]", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
    ("messages[0].tool_calls[0]", {"messages": [{"role": "assistant", "tool_calls": [{"type": "custom"}]}]}),
]


@pytest.mark.parametrize(("param", "fields"), WRONG, ids=lambda value: json.dumps(value)[:60])
def test_what_is_wrong_is_named(param: str, fields: Json) -> None:
    """Every wrong type and every value out of range is refused as such, and `param` names the field."""
    with pytest.raises(InvalidRequest) as caught:
        read(**fields)
    assert (caught.value.param, caught.value.status) == (param, 400)


@pytest.mark.parametrize(("param", "fields"), UNCARRIED, ids=lambda value: json.dumps(value)[:60])
def test_what_cannot_be_carried_is_named(param: str, fields: Json) -> None:
    """What would change the answer's meaning if it were lost is refused, never dropped."""
    with pytest.raises(UnsupportedParameter) as caught:
        read(NOTHING, **fields)
    assert caught.value.param == param


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param([USER, answering("a")], id="an answer to no call"),
        pytest.param([asking("a"), answering("b")], id="an answer to another call"),
        pytest.param([asking("a"), answering("a"), answering("a")], id="two answers to one call"),
        pytest.param([asking("a")], id="a call without answer"),
        pytest.param([asking("a"), USER], id="a call without answer, and on"),
        pytest.param([asking("a", "b"), answering("a"), USER], id="one answer of two"),
        pytest.param([asking("a"), asking("b"), answering("a"), answering("b")], id="answers too late"),
    ],
)
def test_a_broken_conversation_is_refused(messages: list[Json]) -> None:
    """Each tool call is answered at once and once, and nothing else is."""
    with pytest.raises(InvalidRequest) as caught:
        read(messages=messages)
    assert caught.value.param == "messages"


def test_a_sound_conversation_is_read() -> None:
    """Roles, parts, tool calls (answered in any order), refusals and reasoning become messages."""
    request = read(
        messages=[
            {"role": "developer", "content": [{"type": "text", "text": "Be"}, {"type": "text", "text": "brief"}]},
            USER,
            {**asking("a", "b"), "reasoning_content": "hm"},
            answering("b"),
            answering("a"),
            {"role": "assistant", "refusal": "No."},
        ]
    )
    assert [(message.role, message.texts) for message in request.messages] == [
        ("system", ("Be", "brief")),
        ("user", ("Hello",)),
        ("assistant", ()),
        ("tool", ("42",)),
        ("tool", ("42",)),
        ("assistant", ("No.",)),
    ]
    assert request.messages[2] == Message(
        "assistant",
        "messages[2]",
        tool_calls=(ToolCall("a", "f", {}), ToolCall("b", "f", {})),
        reasoning="hm",
    )
    assert [message.tool_call_id for message in request.messages[3:5]] == ["b", "a"]


TOOLS = [function("weather"), function("time")]


@pytest.mark.parametrize(
    ("choice", "read_as", "left"),
    [
        (None, ToolChoice(), 2),
        ("auto", ToolChoice("auto"), 2),
        ("none", ToolChoice("none"), 2),
        ("required", ToolChoice("required"), 2),
        (function("time"), ToolChoice("named", "time"), 2),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": TOOLS[1:]}}, ToolChoice("auto"), 1),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": TOOLS}},
            ToolChoice("required"),
            2,
        ),
    ],
)
def test_every_form_of_tool_choice(choice: Any, read_as: ToolChoice, left: int) -> None:
    """Words, a named function, and `allowed_tools`, which leaves only the tools it names."""
    request = read(tools=TOOLS, tool_choice=choice)
    assert request.tool_choice == read_as
    assert [tool.name for tool in request.tools] == ["weather", "time"][-left:]


def test_tools_are_read() -> None:
    """A tool's description, schema and strictness are kept."""
    request = read(tools=[function("a-B_1", description="d", parameters={"type": "object"}, strict=True)])
    assert request.tools == (Tool("a-B_1", "d", {"type": "object"}, True),)


OPTIONAL = """
    audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens max_tokens metadata
    modalities n parallel_tool_calls prediction presence_penalty reasoning_effort response_format seed service_tier stop
    store stream stream_options temperature tool_choice tools top_logprobs top_p user verbosity never_heard_of
""".split()


@pytest.mark.parametrize("names", [*([name] for name in OPTIONAL), OPTIONAL], ids=lambda names: names[0])
def test_null_equals_absent(names: list[str]) -> None:
    """Vector 46: an explicit null for any optional field is the same as none."""
    nulls: Json = dict.fromkeys(names)
    assert read(**nulls) == read()


@pytest.mark.parametrize(
    "message",
    [{**USER, "name": None, "tool_calls": None}, {**USER, "refusal": None, "audio": None, "annotations": []}],
)
def test_null_in_a_message_equals_absent(message: Json) -> None:
    """The same holds inside messages."""
    assert read(messages=[message]).messages == read().messages
    assert read(messages=[message]).dropped == ()


@pytest.mark.parametrize(
    ("fields", "stop", "max_tokens"),
    [
        ({"stop": "END"}, ("END",), None),
        ({"stop": ["a", "", "b"]}, ("a", "b"), None),
        ({"stop": list("abcd")}, ("a", "b", "c", "d"), None),
        ({"max_tokens": 5}, (), 5),
        ({"max_completion_tokens": 4}, (), 4),
        ({"max_tokens": 5, "max_completion_tokens": 4}, (), 4),
    ],
)
def test_stops_and_limits(fields: Json, stop: tuple[str, ...], max_tokens: int | None) -> None:
    """Stops are a list whatever their form; of two limits the newer name wins (vector 42)."""
    request = read(**fields)
    assert (request.stop, request.max_tokens) == (stop, max_tokens)


@pytest.mark.parametrize("value", [0, 2, 1.5])
def test_bounds_are_inside(value: float) -> None:
    """The ends of a range are allowed."""
    assert read(temperature=value).fields["temperature"] == value


def test_what_is_lost_has_a_name() -> None:
    """Fields outside what a target carries, and parts of messages, are listed as dropped."""
    body = {"seed": 1, "model": "m", "messages": [{**USER, "name": "Ada"}], "user": "u", "n": 1, "x": 1}
    request = read_chat(json.dumps({**body, "temperature": 1, "logprobs": False}).encode(), LITTLE)
    assert request.dropped == ("seed", "messages[0].name", "user", "x")
    assert request.fields.keys() == {"model", "messages", "temperature"}


@pytest.mark.parametrize("body", [b"", b"[]", b'{"messages":', b'{"a":1e999}'])
def test_a_body_that_cannot_be_read_is_the_callers_fault(body: bytes) -> None:
    """Nonsense is refused like any other mistake."""
    with pytest.raises(InvalidRequest):
        read_chat(body, ALL)
