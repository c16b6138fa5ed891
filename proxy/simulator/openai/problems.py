"""The failures of the OpenAI API, in its words."""

from collections.abc import Mapping
from typing import Any

import msgspec

from proxy.simulator.dialect import Problem, choose_problem

INVALID = "invalid_request_error"
_MISSING = Problem(
    404,
    "The model `{model}` does not exist or you do not have access to it.",
    INVALID,
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
        INVALID,
        "messages",
        "context_length_exceeded",
    ),
    "content_filter": Problem(
        400,
        "The response was filtered due to the prompt triggering the content management policy.",
        INVALID,
        "prompt",
        "content_filter",
    ),
    "overloaded": Problem(503, "The engine is currently overloaded, please try again later.", "server_error"),
    "model_not_found": _MISSING,
}
_BROKEN = "The server had an error while processing your request. Sorry about that!"
BY_STATUS: Mapping[int, Problem] = {
    401: Problem(401, "Incorrect API key provided: sk-*****.", INVALID, code="invalid_api_key"),
    402: Problem(402, "Your billing details need attention.", "insufficient_quota", code="billing_required"),
    403: Problem(
        403,
        "Country, region, or territory not supported",
        "request_forbidden",
        code="unsupported_country_region_territory",
    ),
    404: _MISSING,
    413: Problem(413, "The request is too large.", INVALID, code="request_too_large"),
    429: Problem(
        429,
        "Rate limit reached for {model} on requests per min (RPM): Limit 500, Used 500, Requested 1.",
        "requests",
        code="rate_limit_exceeded",
        retry_after=1.0,
    ),
    503: _NAMED["overloaded"],
}


def phrase(status: int | None, error: str | None, model: str) -> Problem:
    """Phrase a scripted failure."""
    found = choose_problem(_NAMED, BY_STATUS, status, error, model)
    if found is not None:
        return found
    if status is not None and status < 500:
        return Problem(status, "The request was refused by the simulation.", INVALID)
    return Problem(status or 500, _BROKEN, "server_error")


def error_body(problem: Problem, code: Any = None) -> bytes:
    """Write the error object, with the oddities of other servers; `code` is theirs."""
    error: Any = {
        "message": problem.message,
        "type": problem.type,
        "param": problem.param,
        "code": problem.status if "integer_code" in problem.quirks else (code or problem.code),
    }
    body = {"error": problem.message if "bare_error" in problem.quirks else error}
    return msgspec.json.encode([body] if "array_error" in problem.quirks else body)
