"""Judge the messages of a Messages API request, and reduce them to turns."""

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import msgspec

from proxy.simulator.answers import Turn
from proxy.simulator.anthropic.checks import (
    array,
    boolean,
    choice,
    known_fields,
    mapping,
    needed_fields,
    refuse,
    text,
)
from proxy.simulator.dialect import Body

_TOOL_ID = re.compile(r"[a-zA-Z0-9_-]+")
_MEDIA_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")
_BLOCKS: Mapping[str, frozenset[str]] = {
    "text": frozenset({"text", "citations"}),
    "image": frozenset({"source"}),
    "document": frozenset({"source", "title", "context", "citations"}),
    "tool_use": frozenset({"id", "name", "input", "caller"}),
    "tool_result": frozenset({"tool_use_id", "content", "is_error"}),
    "thinking": frozenset({"thinking", "signature"}),
    "redacted_thinking": frozenset({"data"}),
}
_NEEDED: Mapping[str, tuple[str, ...]] = {
    "text": ("text",),
    "image": ("source",),
    "document": ("source",),
    "tool_use": ("id", "name", "input"),
    "tool_result": ("tool_use_id",),
    "thinking": ("thinking", "signature"),
    "redacted_thinking": ("data",),
}
_ALLOWED: Mapping[str, tuple[str, ...]] = {
    "user": ("text", "image", "document", "tool_result"),
    "assistant": ("text", "tool_use", "thinking", "redacted_thinking"),
}


def read_messages(messages: list[Any], *, prefill: bool) -> tuple[Turn, ...]:
    """Judge the conversation; raises Refused.

    Args:
        messages: as sent.
        prefill: whether the model continues a final assistant message.

    Source: Anthropic API reference, "Create a Message", messages; "Handle tool calls".
    """
    if not messages:
        raise refuse("messages: at least one message is required")
    spoken = [_blocks_of(f"messages.{index}", each) for index, each in enumerate(messages)]
    _check_order(messages, spoken, prefill=prefill)
    _check_tools(messages, spoken)
    return tuple(
        turn for message, blocks in zip(messages, spoken, strict=True) for turn in _turns(message["role"], blocks)
    )


def check_text(path: str, value: Any, owner: str = "messages") -> None:
    """Refuse a text that is empty or only white space."""
    text(path, value)
    if not value:
        raise refuse(f"{owner}: text content blocks must be non-empty")
    if not value.strip():
        raise refuse(f"{owner}: text content blocks must contain non-whitespace text")


def _blocks_of(path: str, message: Any) -> list[Body]:
    """Return the checked blocks of a message; a plain string is one block of text."""
    mapping(path, message)
    needed_fields(path, message, "role", "content")
    if message["role"] == "system":
        raise refuse(
            'messages: Unexpected role "system". The Messages API accepts a top-level `system` parameter, not '
            '"system" as an input message role.'
        )
    choice("user", "assistant")(f"{path}.role", message["role"])
    known_fields(path, message, frozenset({"role", "content"}))
    content = message["content"]
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    if not isinstance(content, list):
        raise refuse(f"{path}.content: Input should be a valid string or a valid list")
    for index, block in enumerate(content):
        _check_block(f"{path}.content.{index}", block, message["role"])
    return content


def _check_block(path: str, block: Any, role: str) -> None:
    mapping(path, block)
    needed_fields(path, block, "type")
    kind = block["type"]
    choice(*_BLOCKS)(f"{path}.type", kind)
    if kind not in _ALLOWED[role]:
        raise refuse(f"{path}: `{kind}` blocks are not allowed in `{role}` messages")
    at = f"{path}.{kind}"
    known_fields(at, block, _BLOCKS[kind] | {"type", "cache_control"})
    needed_fields(at, block, *_NEEDED[kind])
    if kind == "text":
        check_text(f"{at}.text", block["text"])
    elif kind in ("image", "document"):
        _check_source(f"{at}.source", block["source"])
    elif kind == "tool_use":
        _check_id(f"{at}.id", block["id"])
        text(f"{at}.name", block["name"])
        mapping(f"{at}.input", block["input"])
    elif kind == "tool_result":
        _check_id(f"{at}.tool_use_id", block["tool_use_id"])
        _check_result(at, block)


def _check_id(path: str, value: Any) -> None:
    text(path, value)
    if _TOOL_ID.fullmatch(value) is None:
        raise refuse(f"{path}: String should match pattern '^[a-zA-Z0-9_-]+$'")


def _check_source(path: str, source: Any) -> None:
    mapping(path, source)
    choice("base64", "url", "file", "text")(f"{path}.type", source.get("type"))
    if source["type"] == "base64":
        needed_fields(f"{path}.base64", source, "media_type", "data")
        choice(*_MEDIA_TYPES, "application/pdf")(f"{path}.base64.media_type", source["media_type"])


def _check_result(path: str, block: Body) -> None:
    boolean(f"{path}.is_error", block.get("is_error", False))
    content = block.get("content", "")
    if isinstance(content, str):
        return
    array(f"{path}.content", content)
    for index, part in enumerate(content):
        at = f"{path}.content.{index}"
        mapping(at, part)
        choice("text", "image", "document")(f"{at}.type", part.get("type"))
        if part["type"] == "text":
            needed_fields(at, part, "text")
            check_text(f"{at}.text", part["text"])


def _check_order(messages: list[Body], spoken: list[list[Body]], *, prefill: bool) -> None:
    """Roles take turns, nobody is silent, and the end is not white space."""
    if messages[0]["role"] != "user":
        raise refuse('messages: first message must use the "user" role')
    for before, after in pairwise(messages):
        if before["role"] == after["role"]:
            raise refuse(
                'messages: roles must alternate between "user" and "assistant", but found multiple '
                f'"{after["role"]}" roles in a row'
            )
    last = len(messages) - 1
    for index, (message, blocks) in enumerate(zip(messages, spoken, strict=True)):
        if not blocks and not (index == last and message["role"] == "assistant"):
            raise refuse(f"messages.{index}: all messages must have non-empty content")
        if len(blocks) == 1 and blocks[0]["type"] == "text":
            check_text(f"messages.{index}.content", blocks[0]["text"])
    if messages[-1]["role"] == "assistant":
        if not prefill:
            raise refuse(
                "This model does not support assistant message prefill. The conversation must end with a user message."
            )
        final = spoken[-1][-1] if spoken[-1] else {}
        if final.get("type") == "text" and final["text"] != final["text"].rstrip():
            raise refuse("messages: final assistant content cannot end with trailing whitespace")


def _check_tools(messages: list[Body], spoken: list[list[Body]]) -> None:
    """Every tool_use is answered first thing in the next message, and nothing else is."""
    asked: list[str] = []
    seen: set[str] = set()
    for index, blocks in enumerate(spoken):
        leading = 0
        while leading < len(blocks) and blocks[leading]["type"] == "tool_result":
            leading += 1
        answered = {block["tool_use_id"] for block in blocks[:leading]}
        lacking = [each for each in asked if each not in answered]
        if lacking:
            raise _unanswered(index - 1, lacking)
        for place, block in enumerate(blocks):
            if block["type"] == "tool_result" and (place >= leading or block["tool_use_id"] not in asked):
                raise refuse(
                    f"messages.{index}.content.{place}: unexpected `tool_use_id` found in `tool_result` blocks: "
                    f"{block['tool_use_id']}. Each `tool_result` block must have a corresponding `tool_use` "
                    "block in the previous message."
                )
        asked = [block["id"] for block in blocks if block["type"] == "tool_use"]
        if len(set(asked)) < len(asked) or seen & set(asked):
            raise refuse(f"messages.{index}: `tool_use` ids must be unique")
        seen |= set(asked)
    if asked:
        raise _unanswered(len(messages) - 1, asked)


def _unanswered(index: int, ids: list[str]) -> Exception:
    return refuse(
        f"messages.{index}: `tool_use` ids were found without `tool_result` blocks immediately after: "
        f"{', '.join(ids)}. Each `tool_use` block must have a corresponding `tool_result` block in the next message."
    )


def _turns(role: str, blocks: list[Body]) -> list[Turn]:
    """Reduce a message: one turn per tool result, then one for everything that was said."""
    results = [Turn("tool", _text_of(block.get("content", ""))) for block in blocks if block["type"] == "tool_result"]
    said = [block["text"] for block in blocks if block["type"] == "text"]
    said += [
        f"{block['name']} {msgspec.json.encode(block['input']).decode()}"
        for block in blocks
        if block["type"] == "tool_use"
    ]
    if results and not said:
        return list(results)
    return [*results, Turn("user" if role == "user" else "assistant", "\n".join(said))]


def _text_of(content: str | list[Body]) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if part["type"] == "text")
