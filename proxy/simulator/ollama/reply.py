"""Write answers, lines and errors as Ollama does."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from proxy.simulator.answers import Answer, Question
from proxy.simulator.behaviour import Behaviour
from proxy.simulator.dialect import (
    Frame,
    Framing,
    Page,
    Problem,
    Refused,
    bearer,
    choose_problem,
    retry_after_header,
)
from proxy.simulator.ollama.request import read_question

VERSION = "0.12.6"
CREATED = "2026-11-18T11:06:40"  # the second in which everything is created
TOKEN_NANOSECONDS = 20_000_000  # what the durations claim for each token

_NAMED: Mapping[str, Problem] = {
    "insufficient_quota": Problem(402, "you have reached your usage limit, please upgrade to continue"),
    "context_length_exceeded": Problem(400, "the prompt is longer than the context length of the model"),
    "content_filter": Problem(400, "the prompt was refused by policy"),
    "overloaded": Problem(503, "server busy, please try again.  maximum pending requests exceeded"),
    "model_not_found": Problem(404, "model '{model}' not found"),
}
_BY_STATUS: Mapping[int, Problem] = {
    401: Problem(401, "unauthorized"),
    403: Problem(403, "this model is disabled"),
    404: _NAMED["model_not_found"],
    413: Problem(413, "http: request body too large"),
    429: Problem(429, "too many requests", retry_after=1.0),
    503: _NAMED["overloaded"],
}
_CRASH = "llama runner process has terminated: exit status 2"
_PLAIN = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Ollama:
    """Ollama's native API."""

    name: str = "ollama"
    base_path: str = ""
    chat_paths: frozenset[str] = frozenset({"/api/chat"})
    framing: Framing = "ndjson"
    models: tuple[str, ...] = ("qwen3:latest", "llama3.2:latest")

    def authorize(self, headers: Mapping[str, str], key: str | None) -> None:
        """Raise Refused unless the Bearer token is the key."""
        if key is not None and bearer(headers) != key:
            raise Refused(_BY_STATUS[401])

    def read(self, headers: Mapping[str, str], body: bytes) -> Question:  # noqa: ARG002 - no header matters
        """Judge a request."""
        return read_question(body)

    def page(self, path: str, models: Sequence[str]) -> Page | None:
        """Answer the health check, the version and the list of models."""
        if path in ("", "/"):
            return Page(200, b"Ollama is running", _PLAIN)
        if path == "/api/version":
            return Page(200, msgspec.json.encode({"version": VERSION}))
        if path == "/api/tags":
            return Page(200, msgspec.json.encode({"models": [_tag(each) for each in models]}))
        return None

    def lost(self, method: str, path: str, request_id: str) -> Page:  # noqa: ARG002 - the real server does not name it
        """Answer a path or a method that does not exist."""
        if path in self.chat_paths:
            return Page(405, b"405 method not allowed", _PLAIN)
        return Page(404, b"404 page not found", _PLAIN)

    def problem(self, status: int | None, error: str | None, model: str) -> Problem:
        """Phrase a scripted failure."""
        found = choose_problem(_NAMED, _BY_STATUS, status, error, model)
        if found is not None:
            return found
        if status is not None and status < 500:
            return Problem(status, "the request was refused by the simulation")
        return Problem(status or 500, _CRASH)

    def problem_page(self, problem: Problem, request_id: str) -> Page:  # noqa: ARG002 - it has no such header
        """Render a problem as an answer."""
        return Page(problem.status, _error_body(problem), headers=retry_after_header(problem))

    def problem_frame(self, problem: Problem, request_id: str) -> Frame:  # noqa: ARG002 - it has no such field
        """Render a problem as a line within a stream."""
        return Frame(_error_body(problem), "closing")

    def headers(self, request_id: str) -> dict[str, str]:  # noqa: ARG002 - it has no such header
        """Return the headers of every answer: none of its own."""
        return {}

    def whole(self, question: Question, answers: Sequence[Answer], behaviour: Behaviour) -> bytes:
        """Render the answer in one object."""
        answer = answers[0]
        message: dict[str, Any] = {"role": "assistant", "content": answer.text}
        if answer.calls:
            message["tool_calls"] = [_call(answer, index) for index in range(len(answer.calls))]
        body = _line(question, 0, message) | _ending(question, answer, behaviour)
        return msgspec.json.encode(body)

    def frames(self, question: Question, answers: Sequence[Answer], behaviour: Behaviour) -> Iterator[Frame]:
        """Render the lines of a stream."""
        answer = answers[0]
        messages: list[dict[str, Any]] = [{"content": piece} for piece in answer.pieces]
        messages += [{"content": "", "tool_calls": [_call(answer, index)]} for index in range(len(answer.calls))]
        for index, message in enumerate(messages):
            line = _line(question, index, {"role": "assistant", **message}) | {"done": False}
            yield Frame(msgspec.json.encode(line), "content")
        last = _line(question, len(messages), {"role": "assistant", "content": ""})
        yield Frame(msgspec.json.encode(last | _ending(question, answer, behaviour)), "closing")


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


def _tag(model: str) -> dict[str, Any]:
    return {
        "name": model,
        "model": model,
        "modified_at": f"{CREATED}.123456789Z",
        "size": 2_019_393_189,
        "digest": "a80c4f17acd55265feec403c7aef86be0c25983ab279d83f3bcd3abbcb5b8b72",
        "details": {
            "parent_model": "",
            "format": "gguf",
            "family": "llama",
            "families": ["llama"],
            "parameter_size": "3.2B",
            "quantization_level": "Q4_K_M",
        },
    }


def _error_body(problem: Problem) -> bytes:
    return msgspec.json.encode({"error": problem.message})
