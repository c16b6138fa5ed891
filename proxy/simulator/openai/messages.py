"""Judge the messages of a chat completion request, and reduce them to turns."""

from collections.abc import Mapping
from typing import Any

from proxy.simulator.answers import Role, Turn
from proxy.simulator.dialect import Body, Refused
from proxy.simulator.openai.checks import (
    array,
    choice,
    known_fields,
    mapping,
    missing,
    refuse,
    text,
    unsupported_choice,
    wrong_type,
)

ROLES = ("system", "assistant", "user", "function", "tool", "developer")

_COMMON = frozenset({"role", "content", "name"})
_FIELDS: Mapping[str, frozenset[str]] = {
    "system": _COMMON,
    "developer": _COMMON,
    "user": _COMMON,
    "function": _COMMON,
    "tool": _COMMON | {"tool_call_id"},
    "assistant": _COMMON | {"tool_calls", "refusal", "audio", "function_call", "annotations"},
}
_PARTS: Mapping[str, tuple[str, ...]] = {
    "user": ("text", "image_url", "input_audio", "file"),
    "assistant": ("text", "refusal"),
}
_READ_AS: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}


def read_messages(messages: Any) -> tuple[Turn, ...]:
    """Judge the conversation; raises Refused.

    Source: OpenAI API reference, "Create chat completion", messages.
    """
    if messages is None:
        raise missing("messages")
    array("messages", messages)
    turns = [_read_message(f"messages[{index}]", each) for index, each in enumerate(messages)]
    _check_tool_results(messages)
    return tuple(turns)


def _read_message(path: str, message: Any) -> Turn:
    mapping(path, message)
    if "role" not in message:
        raise missing(f"{path}.role")
    role = message["role"]
    text(f"{path}.role", role)
    if role not in ROLES:
        raise unsupported_choice(f"{path}.role", role, ROLES)
    known_fields(path, message, _FIELDS[role])
    if message.get("name") is not None:
        text(f"{path}.name", message["name"])
    said = _read_content(path, role, message)
    calls = _read_calls(path, message) if message.get("tool_calls") is not None else []
    if role == "tool":
        if message.get("tool_call_id") is None:
            raise missing(f"{path}.tool_call_id")
        text(f"{path}.tool_call_id", message["tool_call_id"])
    return Turn(_READ_AS[role], "\n".join([*said, *calls]))


def _read_content(path: str, role: str, message: Body) -> list[str]:
    content = message.get("content")
    if content is None:
        if role == "assistant" and any(
            message.get(other) is not None for other in ("tool_calls", "refusal", "function_call", "audio")
        ):
            return []
        raise refuse("Invalid value for 'content': expected a string, got null.", f"{path}.content", "invalid_type")
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list):
        raise wrong_type(f"{path}.content", "one of a string or array of objects", content)
    array(f"{path}.content", content)
    parts = [_read_part(f"{path}.content[{index}]", role, each) for index, each in enumerate(content)]
    return [part for part in parts if part]


def _read_part(path: str, role: str, part: Any) -> str:
    """Return the text of a content part; pictures, sounds and files have none."""
    mapping(path, part)
    kinds = _PARTS.get(role, ("text",))
    if "type" not in part:
        raise missing(f"{path}.type")
    kind = part["type"]
    choice(*kinds)(f"{path}.type", kind)
    if kind not in part:
        raise missing(f"{path}.{kind}")
    if kind in ("text", "refusal"):
        text(f"{path}.{kind}", part[kind])
        return str(part[kind])
    mapping(f"{path}.{kind}", part[kind])
    if kind == "image_url":
        url = part[kind].get("url")
        text(f"{path}.image_url.url", url)
        if not url.startswith(("https://", "http://", "data:image/")):
            raise refuse(f"Invalid '{path}.image_url.url'.", f"{path}.image_url.url", "invalid_image_url")
    return ""


def _read_calls(path: str, message: Body) -> list[str]:
    array(f"{path}.tool_calls", message["tool_calls"])
    return [_read_call(f"{path}.tool_calls[{index}]", each) for index, each in enumerate(message["tool_calls"])]


def _read_call(path: str, call: Any) -> str:
    mapping(path, call)
    for name in ("id", "type"):
        if name not in call:
            raise missing(f"{path}.{name}")
        text(f"{path}.{name}", call[name])
    choice("function", "custom")(f"{path}.type", call["type"])
    kind = call["type"]
    known_fields(path, call, frozenset({"id", "type", kind}))
    if kind not in call:
        raise missing(f"{path}.{kind}")
    mapping(f"{path}.{kind}", call[kind])
    argument = "arguments" if kind == "function" else "input"
    for name in ("name", argument):
        if name not in call[kind]:
            raise missing(f"{path}.{kind}.{name}")
        text(f"{path}.{kind}.{name}", call[kind][name])
    return f"{call[kind]['name']} {call[kind][argument]}"


def _check_tool_results(messages: list[Body]) -> None:
    """Every tool call is answered at once, and every tool message answers one."""
    open_ids: set[str] = set()
    known_ids: set[str] = set()
    for index, message in enumerate(messages):
        if message["role"] == "tool":
            if message["tool_call_id"] not in known_ids:
                raise refuse(
                    "Invalid parameter: messages with role 'tool' must be a response to a preceeding message "
                    "with 'tool_calls'.",
                    f"messages.[{index}].role",
                )
            open_ids.discard(message["tool_call_id"])
            continue
        if open_ids:
            raise _unanswered(index, open_ids)
        known_ids = {call["id"] for call in message.get("tool_calls") or ()}
        open_ids = set(known_ids)
    if open_ids:
        raise _unanswered(len(messages), open_ids)


def _unanswered(index: int, open_ids: set[str]) -> Refused:
    return refuse(
        "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
        f"'tool_call_id'. The following tool_call_ids did not have response messages: "
        f"{', '.join(sorted(open_ids))}",
        f"messages.[{index}].role",
    )
