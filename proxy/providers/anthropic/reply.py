"""A Messages API answer as an OpenAI completion.

Source: platform.claude.com, "Messages"; reference/upstreams.md §5.6, §14.
"""

from typing import Any

from proxy.call import Call, Json
from proxy.errors import Broken
from proxy.openai_format import chunks
from proxy.openai_format.encoding import encode
from proxy.openai_format.errors import read_object

_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "compaction": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
THINKING = ("thinking", "redacted_thinking")  # blocks that must come back unchanged with a tool's result
_TIERS = {"standard": "default", "priority": "priority", "batch": "default"}


def completion(call: Call, body: bytes) -> Json:
    """The whole answer.

    Raises:
        UpstreamError: the body is an error, or no message.
    """
    message = read_object(body)
    blocks = message.get("content")
    if not isinstance(blocks, list) or "stop_reason" not in message or not all(isinstance(b, dict) for b in blocks):
        raise Broken("the upstream's answer is not a message", code="upstream_bad_response")
    counts = message.get("usage") or {}
    reply = _message([block for block in blocks if isinstance(block, dict)], explanation(message))
    reason = finish_reason(message.get("stop_reason"), tools=bool(reply.get("tool_calls")))
    completion_id = message.get("id") or f"chatcmpl-{call.id}"
    whole = chunks.completion(completion_id, int(call.received_at), call.model, reply, reason, usage(counts))
    tier = _TIERS.get(counts.get("service_tier") or "")
    return {**whole, "service_tier": tier} if tier else whole


def _message(blocks: list[Json], refusal: str | None) -> Json:
    texts = [block.get("text") or "" for block in blocks if block.get("type") == "text"]
    thoughts = "".join(block.get("thinking") or "" for block in blocks if block.get("type") == "thinking")
    calls = [
        chunks.tool_call(block.get("id") or "", block.get("name") or "", encode(block.get("input") or {}).decode())
        for block in blocks
        if block.get("type") == "tool_use"
    ]
    message: Json = {"content": "".join(texts) or (None if calls else ""), "refusal": refusal}
    if thoughts:
        message |= chunks.reasoning(thoughts)
    if calls:
        message["tool_calls"] = calls
        kept = [block for block in blocks if block.get("type") in THINKING]
        if kept:
            message["thinking_blocks"] = kept
    return message


def explanation(message: Json) -> str | None:
    """Why the model refused, where it says so."""
    details = message.get("stop_details")
    text = details.get("explanation") if isinstance(details, dict) else None
    return text if isinstance(text, str) and text else None


def finish_reason(stop_reason: str | None, *, tools: bool) -> str:
    """OpenAI's name for the end; an end with tool calls is always `tool_calls`."""
    reason = _REASONS.get(stop_reason or "", "stop")
    return "tool_calls" if tools and reason == "stop" else reason


def usage(counts: Json) -> Json | None:
    """OpenAI's usage: the prompt includes what came from and went to the cache.

    Args:
        counts: every count that was told, the latest of each.
    """
    if "input_tokens" not in counts and "output_tokens" not in counts:
        return None
    read, written = counts.get("cache_read_input_tokens"), counts.get("cache_creation_input_tokens")
    cached = {"cached_tokens": read, "cache_write_tokens": written}
    details = counts.get("output_tokens_details")
    thinking = details.get("thinking_tokens") if isinstance(details, dict) else None
    return chunks.usage(
        _sum(counts.get("input_tokens") or 0, read or 0, written or 0),
        counts.get("output_tokens") or 0,
        prompt_tokens_details={name: count for name, count in cached.items() if count is not None},
        completion_tokens_details={} if thinking is None else {"reasoning_tokens": thinking},
    )


def _sum(*counts: Any) -> int | None:
    """None when one of them is no count."""
    return sum(counts) if all(map(chunks.is_count, counts)) else None
