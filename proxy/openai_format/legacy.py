"""The deprecated pair `functions` and `function_call`: as tools on the way in, as itself on the way out.

Source: OpenAI API reference, "Create chat completion", deprecated parameters; reference/upstreams.md §3.
"""

from typing import Any

from proxy.call import Json
from proxy.openai_format.checks import expect, wrong_value


def is_legacy(fields: Json) -> bool:
    """Whether a request speaks the deprecated way, in its fields or in its messages."""
    if "functions" in fields or "function_call" in fields:
        return True
    messages = fields.get("messages")
    return isinstance(messages, list) and any(
        isinstance(message, dict) and (message.get("role") == "function" or message.get("function_call"))
        for message in messages
    )


def modernise(fields: Json) -> Json:
    """The same request with tools; each call in the history gets an id, by which its answer is found."""
    functions = expect(fields, "functions", "an array") or []
    modern = {name: value for name, value in fields.items() if name not in ("functions", "function_call")}
    if functions and fields.get("tools"):
        wrong_value("functions", "Send 'tools' or 'functions', not both.")
    if functions:
        modern["tools"] = [{"type": "function", "function": function} for function in functions]
    choice = fields.get("function_call")
    if choice is not None and functions:
        modern["tool_choice"] = {"type": "function", "function": choice} if isinstance(choice, dict) else choice
    if isinstance(fields.get("messages"), list):
        modern["messages"] = _messages(fields["messages"])
    return modern


def _messages(messages: list[Any]) -> list[Any]:
    ids: dict[str, str] = {}  # of the latest call of each function
    made = 0
    modern = []
    for message in messages:
        if isinstance(message, dict) and isinstance(call := message.get("function_call"), dict):
            ids[str(call.get("name"))] = call_id = f"call_function_{made}"
            made += 1
            rest = {name: value for name, value in message.items() if name != "function_call"}
            message = {**rest, "tool_calls": [{"id": call_id, "type": "function", "function": call}]}
        elif isinstance(message, dict) and message.get("role") == "function":
            call_id = ids.get(str(message.get("name")), "")
            message = {"role": "tool", "tool_call_id": call_id, "content": message.get("content") or ""}
        modern.append(message)
    return modern


def restore_message(message: Json) -> Json:
    """A completion's message with its first tool call as `function_call`."""
    calls = message.get("tool_calls")
    if not calls:
        return message
    rest = {name: value for name, value in message.items() if name != "tool_calls"}
    return {**rest, "function_call": calls[0]["function"]}


def restore_completion(whole: Json) -> Json:
    """A completion for a caller who asked with `functions`."""
    choices = [
        {**choice, "message": restore_message(choice["message"]), "finish_reason": _reason(choice["finish_reason"])}
        for choice in whole["choices"]
    ]
    return {**whole, "choices": choices}


def restore_chunk(chunk: Json) -> Json | None:
    """A chunk for a caller who asked with `functions`; None when it speaks of any call but the first."""
    choices = [_restore_delta(choice) for choice in chunk["choices"]]
    if choices and not any(choice["delta"] or choice["finish_reason"] for choice in choices):
        return None
    return {**chunk, "choices": choices}


def _restore_delta(choice: Json) -> Json:
    delta = choice["delta"]
    if "tool_calls" in delta:
        first = next((piece for piece in delta["tool_calls"] if piece["index"] == 0), None)
        rest = {name: value for name, value in delta.items() if name != "tool_calls"}
        delta = {**rest, "function_call": first["function"]} if first else rest
    return {**choice, "delta": delta, "finish_reason": _reason(choice["finish_reason"])}


def _reason(reason: str | None) -> str | None:
    return "function_call" if reason == "tool_calls" else reason
