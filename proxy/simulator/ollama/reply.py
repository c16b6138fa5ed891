"""Ollama as a whole: what it serves, and how refusals and failures look."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from proxy.simulator.dialect import (
    EPOCH,
    Frame,
    Operation,
    Page,
    Problem,
    Refused,
    bearer,
    choose_problem,
    retry_after_header,
)
from proxy.simulator.ollama.chat import CREATED, Chat
from proxy.simulator.ollama.embed import Embed
from proxy.simulator.ollama.layer import EMPTY_CHUNK, LAYER, LayerTexts, in_layer
from proxy.simulator.openai.problems import error_body

VERSION = "0.12.6"
_OPERATIONS: Mapping[str, Operation] = {
    "/api/chat": Chat(),
    "/api/embed": Embed(),
    "/v1/completions": LayerTexts(),
}
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
    models: tuple[str, ...] = ("qwen3:latest", "llama3.2:latest")

    def operation(self, path: str) -> Operation | None:
        """Return what a POST to a path does."""
        return _OPERATIONS.get(path)

    def authorize(self, headers: Mapping[str, str], key: str | None) -> None:
        """Raise Refused unless the Bearer token is the key."""
        if key is not None and bearer(headers) != key:
            raise Refused(_BY_STATUS[401])

    def page(self, path: str, models: Sequence[str]) -> Page | None:
        """Answer the health check, the version and the list of models."""
        if path in ("", "/"):
            return Page(200, b"Ollama is running", _PLAIN)
        if path == "/api/version":
            return Page(200, msgspec.json.encode({"version": VERSION}))
        if path == "/api/tags":
            return Page(200, msgspec.json.encode({"models": [_tag(each) for each in models]}))
        if path == "/v1/models":
            data = [{"id": each, "object": "model", "created": EPOCH, "owned_by": "library"} for each in models]
            return Page(200, msgspec.json.encode({"object": "list", "data": data}))
        return None

    def lost(self, method: str, path: str, request_id: str) -> Page:  # noqa: ARG002 - the real server does not name it
        """Answer a path or a method that does not exist."""
        if path in _OPERATIONS:
            return Page(405, b"405 method not allowed", _PLAIN)
        return Page(404, b"404 page not found", _PLAIN)

    def problem(self, status: int | None, error: str | None, model: str) -> Problem:
        """Phrase a scripted failure; models asked through the OpenAI layer are marked."""
        name = model.removeprefix(LAYER)
        found = choose_problem(_NAMED, _BY_STATUS, status, error, name)
        if found is None and status is not None and status < 500:
            found = Problem(status, "the request was refused by the simulation")
        if found is None:
            found = Problem(status or 500, _CRASH)
        return found if name == model else in_layer(found)

    def problem_page(self, problem: Problem, request_id: str) -> Page:  # noqa: ARG002 - it has no such header
        """Render a problem as an answer."""
        return Page(problem.status, _error_body(problem), headers=retry_after_header(problem))

    def problem_frame(self, problem: Problem, request_id: str) -> Frame:  # noqa: ARG002 - it has no such field
        """Render a problem as a line within a stream; the OpenAI layer takes it for an empty chunk."""
        if problem.type is not None:
            return Frame(EMPTY_CHUNK, "closing")
        return Frame(_error_body(problem), "closing")

    def headers(self, request_id: str) -> dict[str, str]:  # noqa: ARG002 - it has no such header
        """Return the headers of every answer: none of its own."""
        return {}


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
    if problem.type is not None:
        return error_body(replace(problem, param=None, code=None))
    return msgspec.json.encode(
        [{"error": problem.message}] if "array_error" in problem.quirks else {"error": problem.message}
    )
