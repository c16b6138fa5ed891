"""BentoML around its endpoints and the mounted server: health, credentials, and what each fails with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from proxy.simulator.bentoml.checks import VALIDATION
from proxy.simulator.bentoml.endpoints import EVENTS_PATH, PLAIN, PLAIN_OPERATIONS, schema
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
from proxy.simulator.vllm.reply import VLLM, operations

# The types of problems that are BentoML's own; all others are the mounted server's.
_OBJECT, _ARRAY, _TEXT = "object", "exception", "text"
TELLING = "telling"  # the code of problems that the author of an endpoint catches, and makes an event of

_WRAPPER: Mapping[int, Problem] = {
    401: Problem(401, "Authorization error", _OBJECT),
    403: Problem(403, "Authorization error", _OBJECT),
    429: Problem(429, "Too many requests", _OBJECT),
    503: Problem(503, "Upstream service unavailable.", _TEXT),
    504: Problem(504, "Not able to process the request in 60 seconds", _OBJECT),
}
_CRASHED = Problem(500, "An unexpected error has occurred, please check the server log.", _OBJECT)
_BY_STATUS: Mapping[int, Problem] = {
    **_WRAPPER,
    404: Problem(404, "Not Found", _TEXT),
    503: Problem(503, "the service is overloaded", _ARRAY),
}
_NAMED: Mapping[str, Problem] = {
    "insufficient_quota": Problem(402, "the budget of this service is spent", _ARRAY),
    "context_length_exceeded": Problem(400, "the prompt has too many tokens for the context window", _ARRAY),
    "content_filter": Problem(422, "the prompt was refused", _ARRAY),
    "overloaded": _BY_STATUS[503],
    "model_not_found": _BY_STATUS[404],
}


def _all_operations() -> Mapping[str, Operation]:
    return {**operations(), **PLAIN_OPERATIONS}


@dataclass(frozen=True, slots=True, kw_only=True)
class BentoML(VLLM):
    """A BentoML service."""

    name: str = "bentoml"
    base_path: str = ""
    models: tuple[str, ...] = ("meta-llama/Llama-3.1-8B-Instruct",)
    operations: Mapping[str, Operation] = field(default_factory=_all_operations)

    def authorize(self, headers: Mapping[str, str], key: str | None) -> None:
        """Raise Refused unless the Bearer token is the key."""
        if key is not None and bearer(headers) != key:
            raise Refused(_WRAPPER[401])

    def page(self, path: str, models: Sequence[str]) -> Page | None:
        """Answer the health checks, the description of the endpoints, and the mounted server's list of models."""
        if path in ("/livez", "/readyz", "/healthz"):
            return Page(200, b"\n", PLAIN, public=True)
        if path == "/schema.json":
            return Page(200, msgspec.json.encode(schema()))
        return VLLM.page(self, path, models) if path.startswith("/v1/") else None

    def lost(self, method: str, path: str, request_id: str) -> Page:
        """Answer a path or a method that does not exist."""
        if path.startswith("/v1/"):
            return VLLM.lost(self, method, path, request_id)
        if self.operation(path) is not None:
            return Page(405, b"Method Not Allowed", PLAIN, self.headers(request_id))
        return Page(404, b"Not Found", PLAIN, self.headers(request_id))

    def problem(self, status: int | None, error: str | None, model: str) -> Problem:
        """Phrase a scripted failure; a model that is a path stands for the endpoint there."""
        if not model.startswith("/"):
            wrapped = _WRAPPER.get(status or 0) if error is None else None
            return wrapped or VLLM.problem(self, status, error, model)
        found = choose_problem(_NAMED, _BY_STATUS, status, error, model)
        if found is None and status is not None and status < 500:
            found = Problem(status, "the service refused the request", _ARRAY)
        if found is None:
            found = replace(_CRASHED, status=status or _CRASHED.status)
        return replace(found, code=TELLING) if model == EVENTS_PATH else found

    def problem_page(self, problem: Problem, request_id: str) -> Page:
        """Render a problem as an answer; what a service raises itself comes as an array of one object.

        Source: bentoml 1.4, _bentoml_impl/server/app.py, handle_bentoml_exception.
        """
        headers = self.headers(request_id) | retry_after_header(problem)
        if problem.type == VALIDATION:
            return Page(problem.status, problem.message.encode(), headers=headers)
        if problem.type == _TEXT:
            return Page(problem.status, problem.message.encode(), PLAIN, headers)
        if problem.type in (_OBJECT, _ARRAY):
            body = {"error": problem.message}
            return Page(
                problem.status, msgspec.json.encode([body] if problem.type == _ARRAY else body), headers=headers
            )
        return VLLM.problem_page(self, problem, request_id)

    def problem_frame(self, problem: Problem, request_id: str) -> Frame:
        """Render a problem within a stream: of a service's own endpoints most just end, one tells of it."""
        if problem.code == TELLING:
            return Frame(msgspec.json.encode({"error": problem.message}), "closing")
        if problem.type in (VALIDATION, _TEXT, _OBJECT, _ARRAY):
            return Frame(b"", "closing")
        return VLLM.problem_frame(self, problem, request_id)

    def headers(self, request_id: str) -> dict[str, str]:
        """Return the headers of every answer."""
        return {"server": "uvicorn", "x-bentoml-request-id": request_id, "x-bentoml-trace-id": f"trace_{request_id}"}
