"""A stream on the normalised wire: the quirks of OpenAI's imitators repaired.

Source: reference/upstreams.md §2.8, §4.7 and the test vectors 7-13, 18, 19.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from proxy.call import Call, Json
from proxy.errors import Broken, CutShort
from proxy.framing import NAMED_ERROR, SseFrames, is_json, sse_data
from proxy.openai_format.chunks import ROLE, ChunkBuilder, reasoning, tool_arguments, tool_start
from proxy.openai_format.errors import in_stream_error, read_object
from proxy.openai_format.shapes import name_or, time_or
from proxy.providers.openai.reply import (
    AS_OPENAI,
    TEXTS,
    Repairs,
    arguments,
    complete_logprobs,
    complete_usage,
    finish_reason,
    read_text,
)

_KEPT = ("system_fingerprint", "service_tier")


@dataclass(slots=True)
class _Tool:
    """A tool call, and what of its arguments has not been passed on."""

    id: str
    name: str = ""
    arguments: str = ""
    said: str = ""  # all of the arguments so far
    started: bool = False


@dataclass(slots=True)
class _Choice:
    """What has been said of one choice so far."""

    finished: bool = False
    tools: list[_Tool] = field(default_factory=list)
    by_id: dict[str, int] = field(default_factory=dict)
    by_index: dict[int | None, int] = field(default_factory=dict)


class NormalisedStream:
    """One stream; see `StreamParser`."""

    thinking = False
    begun = None

    def __init__(self, call: Call, max_frame_bytes: int, repairs: Repairs = AS_OPENAI) -> None:
        self._call = call
        self._repairs = repairs
        self._frames = SseFrames(max_frame_bytes)
        self._builder: ChunkBuilder | None = None
        self._choices: dict[int, _Choice] = {}
        self._usage: Json | None = None
        self.ended = self.plain = False
        self._goes_on = False  # what was last read ended no choice, and added to no tool call

    def feed(self, data: bytes) -> Iterator[Json]:
        frames = self._frames.feed(data)
        for frame in frames:
            for payload in sse_data(frame):
                if not self.ended and NAMED_ERROR.search(frame):
                    raise in_stream_error(payload)
                if not self.ended:
                    yield from self._read(payload)
        self.plain = self._goes_on and frames == [data]

    def finish(self) -> Iterator[Json]:
        for payload in sse_data(self._frames.flush()):
            if not self.ended:
                yield from self._read(payload)
        if not self.ended:
            yield from self._end()

    def _read(self, payload: bytes) -> Iterator[Json]:
        self._goes_on = True
        if payload.strip().startswith(b"[DONE]"):
            yield from self._end()
            return
        chunk = read_object(payload)
        kept = {name: chunk[name] for name in _KEPT if chunk.get(name)}
        counts = complete_usage(chunk.get("usage"))
        if counts:
            self._usage = {"usage": counts, **kept}
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            for made in self._read_choice(chunk, choice):
                yield {**made, **kept}
            if choice.get("finish_reason") or (choice.get("delta") or {}).get("tool_calls"):
                self._goes_on = False

    def _end(self) -> Iterator[Json]:
        self.ended = True
        if self._builder is None or not all(choice.finished for choice in self._choices.values()):
            raise CutShort("the upstream ended its answer early")
        if self._usage:
            yield {**self._builder.usage({}), **self._usage}

    def _read_choice(self, chunk: Json, choice: Json) -> Iterator[Json]:
        delta, reason = choice.get("delta") or {}, choice.get("finish_reason") or None
        if not delta and reason is None:
            return
        index = choice.get("index") or 0
        build = self._build(chunk)
        state = self._choices.get(index)
        if state is None:
            state = self._choices[index] = _Choice()
            yield build.delta(ROLE, index=index)
        if state.finished:
            return
        plain = {name: value for name, value in delta.items() if name not in ("role", "tool_calls") and value}
        plain |= {name: read_text(plain[name]) for name in TEXTS if name in plain}
        thoughts = plain.get("reasoning") or plain.get("reasoning_content")
        if thoughts:
            plain |= reasoning(thoughts)
        if plain:
            yield build.delta(plain, index=index, **self._logprobs(choice))
        for fragment in delta.get("tool_calls") or ():
            for piece in self._read_tool(state, fragment):
                yield build.delta(piece, index=index)
        if reason:
            if not all(tool.started for tool in state.tools):
                raise Broken("the upstream sent a tool call without a name", code="upstream_bad_response")
            state.finished = True
            called = self._repairs.tool_finish and bool(state.tools)
            yield build.finish(finish_reason(reason, tools=called), index=index)

    def _logprobs(self, choice: Json) -> Json:
        logprobs = choice.get("logprobs")
        if not logprobs:
            return {}
        return {"logprobs": complete_logprobs(logprobs) if self._repairs.logprobs else logprobs}

    def _build(self, chunk: Json) -> ChunkBuilder:
        if self._builder is None:
            self._builder = ChunkBuilder(
                name_or(chunk.get("id"), f"chatcmpl-{self._call.id}"),
                time_or(chunk.get("created"), self._call.received_at),
                self._call.model,
            )
        return self._builder

    def _read_tool(self, state: _Choice, fragment: Json) -> Iterator[Json]:
        """A tool call is known by its id; by its index only when it has none; its start waits for its name."""
        function = fragment.get("function") or {}
        number = self._number(state, fragment)
        tool = state.tools[number]
        tool.name += function.get("name") or "" if not tool.started else ""
        fragment_text = arguments(function.get("arguments"))
        tool.arguments += fragment_text
        tool.said += fragment_text
        if not tool.started and tool.name:
            tool.started = True
            yield tool_start(number, tool.id, tool.name)
        if tool.started and tool.arguments:
            yield tool_arguments(number, tool.arguments)
            tool.arguments = ""

    def _number(self, state: _Choice, fragment: Json) -> int:
        call_id, index = name_or(fragment.get("id"), ""), fragment.get("index")
        number = state.by_id.get(call_id) if call_id else None if index is None else state.by_index.get(index)
        if number is None and not call_id and index is None and state.tools:
            begins = (fragment.get("function") or {}).get("name") and is_json(state.tools[-1].said.encode())
            number = None if begins else len(state.tools) - 1
        if number is None:
            number = len(state.tools)
            spare_id = f"call_{self._call.id}_{number}"
            state.tools.append(_Tool(spare_id if self._repairs.fresh_tool_ids else call_id or spare_id))
            state.by_id[call_id or spare_id] = number
        if isinstance(index, int):
            state.by_index[index] = number
        return number
