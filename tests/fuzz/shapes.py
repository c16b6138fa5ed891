"""What an OpenAI client may count on in chunks and completions, written from OpenAI's reference and not from our code.

Source: OpenAI API reference, "The chat completion object", "The chat completion chunk object".
"""

from typing import Any

REASONS = ("stop", "length", "tool_calls", "content_filter", "function_call")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_text(value: Any) -> bool:
    return value is None or isinstance(value, str)


def assert_usage(usage: Any) -> None:
    """Three counts."""
    assert all(_is_count(usage[name]) for name in ("prompt_tokens", "completion_tokens", "total_tokens"))


def _assert_head(value: Any, kind: str) -> None:
    assert value["object"] == kind
    assert isinstance(value["id"], str)
    assert value["id"]
    assert _is_count(value["created"])
    assert isinstance(value["model"], str)
    if value.get("usage") is not None:
        assert_usage(value["usage"])


def assert_chunk(chunk: Any) -> None:
    """One chunk of a stream."""
    _assert_head(chunk, "chat.completion.chunk")
    assert isinstance(chunk["choices"], list)
    for choice in chunk["choices"]:
        delta = choice["delta"]
        assert _is_count(choice["index"])
        assert choice["finish_reason"] in (None, *REASONS)
        assert isinstance(delta, dict)
        assert delta.get("role", "assistant") == "assistant"
        assert all(_is_text(delta.get(name)) for name in ("content", "refusal", "reasoning", "reasoning_content"))
        for call in delta.get("tool_calls") or ():
            assert _is_count(call["index"])
            assert _is_text(call.get("id"))
            function = call["function"]
            assert isinstance(function.get("arguments", ""), str)
            assert function.get("name") is None or (isinstance(function["name"], str) and function["name"])


def assert_completion(completion: Any) -> None:
    """A whole answer."""
    _assert_head(completion, "chat.completion")
    assert completion["choices"]
    for choice in completion["choices"]:
        message = choice["message"]
        assert _is_count(choice["index"])
        assert choice["finish_reason"] in REASONS
        assert message["role"] == "assistant"
        assert all(_is_text(message.get(name)) for name in ("content", "refusal", "reasoning"))
        for call in message.get("tool_calls") or ():
            assert isinstance(call["id"], str)
            assert isinstance(call["function"]["name"], str)
            assert isinstance(call["function"]["arguments"], str)
