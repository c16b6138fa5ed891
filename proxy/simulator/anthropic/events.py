"""Write messages, whole and as events, as the Messages API does."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import msgspec

from proxy.simulator.answers import Answer, Finish, Question
from proxy.simulator.anthropic.question import MessagesQuestion
from proxy.simulator.anthropic.request import read_question
from proxy.simulator.anthropic.thinking import sign
from proxy.simulator.behaviour import Behaviour
from proxy.simulator.dialect import Frame, Framing, Stage

THOUGHTS = ("Let", " me", " think", " about", " it", " 考.")  # where nobody scripted any
REFUSAL = {"type": "refusal", "category": "cyber", "explanation": "The simulation refused to answer."}

_STOP_REASONS: Mapping[Finish, str] = {
    "stop": "end_turn",
    "stop_sequence": "stop_sequence",
    "length": "max_tokens",
    "tool_calls": "tool_use",
}


@dataclass(frozen=True, slots=True)
class Messages:
    """The operation behind /v1/messages."""

    framing: Framing = "sse"

    def read(self, headers: Mapping[str, str], body: bytes) -> Question:
        """Judge a request."""
        return read_question(headers, body)

    def whole(self, question: Question, answers: Sequence[Answer], behaviour: Behaviour) -> bytes:
        """Render a message."""
        write = _Writer(cast(MessagesQuestion, question), answers[0], behaviour)
        return msgspec.json.encode(write.message() | {"content": write.content(), **write.ending(), **write.usage()})

    def frames(self, question: Question, answers: Sequence[Answer], behaviour: Behaviour) -> Iterator[Frame]:
        """Render the events of a stream."""
        return _Writer(cast(MessagesQuestion, question), answers[0], behaviour).frames()


class _Writer:
    """Writes the answer to one question."""

    def __init__(self, question: MessagesQuestion, answer: Answer, behaviour: Behaviour) -> None:
        self._question = question
        self._answer = answer
        self._behaviour = behaviour
        self._thoughts = (answer.thoughts or THOUGHTS) if question.thinks else ()

    def message(self) -> dict[str, Any]:
        """Return what a message begins with."""
        model = self._question.model
        return {"id": f"msg_{self._answer.key}", "type": "message", "role": "assistant", "model": model}

    def content(self) -> list[dict[str, Any]]:
        """Return the blocks: thoughts, text, tool uses."""
        answer = self._answer
        content: list[dict[str, Any]] = []
        if self._thoughts:
            content.append({"type": "thinking", "thinking": self._shown(), "signature": self._signature()})
        if answer.pieces:
            content.append({"type": "text", "text": answer.text})
        content += [
            {"type": "tool_use", "id": f"toolu_{call.key}", "name": call.name, "input": call.arguments}
            for call in answer.calls
        ]
        return content

    def ending(self) -> dict[str, Any]:
        """Say why the message ended."""
        reason = self._behaviour.finish or _STOP_REASONS[self._answer.finish]
        ending: dict[str, Any] = {"stop_reason": reason, "stop_sequence": self._answer.stopped_by}
        return ending | ({"stop_details": REFUSAL} if reason == "refusal" else {})

    def usage(self, output: int | None = None) -> dict[str, Any]:
        """Count tokens; those of the cache are not among the input's. Nothing, if the behaviour wants none."""
        if self._behaviour.usage == "none":
            return {}
        answer, question = self._answer, self._question
        invented = 0 if answer.thoughts else len(self._thoughts)
        usage: dict[str, Any] = {
            "input_tokens": max(0, answer.prompt_tokens - question.written - question.read),
            "cache_creation_input_tokens": question.written,
            "cache_read_input_tokens": question.read,
            "output_tokens": answer.completion_tokens + invented if output is None else output,
            "service_tier": "standard",
        }
        if self._thoughts:
            usage["output_tokens_details"] = {"thinking_tokens": len(self._thoughts)}
        return {"usage": usage}

    def frames(self) -> Iterator[Frame]:
        """Yield all events, in the documented order."""
        start = self.message() | {"content": [], "stop_reason": None, "stop_sequence": None, **self.usage(1)}
        yield _event("setup", "message_start", message=start)
        yield _event("setup", "ping")
        yield from self._thinking_events()
        index = 1 if self._thoughts else 0
        if self._answer.pieces:
            yield from _text_events(index, self._answer.pieces)
            index += 1
        yield from self._call_events(index)
        usage = self.usage()
        usage.get("usage", {}).pop("service_tier", None)
        yield _event("closing", "message_delta", delta=self.ending(), **usage)
        yield _event("closing", "message_stop")

    def _thinking_events(self) -> Iterator[Frame]:
        if not self._thoughts:
            return
        block = {"type": "thinking", "thinking": "", "signature": ""}
        yield _event("setup", "content_block_start", index=0, content_block=block)
        for piece in self._thoughts if self._question.shown else ():
            delta = {"type": "thinking_delta", "thinking": piece}
            yield _event("content", "content_block_delta", index=0, delta=delta)
        delta = {"type": "signature_delta", "signature": self._signature()}
        yield _event("setup", "content_block_delta", index=0, delta=delta)
        yield _event("setup", "content_block_stop", index=0)

    def _call_events(self, first: int) -> Iterator[Frame]:
        for index, call in enumerate(self._answer.calls, start=first):
            block = {"type": "tool_use", "id": f"toolu_{call.key}", "name": call.name, "input": {}}
            yield _event("content", "content_block_start", index=index, content_block=block)
            for piece in ("", *(call.pieces if call.arguments else ())):  # the API itself starts with an empty one
                delta = {"type": "input_json_delta", "partial_json": piece}
                yield _event("content" if piece else "setup", "content_block_delta", index=index, delta=delta)
            yield _event("setup", "content_block_stop", index=index)

    def _shown(self) -> str:
        return "".join(self._thoughts) if self._question.shown else ""

    def _signature(self) -> str:
        return sign(self._question.model, self._shown(), self._question.place)


def _text_events(index: int, pieces: Sequence[str]) -> Iterator[Frame]:
    yield _event("setup", "content_block_start", index=index, content_block={"type": "text", "text": ""})
    for piece in pieces:
        yield _event("content", "content_block_delta", index=index, delta={"type": "text_delta", "text": piece})
    yield _event("setup", "content_block_stop", index=index)


def _event(stage: Stage, kind: str, **fields: Any) -> Frame:
    return Frame(msgspec.json.encode({"type": kind, **fields}), stage, kind)
