"""A whole answer on the normalised wire: the standard shape, completed."""

from dataclasses import dataclass
from typing import Any

from proxy.call import Call, Json
from proxy.errors import Broken
from proxy.openai_format.chunks import is_count, reasoning
from proxy.openai_format.encoding import encode
from proxy.openai_format.errors import read_object
from proxy.openai_format.shapes import name_or, time_or


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
    counts = complete_usage(whole.get("usage"))
    usage = {"usage": counts} if counts else {}
    return {
        **{name: value for name, value in whole.items() if name != "usage" and value is not None},
        **usage,
        "id": name_or(whole.get("id"), f"chatcmpl-{call.id}"),
        "object": "chat.completion",
        "created": time_or(whole.get("created"), call.received_at),
        "model": call.model,
        "choices": [_choice(call, index, choice, repairs) for index, choice in enumerate(choices)],
    }


def _choice(call: Call, index: int, choice: Json, repairs: Repairs) -> Json:
    message = choice.get("message")
    if not isinstance(message, dict):
        raise Broken("the upstream's answer has no message", code="upstream_bad_response")
    full: Json = {"role": "assistant", "content": None, "refusal": None}
    full |= {name: value for name, value in message.items() if name != "role" and value is not None}
    full |= {name: read_text(full[name]) for name in TEXTS if name in full}
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
        "index": choice["index"] if is_count(choice.get("index")) and choice["index"] else index,
        "logprobs": complete_logprobs(logprobs) if repairs.logprobs else logprobs,
        "message": full,
        "finish_reason": finish_reason(
            choice.get("finish_reason") or "stop", tools=repairs.tool_finish and "tool_calls" in full
        ),
    }


TEXTS = ("content", "refusal", "reasoning", "reasoning_content")


def read_text(value: Any) -> str | None:
    """A member of a message or delta that is text; some vendors send it in parts.

    Raises:
        Broken: it is neither.
    """
    if isinstance(value, list):
        return "".join(part.get("text") or "" for part in value if isinstance(part, dict))
    if value is None or isinstance(value, str):
        return value
    raise Broken("the upstream's text is no text", code="upstream_bad_response")


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


def complete_usage(usage: Any) -> Json | None:
    """Usage with its total, and without details that are null; None when there is none, or its counts are absurd."""
    if not isinstance(usage, dict) or not usage:
        return None
    prompt, completion = usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
    if not (is_count(prompt) and is_count(completion)):
        return None
    known = {
        name: count
        for name, count in usage.items()
        if count is not None and (isinstance(count, dict) or not name.endswith("_details"))
    }
    total = known.get("total_tokens")
    counted = total if is_count(total) else prompt + completion
    return {**known, "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": counted}


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
    return {
        **made,
        "id": spare_id if fresh else name_or(made.get("id"), spare_id),
        "type": "function",
        "function": whole,
    }


def arguments(value: Any) -> str:
    """A tool call's arguments as the string that OpenAI defines; some send an object, or null."""
    if isinstance(value, str):
        return value
    return "" if value is None else encode(value).decode()
