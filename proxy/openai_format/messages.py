"""The messages of a request, checked one by one and as a conversation."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from proxy.call import Json
from proxy.errors import InvalidRequest
from proxy.openai_format.checks import wrong_type
from proxy.openai_format.encoding import decode_object
from proxy.openai_format.parameters import REJECT, Column, refuse
from proxy.openai_format.parts import Part, read_part

Role = Literal["system", "user", "assistant", "tool"]
ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
REASONING = ("reasoning_content", "reasoning")
_KNOWN = frozenset({"role", "content", "tool_calls", "tool_call_id", "refusal"})


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call the assistant made earlier; `arguments` parsed, `text` as they were sent."""

    id: str
    name: str
    arguments: Json
    text: str = "{}"


@dataclass(frozen=True, slots=True)
class Message:
    """One message.

    Args:
        parts: of its content; a plain string is one text part.
        texts: of its text parts; a refusal stands in for content that is missing.
        more: what else it has that the dialect carries, such as `name`.
    """

    role: Role
    place: str = ""
    parts: tuple[Part, ...] = ()
    texts: tuple[str, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    reasoning: str = ""
    more: Json = field(default_factory=dict)


def read_messages(messages: list[Any] | None, column: Column, unread: list[str]) -> Iterable[Message]:
    """Check the messages; the places of what the dialect does not carry go to `unread`."""
    if not messages:
        raise InvalidRequest("'messages' must not be empty.", param="messages", code="missing_required_parameter")
    open_calls: dict[str, None] = {}
    for index, raw in enumerate(messages):
        place = f"messages[{index}]"
        if not isinstance(raw, dict):
            wrong_type(place, "an object", raw)
        message = _read_message(raw, place, column, unread)
        if message.role == "tool":
            if message.tool_call_id not in open_calls:
                raise InvalidRequest(
                    f"{place} answers a tool call that no preceding assistant message made.", param="messages"
                )
            del open_calls[message.tool_call_id]
        elif open_calls:
            break
        open_calls.update((call.id, None) for call in message.tool_calls)
        yield message
    if open_calls:
        raise InvalidRequest(
            "an assistant message with 'tool_calls' must be followed by a tool message for each "
            f"'tool_call_id'; {len(open_calls)} are missing.",
            param="messages",
        )


def _read_message(raw: Json, place: str, column: Column, unread: list[str]) -> Message:
    role = _read_role(raw.get("role"), place, column)
    calls = _read_tool_calls(raw.get("tool_calls"), place, column) if role == "assistant" else ()
    content, refusal = raw.get("content"), raw.get("refusal")
    if content is None and (role != "assistant" or not (calls or refusal)):
        raise InvalidRequest(
            f"'{place}.content' is missing.", param=f"{place}.content", code="missing_required_parameter"
        )
    parts = _read_content(content, f"{place}.content", column, unread)
    texts = tuple(part.text for part in parts if part.kind == "text")
    if isinstance(refusal, str) and refusal:
        if parts:
            unread.append(f"{place}.refusal")
        else:
            texts = (refusal,)
    answers = raw.get("tool_call_id") if role == "tool" else ""
    if not isinstance(answers, str):
        wrong_type(f"{place}.tool_call_id", "a string", answers)
    misplaced = [("tool_calls", "assistant"), ("tool_call_id", "tool")]
    unread.extend(f"{place}.{name}" for name, owner in misplaced if raw.get(name) and role != owner)
    more = {name: value for name, value in raw.items() if name not in _KNOWN and value is not None}
    unread.extend(
        f"{place}.{name}" for name, value in more.items() if name not in column.in_messages and value not in ([], {})
    )
    return Message(
        role=role,
        place=place,
        parts=parts,
        texts=texts,
        tool_calls=calls,
        tool_call_id=answers,
        reasoning=next((raw[name] for name in REASONING if isinstance(raw.get(name), str)), ""),
        more={name: value for name, value in more.items() if name in column.in_messages},
    )


def _read_role(role: Any, place: str, column: Column) -> Role:
    if not isinstance(role, str) or role not in ROLES:
        shown = f"'{role[:40]}'" if isinstance(role, str) else "not a string"
        raise InvalidRequest(
            f"Invalid value for '{place}.role': {shown}. Supported values are: "
            + ", ".join(f"'{name}'" for name in ROLES),
            param=f"{place}.role",
            code="invalid_value",
        )
    if role == "developer" and column["developer role"] is REJECT:
        refuse(f"{place}.role", value=True)
    return ROLES[role]


def _read_content(content: Any, place: str, column: Column, unread: list[str]) -> tuple[Part, ...]:
    if content is None:
        return ()
    if isinstance(content, str):
        return (Part("text", place, content),)
    if not isinstance(content, list):
        wrong_type(place, "a string or an array of parts", content)
    if not content:
        return (Part("text", place, ""),)
    return tuple(read_part(part, f"{place}[{index}]", column, unread) for index, part in enumerate(content))


def _read_tool_calls(calls: Any, place: str, column: Column) -> tuple[ToolCall, ...]:
    if calls is None:
        return ()
    if not isinstance(calls, list):
        wrong_type(f"{place}.tool_calls", "an array", calls)
    return tuple(_read_tool_call(call, f"{place}.tool_calls[{index}]", column) for index, call in enumerate(calls))


def _read_tool_call(call: Any, place: str, column: Column) -> ToolCall:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        refuse(place, f"'{place}': only function calls are carried to this upstream.")
    for name, value in (("id", call.get("id")), ("function.name", function.get("name"))):
        if not isinstance(value, str):
            wrong_type(f"{place}.{name}", "a string", value)
    text = function.get("arguments") or "{}"
    where = f"{place}.function.arguments"
    if not isinstance(text, str):
        wrong_type(where, "a string", text)
    try:
        arguments = decode_object(text)
    except ValueError as error:
        if column.text_arguments:
            return ToolCall(call["id"], function["name"], {}, text)  # the model's own mistake, to be told to it
        raise InvalidRequest(f"'{where}' is not a JSON object.", param=where) from error
    return ToolCall(call["id"], function["name"], arguments, text)
