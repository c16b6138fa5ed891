"""The OpenAI API as a whole: who may call, where, and how refusals and failures look."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from proxy.simulator.dialect import EPOCH, Frame, Operation, Page, Problem, Refused, bearer, retry_after_header
from proxy.simulator.openai.chat import Chat
from proxy.simulator.openai.embeddings import Embeddings
from proxy.simulator.openai.problems import BY_STATUS, INVALID, error_body, phrase
from proxy.simulator.openai.texts import Texts


def both_ways(operations: Mapping[str, Operation]) -> dict[str, Operation]:
    """Serve each path with and without /v1, as clients are configured either way."""
    return {f"{prefix}{path}": each for path, each in operations.items() for prefix in ("/v1", "")}


def _operations() -> Mapping[str, Operation]:
    return both_ways({"/chat/completions": Chat(), "/completions": Texts(), "/embeddings": Embeddings()})


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAI:
    """The OpenAI API; compatible servers are built by changing these values."""

    name: str = "openai"
    base_path: str = "/v1"
    models: tuple[str, ...] = ("gpt-4o-mini", "gpt-5-mini")
    operations: Mapping[str, Operation] = field(default_factory=_operations)

    def operation(self, path: str) -> Operation | None:
        """Return what a POST to a path does."""
        return self.operations.get(path)

    def authorize(self, headers: Mapping[str, str], key: str | None) -> None:
        """Raise Refused unless the Bearer token (or Azure's api-key) is the key."""
        given = bearer(headers) or headers.get("api-key")
        if key is None or given == key:
            return
        if given is None:
            message = "You didn't provide an API key. Use the Authorization header with Bearer auth."
            raise Refused(Problem(401, message, INVALID))
        raise Refused(BY_STATUS[401])

    def page(self, path: str, models: Sequence[str]) -> Page | None:
        """List the models, or tell of one."""
        listed = [{"id": each, "object": "model", "created": EPOCH, "owned_by": "system"} for each in models]
        return models_page(path, listed)

    def lost(self, method: str, path: str, request_id: str) -> Page:
        """Answer a path or a method that does not exist."""
        if self.operation(path) is not None:
            return self.problem_page(Problem(405, f"Invalid method for URL ({method} {path})", INVALID), request_id)
        return self.problem_page(Problem(404, f"Invalid URL ({method} {path})", INVALID), request_id)

    def problem(self, status: int | None, error: str | None, model: str) -> Problem:
        """Phrase a scripted failure."""
        return phrase(status, error, model)

    def problem_page(self, problem: Problem, request_id: str) -> Page:
        """Render a problem as an answer."""
        headers = self.headers(request_id) | retry_after_header(problem)
        return Page(problem.status, error_body(problem), headers=headers)

    def problem_frame(self, problem: Problem, request_id: str) -> Frame:  # noqa: ARG002 - other dialects name it
        """Render a problem as an event within a stream."""
        return Frame(error_body(problem), "closing")

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


def models_page(path: str, listed: Sequence[Mapping[str, object]]) -> Page | None:
    """Answer /models and /models/{id}, the id with its slashes."""
    path = path.removeprefix("/v1")
    if path == "/models":
        return Page(200, msgspec.json.encode({"object": "list", "data": listed}))
    name = path.removeprefix("/models/")
    found = next((each for each in listed if each["id"] == name), None)
    return None if found is None else Page(200, msgspec.json.encode(found))
