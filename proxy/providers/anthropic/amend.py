"""Calls that a model family has refused, without what it refused.

Anthropic's refusals have one type and no code: only the name of the field in the text tells which it was, so the text
is searched for names of fields that the call has, and for nothing else.

Source: reference/upstreams.md §5.3, §5.4.
"""

from collections.abc import Mapping
from typing import Any

from proxy.call import Call, Json
from proxy.errors import RequestRefused, UpstreamError
from proxy.openai_format.amendments import changed, value_of
from proxy.openai_format.tools import force_in_words


def amend(call: Call, error: UpstreamError) -> Call | None:
    """The changed call, or None when something else was refused."""
    if not isinstance(error, RequestRefused) or error.status != 400:
        return None
    text = error.message.casefold()
    refused = [name for name in ("temperature", "top_p") if name in text and value_of(call, name) is not None]
    if refused:
        return changed(call, remove=refused, names=refused)
    if "tool_choice" in text or "tool choice" in text:
        return _without_force(call)
    if "signature" in text or "thinking" in text:
        return _without_thinking(call)
    return None


def _without_force(call: Call) -> Call | None:
    choice, tools = value_of(call, "tool_choice"), value_of(call, "tools")
    function = choice.get("function") if isinstance(choice, dict) else None
    named = function.get("name") if isinstance(function, dict) else None
    if not tools or not (named or choice == "required"):
        return None
    messages = [*value_of(call, "messages"), {"role": "system", "content": force_in_words(named)}]
    kept = [tool for tool in tools if not named or _is_named(tool, named)]
    return changed(call, add={"messages": messages, "tools": kept, "tool_choice": "auto"}, names=("tool_choice:hint",))


def _is_named(tool: Any, name: str) -> bool:
    return isinstance(tool, dict) and isinstance(tool.get("function"), dict) and tool["function"].get("name") == name


def _without_thinking(call: Call) -> Call | None:
    messages = value_of(call, "messages")
    names = [
        f"messages[{index}].thinking_blocks"
        for index, message in enumerate(messages)
        if isinstance(message, Mapping) and message.get("thinking_blocks")
    ]
    asked = value_of(call, "reasoning_effort") is not None
    if not names and not asked:
        return None
    return changed(
        call,
        remove=("reasoning_effort",),
        add={"messages": [_without_blocks(message) for message in messages]},
        names=(*names, *(("reasoning_effort",) if asked else ())),
    )


def _without_blocks(message: Any) -> Any:
    if not isinstance(message, dict):
        return message
    kept: Json = {name: value for name, value in message.items() if name != "thinking_blocks"}
    return kept
