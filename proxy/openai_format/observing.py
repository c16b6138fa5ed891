"""What accounting notes of an answer while it passes by."""

from proxy.call import Facts, Json
from proxy.openai_format.encoding import decode

_LESS_COMMON = ("tool_calls", "reasoning", "reasoning_content", "refusal", "audio", "function_call")


def carries_content(delta: Json) -> bool:
    """Whether a delta is what the caller waits for, and not only a role or an empty frame."""
    return bool(delta.get("content") or any(map(delta.get, _LESS_COMMON)))


def text_size(message: Json) -> int:
    """How many bytes of UTF-8 the texts of a delta or a message have that a model has written."""
    thoughts = message.get("reasoning") or message.get("reasoning_content")  # both are the same, where there are both
    texts = [message.get("content"), thoughts, message.get("refusal")]
    calls = message.get("tool_calls")
    functions = [call.get("function") for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
    for function in (*functions, message.get("function_call")):
        if isinstance(function, dict):
            texts += [function.get("name"), function.get("arguments")]
    return sum(len(text.encode("utf-8", "replace")) for text in texts if isinstance(text, str))


def text_size_of(body: bytes) -> int:
    """The same of a whole answer as it came; of one that cannot be read its length, which is not less."""
    try:
        return whole_text_size(decode(body))
    except (ValueError, TypeError, KeyError, RecursionError):
        return len(body)


def whole_text_size(answer: Json) -> int:
    """The same of a whole answer."""
    choices = [choice for choice in answer["choices"] if isinstance(choice, dict)]
    messages = [choice.get("message") or {"content": choice.get("text")} for choice in choices]
    return sum(text_size(message) for message in messages if isinstance(message, dict))


def note(facts: Facts, delta: Json) -> None:
    """Note in `facts` the content that a delta brings, if any."""
    text = delta.get("content")
    if text.__class__ is str and text and len(delta) == 1 and text.isascii():  # as nearly all are
        facts.text_bytes += len(text)
    elif carries_content(delta):
        facts.text_bytes += text_size(delta)
    else:
        return
    facts.content = True
    facts.pieces += 1


def observe(facts: Facts, chunk: Json) -> None:
    """Note in `facts` what a chunk tells: content, finish, usage."""
    for choice in chunk["choices"]:
        note(facts, choice["delta"])
        if choice["finish_reason"] and facts.finish_reason is None:
            facts.finish_reason = choice["finish_reason"]
    if chunk.get("usage"):
        facts.usage = chunk["usage"]
