"""Judge the content blocks of messages, one by one."""

import re
from collections.abc import Mapping
from typing import Any

from proxy.simulator.anthropic.caching import check_breakpoint
from proxy.simulator.anthropic.checks import array, boolean, choice, known_fields, mapping, needed_fields, refuse, text
from proxy.simulator.anthropic.sources import check_document, check_image
from proxy.simulator.dialect import Body

_TOOL_ID = re.compile(r"[a-zA-Z0-9_-]+")
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
    "assistant": ("text", "document", "tool_use", "thinking", "redacted_thinking"),
}
_UNCACHED = ("thinking", "redacted_thinking")


def check_block(path: str, block: Any, role: str, *, strict: bool) -> None:
    """Accept a block of a user's or the assistant's message; `strict`: by the newer version of the API."""
    mapping(path, block)
    needed_fields(path, block, "type")
    kind = block["type"]
    choice(*_BLOCKS)(f"{path}.type", kind)
    if kind not in _ALLOWED[role] or (strict and role == "assistant" and kind == "document"):
        raise refuse(f"{path}: `{kind}` blocks are not allowed in `{role}` messages")
    at = f"{path}.{kind}"
    known_fields(at, block, _BLOCKS[kind] | {"type"} | (set() if kind in _UNCACHED else {"cache_control"}))
    needed_fields(at, block, *_NEEDED[kind])
    check_breakpoint(at, block)
    if strict and role == "user" and kind == "text" and block.get("citations"):
        raise refuse(f"{at}.citations: citations are not allowed in `user` messages")
    _CHECKS[kind](at, block)


def check_text(path: str, value: Any, owner: str = "messages") -> None:
    """Refuse a text that is empty or only white space."""
    text(path, value)
    if not value:
        raise refuse(f"{owner}: text content blocks must be non-empty")
    if not value.strip():
        raise refuse(f"{owner}: text content blocks must contain non-whitespace text")


def _text(path: str, block: Body) -> None:
    check_text(f"{path}.text", block["text"])


def _tool_use(path: str, block: Body) -> None:
    _check_id(f"{path}.id", block["id"])
    text(f"{path}.name", block["name"])
    mapping(f"{path}.input", block["input"])


def _tool_result(path: str, block: Body) -> None:
    _check_id(f"{path}.tool_use_id", block["tool_use_id"])
    boolean(f"{path}.is_error", block.get("is_error", False))
    content = block.get("content", "")
    if isinstance(content, str):
        return
    array(f"{path}.content", content)
    for index, part in enumerate(content):
        at = f"{path}.content.{index}"
        mapping(at, part)
        choice("text", "image", "document")(f"{at}.type", part.get("type"))
        needed_fields(at, part, *_NEEDED[part["type"]])
        _CHECKS[part["type"]](f"{at}.{part['type']}", part)


def _thinking(path: str, block: Body) -> None:
    text(f"{path}.thinking", block["thinking"])
    text(f"{path}.signature", block["signature"])


def _redacted(path: str, block: Body) -> None:
    text(f"{path}.data", block["data"])


_CHECKS = {
    "text": _text,
    "image": check_image,
    "document": check_document,
    "tool_use": _tool_use,
    "tool_result": _tool_result,
    "thinking": _thinking,
    "redacted_thinking": _redacted,
}


def _check_id(path: str, value: Any) -> None:
    text(path, value)
    if _TOOL_ID.fullmatch(value) is None:
        raise refuse(f"{path}: String should match pattern '^[a-zA-Z0-9_-]+$'")
