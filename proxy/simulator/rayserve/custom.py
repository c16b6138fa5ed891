"""Plain deployments of Ray Serve: each answers in the form its author chose, and fails without explanation."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from proxy.simulator.answers import Answer, Question, Turn
from proxy.simulator.behaviour import Behaviour
from proxy.simulator.dialect import (
    Body,
    Frame,
    Framing,
    Operation,
    Page,
    Problem,
    Refused,
    parse_object,
    retry_after_header,
)
from proxy.simulator.rayserve.ingress import TEXT, RayServe, ingress

DETAIL = "detail"  # the type of problems that a FastAPI application raises; the message is finished JSON
SILENT = "silent"  # the code of a deployment's problems: within a stream they are not seen
TELLING = "telling"  # unless its author catches them, and makes a line of them

_PLAIN = "text/plain; charset=utf-8"
_CRASHED = Problem(500, "Internal Server Error", TEXT, code=SILENT)
_BY_STATUS: Mapping[int, Problem] = {
    404: Problem(404, "Path '/odd' not found. Ping http://.../-/routes for available routes.", TEXT),
    408: Problem(408, "Request req_simulated timed out after 600.0s.", TEXT),
    503: Problem(503, "Request dropped due to backpressure (num_queued_requests=100, max_queued_requests=100).", TEXT),
}
_TELLING_PATHS = frozenset({"/ndjson", "/cumulative"})

Write = Callable[[Answer], bytes | Page]
Stream = Callable[[Answer], Iterator[Frame]]


def _as_object(answer: Answer) -> bytes:
    return msgspec.json.encode({"text": answer.text})


def _as_list(answer: Answer) -> bytes:
    return msgspec.json.encode([{"generated_text": answer.text}])


def _as_text(answer: Answer) -> Page:
    return Page(200, answer.text.encode(), _PLAIN)


def _chunks(answer: Answer) -> Iterator[Frame]:
    """Yield what a StreamingResponse writes: bytes as they are."""
    for piece in answer.pieces:
        yield Frame(piece.encode(), "content")
    yield Frame(b"", "closing")


def _lines(answer: Answer) -> Iterator[Frame]:
    """Yield one object per piece, then one that says how it ended."""
    for piece in answer.pieces:
        yield Frame(msgspec.json.encode({"text": piece}), "content")
    usage = {"prompt_tokens": answer.prompt_tokens, "completion_tokens": answer.completion_tokens}
    reason = "length" if answer.finish == "length" else "stop"
    yield Frame(msgspec.json.encode({"text": "", "done": True, "finish_reason": reason, "usage": usage}), "closing")


def _growing_lines(answer: Answer) -> Iterator[Frame]:
    """Yield all that was said so far, again and again."""
    said = ""
    for piece in answer.pieces:
        said += piece
        yield Frame(msgspec.json.encode({"text": said, "done": False}), "content")
    yield Frame(msgspec.json.encode({"text": said, "done": True}), "closing")


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One deployment; `model` of its questions is its path, since it knows no models.

    `validates`: a FastAPI application stands before it, others just fail at what they do not expect.
    """

    path: str
    write: Write = _as_object
    stream: Stream = _chunks
    framing: Framing = "text"
    validates: bool = False

    def read(self, headers: Mapping[str, str], body: bytes) -> Question:  # noqa: ARG002 - no header matters
        """Judge `{"prompt", "max_tokens", "temperature", "stream"}`; all but the prompt are optional."""
        sent = parse_object(body)
        faults = _faults(sent)
        if sent is None or faults:
            raise Refused(_detail(422, faults) if self.validates else _CRASHED)
        return Question(
            model=self.path,
            turns=(Turn("user", sent["prompt"]),),
            max_tokens=sent.get("max_tokens"),
            stream=sent.get("stream", False),
        )

    def whole(self, question: Question, answers: Sequence[Answer], behaviour: Behaviour) -> bytes | Page:  # noqa: ARG002
        """Render what the handler returns."""
        return self.write(answers[0])

    def frames(self, question: Question, answers: Sequence[Answer], behaviour: Behaviour) -> Iterator[Frame]:  # noqa: ARG002
        """Render what the handler streams."""
        return self.stream(answers[0])


def _faults(sent: Body | None) -> list[Body]:
    """Find what a handler would stumble over, in FastAPI's words."""
    if sent is None:
        return [{"type": "json_invalid", "loc": ["body"], "msg": "JSON decode error"}]
    found: list[Body] = []
    if "prompt" not in sent:
        found.append({"type": "missing", "loc": ["body", "prompt"], "msg": "Field required"})
    for name, kinds in _KINDS.items():
        if name in sent and type(sent[name]) not in kinds:
            found.append({"type": "type_error", "loc": ["body", name], "msg": "Input has the wrong type"})
    return found


_KINDS: Mapping[str, tuple[type, ...]] = {
    "prompt": (str,),
    "max_tokens": (int,),
    "temperature": (int, float),
    "stream": (bool,),
}


def _detail(status: int, detail: Any) -> Problem:
    return Problem(status, msgspec.json.encode({"detail": detail}).decode(), DETAIL, code=SILENT)


def deployments() -> Mapping[str, Operation]:
    """Return the deployments, by path."""
    served = (
        Deployment(path="/"),
        Deployment(path="/list", write=_as_list),
        Deployment(path="/text", write=_as_text),
        Deployment(path="/ndjson", stream=_lines, framing="ndjson"),
        Deployment(path="/cumulative", stream=_growing_lines, framing="ndjson"),
        Deployment(path="/app", validates=True),
    )
    return {each.path: each for each in served}


def _everything() -> Mapping[str, Operation]:
    return {**ingress(), **deployments()}


@dataclass(frozen=True, slots=True, kw_only=True)
class RayCluster(RayServe):
    """A cluster that serves the ingress of ray.serve.llm beside plain deployments."""

    operations: Mapping[str, Operation] = field(default_factory=_everything)

    def problem(self, status: int | None, error: str | None, model: str) -> Problem:
        """Phrase a scripted failure; a model that is a path stands for the deployment there."""
        if not model.startswith("/"):
            return RayServe.problem(self, status, error, model)
        if status is None:
            status = 503 if error == "overloaded" else 500  # what a deployment does not catch is a 500
        found = _BY_STATUS.get(status) or _refused_or_crashed(status)
        return replace(found, code=TELLING if model in _TELLING_PATHS else SILENT)

    def problem_page(self, problem: Problem, request_id: str) -> Page:
        """Render a problem as an answer."""
        if problem.code not in (SILENT, TELLING):
            return RayServe.problem_page(self, problem, request_id)
        headers = self.headers(request_id) | retry_after_header(problem)
        kind = "application/json" if problem.type == DETAIL else _PLAIN
        return Page(problem.status, problem.message.encode(), kind, headers)

    def problem_frame(self, problem: Problem, request_id: str) -> Frame:
        """Render a problem within a stream: a deployment's body just ends, unless its author tells of it."""
        if problem.code == TELLING:
            return Frame(msgspec.json.encode({"error": problem.message}), "closing")
        if problem.code == SILENT:
            return Frame(b"", "closing")
        return RayServe.problem_frame(self, problem, request_id)


def _refused_or_crashed(status: int) -> Problem:
    if status >= 500:
        return replace(_CRASHED, status=status)
    return _detail(status, "the application refused the request")
