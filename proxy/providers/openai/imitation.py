"""Servers that speak OpenAI's dialect with an accent: what they take, and the request written for them.

Source: reference/upstreams.md §6.2, §8.2, §9.3.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from proxy.call import Call, Json
from proxy.openai_format.messages import Message
from proxy.openai_format.parameters import EMULATE, Column
from proxy.openai_format.parts import Part
from proxy.openai_format.request import ChatRequest, read_chat
from proxy.openai_format.tools import Tool, ToolChoice

LimitField = Literal["as_asked", "max_tokens", "max_completion_tokens"]
TOP_P_FLOOR = 0.000001  # for servers that take no 0
NO_PARAMETERS: Json = {"type": "object", "properties": {}}

_WRITTEN_APART = frozenset(
    """
    model messages stream stream_options max_tokens max_completion_tokens tools tool_choice parallel_tool_calls stop n
    """.split()
)


def _unchanged(body: Json, request: ChatRequest) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Imitation:
    """One accent.

    Args:
        limit_field: under which name the limit of tokens goes.
        stop_array: `stop` must be an array.
        adapt: changes the finished body where more than names differs.
        fresh_tool_ids: its tool-call ids are not unique: replaced by ours.
        one_call: it can be told to make one tool call at most, which is all that `function_call` can hold.
        named_choice_stops: like OpenAI, it says `stop` after a tool call that was forced by name.
    """

    column: Column
    limit_field: LimitField = "max_tokens"
    stop_array: bool = False
    adapt: Callable[[Json, ChatRequest], None] = _unchanged
    fresh_tool_ids: bool = False
    one_call: bool = False
    named_choice_stops: bool = False


def write_request(call: Call, model: str, imitation: Imitation) -> tuple[Json, ChatRequest]:
    """The body for an imitation, `model` first; nulls and what it does not carry are gone."""
    request = read_chat(call.body, imitation.column)
    body: Json = {"model": model, "messages": [write_message(message) for message in request.messages]}
    body |= {name: value for name, value in request.fields.items() if name not in _WRITTEN_APART}
    if request.max_tokens is not None:
        asked = "max_completion_tokens" if "max_completion_tokens" in request.fields else "max_tokens"
        body[asked if imitation.limit_field == "as_asked" else imitation.limit_field] = request.max_tokens
    if request.stop:
        alone = len(request.stop) == 1 and isinstance(request.fields["stop"], str) and not imitation.stop_array
        body["stop"] = request.stop[0] if alone else list(request.stop)
    if "n" in request.fields and imitation.column["n"] is not EMULATE:
        body["n"] = request.n
    if request.tools:
        body |= _write_tools(request, single=request.single or (request.legacy and imitation.one_call))
    if call.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    imitation.adapt(body, request)
    return body, request


def write_message(message: Message) -> Json:
    """A message as OpenAI spells it, with what the dialect carries and no more."""
    written: Json = {"role": message.role}
    if message.parts:
        first = message.parts[0]
        written["content"] = [write_part(part) for part in message.parts] if first.raw else first.text
    elif message.texts:
        written["content"] = message.texts[0]
    if message.tool_calls:
        written["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.text}}
            for call in message.tool_calls
        ]
    if message.role == "tool":
        written["tool_call_id"] = message.tool_call_id
    return {**written, **message.more}


def write_part(part: Part) -> Json:
    """A part of a message's content; refusals become texts."""
    if part.kind == "text":
        return {"type": "text", "text": part.text}
    kind = part.raw["type"]
    value = part.raw[kind]
    if isinstance(value, dict):
        return {"type": kind, kind: {name: each for name, each in value.items() if each is not None}}
    return {"type": kind, kind: {"url": value} if kind == "image_url" else value}


def _write_tools(request: ChatRequest, *, single: bool) -> Json:
    written: Json = {"tools": [write_tool(tool) for tool in request.tools]}
    choice = write_tool_choice(request.tool_choice)
    if choice is not None:
        written["tool_choice"] = choice
    if single:
        written["parallel_tool_calls"] = False
    elif "parallel_tool_calls" in request.fields:
        written["parallel_tool_calls"] = True
    return written


def write_tool(tool: Tool) -> Json:
    """A function tool without nulls."""
    described = {"description": tool.description, "parameters": tool.parameters, "strict": tool.strict}
    named = {"name": tool.name, **{name: value for name, value in described.items() if value is not None}}
    return {"type": "function", "function": named}


def write_tool_choice(choice: ToolChoice) -> str | Json | None:
    """The choice as OpenAI spells it."""
    return {"type": "function", "function": {"name": choice.name}} if choice.mode == "named" else choice.mode
