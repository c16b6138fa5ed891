"""Native chats: what goes in, and how the answer is written whole or in lines."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import msgspec

from proxy.simulator.answers import Answer, Question
from proxy.simulator.behaviour import Behaviour
from proxy.simulator.dialect import Frame, Framing
from proxy.simulator.ollama.request import ChatQuestion, read_question
from proxy.simulator.openai.logprobs import chat_logprob

CREATED = "2026-11-18T11:06:40"  # the second in which everything is created
TOKEN_NANOSECONDS = 20_000_000  # what the durations claim for each token
THOUGHTS = ("Let", " me", " see.")  # where thoughts were asked for, and nobody scripted any


@dataclass(frozen=True, slots=True)
class Chat:
    """The operation behind /api/chat."""

    framing: Framing = "ndjson"

    def read(self, headers: Mapping[str, str], body: bytes) -> Question:  # noqa: ARG002 - no header matters
        """Judge a request."""
        return read_question(body)

    def whole(self, question: Question, answers: Sequence[Answer], behaviour: Behaviour) -> bytes:
        """Render the answer in one object."""
        answer = answers[0]
        thoughts = _thoughts(question, answer)
        message: dict[str, Any] = {"role": "assistant", "content": answer.text}
        if thoughts:
            message["thinking"] = "".join(thoughts)
        if answer.calls:
            message["tool_calls"] = [_call(answer, index) for index in range(len(answer.calls))]
        logprobs = _logprobs(question, answer.pieces)
        body = _line(question, 0, message) | logprobs | _ending(question, answer, behaviour)
        return msgspec.json.encode(body)

    def frames(self, question: Question, answers: Sequence[Answer], behaviour: Behaviour) -> Iterator[Frame]:
        """Render the lines of a stream."""
        answer = answers[0]
        lines: list[dict[str, Any]] = [{"content": "", "thinking": piece} for piece in _thoughts(question, answer)]
        lines += [{"content": piece} for piece in answer.pieces]
        lines += [{"content": "", "tool_calls": [_call(answer, index)]} for index in range(len(answer.calls))]
        for index, message in enumerate(lines):
            line = _line(question, index, {"role": "assistant", **message}) | {"done": False}
            said = [message["content"]] if message["content"] else []
            yield Frame(msgspec.json.encode(line | _logprobs(question, said)), "content")
        last = _line(question, len(lines), {"role": "assistant", "content": ""})
        yield Frame(msgspec.json.encode(last | _ending(question, answer, behaviour)), "closing")


def _thoughts(question: Question, answer: Answer) -> tuple[str, ...]:
    """Return what is thought: nothing if that was declined, something if it was asked for."""
    think = cast(ChatQuestion, question).think
    if think is False:
        return ()
    return answer.thoughts or (THOUGHTS if think else ())


def _logprobs(question: Question, pieces: Sequence[str]) -> dict[str, Any]:
    if not question.logprobs or not pieces:
        return {}
    return {"logprobs": [chat_logprob(piece, question.top_logprobs) for piece in pieces]}


def _line(question: Question, index: int, message: dict[str, Any]) -> dict[str, Any]:
    nanoseconds = (index * TOKEN_NANOSECONDS + 123_456_789) % 1_000_000_000
    created = f"{CREATED}.{nanoseconds:09d}Z"
    return {"model": question.model, "created_at": created, "message": message}


def _ending(question: Question, answer: Answer, behaviour: Behaviour) -> dict[str, Any]:
    """Say how and how long; an empty conversation only loads the model.

    Source: ollama, server/routes.go, ChatHandler.
    """
    reason = behaviour.finish or ("length" if answer.finish == "length" else "stop")
    if not question.turns:
        return {"done": True, "done_reason": behaviour.finish or "load"}
    spent = answer.completion_tokens * TOKEN_NANOSECONDS
    if behaviour.usage == "none":
        return {"done": True, "done_reason": reason}
    return {
        "done": True,
        "done_reason": reason,
        "total_duration": spent + 150_000_000,
        "load_duration": 100_000_000,
        "prompt_eval_count": answer.prompt_tokens,
        "prompt_eval_duration": 50_000_000,
        "eval_count": answer.completion_tokens,
        "eval_duration": spent,
    }


def _call(answer: Answer, index: int) -> dict[str, Any]:
    """Write a tool call; its index is always 0, as that of many released versions is."""
    call = answer.calls[index]
    function = {"index": 0, "name": call.name, "arguments": call.arguments}
    return {"id": f"call_{call.key[:8]}", "function": function}
