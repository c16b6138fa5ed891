"""The failures of Hugging Face's services: bare texts, mostly."""

from collections.abc import Mapping
from dataclasses import replace

import msgspec

from proxy.simulator.dialect import Page, Problem, choose_problem, retry_after_header
from proxy.simulator.huggingface.request import not_supported
from proxy.simulator.openai.problems import INVALID, error_body

LOADING_SECONDS = 20.0
LOADING = "loading"  # the type of the only problem that tells when to come back
ENGINE = "BadRequestError"  # the type of what vLLM refuses on a dedicated endpoint

_CREDITS = (
    "You have exceeded your monthly included credits for Inference Providers. "
    "Subscribe to PRO to get 20x more monthly included credits."
)
_NAMED: Mapping[str, Problem] = {
    "insufficient_quota": Problem(402, _CREDITS),
    "context_length_exceeded": Problem(
        422, "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8192. Given: 9000", "validation"
    ),
    "content_filter": Problem(400, "The request was refused by the provider's policy."),
    "overloaded": Problem(503, "Service Unavailable", "text"),
    "model_not_found": not_supported("{model}"),
}
_BY_STATUS: Mapping[int, Problem] = {
    401: Problem(401, "Invalid username or password."),
    403: Problem(
        403,
        "This authentication method does not have sufficient permissions to call Inference Providers "
        "on behalf of user simulated",
    ),
    402: _NAMED["insufficient_quota"],
    404: Problem(404, "Not Found", "text"),
    429: Problem(429, "Too Many Requests: you have exceeded your hourly quota."),
    503: Problem(503, "Model {model} is currently loading", LOADING),
}


def find_problem(status: int | None, error: str | None, model: str) -> Problem:
    """Phrase a scripted failure; faults of a provider are forwarded as it wrote them."""
    found = choose_problem(_NAMED, _BY_STATUS, status, error, model)
    if found is not None:
        return found
    if status is not None and status < 500:
        return Problem(status, "The request was refused by the simulation.")
    return Problem(status or 500, "The provider failed to answer.", "server_error")


def write_page(problem: Problem) -> Page:
    """Render a problem as an answer."""
    if problem.type == "text":
        return Page(problem.status, problem.message.encode(), "text/plain; charset=utf-8", retry_after_header(problem))
    headers = {} if problem.type == LOADING else retry_after_header(problem)
    return Page(_status(problem), write_body(problem), headers=headers)


def write_body(problem: Problem) -> bytes:
    """Write the error of a page or of an event."""
    if problem.type == ENGINE:
        return error_body(problem, code=problem.status)
    odd = {"integer_code", "array_error"} & set(problem.quirks)
    if odd or problem.code is not None or problem.type == "server_error":
        return error_body(problem)
    body: dict[str, object] = {"error": problem.message}
    if problem.type == LOADING:
        body["estimated_time"] = problem.retry_after or LOADING_SECONDS
    if problem.type in (INVALID, "validation"):
        body["error_type"] = "validation"
    return msgspec.json.encode(body)


def _status(problem: Problem) -> int:
    """Requests that a provider finds wrong are unprocessable; those that the router does are bad."""
    by_checks = problem.type == INVALID and problem.code != "model_not_supported" and problem.status == 400
    return 422 if by_checks else problem.status


def as_validation(problem: Problem) -> Problem:
    """Forget OpenAI's codes: a provider's validation knows none."""
    checked = problem.type == INVALID and problem.code != "model_not_supported"
    return replace(problem, code=None, param=None) if checked else problem
