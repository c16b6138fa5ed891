"""What we send, judged by the newest official types, and by what OpenAI's API document calls required."""

import json
from typing import Any

from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel, TypeAdapter

from proxy.call import Json

OURS = {"reasoning", "reasoning_content", "thinking_blocks"}  # extensions, which clients read under these names


def check_completion(body: Json) -> None:
    """A completion: every member known or ours, every value of its type, nothing required missing."""
    _check(ChatCompletion, body)
    for choice in body["choices"]:
        assert "logprobs" in choice
        assert {"role", "content", "refusal"} <= choice["message"].keys()
        assert choice["message"]["role"] == "assistant"
    assert body["object"] == "chat.completion"
    assert body["id"]
    _check_usage(body.get("usage"))


def check_chunks(chunks: list[Json], *, usage: bool) -> None:
    """The chunks of one stream, in their order.

    Args:
        usage: the caller asked for it.
    """
    begun, finished = set(), set()
    for chunk in chunks:
        _check(ChatCompletionChunk, chunk)
        assert chunk["object"] == "chat.completion.chunk"
        assert [chunk[name] for name in ("id", "created", "model")] == [
            chunks[0][name] for name in ("id", "created", "model")
        ]
        for choice in chunk["choices"]:
            index, delta = choice["index"], choice["delta"]
            assert ("role" in delta) == (index not in begun), "the role stands in the first delta of a choice alone"
            assert index not in finished, "nothing comes after a choice's end"
            begun.add(index)
            if choice["finish_reason"] is not None:
                finished.add(index)
    assert begun
    assert begun == finished, "every choice has exactly one end"
    told = [number for number, chunk in enumerate(chunks) if chunk.get("usage")]
    if usage:
        assert told == [len(chunks) - 1], "usage stands in one last chunk"
        assert chunks[-1]["choices"] == []
        assert all("usage" in chunk for chunk in chunks)
        _check_usage(chunks[-1]["usage"])
    else:
        assert not any("usage" in chunk and chunk["usage"] for chunk in chunks)
        assert all(chunk["choices"] for chunk in chunks)


def read_events(body: bytes) -> list[Json]:
    """The events of a stream that ended well; its framing has data lines, comments and blank lines alone."""
    lines = body.split(b"\n")
    assert all(line == b"" or line.startswith((b"data: ", b":")) for line in lines)
    events = [line.removeprefix(b"data: ") for line in lines if line.startswith(b"data: ")]
    assert events.pop() == b"[DONE]"
    return [json.loads(event) for event in events]


def _check_usage(usage: Json | None) -> None:
    if usage is not None:
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


_made: dict[type[BaseModel], TypeAdapter[Any]] = {}


def _check(model: type[BaseModel], value: Json) -> None:
    adapter = _made.setdefault(model, TypeAdapter(model))
    parsed = adapter.validate_python(value, strict=True)
    _check_known(parsed)


def _check_known(value: Any) -> None:
    """The official types keep unknown members aside: only ours may be there."""
    if isinstance(value, BaseModel):
        assert set(value.model_extra or {}) <= OURS, type(value).__name__
        for name in type(value).model_fields:
            _check_known(getattr(value, name))
    elif isinstance(value, list):
        for item in value:
            _check_known(item)
