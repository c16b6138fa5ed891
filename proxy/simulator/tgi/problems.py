"""What TGI fails with, and where it says so: most failures of a stream come as an event with status 200."""

from collections.abc import Mapping
from dataclasses import replace

import msgspec

from proxy.simulator.dialect import Frame, Page, Problem, choose_problem, retry_after_header
from proxy.simulator.tgi.checks import BODY

UNAUTHORIZED = Problem(401, "", "unauthorized")
NATIVE = "native"  # the code of problems met by the native endpoints, which tell them in their own shape

_PLAIN = "text/plain; charset=utf-8"
_BEFORE_STREAMS = frozenset({BODY, "unauthorized", "template_error", "tool_error", "healthcheck"})
_OVERLOADED = Problem(429, "Model is overloaded", "overloaded")
_FAILED = Problem(424, "Request failed during generation: Server error: CUDA out of memory", "generation")
_TOO_LONG = (
    "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. "
    "Given: 4000 `inputs` tokens and 1024 `max_new_tokens`"
)
_NAMED: Mapping[str, Problem] = {
    "insufficient_quota": _OVERLOADED,
    "context_length_exceeded": Problem(422, _TOO_LONG, "validation"),
    "content_filter": Problem(422, "Input validation error: the prompt was refused", "validation"),
    "overloaded": _OVERLOADED,
    "model_not_found": Problem(424, "Request failed during generation: Adapter {model} is not loaded", "generation"),
}
_BY_STATUS: Mapping[int, Problem] = {
    401: UNAUTHORIZED,
    422: Problem(422, "Input validation error: refused by the simulation", "validation"),
    424: _FAILED,
    429: _OVERLOADED,
    500: Problem(500, "Incomplete generation", "incomplete_generation"),
    503: Problem(503, "unhealthy", "healthcheck"),
}


def find_problem(status: int | None, error: str | None, model: str) -> Problem:
    """Phrase a failure; a model that is a path stands for the native endpoint there."""
    found = choose_problem(_NAMED, _BY_STATUS, status, error, model)
    if found is None:
        found = replace(_FAILED, status=status or _FAILED.status)
    return place(found, model)


def place(problem: Problem, model: str) -> Problem:
    """Say where a problem is told: before the stream or in it, and in whose shape."""
    code = NATIVE if model.startswith("/") else None
    return replace(problem, in_stream=problem.type not in _BEFORE_STREAMS, code=code)


def write_page(problem: Problem) -> Page:
    """Render a problem as an answer.

    Source: text-generation-inference, router/src/server.rs, From<InferError>.
    """
    headers = retry_after_header(problem)
    if problem.type == "unauthorized":
        return Page(problem.status, b"", _PLAIN, headers)
    if problem.type == BODY:
        return Page(problem.status, problem.message.encode(), _PLAIN, headers)
    return Page(problem.status, _own_shape(problem), headers=headers)


def write_frame(problem: Problem) -> Frame:
    """Render a problem as an event; only the OpenAI layer says [DONE] after it.

    Source: text-generation-inference, router/src/server.rs, InferError::into_openai_event.
    """
    if problem.code == NATIVE:
        return Frame(_own_shape(problem), "closing")
    error = {"message": problem.message, "http_status_code": problem.status}
    return Frame(msgspec.json.encode({"error": error}), "closing", then=Frame(b"[DONE]", "closing"))


def _own_shape(problem: Problem) -> bytes:
    return msgspec.json.encode({"error": problem.message, "error_type": problem.type})
