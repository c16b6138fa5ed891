"""The messages of a request, checked one by one and as a conversation."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from proxy.call import Json
from proxy.errors import InvalidRequest, UnsupportedParameter
from proxy.openai_format.checks import wrong_type
from proxy.openai_format.encoding import decode_object

Role = Literal["system", "user", "assistant", "tool"]
ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call the assistant made earlier; `arguments` parsed."""

    id: str
    name: str
    arguments: Json


@dataclass(frozen=True, slots=True)
class Message:
    """One message; `texts` are its text parts (a plain string is one part)."""

    role: Role
    texts: tuple[str, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    reasoning: str = ""


def read_messages(messages: list[Any] | None, unread: list[str]) -> Iterable[Message]:
    if not messages:
        raise InvalidRequest("'messages' must not be empty.", param="messages", code="missing_required_parameter")
    open_calls: dict[str, None] = {}
    for index, raw in enumerate(messages):
        place = f"messages[{index}]"
        if not isinstance(raw, dict):
            wrong_type(place, "an object", raw)
        message = _read_message(raw, place, unread)
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


def _read_message(raw: Json, place: str, unread: list[str]) -> Message:
    role = raw.get("role")
    if not isinstance(role, str) or role not in ROLES:
        shown = f"'{role[:40]}'" if isinstance(role, str) else "not a string"
        raise InvalidRequest(
            f"Invalid value for '{place}.role': {shown}. Supported values are: "
            + ", ".join(f"'{name}'" for name in ROLES),
            param=f"{place}.role",
            code="invalid_value",
        )
    calls = _read_tool_calls(raw.get("tool_calls"), place) if role == "assistant" else ()
    content = raw.get("content")
    if content is None and (role != "assistant" or not (calls or raw.get("refusal"))):
        raise InvalidRequest(
            f"'{place}.content' is missing.", param=f"{place}.content", code="missing_required_parameter"
        )
    texts = _read_content(content, f"{place}.content")
    refusal = raw.get("refusal")
    if isinstance(refusal, str) and refusal and not texts:
        texts = (refusal,)
    answers = raw.get("tool_call_id") if role == "tool" else ""
    if not isinstance(answers, str):
        wrong_type(f"{place}.tool_call_id", "a string", answers)
    known = {"role", "content", "tool_calls", "tool_call_id", "refusal"}
    unread.extend(
        f"{place}.{name}"
        for name, value in raw.items()
        if name not in known and value is not None and value not in ([], {})
    )
    return Message(ROLES[role], texts, calls, answers, _reasoning(raw))


def _reasoning(raw: Json) -> str:
    return next((raw[name] for name in REASONING if isinstance(raw.get(name), str)), "")


REASONING = ("reasoning_content", "reasoning")


def _read_content(content: Any, place: str) -> tuple[str, ...]:
    if content is None:
        return ()
    if isinstance(content, str):
        return (content,)
    if not isinstance(content, list):
        wrong_type(place, "a string or an array of parts", content)
    return tuple(_read_part(part, f"{place}[{index}]") for index, part in enumerate(content))


def _read_part(part: Any, place: str) -> str:
    if not isinstance(part, dict):
        wrong_type(place, "an object", part)
    kind = part.get("type")
    if kind not in ("text", "refusal"):
        raise UnsupportedParameter(
            f"'{place}': only text parts are carried to this upstream.", param=place, code="unsupported_value"
        )
    text = part.get(kind)
    if not isinstance(text, str):
        wrong_type(f"{place}.{kind}", "a string", text)
    return text


def _read_tool_calls(calls: Any, place: str) -> tuple[ToolCall, ...]:
    if calls is None:
        return ()
    if not isinstance(calls, list):
        wrong_type(f"{place}.tool_calls", "an array", calls)
    return tuple(_read_tool_call(call, f"{place}.tool_calls[{index}]") for index, call in enumerate(calls))


def _read_tool_call(call: Any, place: str) -> ToolCall:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        raise UnsupportedParameter(
            f"'{place}': only function calls are carried to this upstream.", param=place, code="unsupported_value"
        )
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
        raise InvalidRequest(f"'{where}' is not a JSON object.", param=where) from error
    return ToolCall(call["id"], function["name"], arguments)
