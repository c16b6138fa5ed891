"""Write answers, chunks and errors as vLLM does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus
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
from proxy.simulator.openai.chat import DONE, Chat
from proxy.simulator.openai.embeddings import EMBEDDING_FIELDS, Embeddings
from proxy.simulator.openai.problems import INVALID, error_body
from proxy.simulator.openai.reply import OpenAI
from proxy.simulator.openai.texts import Texts
from proxy.simulator.openai.traits import Traits
from proxy.simulator.vllm.request import COMPLETION_FIELDS, CONTEXT, read_chat

VERSION = "0.33.0"
EMBEDDING_LENGTH = 1024

CHAT = Traits(
    envelope={},
    whole={
        "service_tier": None,
        "system_fingerprint": None,
        "prompt_logprobs": None,
        "prompt_token_ids": None,
        "kv_transfer_params": None,
    },
    choice={"stop_reason": None, "token_ids": None},
    message={"refusal": None, "annotations": None, "audio": None, "function_call": None, "reasoning": None},
    role_delta={"role": "assistant", "content": ""},
    logprobs={},
    call_id="chatcmpl-tool-{key}",
    reasoning="reasoning",
    lists_no_calls=True,
    names_stop=True,
    joins_finish=True,
    nulls_usage=False,
    details=False,
)

_NAMED: Mapping[str, Problem] = {
    "insufficient_quota": Problem(429, "Too Many Requests", "Too Many Requests"),
    "context_length_exceeded": Problem(
        400,
        f"This model's maximum context length is {CONTEXT} tokens. However, your request has 40000 input tokens. "
        "Please reduce the length of the input messages.",
        "BadRequestError",
        "input_tokens",
    ),
    "content_filter": Problem(400, "The request was refused by the simulation.", "BadRequestError"),
    "overloaded": Problem(503, "The server is overloaded or not ready yet.", "ServiceUnavailableError"),
    "model_not_found": Problem(404, "The model `{model}` does not exist.", "NotFoundError", "model"),
}
_BY_STATUS: Mapping[int, Problem] = {
    401: Problem(401, "Unauthorized"),
    404: _NAMED["model_not_found"],
    422: Problem(422, "The request could not be processed.", "UnprocessableEntityError"),
    429: Problem(429, "Too Many Requests", "Too Many Requests", retry_after=1.0),
    500: Problem(
        500, "EngineCore encountered an issue. See stack trace (above) for the root cause.", "InternalServerError"
    ),
    501: Problem(501, "This model does not support the request.", "NotImplementedError"),
    503: _NAMED["overloaded"],
}


def operations() -> Mapping[str, Operation]:
    """Return what is served, by path."""
    embeddings = Embeddings(
        fields=EMBEDDING_FIELDS,
        ignores_unknown=True,
        length=EMBEDDING_LENGTH,
        extras={"id": "embd-simulated", "created": EPOCH},
    )
    return {
        "/v1/chat/completions": Chat(reader=read_chat, traits=CHAT),
        "/v1/completions": Texts(fields=COMPLETION_FIELDS, ignores_unknown=True, traits=CHAT),
        "/v1/embeddings": embeddings,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class VLLM(OpenAI):
    """A vLLM server with one base model and an adapter."""

    name: str = "vllm"
    models: tuple[str, ...] = ("Qwen/Qwen3-8B", "qwen3-adapter")
    operations: Mapping[str, Operation] = field(default_factory=operations)

    def authorize(self, headers: Mapping[str, str], key: str | None) -> None:
        """Raise Refused unless the Bearer token is the key."""
        if key is not None and bearer(headers) != key:
            raise Refused(_BY_STATUS[401])

    def page(self, path: str, models: Sequence[str]) -> Page | None:
        """Answer the health checks, the version and the list of models; there is no page of one model."""
        if path in ("/health", "/ping"):
            return Page(200, b"", public=True)
        if path == "/version":
            return Page(200, msgspec.json.encode({"version": VERSION}), public=True)
        if path == "/metrics":
            return Page(200, b"vllm:num_requests_running 0.0\n", "text/plain; version=0.0.4", public=True)
        if path != "/v1/models":
            return None
        data: list[dict[str, Any]] = [
            {
                "id": each,
                "object": "model",
                "created": EPOCH,
                "owned_by": "vllm",
                "root": models[0],
                "parent": None if place == 0 else models[0],
                "max_model_len": CONTEXT,
                "permission": [],
            }
            for place, each in enumerate(models)
        ]
        return Page(200, msgspec.json.encode({"object": "list", "data": data}))

    def lost(self, method: str, path: str, request_id: str) -> Page:  # noqa: ARG002 - the server names neither
        """Answer a path or a method that does not exist."""
        status = 404 if self.operation(path) is None else 405
        return self.problem_page(Problem(status, HTTPStatus(status).phrase, HTTPStatus(status).phrase), request_id)

    def problem(self, status: int | None, error: str | None, model: str) -> Problem:
        """Phrase a scripted failure."""
        found = choose_problem(_NAMED, _BY_STATUS, status, error, model)
        if found is not None:
            return found
        if status is not None and status < 500:
            return Problem(status, "The request was refused by the simulation.", INVALID)
        return Problem(status or 500, _BY_STATUS[500].message, "InternalServerError")

    def problem_page(self, problem: Problem, request_id: str) -> Page:
        """Render a problem as an answer; a wrong key gets a bare text."""
        headers = self.headers(request_id) | retry_after_header(problem)
        return Page(problem.status, self._body(problem), headers=headers)

    def problem_frame(self, problem: Problem, request_id: str) -> Frame:  # noqa: ARG002 - it has no such field
        """Render a problem as an event within a stream, which then ends properly."""
        return Frame(self._body(problem), "closing", then=DONE)

    def headers(self, request_id: str) -> dict[str, str]:  # noqa: ARG002 - shown only with a flag
        """Return the headers of every answer."""
        return {"server": "uvicorn"}

    def _body(self, problem: Problem) -> bytes:
        if problem.type is None:
            return msgspec.json.encode({"error": problem.message})
        return error_body(shape(problem), code=problem.status)


def shape(problem: Problem) -> Problem:
    """Give what OpenAI's checks refused the type it has here."""
    return replace(problem, type="BadRequestError") if problem.type == INVALID else problem
