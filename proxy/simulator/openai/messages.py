"""Judge the messages of a chat completion request, and reduce them to turns."""

from typing import Any

from proxy.simulator.answers import Turn
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
from proxy.simulator.openai.grammar import Grammar
from proxy.simulator.openai.parts import read_part


def read_messages(messages: Any, grammar: Grammar) -> tuple[Turn, ...]:
    """Judge the conversation; raises Refused.

    Source: OpenAI API reference, "Create chat completion", messages.
    """
    if messages is None:
        raise missing("messages")
    array("messages", messages)
    turns = [_read_message(f"messages[{index}]", each, grammar) for index, each in enumerate(messages)]
    if grammar.links_results:
        _check_tool_results(messages)
    return tuple(turns)


def count_pictures(messages: list[Body]) -> int:
    """Count the pictures in messages that were judged."""
    contents = [message.get("content") for message in messages]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    return sum(part["type"] == "image_url" for part in parts)


def _read_message(path: str, message: Any, grammar: Grammar) -> Turn:
    mapping(path, message)
    if "role" not in message:
        raise missing(f"{path}.role")
    role = message["role"]
    text(f"{path}.role", role)
    if role not in grammar.roles:
        raise unsupported_choice(f"{path}.role", role, tuple(grammar.roles))
    if not grammar.ignores_unknown:
        known_fields(path, message, grammar.message_fields[role])
    if message.get("name") is not None:
        text(f"{path}.name", message["name"])
    elif role == "function":
        raise missing(f"{path}.name")
    said = _read_content(path, grammar.parts.get(role, ("text",)), message)
    calls = _read_calls(path, message) if message.get("tool_calls") is not None else []
    if message.get("function_call") is not None:
        calls.append(_read_named(f"{path}.function_call", message["function_call"], "arguments"))
    if role == "tool":
        if message.get("tool_call_id") is None:
            raise missing(f"{path}.tool_call_id")
        text(f"{path}.tool_call_id", message["tool_call_id"])
    return Turn(grammar.roles[role], "\n".join([*said, *calls]))


def _read_content(path: str, kinds: tuple[str, ...], message: Body) -> list[str]:
    content = message.get("content")
    if content is None:
        if message["role"] == "assistant" and any(
            message.get(other) is not None for other in ("tool_calls", "refusal", "function_call", "audio")
        ):
            return []
        raise refuse("Invalid value for 'content': expected a string, got null.", f"{path}.content", "invalid_type")
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list):
        raise wrong_type(f"{path}.content", "one of a string or array of objects", content)
    array(f"{path}.content", content)
    parts = [read_part(f"{path}.content[{index}]", kinds, each) for index, each in enumerate(content)]
    return [part for part in parts if part]


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
    return _read_named(f"{path}.{kind}", call[kind], "arguments" if kind == "function" else "input")


def _read_named(path: str, call: Any, argument: str) -> str:
    mapping(path, call)
    for name in ("name", argument):
        if name not in call:
            raise missing(f"{path}.{name}")
        text(f"{path}.{name}", call[name])
    return f"{call['name']} {call[argument]}"


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
