"""Write completions, chunks and errors as the OpenAI API does."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from proxy.simulator.answers import Answer, Question
from proxy.simulator.behaviour import Behaviour
from proxy.simulator.dialect import (
    EPOCH,
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
from proxy.simulator.openai.request import read_question

_INVALID = "invalid_request_error"
_MISSING = Problem(
    404,
    "The model `{model}` does not exist or you do not have access to it.",
    _INVALID,
    code="model_not_found",
)
_NAMED: Mapping[str, Problem] = {
    "insufficient_quota": Problem(
        429,
        "You exceeded your current quota, please check your plan and billing details.",
        "insufficient_quota",
        code="insufficient_quota",
    ),
    "context_length_exceeded": Problem(
        400,
        "This model's maximum context length is 128000 tokens. However, your messages resulted in 131072 "
        "tokens. Please reduce the length of the messages.",
        _INVALID,
        "messages",
        "context_length_exceeded",
    ),
    "content_filter": Problem(
        400,
        "The response was filtered due to the prompt triggering the content management policy.",
        _INVALID,
        "prompt",
        "content_filter",
    ),
    "overloaded": Problem(503, "The engine is currently overloaded, please try again later.", "server_error"),
    "model_not_found": _MISSING,
}
_BROKEN = "The server had an error while processing your request. Sorry about that!"
_BY_STATUS: Mapping[int, Problem] = {
    401: Problem(401, "Incorrect API key provided: sk-*****.", _INVALID, code="invalid_api_key"),
    402: Problem(402, "Your billing details need attention.", "insufficient_quota", code="billing_required"),
    403: Problem(
        403,
        "Country, region, or territory not supported",
        "request_forbidden",
        code="unsupported_country_region_territory",
    ),
    404: _MISSING,
    413: Problem(413, "The request is too large.", _INVALID, code="request_too_large"),
    429: Problem(
        429,
        "Rate limit reached for {model} on requests per min (RPM): Limit 500, Used 500, Requested 1.",
        "requests",
        code="rate_limit_exceeded",
        retry_after=1.0,
    ),
    503: _NAMED["overloaded"],
}
FinishReason = str


@dataclass(frozen=True, slots=True)
class OpenAI:
    """The OpenAI API; compatible servers are built by changing these values."""

    name: str = "openai"
    base_path: str = "/v1"
    chat_paths: frozenset[str] = frozenset({"/v1/chat/completions", "/chat/completions"})
    framing: Framing = "sse"
    models: tuple[str, ...] = ("gpt-4o-mini", "gpt-5-mini")

    def authorize(self, headers: Mapping[str, str], key: str | None) -> None:
        """Raise Refused unless the Bearer token is the key."""
        if key is None or bearer(headers) == key:
            return
        if bearer(headers) is None:
            message = "You didn't provide an API key. Use the Authorization header with Bearer auth."
            raise Refused(Problem(401, message, _INVALID))
        raise Refused(_BY_STATUS[401])

    def read(self, headers: Mapping[str, str], body: bytes) -> Question:
        """Judge a request."""
        return read_question(headers, body)

    def page(self, path: str, models: Sequence[str]) -> Page | None:
        """List the models."""
        if path not in ("/v1/models", "/models"):
            return None
        data = [{"id": each, "object": "model", "created": EPOCH, "owned_by": "system"} for each in models]
        return Page(200, msgspec.json.encode({"object": "list", "data": data}))

    def lost(self, method: str, path: str, request_id: str) -> Page:
        """Answer a path or a method that does not exist."""
        if path in self.chat_paths:
            return self.problem_page(Problem(405, f"Invalid method for URL ({method} {path})", _INVALID), request_id)
        return self.problem_page(Problem(404, f"Invalid URL ({method} {path})", _INVALID), request_id)

    def problem(self, status: int | None, error: str | None, model: str) -> Problem:
        """Phrase a scripted failure."""
        found = choose_problem(_NAMED, _BY_STATUS, status, error, model)
        if found is not None:
            return found
        if status is not None and status < 500:
            return Problem(status, "The request was refused by the simulation.", _INVALID)
        return Problem(status or 500, _BROKEN, "server_error")

    def problem_page(self, problem: Problem, request_id: str) -> Page:
        """Render a problem as an answer."""
        headers = self.headers(request_id) | retry_after_header(problem)
        return Page(problem.status, _error_body(problem), headers=headers)

    def problem_frame(self, problem: Problem, request_id: str) -> Frame:  # noqa: ARG002 - other dialects name it
        """Render a problem as an event within a stream."""
        return Frame(_error_body(problem), "closing")

    def headers(self, request_id: str) -> dict[str, str]:
        """Return the headers of every answer."""
        return {
            "x-request-id": request_id,
            "openai-processing-ms": "12",
            "openai-version": "2020-10-01",
            "x-ratelimit-limit-requests": "500",
            "x-ratelimit-remaining-requests": "499",
            "x-ratelimit-reset-requests": "120ms",
        }

    def whole(self, question: Question, answers: Sequence[Answer], behaviour: Behaviour) -> bytes:
        """Render a chat completion."""
        body = _envelope(question, answers, "chat.completion") | {
            "choices": [_choice(index, question, answer, behaviour) for index, answer in enumerate(answers)],
            "usage": _usage(answers),
        }
        return msgspec.json.encode(body)

    def frames(self, question: Question, answers: Sequence[Answer], behaviour: Behaviour) -> Iterator[Frame]:
        """Render the chunks of a stream; those of several choices take turns."""
        write = _ChunkWriter(question, answers, behaviour)
        for index in range(len(answers)):
            yield write.chunk("setup", index, {"role": "assistant", "content": "", "refusal": None})
        streams = {index: _deltas(answer) for index, answer in enumerate(answers)}
        while streams:
            for index, deltas in list(streams.items()):
                delta = next(deltas, None)
                if delta is None:
                    del streams[index]
                else:
                    yield write.chunk("content", index, delta)
        for index, answer in enumerate(answers):
            yield write.chunk("closing", index, {}, finish_reason(question, answer, behaviour))
        if question.include_usage and behaviour.usage == "normal":
            yield write.usage()
        yield Frame(b"[DONE]", "closing")


class _ChunkWriter:
    """Writes the chunks of one stream; the part they share is made once."""

    def __init__(self, question: Question, answers: Sequence[Answer], behaviour: Behaviour) -> None:
        self._envelope = _envelope(question, answers, "chat.completion.chunk")
        self._answers = answers
        self._nulls = {"usage": None} if question.include_usage and behaviour.usage == "normal" else {}
        self._on_finish = behaviour.usage == "finish_chunk"

    def chunk(self, stage: Stage, index: int, delta: dict[str, Any], finish: FinishReason | None = None) -> Frame:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        usage = {"usage": _usage(self._answers)} if finish is not None and self._on_finish else self._nulls
        return Frame(msgspec.json.encode({**self._envelope, "choices": [choice], **usage}), stage)

    def usage(self) -> Frame:
        body = {**self._envelope, "choices": [], "usage": _usage(self._answers)}
        return Frame(msgspec.json.encode(body), "closing")


def finish_reason(question: Question, answer: Answer, behaviour: Behaviour) -> FinishReason:
    """Name how an answer ended; a named tool ends with stop, as the real API's does."""
    if behaviour.finish is not None:
        return behaviour.finish
    if answer.finish == "stop_sequence" or (answer.finish == "tool_calls" and question.tool_choice == "named"):
        return "stop"
    return answer.finish


def _envelope(
    question: Question, answers: Sequence[Answer], kind: Literal["chat.completion", "chat.completion.chunk"]
) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{answers[0].key}",
        "object": kind,
        "created": EPOCH,
        "model": question.model,
        "service_tier": "default",
        "system_fingerprint": "fp_simulated",
    }


def _choice(index: int, question: Question, answer: Answer, behaviour: Behaviour) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": answer.text if answer.pieces or not answer.calls else None,
        "refusal": None,
        "annotations": [],
    }
    if answer.calls:
        message["tool_calls"] = [
            {
                "id": f"call_{call.key}",
                "type": "function",
                "function": {"name": call.name, "arguments": "".join(call.pieces)},
            }
            for call in answer.calls
        ]
    finish = finish_reason(question, answer, behaviour)
    return {"index": index, "message": message, "logprobs": None, "finish_reason": finish}


def _deltas(answer: Answer) -> Iterator[dict[str, Any]]:
    """Yield the content of an answer: text first, then each tool call and its fragments."""
    for piece in answer.pieces:
        yield {"content": piece}
    for index, call in enumerate(answer.calls):
        start = {"name": call.name, "arguments": ""}
        yield {"tool_calls": [{"index": index, "id": f"call_{call.key}", "type": "function", "function": start}]}
        for piece in call.pieces:
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


def _usage(answers: Sequence[Answer]) -> dict[str, Any]:
    prompt = answers[0].prompt_tokens
    completion = sum(answer.completion_tokens for answer in answers)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _error_body(problem: Problem) -> bytes:
    error = {
        "message": problem.message,
        "type": problem.type,
        "param": problem.param,
        "code": problem.code,
    }
    return msgspec.json.encode({"error": error})
