"""A chat completion request, read and checked in full: what a re-encoding provider works from.

Upstreams on the exact wire judge requests themselves; here nobody else would.

Source: OpenAI API reference, "Create chat completion"; reference/upstreams.md §2.2, §12.4.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from proxy.call import Json
from proxy.errors import InvalidRequest, UnsupportedParameter
from proxy.openai_format.checks import expect, wrong_type
from proxy.openai_format.encoding import decode_object
from proxy.openai_format.messages import Message, read_messages
from proxy.openai_format.tools import Tool, ToolChoice, read_tool_choice, read_tools

MAX_STOPS = 4
_RANGES: Mapping[str, tuple[float, float]] = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
}


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A checked request.

    `fields` are its top-level members that are not null; `tools` are those that may be called (already filtered
    by `allowed_tools`); `unread` names what stands in messages and is carried by nobody.
    """

    fields: Json
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...]
    tool_choice: ToolChoice
    stop: tuple[str, ...]
    max_tokens: int | None
    unread: tuple[str, ...] = ()


def read_chat(body: bytes) -> ChatRequest:
    """Read and check a body that is known to be a JSON object.

    Raises:
        InvalidRequest: with `param` naming the field at fault.
        UnsupportedParameter: something that no re-encoded target carries.
    """
    fields = {name: value for name, value in read_fields(body).items() if value is not None}
    _check_ranges(fields)
    _refuse_uncarried(fields)
    unread: list[str] = []
    messages = tuple(read_messages(expect(fields, "messages", "an array"), unread))
    tools = read_tools(expect(fields, "tools", "an array") or [])
    choice, allowed = read_tool_choice(fields.get("tool_choice"), tools)
    if allowed is not None:
        tools = tuple(tool for tool in tools if tool.name in allowed)
    return ChatRequest(
        fields=fields,
        messages=messages,
        tools=tools,
        tool_choice=choice,
        stop=_read_stop(fields.get("stop")),
        max_tokens=_read_max_tokens(fields),
        unread=tuple(unread),
    )


def dropped(request: ChatRequest, carried: Iterable[str], *more: str) -> tuple[str, ...]:
    """The names of what a target does not carry: fields outside `carried`, parts of messages, and `more`."""
    known = {"model", "messages", "stream", "stream_options", *carried, *_REFUSED_UNLESS_HARMLESS}
    left = [name for name, value in request.fields.items() if name not in known]
    return (*left, *request.unread, *more)


_REFUSED_UNLESS_HARMLESS = ("n", "response_format", "logprobs", "modalities")


def read_fields(body: bytes) -> Json:
    """The members of a body that is known to be a JSON object; raises InvalidRequest for numbers out of range."""
    try:
        return decode_object(body)
    except ValueError as error:
        raise InvalidRequest(f"the body cannot be read: {error}") from error


def _check_ranges(fields: Json) -> None:
    for name, (low, high) in _RANGES.items():
        value = fields.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            wrong_type(name, "a number", value)
        if not low <= value <= high:
            raise InvalidRequest(f"'{name}' must be between {low} and {high}.", param=name, code="invalid_value")
    expect(fields, "parallel_tool_calls", "a boolean")
    expect(fields, "seed", "an integer")
    if fields.get("stream_options") and not fields.get("stream"):
        raise InvalidRequest("'stream_options' is only allowed when 'stream' is true.", param="stream_options")


def _refuse_uncarried(fields: Json) -> None:
    form = fields.get("response_format")
    kind = form.get("type") if isinstance(form, dict) else form
    modalities = fields.get("modalities")
    other_values = {  # the field is known here, but not this value
        "n": fields.get("n", 1) != 1,
        "response_format": form is not None and kind != "text",
        "logprobs": bool(fields.get("logprobs")),
        "modalities": modalities is not None and modalities != ["text"],
    }
    for name, asked in other_values.items():
        if asked:
            raise UnsupportedParameter(
                f"This value of '{name}' is not carried to this upstream.", param=name, code="unsupported_value"
            )
    for name in ("top_logprobs", "reasoning_effort", "audio", "functions", "function_call"):
        if name in fields:
            raise UnsupportedParameter(f"'{name}' is not carried to this upstream.", param=name)


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
