"""A whole answer on the normalised wire: the standard shape, completed."""

from typing import Any

from proxy.call import Call, Json
from proxy.errors import Broken
from proxy.openai_format.chunks import reasoning
from proxy.openai_format.encoding import encode
from proxy.openai_format.errors import read_object


def complete(call: Call, body: bytes) -> Json:
    """An OpenAI completion with every field that clients may rely on.

    Raises:
        UpstreamError: the body is an error, or no completion.
    """
    whole = read_object(body)
    choices = whole.get("choices")
    if not isinstance(choices, list) or not choices or not all(isinstance(choice, dict) for choice in choices):
        raise Broken("the upstream's answer is not a completion", code="upstream_bad_response")
    usage = {"usage": complete_usage(whole["usage"])} if whole.get("usage") else {}
    return {
        **{name: value for name, value in whole.items() if name != "usage"},
        **usage,
        "id": whole.get("id") or f"chatcmpl-{call.id}",
        "object": "chat.completion",
        "created": whole.get("created") or int(call.received_at),
        "model": call.model,
        "choices": [_choice(call, index, choice) for index, choice in enumerate(choices)],
    }


def _choice(call: Call, index: int, choice: Json) -> Json:
    message = choice.get("message") or {}
    full: Json = {"role": "assistant", "content": None, "refusal": None}
    full |= {name: value for name, value in message.items() if name != "role"}
    if full.get("tool_calls"):
        full["tool_calls"] = [
            _tool_call(made, f"call_{call.id}_{number}") for number, made in enumerate(full["tool_calls"])
        ]
    else:
        full.pop("tool_calls", None)
        if full["content"] is None and not full["refusal"]:
            full["content"] = ""
    thoughts = full.get("reasoning") or full.get("reasoning_content")
    if thoughts:
        full |= reasoning(thoughts)
    return {
        "index": index,
        "logprobs": None,
        **choice,
        "message": full,
        "finish_reason": finish_reason(choice.get("finish_reason") or "stop"),
    }


def finish_reason(reason: str) -> str:
    """One of OpenAI's own; anything else is an end like another.

    Source: reference/upstreams.md §14.1.
    """
    return reason if reason in _REASONS else "stop"


_REASONS = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})


def complete_usage(usage: Json) -> Json:
    """Usage with its total, and without details that are null."""
    known = {name: count for name, count in usage.items() if count is not None}
    total = (known.get("prompt_tokens") or 0) + (known.get("completion_tokens") or 0)
    return {"total_tokens": total, **known}


def _tool_call(made: Json, spare_id: str) -> Json:
    function = made.get("function")
    if not isinstance(function, dict):
        return made
    whole = {**function, "arguments": arguments(function.get("arguments"))}
    return {**made, "id": made.get("id") or spare_id, "type": "function", "function": whole}


def arguments(value: Any) -> str:
    """A tool call's arguments as the string that OpenAI defines; some send an object, or null."""
    if isinstance(value, str):
        return value
    return "" if value is None else encode(value).decode()
