"""The ingress of ray.serve.llm: vLLM's words in Ray's errors, and chunks sent in batches."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import msgspec

from proxy.simulator.answers import Answer, Question
from proxy.simulator.behaviour import Behaviour
from proxy.simulator.dialect import (
    Frame,
    Framing,
    Operation,
    Page,
    Problem,
    Refused,
    bearer,
    choose_problem,
    parse_object,
    retry_after_header,
)
from proxy.simulator.openai.chat import DONE, Chat
from proxy.simulator.openai.problems import INVALID, error_body
from proxy.simulator.openai.reply import OpenAI, models_page
from proxy.simulator.openai.texts import Texts
from proxy.simulator.vllm.reply import CHAT, operations
from proxy.simulator.vllm.request import COMPLETION_FIELDS, GRAMMAR, read_chat

MODEL = "meta-llama/Llama-3.1-8B-Instruct"
BATCH = 3  # chunks that leave in one write
TEXT = "text"  # the type of problems that the proxy in front answers with a bare text

_NAMED: Mapping[str, Problem] = {
    "insufficient_quota": Problem(429, "Too many requests", TEXT),
    "context_length_exceeded": Problem(
        400,
        "Message: This model's maximum context length is 32768 tokens. However, your request has 40000 input tokens., "
        "Internal exception: None, original exception: None",
        "ValueError",
    ),
    "content_filter": Problem(
        400, "Message: refused, Internal exception: None, original exception: None", "ValueError"
    ),
    "overloaded": Problem(503, "Request dropped due to backpressure (num_queued_requests=100).", TEXT),
    "model_not_found": Problem(
        404,
        "Message: Could not find model with id {model}, Internal exception: None, original exception: None",
        "OpenAIHTTPException",
    ),
}
_BY_STATUS: Mapping[int, Problem] = {
    401: Problem(401, "Unauthorized", TEXT),
    404: _NAMED["model_not_found"],
    408: Problem(408, "Request req_simulated timed out after 600.0s.", TEXT),
    429: Problem(429, "Too many requests", TEXT, retry_after=1.0),
    503: _NAMED["overloaded"],
}
_BROKEN = (
    "Message: RayTaskError(EngineDeadError), Internal exception: EngineCore encountered an issue., "
    'original exception: Traceback (most recent call last):\n  File "engine.py", line 1, in step\n'
)


@dataclass(frozen=True, slots=True)
class Batched:
    """An operation whose chunks leave several in one write, each write counting as one content frame."""

    inner: Operation

    @property
    def framing(self) -> Framing:
        """How a stream is framed."""
        return self.inner.framing

    def read(self, headers: Mapping[str, str], body: bytes) -> Question:
        """Judge a request; it may leave the model out, as there is only one."""
        try:
            return self.inner.read(headers, body)
        except Refused as refused:
            raise Refused(_invalid(refused.problem, body)) from refused

    def whole(self, question: Question, answers: Sequence[Answer], behaviour: Behaviour) -> bytes | Page:
        """Render an answer."""
        return self.inner.whole(question, answers, behaviour)

    def frames(self, question: Question, answers: Sequence[Answer], behaviour: Behaviour) -> Iterator[Frame]:
        """Render a stream."""
        return batch(self.inner.frames(question, answers, behaviour))


def batch(frames: Iterable[Frame]) -> Iterator[Frame]:
    """Put chunks with content together; others keep their own writes."""
    held: list[Frame] = []
    for frame in frames:
        if held and (frame.stage != "content" or len(held) == BATCH):
            yield _chain(held)
            held = []
        if frame.stage == "content":
            held.append(frame)
        else:
            yield frame
    if held:
        yield _chain(held)


def _chain(frames: Sequence[Frame]) -> Frame:
    chained = frames[-1]
    for frame in reversed(frames[:-1]):
        chained = replace(frame, then=chained)
    return chained


def _invalid(problem: Problem, body: bytes) -> Problem:
    """Phrase what the checks refused; `param` is what the caller sent, not its name."""
    if problem.type != INVALID:
        return replace(problem, type="ValueError") if problem.type == "BadRequestError" else problem
    sent = (parse_object(body) or {}).get(str(problem.param).split("[")[0].split(".")[0])
    message = f"Invalid request format: {problem.message}"
    return replace(problem, message=message, type="ValidationError", param=sent, code="invalid_parameter")


def ingress(model: str = MODEL) -> Mapping[str, Operation]:
    """Return what the ingress of one model serves, by path."""
    grammar = replace(GRAMMAR, default_model=model)
    served: dict[str, Operation] = {
        **operations(),
        "/v1/chat/completions": Chat(reader=partial(read_chat, grammar=grammar), traits=CHAT),
        "/v1/completions": Texts(fields=COMPLETION_FIELDS, ignores_unknown=True, traits=CHAT, default_model=model),
    }
    return {path: Batched(each) for path, each in served.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class RayServe(OpenAI):
    """A Ray Serve application that holds one model."""

    name: str = "rayserve"
    models: tuple[str, ...] = (MODEL,)
    operations: Mapping[str, Operation] = field(default_factory=ingress)

    def authorize(self, headers: Mapping[str, str], key: str | None) -> None:
        """Raise Refused unless the Bearer token is the one that the platform's proxy wants."""
        if key is not None and bearer(headers) != key:
            raise Refused(_BY_STATUS[401])

    def page(self, path: str, models: Sequence[str]) -> Page | None:
        """Answer the health check, the routes and the models; these have no time of creation."""
        if path == "/-/healthz":
            return Page(200, b"success", "text/plain; charset=utf-8", public=True)
        if path == "/-/routes":
            return Page(200, msgspec.json.encode({"/": "llm_app"}), public=True)
        if not path.startswith("/v1/models"):
            return None
        listed = [
            {"id": each, "object": "model", "owned_by": "organization-owner", "permission": [], "metadata": {}}
            for each in models
        ]
        return models_page(path.replace("--", "/"), listed)

    def lost(self, method: str, path: str, request_id: str) -> Page:  # noqa: ARG002 - the proxy names no method
        """Answer a path or a method that does not exist."""
        if self.operation(path) is not None:
            return Page(405, msgspec.json.encode({"detail": "Method Not Allowed"}))
        if path.startswith("/v1/models/"):
            return self.problem_page(self.problem(404, None, path.removeprefix("/v1/models/")), request_id)
        message = f"Path '{path}' not found. Ping http://.../-/routes for available routes."
        return self.problem_page(Problem(404, message, TEXT), request_id)

    def problem(self, status: int | None, error: str | None, model: str) -> Problem:
        """Phrase a scripted failure."""
        found = choose_problem(_NAMED, _BY_STATUS, status, error, model)
        if found is not None:
            return found
        if status is not None and status < 500:
            return Problem(status, "Message: refused, Internal exception: None, original exception: None", "ValueError")
        return Problem(status or 500, _BROKEN, "EngineDeadError")

    def problem_page(self, problem: Problem, request_id: str) -> Page:
        """Render a problem as an answer."""
        headers = self.headers(request_id) | retry_after_header(problem)
        if problem.type == TEXT and not problem.quirks:
            return Page(problem.status, problem.message.encode(), "text/plain; charset=utf-8", headers)
        return Page(problem.status, self._body(problem), headers=headers)

    def problem_frame(self, problem: Problem, request_id: str) -> Frame:  # noqa: ARG002 - it has no such field
        """Render a problem as an event within a stream, which then ends properly."""
        return Frame(self._body(problem), "closing", then=DONE)

    def headers(self, request_id: str) -> dict[str, str]:
        """Return the headers of every answer."""
        return {"x-request-id": request_id, "server": "uvicorn"}

    def _body(self, problem: Problem) -> bytes:
        return error_body(problem, code=problem.code or problem.status)
