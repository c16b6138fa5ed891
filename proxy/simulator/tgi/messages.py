"""Judge the messages of a TGI chat, and reduce them to turns."""

from collections.abc import Mapping
from typing import Any

import msgspec

from proxy.simulator.answers import Role, Turn
from proxy.simulator.dialect import Body
from proxy.simulator.tgi.checks import mapping, needed, sequence, text, undecodable, unprepared

_ROLES: Mapping[str, Role] = {"system": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
_NO_BODY = "data did not match any variant of untagged enum MessageBody"
_NO_PART = "data did not match any variant of untagged enum MessageContent"


def read_messages(messages: Any) -> tuple[Turn, ...]:
    """Judge the conversation; a message with content loses its tool calls, as it does there.

    Raises:
        Refused: undecodable, or nothing that the chat template could render.

    Source: text-generation-inference, router/src/lib.rs, Message; infer/chat_template.rs.
    """
    sequence(_check_message)("messages", messages)
    if not messages:
        raise unprepared("template_error", "invalid operation: messages must not be empty")
    return tuple(_read_message(each) for each in messages)


def _check_message(path: str, message: Any) -> None:
    mapping(path, message)
    needed(path, message, "role")
    text(f"{path}.role", message["role"])
    if message.get("name") is not None:
        text(f"{path}.name", message["name"])
    content, calls = message.get("content"), message.get("tool_calls")
    if content is None and calls is None:
        raise undecodable(path, _NO_BODY)
    if content is not None:
        _check_content(path, content)
    else:
        sequence(_check_call)(f"{path}.tool_calls", calls)


def _check_content(path: str, content: Any) -> None:
    if isinstance(content, str):
        return
    if not isinstance(content, list):
        raise undecodable(path, _NO_BODY)
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            continue
        picture = part.get("image_url") if kind == "image_url" else None
        if not isinstance(picture, dict) or not isinstance(picture.get("url"), str):
            raise undecodable(path, _NO_PART)


def _check_call(path: str, call: Any) -> None:
    mapping(path, call)
    needed(path, call, "id", "type", "function")
    mapping(f"{path}.function", call["function"])
    needed(f"{path}.function", call["function"], "name", "arguments")
    text(f"{path}.function.name", call["function"]["name"])


def _read_message(message: Body) -> Turn:
    role = _ROLES.get(message["role"])
    if role is None:
        raise unprepared("template_error", f"invalid operation: Unexpected message role {message['role']}")
    content = message.get("content")
    if content is None:
        return Turn(role, "\n".join(_spell_call(each["function"]) for each in message["tool_calls"]))
    if isinstance(content, str):
        return Turn(role, content)
    return Turn(role, "".join(part["text"] for part in content if part["type"] == "text"))


def _spell_call(function: Body) -> str:
    """Write a call of the history as the template gets it: JSON, whatever form the arguments had."""
    arguments = function["arguments"]
    spelt = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
    return f"{function['name']} {spelt}"


def count_images(messages: list[Body]) -> int:
    """Count the pictures of a conversation that was judged."""
    contents = [message["content"] for message in messages if isinstance(message.get("content"), list)]
    return sum(part["type"] == "image_url" for content in contents for part in content)
