"""A Messages API stream as OpenAI chunks.

Source: platform.claude.com, "Streaming Messages"; reference/upstreams.md §5.7.
"""

from collections.abc import Iterator

from proxy.call import Call, Json
from proxy.errors import CutShort
from proxy.framing import NAMED_ERROR, SseFrames, is_json, sse_data
from proxy.openai_format.chunks import ROLE, ChunkBuilder, reasoning, tool_arguments, tool_start
from proxy.openai_format.encoding import encode
from proxy.openai_format.errors import in_stream_error, read_object
from proxy.providers.anthropic.reply import explanation, finish_reason, usage


class MessagesStream:
    """One stream; see `StreamParser`."""

    def __init__(self, call: Call, max_frame_bytes: int) -> None:
        self._call = call
        self._frames = SseFrames(max_frame_bytes)
        self._build = ChunkBuilder(f"chatcmpl-{call.id}", int(call.received_at), call.model)
        self.thinking = self.plain = False
        self._begun = False
        self.ended = False
        self.begun: Json | None = None
        self._counts: Json = {}
        self._told_end = False
        self._stop_reason: str | None = None
        self._refusal: str | None = None
        self._thoughts: dict[int, Json] = {}  # thinking blocks by block index
        self._tools: dict[int, int] = {}  # block index -> tool index
        self._inputs: dict[int, Json] = {}  # of tool blocks for which no fragment has come

    def feed(self, data: bytes) -> Iterator[Json]:
        frames = self._frames.feed(data)
        for frame in frames:
            yield from self._frame(frame)
        self.plain = frames == [data]

    def finish(self) -> Iterator[Json]:
        tail = self._frames.flush()
        if is_json(b"".join(sse_data(tail))):  # only the blank line is missing
            yield from self._frame(tail)
        if not self.ended:
            raise CutShort("the upstream ended its answer early")

    def _frame(self, frame: bytes) -> Iterator[Json]:
        for payload in sse_data(frame):
            if self.ended:
                return
            if NAMED_ERROR.search(frame):
                raise in_stream_error(payload)
            yield from self._event(read_object(payload))

    def _event(self, event: Json) -> Iterator[Json]:
        kind = event.get("type")
        if kind == "message_start":
            yield from self._start(event.get("message") or {})
        elif kind == "content_block_start":
            yield from self._open_block(event.get("index") or 0, event.get("content_block") or {})
        elif kind == "content_block_delta":
            yield from self._delta(event.get("index") or 0, event.get("delta") or {})
        elif kind == "content_block_stop":
            yield from self._close_block(event.get("index") or 0)
        elif kind == "message_delta":
            self._told_end = True
            delta = event.get("delta") or {}
            self._stop_reason = delta.get("stop_reason") or self._stop_reason
            self._refusal = explanation(delta) or self._refusal
            self._count(event.get("usage"))
        elif kind == "message_stop":
            if not self._told_end:
                raise CutShort("the upstream ended its answer without saying how")
            yield from self._stop()

    def _start(self, message: Json) -> Iterator[Json]:
        completion_id = message.get("id") or f"chatcmpl-{self._call.id}"
        self._build = ChunkBuilder(completion_id, int(self._call.received_at), self._call.model)
        self._count(message.get("usage"))
        self.begun = usage(self._counts)
        yield from self._role()

    def _role(self) -> Iterator[Json]:
        if not self._begun:
            self._begun = True
            yield self._build.delta(ROLE)

    def _count(self, counts: Json | None) -> None:
        """Counts are cumulative: the latest of each holds."""
        self._counts |= {name: count for name, count in (counts or {}).items() if count is not None}

    def _open_block(self, index: int, block: Json) -> Iterator[Json]:
        yield from self._role()
        kind = block.get("type")
        if kind == "text" and block.get("text"):
            yield self._build.delta({"content": block["text"]})
        elif kind in ("thinking", "redacted_thinking"):
            self.thinking = True
            self._thoughts[index] = dict(block)
            if block.get("thinking"):
                yield self._build.delta(reasoning(block["thinking"]))
        elif kind == "tool_use":
            number = self._tools[index] = len(self._tools)
            self._inputs[index] = block.get("input") or {}
            yield self._build.delta(tool_start(number, block.get("id") or "", block.get("name") or ""))

    def _delta(self, index: int, delta: Json) -> Iterator[Json]:
        kind = delta.get("type")
        if kind == "text_delta" and delta.get("text"):
            yield self._build.delta({"content": delta["text"]})
        elif kind in ("thinking_delta", "signature_delta"):
            yield from self._think(index, kind.removesuffix("_delta"), delta)
        elif kind == "input_json_delta" and delta.get("partial_json") and index in self._tools:
            self._inputs.pop(index, None)
            yield self._build.delta(tool_arguments(self._tools[index], delta["partial_json"]))

    def _think(self, index: int, field: str, delta: Json) -> Iterator[Json]:
        text = delta.get(field) or ""
        block = self._thoughts.setdefault(index, {"type": "thinking", "thinking": ""})
        block[field] = (block.get(field) or "") + text
        if field == "thinking" and text:
            yield self._build.delta(reasoning(text))

    def _close_block(self, index: int) -> Iterator[Json]:
        if index in self._inputs:
            whole = encode(self._inputs.pop(index)).decode()
            yield self._build.delta(tool_arguments(self._tools[index], whole))

    def _stop(self) -> Iterator[Json]:
        self.ended = True
        yield from self._role()
        for index in sorted(self._inputs):
            yield from self._close_block(index)
        if self._tools and self._thoughts:
            yield self._build.delta({"thinking_blocks": [self._thoughts[index] for index in sorted(self._thoughts)]})
        if self._refusal:
            yield self._build.delta({"refusal": self._refusal})
        yield self._build.finish(finish_reason(self._stop_reason, tools=bool(self._tools)))
        counts = usage(self._counts)
        if counts:
            yield self._build.usage(counts)
