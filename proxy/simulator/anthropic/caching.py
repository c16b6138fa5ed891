"""Cache breakpoints, and how many tokens a simulated cache would write or read."""

from collections.abc import Iterator
from typing import Any

from proxy.simulator.anthropic.checks import choice, known_fields, mapping, refuse
from proxy.simulator.dialect import Body

MOST_BREAKPOINTS = 4


def check_breakpoint(path: str, block: Body) -> None:
    """Accept a block's cache_control.

    Source: Anthropic documentation, "Prompt caching".
    """
    control = block.get("cache_control")
    if control is None:
        return
    at = f"{path}.cache_control"
    mapping(at, control)
    choice("ephemeral")(f"{at}.type", control.get("type"))
    known_fields(f"{at}.ephemeral", control, frozenset({"type", "ttl"}))
    choice("5m", "1h")(f"{at}.ephemeral.ttl", control.get("ttl", "5m"))


def count_cached(request: Body) -> int:
    """Count the words up to the last breakpoint, in the order of tools, system and messages.

    Raises:
        Refused: there are too many breakpoints.
    """
    seen = cached = breakpoints = 0
    for block in _blocks(request):
        seen += _words(block)
        if block.get("cache_control") is not None:
            breakpoints += 1
            cached = seen
    if breakpoints > MOST_BREAKPOINTS:
        raise refuse(f"A maximum of {MOST_BREAKPOINTS} blocks with cache_control may be provided. Found {breakpoints}.")
    return seen if request.get("cache_control") is not None else cached


def was_written_before(request: Body) -> bool:
    """Whether the prompt continues a conversation, so that an earlier call has filled the cache."""
    return any(message["role"] == "assistant" for message in request["messages"])


def _blocks(request: Body) -> Iterator[Body]:
    yield from request.get("tools", ())
    contents = [request.get("system", []), *(message["content"] for message in request["messages"])]
    for content in contents:
        yield from [{"text": content}] if isinstance(content, str) else content


def _words(block: Body) -> int:
    said: Any = block.get("text") or block.get("content") or ""
    if isinstance(said, str):
        return len(said.split()) + len((block.get("input_schema") or {}).get("properties") or ()) + ("name" in block)
    return sum(len(str(part.get("text", "")).split()) for part in said)
