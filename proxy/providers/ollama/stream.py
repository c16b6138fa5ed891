"""Ollama's lines as OpenAI chunks; a whole answer is a stream of one line.

Source: ollama/docs/api.md, "Generate a chat completion"; reference/upstreams.md §7.3, §7.4.
"""

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from proxy.call import Call, Json
from proxy.errors import Broken, CutShort
from proxy.framing import JsonLines, is_json
from proxy.openai_format.chunks import ROLE, ChunkBuilder, reasoning, tool_arguments, tool_start, usage
from proxy.openai_format.encoding import encode
from proxy.openai_format.errors import read_object

_SUBSECONDS = re.compile(r"\.\d+")


class ChatStream:
    """One answer of /api/chat; see `StreamParser`."""

    thinking = False
    begun = None

    def __init__(self, call: Call, max_frame_bytes: int, *, single: bool = False) -> None:
        self._call = call
        self._single = single  # one tool call at most
        self._lines = JsonLines(max_frame_bytes)
        self._builder: ChunkBuilder | None = None
        self._tools = 0
        self.ended = self.plain = False

    def feed(self, data: bytes) -> Iterator[Json]:
        lines = self._lines.feed(data)
        for line in lines:
            yield from self.read(line)
        self.plain = lines == [data]

    def finish(self) -> Iterator[Json]:
        tail = self._lines.flush()
        if tail.strip() and not self.ended:
            if not is_json(tail):
                raise CutShort("the upstream ended its answer early")
            yield from self.read(tail)
        if not self.ended:
            raise CutShort("the upstream ended its answer early")

    def read(self, line: bytes) -> Iterator[Json]:
        """The chunks of one line, or of a whole answer."""
        if self.ended or not line.strip():
            return
        answer = read_object(line)
        if "message" not in answer and ("done" not in answer or self._builder is None):
            raise Broken("the upstream's answer is not a chat message", code="upstream_bad_response")
        if self._builder is None:
            self._builder = ChunkBuilder(f"chatcmpl-{self._call.id}", self._created(answer), self._call.model)
            yield self._builder.delta(ROLE)
        yield from self._message(self._builder, answer)
        if answer.get("done"):
            yield from self._end(self._builder, answer)

    def _created(self, answer: Json) -> int:
        """`created_at` has nanoseconds, more digits than the standard parser takes."""
        try:
            return int(datetime.fromisoformat(_SUBSECONDS.sub("", str(answer.get("created_at")))).timestamp())
        except ValueError:
            return int(self._call.received_at)

    def _message(self, build: ChunkBuilder, answer: Json) -> Iterator[Json]:
        message = answer.get("message") or {}
        probabilities = _logprobs(answer)
        if message.get("thinking"):
            yield build.delta(reasoning(message["thinking"]))
        if message.get("content"):
            yield build.delta({"content": message["content"]}, **probabilities)
        for call in message.get("tool_calls") or ():
            if self._single and self._tools:
                break
            number, function = self._tools, call.get("function") or {}
            self._tools += 1
            call_id = call.get("id") or f"call_{self._call.id}_{number}"
            yield build.delta(tool_start(number, call_id, function.get("name") or ""))
            yield build.delta(tool_arguments(number, _arguments(function.get("arguments"))))

    def _end(self, build: ChunkBuilder, answer: Json) -> Iterator[Json]:
        reason = answer.get("done_reason", "stop")
        if not reason:
            raise CutShort("the upstream ended its answer early")
        self.ended = True
        if reason != "length":
            reason = "tool_calls" if self._tools else "stop"
        yield build.finish(reason)
        if "prompt_eval_count" in answer or "eval_count" in answer:
            counts = usage(answer.get("prompt_eval_count") or 0, answer.get("eval_count") or 0)
            if counts:
                yield build.usage(counts)


def _logprobs(answer: Json) -> Json:
    """Log probabilities as OpenAI has them; nothing when there are none."""
    entries = answer.get("logprobs")
    if not isinstance(entries, list) or not entries:
        return {}
    content = [
        {**_entry(entry), "top_logprobs": [_entry(each) for each in entry.get("top_logprobs") or ()]}
        for entry in entries
    ]
    return {"logprobs": {"content": content, "refusal": None}}


def _entry(entry: Json) -> Json:
    token = entry.get("token") or ""
    return {"token": token, "logprob": entry.get("logprob"), "bytes": entry.get("bytes") or list(token.encode())}


def _arguments(value: Any) -> str:
    """An object, or the text of one; raises Broken for anything else."""
    if isinstance(value, str):
        return value
    if not isinstance(value, dict | None):
        raise Broken("the upstream's tool call has arguments that are no object", code="upstream_bad_response")
    return encode(value or {}).decode()
