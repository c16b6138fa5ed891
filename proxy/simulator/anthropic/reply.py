"""Write messages, events and errors as the Messages API does."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from proxy.simulator.answers import Answer, Finish, Question
from proxy.simulator.anthropic.request import read_question
from proxy.simulator.behaviour import Behaviour
from proxy.simulator.dialect import (
    Frame,
    Framing,
    Page,
    Problem,
    Refused,
    Stage,
    bearer,
    choose_problem,
    retry_after_header,
)

CREATED = "2026-02-04T00:00:00Z"  # of every listed model

_INVALID = "invalid_request_error"
_NAMED: Mapping[str, Problem] = {
    "insufficient_quota": Problem(
        402, "Your credit balance is too low to access the API. Please purchase credits.", "billing_error"
    ),
    "context_length_exceeded": Problem(400, "prompt is too long: 210000 tokens > 200000 maximum", _INVALID),
    "content_filter": Problem(400, "Output blocked by content filtering policy", _INVALID),
    "overloaded": Problem(529, "Overloaded", "overloaded_error"),
    "model_not_found": Problem(404, "model: {model}", "not_found_error"),
}
_BY_STATUS: Mapping[int, Problem] = {
    400: Problem(400, "The request was refused by the simulation.", _INVALID),
    401: Problem(401, "invalid x-api-key", "authentication_error"),
    402: _NAMED["insufficient_quota"],
    403: Problem(403, "Your API key does not have permission to use the specified resource.", "permission_error"),
    404: _NAMED["model_not_found"],
    409: Problem(409, "The request conflicts with another one.", "conflict_error"),
    413: Problem(413, "Request exceeds the maximum size", "request_too_large"),
    429: Problem(
        429,
        "This request would exceed your organization's rate limit of 50 requests per minute.",
        "rate_limit_error",
        retry_after=1.0,
    ),
    500: Problem(500, "Internal server error", "api_error"),
    504: Problem(504, "The request timed out.", "timeout_error"),
    529: _NAMED["overloaded"],
}
_SPENT = "contract_spend_limit_reached"
_STOP_REASONS: Mapping[Finish, str] = {
    "stop": "end_turn",
    "stop_sequence": "stop_sequence",
    "length": "max_tokens",
    "tool_calls": "tool_use",
}


@dataclass(frozen=True, slots=True)
class Anthropic:
    """Anthropic's Messages API."""

    name: str = "anthropic"
    base_path: str = ""
    chat_paths: frozenset[str] = frozenset({"/v1/messages"})
    framing: Framing = "sse"
    models: tuple[str, ...] = ("claude-haiku-4-5", "claude-opus-4-8")

    def authorize(self, headers: Mapping[str, str], key: str | None) -> None:
        """Raise Refused unless exactly one of the two credentials is sent, and is the key."""
        given = [each for each in (headers.get("x-api-key"), bearer(headers)) if each is not None]
        if len(given) > 1:
            message = "x-api-key and authorization: only one of the two headers may be sent"
            raise Refused(Problem(401, message, "authentication_error"))
        if key is None or given == [key]:
            return
        if not given:
            raise Refused(Problem(401, "x-api-key header is required", "authentication_error"))
        raise Refused(_BY_STATUS[401])

    def read(self, headers: Mapping[str, str], body: bytes) -> Question:
        """Judge a request."""
        return read_question(headers, body)

    def page(self, path: str, models: Sequence[str]) -> Page | None:
        """List the models."""
        if path != "/v1/models":
            return None
        data = [{"type": "model", "id": each, "display_name": each.title(), "created_at": CREATED} for each in models]
        ends = {"first_id": models[0] if models else None, "last_id": models[-1] if models else None}
        return Page(200, msgspec.json.encode({"data": data, "has_more": False, **ends}))

    def lost(self, method: str, path: str, request_id: str) -> Page:
        """Answer a path or a method that does not exist."""
        if path in self.chat_paths:
            return self.problem_page(Problem(405, "Method Not Allowed", _INVALID), request_id)
        return self.problem_page(Problem(404, f"Not found: {method} {path}", "not_found_error"), request_id)

    def problem(self, status: int | None, error: str | None, model: str) -> Problem:
        """Phrase a scripted failure; spent money is a 402, or a 429 with its own detail."""
        if error == "insufficient_quota" and status == 429:
            return Problem(429, "Your organization has reached its spend limit.", "rate_limit_error", code=_SPENT)
        found = choose_problem(_NAMED, _BY_STATUS, status or (None if error else 529), error, model)
        if found is not None:
            return found
        kind = _INVALID if status is not None and status < 500 else "api_error"
        return Problem(status or 500, "The request failed.", kind)

    def problem_page(self, problem: Problem, request_id: str) -> Page:
        """Render a problem as an answer."""
        headers = self.headers(request_id) | retry_after_header(problem)
        return Page(problem.status, _error_body(problem, request_id), headers=headers)

    def problem_frame(self, problem: Problem, request_id: str) -> Frame:
        """Render a problem as an event within a stream."""
        return Frame(_error_body(problem, request_id), "closing", "error")

    def headers(self, request_id: str) -> dict[str, str]:
        """Return the headers of every answer."""
        return {
            "request-id": request_id,
            "anthropic-organization-id": "00000000-0000-4000-8000-000000000000",
            "anthropic-ratelimit-requests-limit": "50",
            "anthropic-ratelimit-requests-remaining": "49",
            "anthropic-ratelimit-requests-reset": "2026-11-18T11:07:40Z",
            "anthropic-ratelimit-tokens-limit": "50000",
            "anthropic-ratelimit-tokens-remaining": "49000",
            "anthropic-ratelimit-tokens-reset": "2026-11-18T11:07:41Z",
        }

    def whole(self, question: Question, answers: Sequence[Answer], behaviour: Behaviour) -> bytes:
        """Render a message."""
        answer = answers[0]
        content: list[dict[str, Any]] = [{"type": "text", "text": answer.text}] if answer.pieces else []
        content += [
            {"type": "tool_use", "id": f"toolu_{call.key}", "name": call.name, "input": call.arguments}
            for call in answer.calls
        ]
        message = _message(question, answer) | {
            "content": content,
            "stop_reason": _stop_reason(answer, behaviour),
            "stop_sequence": answer.stopped_by,
            "usage": _usage(answer, answer.completion_tokens),
        }
        return msgspec.json.encode(message)

    def frames(self, question: Question, answers: Sequence[Answer], behaviour: Behaviour) -> Iterator[Frame]:
        """Render the events of a stream."""
        answer = answers[0]
        start = _message(question, answer) | {
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": _usage(answer, 1),
        }
        yield _event("setup", "message_start", message=start)
        yield _event("setup", "ping")
        yield from _blocks(answer)
        delta = {"stop_reason": _stop_reason(answer, behaviour), "stop_sequence": answer.stopped_by}
        usage = _usage(answer, answer.completion_tokens)
        del usage["service_tier"]
        yield _event("closing", "message_delta", delta=delta, usage=usage)
        yield _event("closing", "message_stop")


def _event(stage: Stage, kind: str, **fields: Any) -> Frame:
    return Frame(msgspec.json.encode({"type": kind, **fields}), stage, kind)


def _blocks(answer: Answer) -> Iterator[Frame]:
    """Yield the blocks of an answer: its text, then each tool call and its fragments."""
    if answer.pieces:
        yield _event("setup", "content_block_start", index=0, content_block={"type": "text", "text": ""})
        for piece in answer.pieces:
            delta = {"type": "text_delta", "text": piece}
            yield _event("content", "content_block_delta", index=0, delta=delta)
        yield _event("setup", "content_block_stop", index=0)
    for index, call in enumerate(answer.calls, start=1 if answer.pieces else 0):
        block = {"type": "tool_use", "id": f"toolu_{call.key}", "name": call.name, "input": {}}
        yield _event("content", "content_block_start", index=index, content_block=block)
        for piece in ("", *(call.pieces if call.arguments else ())):  # the API itself starts with an empty one
            delta = {"type": "input_json_delta", "partial_json": piece}
            yield _event("content" if piece else "setup", "content_block_delta", index=index, delta=delta)
        yield _event("setup", "content_block_stop", index=index)


def _message(question: Question, answer: Answer) -> dict[str, Any]:
    return {"id": f"msg_{answer.key}", "type": "message", "role": "assistant", "model": question.model}


def _stop_reason(answer: Answer, behaviour: Behaviour) -> str:
    return behaviour.finish or _STOP_REASONS[answer.finish]


def _usage(answer: Answer, output: int) -> dict[str, Any]:
    return {
        "input_tokens": answer.prompt_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": output,
        "service_tier": "standard",
    }


def _error_body(problem: Problem, request_id: str) -> bytes:
    error: dict[str, Any] = {"type": problem.type, "message": problem.message}
    if problem.code is not None:
        error["details"] = {"error_code": problem.code}
    return msgspec.json.encode({"type": "error", "error": error, "request_id": request_id})
