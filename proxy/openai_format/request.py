"""A chat completion request, read and checked in full: what a re-encoding provider works from.

Upstreams on the exact wire judge requests themselves; here nobody else would.

Source: OpenAI API reference, "Create chat completion"; reference/upstreams.md §2.2, §12.4.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from proxy.call import Json
from proxy.errors import InvalidRequest
from proxy.openai_format.checks import expect, wrong_type
from proxy.openai_format.encoding import decode_object
from proxy.openai_format.legacy import is_legacy, modernise
from proxy.openai_format.messages import Message, read_messages
from proxy.openai_format.parameters import REJECT, Column
from proxy.openai_format.tools import Tool, ToolChoice, read_tool_choice, read_tools

MAX_STOPS = 4
MAX_N = 128
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_RANGES: Mapping[str, tuple[float, float]] = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
}


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A checked request.

    Args:
        fields: its top-level members that the dialect carries, without nulls.
        tools: those that may be called (already filtered by `allowed_tools`).
        schema: the JSON Schema that the answer must fit, or None.
        single: at most one tool call is wanted.
        dropped: what the dialect does not carry, by name, in the request's order.
        legacy: it was asked with `functions`, so that the answer can hold one call.
    """

    fields: Json
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...]
    tool_choice: ToolChoice
    stop: tuple[str, ...]
    max_tokens: int | None
    n: int
    format: str
    schema: Json | None
    single: bool
    dropped: tuple[str, ...]
    legacy: bool


def read_chat(body: bytes, column: Column) -> ChatRequest:
    """Read and check a body that is known to be a JSON object.

    Raises:
        InvalidRequest: with `param` naming the field at fault.
        UnsupportedParameter: something that the dialect refuses.
    """
    fields = {name: value for name, value in read_fields(body).items() if value is not None}
    _check_values(fields)
    kept, dropped = column.settle(fields)
    if column["functions"] is not REJECT and is_legacy(fields):
        kept = modernise(kept)
    unread: list[str] = []
    messages = tuple(read_messages(expect(kept, "messages", "an array"), column, unread))
    tools = read_tools(expect(kept, "tools", "an array") or [])
    choice, allowed = read_tool_choice(kept.get("tool_choice"), tools)
    if allowed is not None:
        tools = tuple(tool for tool in tools if tool.name in allowed)
    form, schema = _read_format(kept.get("response_format"), column)
    return ChatRequest(
        fields=kept,
        messages=messages,
        tools=tools,
        tool_choice=choice,
        stop=_read_stop(kept.get("stop")),
        max_tokens=_read_max_tokens(kept),
        n=kept.get("n") or 1,
        format=form,
        schema=schema,
        single=kept.get("parallel_tool_calls") is False,
        dropped=tuple(_in_order(fields, dropped, unread)),
        legacy="functions" in fields,
    )


def _in_order(fields: Json, dropped: list[str], unread: list[str]) -> list[str]:
    """What stands in messages is named where `messages` stands."""
    places = {name: place for place, name in enumerate(fields)}
    before = sum(places[name] < places["messages"] for name in dropped)
    return [*dropped[:before], *unread, *dropped[before:]]


def read_fields(body: bytes) -> Json:
    """The members of a body that is known to be a JSON object; raises InvalidRequest for numbers out of range."""
    try:
        return decode_object(body)
    except ValueError as error:
        raise InvalidRequest(f"the body cannot be read: {error}") from error


def _check_values(fields: Json) -> None:
    for name, (low, high) in _RANGES.items():
        value = fields.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            wrong_type(name, "a number", value)
        if not low <= value <= high:
            raise InvalidRequest(f"'{name}' must be between {low} and {high}.", param=name, code="invalid_value")
    for name, kind in (("parallel_tool_calls", "a boolean"), ("seed", "an integer"), ("logprobs", "a boolean")):
        expect(fields, name, kind)
    _check_count(fields, "n", 1, MAX_N)
    _check_count(fields, "top_logprobs", 0, 20)
    if fields.get("top_logprobs") is not None and not fields.get("logprobs"):
        raise InvalidRequest("'top_logprobs' is only allowed when 'logprobs' is true.", param="top_logprobs")
    if fields.get("stream_options") and not fields.get("stream"):
        raise InvalidRequest("'stream_options' is only allowed when 'stream' is true.", param="stream_options")
    effort = fields.get("reasoning_effort")
    if effort is not None and effort not in EFFORTS:
        raise InvalidRequest(
            f"'reasoning_effort' must be one of {', '.join(EFFORTS)}.", param="reasoning_effort", code="invalid_value"
        )


def _check_count(fields: Json, name: str, low: int, high: int) -> None:
    value = expect(fields, name, "an integer")
    if value is not None and not low <= value <= high:
        code = "integer_below_min_value" if value < low else "integer_above_max_value"
        raise InvalidRequest(f"'{name}' must be between {low} and {high}.", param=name, code=code)


def _read_format(form: Any, column: Column) -> tuple[str, Json | None]:
    """The answer's format, and the schema of json_schema."""
    if form is None:
        return "text", None
    kind = form.get("type") if isinstance(form, dict) else None
    if kind in ("text", "json_object") or (isinstance(kind, str) and kind in column.formats):
        return str(kind), None
    if kind != "json_schema":
        raise InvalidRequest(
            "'response_format.type' must be text, json_object or json_schema.",
            param="response_format",
            code="invalid_value",
        )
    wanted = form.get("json_schema")
    if not isinstance(wanted, dict):
        wrong_type("response_format.json_schema", "an object", wanted)
    schema = wanted.get("schema")
    if schema is not None and not isinstance(schema, dict):
        wrong_type("response_format.json_schema.schema", "an object", schema)
    return kind, schema or {}


def _read_max_tokens(fields: Json) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        limit: int | None = expect(fields, name, "an integer")
        if limit is not None:
            if limit < 1:
                raise InvalidRequest(f"'{name}' must be at least 1.", param=name, code="integer_below_min_value")
            return limit
    return None


def _read_stop(stop: Any) -> tuple[str, ...]:
    if stop is None:
        return ()
    stops = [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or not all(isinstance(item, str) for item in stops):
        wrong_type("stop", "a string or an array of strings", stop)
    if len(stops) > MAX_STOPS:
        raise InvalidRequest(f"'stop' takes at most {MAX_STOPS} strings.", param="stop", code="array_above_max_length")
    return tuple(item for item in stops if item)
