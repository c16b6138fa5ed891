"""Anthropic's API as a whole: who may call, where, and how refusals and failures look."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from proxy.simulator.anthropic.events import Messages
from proxy.simulator.dialect import (
    Frame,
    Operation,
    Page,
    Problem,
    Refused,
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
_LIMITS: Mapping[str, str] = {
    f"anthropic-ratelimit-{what}-{name}": value
    for what, limit in (("requests", 50), ("tokens", 50_000), ("input-tokens", 40_000), ("output-tokens", 10_000))
    for name, value in (
        ("limit", str(limit)),
        ("remaining", str(limit - limit // 50)),
        ("reset", "2026-11-18T11:07:40Z"),
    )
}
_SPENT = "contract_spend_limit_reached"


@dataclass(frozen=True, slots=True)
class Anthropic:
    """Anthropic's Messages API."""

    name: str = "anthropic"
    base_path: str = ""
    models: tuple[str, ...] = ("claude-haiku-4-5", "claude-opus-4-8")

    def operation(self, path: str) -> Operation | None:
        """Return what a POST to a path does."""
        return Messages() if path == "/v1/messages" else None

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

    def page(self, path: str, models: Sequence[str]) -> Page | None:
        """List the models, or tell of one."""
        data = [{"type": "model", "id": each, "display_name": each.title(), "created_at": CREATED} for each in models]
        if path == "/v1/models":
            ends = {"first_id": models[0] if models else None, "last_id": models[-1] if models else None}
            return Page(200, msgspec.json.encode({"data": data, "has_more": False, **ends}))
        found = [each for each in data if path == f"/v1/models/{each['id']}"]
        return Page(200, msgspec.json.encode(found[0])) if found else None

    def lost(self, method: str, path: str, request_id: str) -> Page:
        """Answer a path or a method that does not exist."""
        if self.operation(path) is not None:
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
            **_LIMITS,
        }


def _error_body(problem: Problem, request_id: str) -> bytes:
    error: dict[str, Any] = {"type": problem.type, "message": problem.message}
    if problem.code is not None:
        error["details"] = {"error_code": problem.code}
    return msgspec.json.encode({"type": "error", "error": error, "request_id": request_id})
