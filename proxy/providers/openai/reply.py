"""A whole answer on the normalised wire: the standard shape, completed."""

from dataclasses import dataclass
from typing import Any

from proxy.call import Call, Json
from proxy.errors import Broken
from proxy.openai_format.chunks import reasoning
from proxy.openai_format.encoding import encode
from proxy.openai_format.errors import read_object


@dataclass(frozen=True, slots=True)
class Repairs:
    """What is mended beyond OpenAI's standard shape.

    Args:
        fresh_tool_ids: the upstream's are not unique: ours take their place.
        tool_finish: an end with tool calls is `tool_calls`, also when the upstream says `stop`.
        logprobs: entries get the members that imitators leave out.
    """

    fresh_tool_ids: bool = False
    tool_finish: bool = False
    logprobs: bool = False


AS_OPENAI = Repairs()


def complete(call: Call, body: bytes, repairs: Repairs = AS_OPENAI) -> Json:
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
        **{name: value for name, value in whole.items() if name != "usage" and value is not None},
        **usage,
        "id": whole.get("id") or f"chatcmpl-{call.id}",
        "object": "chat.completion",
        "created": whole.get("created") or int(call.received_at),
        "model": call.model,
        "choices": [_choice(call, index, choice, repairs) for index, choice in enumerate(choices)],
    }


def _choice(call: Call, index: int, choice: Json, repairs: Repairs) -> Json:
    message = choice.get("message") or {}
    full: Json = {"role": "assistant", "content": None, "refusal": None}
    full |= {name: value for name, value in message.items() if name != "role" and value is not None}
    if full.get("tool_calls"):
        full["tool_calls"] = [
            _tool_call(made, f"call_{call.id}_{number}", fresh=repairs.fresh_tool_ids)
            for number, made in enumerate(full["tool_calls"])
        ]
    else:
        full.pop("tool_calls", None)
        if full["content"] is None and not any(full.get(name) for name in ("refusal", "function_call", "audio")):
            full["content"] = ""
    thoughts = full.get("reasoning") or full.get("reasoning_content")
    if thoughts:
        full |= reasoning(thoughts)
    logprobs = choice.get("logprobs")
    return {
        **{name: value for name, value in choice.items() if value is not None},
        "index": choice.get("index") or index,
        "logprobs": complete_logprobs(logprobs) if repairs.logprobs else logprobs,
        "message": full,
        "finish_reason": finish_reason(
            choice.get("finish_reason") or "stop", tools=repairs.tool_finish and "tool_calls" in full
        ),
    }


def finish_reason(reason: str, *, tools: bool = False) -> str:
    """One of OpenAI's own; anything else is an end like another.

    Args:
        tools: tool calls were made, and an end after them is `tool_calls`.

    Raises:
        Broken: the upstream says that it broke off.

    Source: reference/upstreams.md §14.1.
    """
    if reason in ("abort", "error"):
        raise Broken("the upstream broke off its answer")
    known = reason if reason in _REASONS else "stop"
    return "tool_calls" if tools and known == "stop" else known


_REASONS = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})


def complete_usage(usage: Json) -> Json:
    """Usage with its total, and without details that are null."""
    known = {name: count for name, count in usage.items() if count is not None}
    total = (known.get("prompt_tokens") or 0) + (known.get("completion_tokens") or 0)
    return {"total_tokens": total, **known}


def complete_logprobs(logprobs: Any) -> Json | None:
    """Log probabilities with every member that OpenAI's types require."""
    if not isinstance(logprobs, dict):
        return None
    content = logprobs.get("content")
    entries = [_entry(entry) for entry in content] if isinstance(content, list) else None
    return {**logprobs, "content": entries, "refusal": logprobs.get("refusal")}


def _entry(entry: Json) -> Json:
    token = str(entry.get("token", ""))
    top = [{**each, "bytes": each.get("bytes") or list(str(each.get("token", "")).encode())} for each in _top(entry)]
    return {**entry, "token": token, "bytes": entry.get("bytes") or list(token.encode()), "top_logprobs": top}


def _top(entry: Json) -> list[Json]:
    top = entry.get("top_logprobs")
    return top if isinstance(top, list) else []


def _tool_call(made: Json, spare_id: str, *, fresh: bool) -> Json:
    function = made.get("function")
    if not isinstance(function, dict):
        return made
    known = {name: value for name, value in function.items() if value is not None}
    whole = {**known, "arguments": arguments(function.get("arguments"))}
    return {**made, "id": spare_id if fresh else made.get("id") or spare_id, "type": "function", "function": whole}


def arguments(value: Any) -> str:
    """A tool call's arguments as the string that OpenAI defines; some send an object, or null."""
    if isinstance(value, str):
        return value
    return "" if value is None else encode(value).decode()
