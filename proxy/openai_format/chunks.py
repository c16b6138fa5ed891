"""Completions and chunks: built, collected into one another, replayed."""

from collections.abc import Iterable
from typing import Any

from proxy.call import Json
from proxy.errors import CutShort

ROLE = {"role": "assistant", "content": ""}


class ChunkBuilder:
    """Builds the chunks of one stream: id, created and model stay the same from the first to the last.

    Args:
        created: unix time in seconds.
        model: the name the caller asked for.
        more: what else stands in every chunk, such as service_tier.
    """

    def __init__(self, completion_id: str, created: int, model: str, **more: Any) -> None:
        self._head = {
            **more,
            "id": completion_id,
            "object": "chat.completion.chunk",
            "created": created,
            "model": model,
        }

    def delta(self, delta: Json, *, index: int = 0, **choice: Any) -> Json:
        """A chunk with one choice that has not finished; `choice` may hold logprobs."""
        return {**self._head, "choices": [{"index": index, "delta": delta, **choice, "finish_reason": None}]}

    def finish(self, reason: str, *, index: int = 0) -> Json:
        """The last chunk of a choice."""
        return {**self._head, "choices": [{"index": index, "delta": {}, "finish_reason": reason}]}

    def usage(self, usage: Json) -> Json:
        """The last chunk of a stream."""
        return {**self._head, "choices": [], "usage": usage}


def tool_start(index: int, call_id: str, name: str) -> Json:
    """The delta that opens a tool call."""
    function = {"name": name, "arguments": ""}
    return {"tool_calls": [{"index": index, "id": call_id, "type": "function", "function": function}]}


def tool_arguments(index: int, fragment: str) -> Json:
    """The delta that carries a piece of a tool call's arguments."""
    return {"tool_calls": [{"index": index, "function": {"arguments": fragment}}]}


def tool_call(call_id: str, name: str, arguments: str) -> Json:
    """A whole tool call, as a completion's message has it."""
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def reasoning(text: str) -> Json:
    """Reasoning text under both names that clients read.

    Source: reference/upstreams.md §2.3 (vLLM and Ollama: `reasoning`; DeepSeek: `reasoning_content`).
    """
    return {"reasoning": text, "reasoning_content": text}


MOST_TOKENS = 2**53  # what every reader of JSON can count


def is_count(value: Any) -> bool:
    """Whether an upstream's number of tokens can be one."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MOST_TOKENS


def usage(prompt_tokens: Any, completion_tokens: Any, **details: Json) -> Json | None:
    """OpenAI's usage object; a group of details is left out when it is empty, and all of it when a count is absurd."""
    if not (is_count(prompt_tokens) and is_count(completion_tokens)):
        return None
    counted = {name: {each: n for each, n in group.items() if is_count(n)} for name, group in details.items()}
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        **{name: group for name, group in counted.items() if group},
    }


def completion(
    completion_id: str, created: int, model: str, message: Json, finish_reason: str, usage: Json | None
) -> Json:
    """A chat completion with one choice; `message` needs only what it has besides role and refusal."""
    full = {"role": "assistant", "content": None, "refusal": None, **message}
    choice = {"index": 0, "message": full, "logprobs": None, "finish_reason": finish_reason}
    body = {
        "id": completion_id,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [choice],
    }
    return body if usage is None else {**body, "usage": usage}


def replay(whole: Json) -> list[Json]:
    """The chunks that a stream of this completion would have carried; usage, if known, comes last."""
    more = {name: value for name, value in whole.items() if name not in _OF_COMPLETIONS and value is not None}
    build = ChunkBuilder(whole["id"], whole["created"], whole["model"], **more)
    chunks = []
    for choice in whole["choices"]:
        message, index = choice["message"], choice["index"]
        chunks.append(build.delta(ROLE, index=index))
        texts = ("reasoning", "reasoning_content", "refusal", "content")
        chunks += [build.delta({text: message[text]}, index=index) for text in texts if message.get(text)]
        if choice.get("logprobs"):
            chunks[-1]["choices"][0]["logprobs"] = choice["logprobs"]  # of the last text, or of none
        chunks += [
            build.delta({name: value}, index=index)
            for name, value in message.items()
            if name not in _IN_PARTS and value is not None
        ]
        for position, call in enumerate(message.get("tool_calls") or ()):
            chunks += [build.delta(piece, index=index) for piece in _tool_pieces(position, call)]
        extras = {name: value for name, value in choice.items() if name not in _OF_CHOICES}
        chunks.append(build.finish(choice["finish_reason"], index=index))
        chunks[-1]["choices"][0] |= extras
    if whole.get("usage"):
        chunks.append(build.usage(whole["usage"]))
    return chunks


def _tool_pieces(position: int, call: Json) -> Iterable[Json]:
    """The deltas of a tool call."""
    if "function" not in call:  # a custom tool's
        yield {"tool_calls": [{"index": position, **call}]}
        return
    function = call["function"]
    start = tool_start(position, call["id"], function["name"])
    start["tool_calls"][0] |= {name: value for name, value in call.items() if name not in ("index", "function")}
    yield start
    yield tool_arguments(position, function["arguments"])


_OF_COMPLETIONS = ("id", "object", "created", "model", "choices", "usage")
_OF_CHOICES = ("index", "message", "logprobs", "finish_reason")
_IN_PARTS = ("role", "content", "refusal", "reasoning", "reasoning_content", "tool_calls")


def collect(chunks: Iterable[Json]) -> Json:
    """Fold the chunks of a stream into the completion it amounts to.

    Raises:
        CutShort: a choice never finished, or there is none.
    """
    whole: Json = {}
    choices: dict[int, Json] = {}
    for chunk in chunks:
        if not whole:
            whole = {**chunk, "object": "chat.completion"}
        else:
            whole |= {name: value for name, value in chunk.items() if whole.get(name) is None}
        for choice in chunk["choices"]:
            _fold(choices.setdefault(choice["index"], _empty_choice(choice["index"])), choice)
        if chunk.get("usage"):
            whole["usage"] = chunk["usage"]
    whole["choices"] = [choices[index] for index in sorted(choices)]
    if not choices or any(choice["finish_reason"] is None for choice in whole["choices"]):
        raise CutShort("the upstream ended its answer early")
    for choice in whole["choices"]:
        message = choice["message"]
        if message["content"] is None and not any(message.get(name) for name in _INSTEAD_OF_CONTENT):
            message["content"] = ""
    if whole.get("usage") is None:
        whole.pop("usage", None)
    return whole


_OF_CHUNKS = ("index", "delta", "logprobs", "finish_reason")
_INSTEAD_OF_CONTENT = ("tool_calls", "function_call", "refusal", "audio")


def _empty_choice(index: int) -> Json:
    message = {"role": "assistant", "content": None, "refusal": None}
    return {"index": index, "message": message, "logprobs": None, "finish_reason": None}


def _fold(choice: Json, part: Json) -> None:
    choice["finish_reason"] = part.get("finish_reason") or choice["finish_reason"]
    choice |= {name: value for name, value in part.items() if name not in _OF_CHUNKS}
    if part.get("logprobs"):
        fold_logprobs(choice, part["logprobs"])
    message = choice["message"]
    for name, value in (part.get("delta") or {}).items():
        if name == "tool_calls":
            for fragment in value or ():
                _fold_tool_call(message.setdefault("tool_calls", []), fragment)
        elif isinstance(value, list):
            message[name] = [*(message.get(name) or ()), *value]
        elif isinstance(value, dict):
            message[name] = _joined(message.get(name) or {}, value)
        elif isinstance(value, str):
            if value and name != "role":
                message[name] = (message.get(name) or "") + value
        elif value is not None:
            message[name] = value


def _joined(known: Json, part: Json) -> Json:
    """Texts go on, other values stand in for what was there."""
    joined = {**known}
    for name, value in part.items():
        goes_on = isinstance(value, str) and isinstance(known.get(name), str)
        joined[name] = known[name] + value if goes_on else value
    return joined


def fold_logprobs(choice: Json, logprobs: Json) -> None:
    """Add those of another chunk to a choice's."""
    known = choice["logprobs"] or {}
    for name, entries in logprobs.items():
        known[name] = (known.get(name) or []) + entries if entries else known.get(name)
    choice["logprobs"] = known


def _fold_tool_call(calls: list[Json], fragment: Json) -> None:
    place = fragment["index"]
    if not 0 <= place <= len(calls):
        raise ValueError("a tool call that was not begun")
    if place == len(calls):
        calls.append({"type": "function", **{name: value for name, value in fragment.items() if name != "index"}})
        if "function" in fragment:
            calls[place]["function"] = {"arguments": "", **fragment["function"]}
        return
    for name, more in fragment.items():
        if isinstance(more, dict):  # the function, or a custom tool's input
            known = calls[place].setdefault(name, {})
            for each, text in more.items():
                if isinstance(text, str):
                    known[each] = known[each] + text if each in _GOES_ON and each in known else known.get(each) or text


_GOES_ON = ("arguments", "input")


def merge(wholes: list[Json]) -> Json:
    """Completions of the same request as one with several choices; the prompt counts once.

    Source: reference/upstreams.md §3 ("n > 1 emulation").
    """
    choices = [{**choice, "index": index} for index, choice in enumerate(one["choices"][0] for one in wholes)]
    counts = merge_usage([one["usage"] for one in wholes if one.get("usage")])
    return {**wholes[0], "choices": choices, **({"usage": counts} if counts else {})}


def merge_usage(counts: list[Json]) -> Json | None:
    """The usage of several answers to one prompt."""
    if not counts:
        return None
    completion_tokens = sum(count.get("completion_tokens") or 0 for count in counts)
    details: Json = {}
    for count in counts:
        for name, value in _details(count, "completion_tokens_details").items():
            if is_count(value):
                details[name] = details.get(name, 0) + value
    prompt_details = _details(counts[0], "prompt_tokens_details")
    return usage(
        max(count.get("prompt_tokens") or 0 for count in counts),
        completion_tokens,
        prompt_tokens_details=prompt_details,
        completion_tokens_details=details,
    )


def _details(count: Json, name: str) -> Json:
    details = count.get(name)
    return details if isinstance(details, dict) else {}
