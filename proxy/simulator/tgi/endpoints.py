"""The endpoints of TGI that take calls, and the server around them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import msgspec

from proxy.simulator.answers import Answer, Question, count_prompt
from proxy.simulator.behaviour import Behaviour
from proxy.simulator.dialect import Body, Frame, Framing, Operation, Page, Problem, Refused, parse_object
from proxy.simulator.tgi.chat_reply import MODEL, stream_chat, write_chat
from proxy.simulator.tgi.chat_request import read_chat
from proxy.simulator.tgi.checks import BODY
from proxy.simulator.tgi.problems import UNAUTHORIZED, find_problem, place, write_frame, write_page
from proxy.simulator.tgi.prompt_reply import stream_completion, stream_generated, write_completion, write_generated
from proxy.simulator.tgi.prompt_request import check_generate, read_completion, read_generate
from proxy.simulator.tgi.question import Prompted
from proxy.simulator.tgi.sampling import MOST_STOPS, MOST_TOP_TOKENS, MOST_TOTAL_TOKENS, check_sampling

ADAPTERS = ("support-adapter", "legal-adapter")
COMPUTE_TYPE = "1-nvidia-a10g"

_LOADED = frozenset({"tgi", MODEL, *ADAPTERS})
_PLAIN = "text/plain; charset=utf-8"


def _judge(
    headers: Mapping[str, str], body: bytes, decode: Callable[[Body], tuple[Question, Body]]
) -> tuple[Question, Body]:
    """Decode, then validate; what is found wrong after decoding is told within a stream."""
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refused(Problem(415, "Expected request with `Content-Type: application/json`", BODY))
    parsed = parse_object(body)
    if parsed is None:
        raise Refused(Problem(400, "Failed to parse the request body as JSON: expected value at line 1 column 1", BODY))
    return decode(parsed)


def _validate(question: Question, parameters: Body, adapter: str) -> None:
    try:
        if isinstance(question, Prompted):
            check_generate(question, parameters)
        check_sampling(parameters, count_prompt(question))
        if adapter not in _LOADED:
            raise Refused(find_problem(None, "model_not_found", adapter))
    except Refused as refused:
        problem = place(refused.problem, question.model)
        raise Refused(replace(problem, in_stream=problem.in_stream and question.stream)) from None


@dataclass(frozen=True, slots=True)
class Chat:
    """POST /v1/chat/completions."""

    framing: Framing = "sse"

    def read(self, headers: Mapping[str, str], body: bytes) -> Question:
        """Judge a request."""
        question, parameters = _judge(headers, body, read_chat)
        _validate(question, parameters, question.model)
        return question

    def whole(self, question: Question, answers: Sequence[Answer], behaviour: Behaviour) -> Page:
        """Render the answer, with its times as headers."""
        return _timed(write_chat(question, answers, behaviour), answers)

    def frames(self, question: Question, answers: Sequence[Answer], behaviour: Behaviour) -> Iterator[Frame]:
        """Render a stream."""
        return stream_chat(question, answers, behaviour)


@dataclass(frozen=True, slots=True)
class Completions:
    """POST /v1/completions."""

    framing: Framing = "sse"

    def read(self, headers: Mapping[str, str], body: bytes) -> Question:
        """Judge a request."""
        question, parameters = _judge(headers, body, read_completion)
        _validate(question, parameters, question.model)
        return question

    def whole(self, question: Question, answers: Sequence[Answer], behaviour: Behaviour) -> Page:  # noqa: ARG002
        """Render the answer."""
        return _timed(write_completion(answers, behaviour), answers)

    def frames(self, question: Question, answers: Sequence[Answer], behaviour: Behaviour) -> Iterator[Frame]:
        """Render a stream."""
        return stream_completion(question, answers, behaviour)


@dataclass(frozen=True, slots=True)
class Generate:
    """POST /generate, /generate_stream, or / for both."""

    path: str
    framing: Framing = "sse"

    def read(self, headers: Mapping[str, str], body: bytes) -> Question:
        """Judge a request."""
        question, parameters = _judge(headers, body, lambda each: read_generate(self.path, each))
        _validate(question, parameters, cast(Prompted, question).adapter)
        return question

    def whole(self, question: Question, answers: Sequence[Answer], behaviour: Behaviour) -> Page:
        """Render the answer; the path / gives it within an array."""
        generated: Any = write_generated(cast(Prompted, question), answers[0], behaviour)
        return _timed(msgspec.json.encode([generated] if self.path == "/" else generated), answers)

    def frames(self, question: Question, answers: Sequence[Answer], behaviour: Behaviour) -> Iterator[Frame]:
        """Render a stream."""
        return stream_generated(cast(Prompted, question), answers[0], behaviour)


_OPERATIONS: Mapping[str, Operation] = {
    "/v1/chat/completions": Chat(),
    "/v1/completions": Completions(),
    **{path: Generate(path) for path in ("/", "/generate", "/generate_stream")},
}


@dataclass(frozen=True, slots=True)
class TGI:
    """Text Generation Inference, both of its faces."""

    name: str = "tgi"
    base_path: str = ""
    models: tuple[str, ...] = (MODEL,)

    def operation(self, path: str) -> Operation | None:
        """Return what a POST to a path does."""
        return _OPERATIONS.get(path)

    def authorize(self, headers: Mapping[str, str], key: str | None) -> None:
        """Raise Refused unless the whole header is the key's; case does not matter."""
        if key is not None and headers.get("authorization", "").lower() != f"bearer {key}".lower():
            raise Refused(UNAUTHORIZED)

    def page(self, path: str, models: Sequence[str]) -> Page | None:
        """Answer the health checks, the list of models and what the server is."""
        if path in ("/health", "/ping"):
            return Page(200, b"", _PLAIN, public=True)
        if path == "/v1/models":
            data = [{"id": each, "object": "model", "created": 0, "owned_by": each} for each in models]
            return Page(200, msgspec.json.encode({"object": "list", "data": data}))
        if path in ("/info", "/"):
            return Page(200, msgspec.json.encode(_info(models[0] if models else MODEL)))
        return None

    def lost(self, method: str, path: str, request_id: str) -> Page:  # noqa: ARG002 - the real server says nothing
        """Answer a path or a method that does not exist."""
        return Page(405 if path in _OPERATIONS else 404, b"", _PLAIN)

    def problem(self, status: int | None, error: str | None, model: str) -> Problem:
        """Phrase a scripted failure."""
        return find_problem(status, error, model)

    def problem_page(self, problem: Problem, request_id: str) -> Page:  # noqa: ARG002 - it has no such header
        """Render a problem as an answer."""
        return write_page(problem)

    def problem_frame(self, problem: Problem, request_id: str) -> Frame:  # noqa: ARG002 - it has no such field
        """Render a problem as an event within a stream."""
        return write_frame(problem)

    def headers(self, request_id: str) -> dict[str, str]:  # noqa: ARG002 - it has no such header
        """Return the headers of every stream."""
        return {"x-compute-type": COMPUTE_TYPE, "x-accel-buffering": "no"}


def _timed(body: bytes, answers: Sequence[Answer]) -> Page:
    """Put the headers of a whole answer around it; times are milliseconds."""
    generated = sum(answer.completion_tokens for answer in answers)
    headers = {
        "x-compute-type": COMPUTE_TYPE,
        "x-compute-time": "0.42",
        "x-compute-characters": str(sum(len(answer.text) for answer in answers)),
        "x-total-time": "420",
        "x-validation-time": "0",
        "x-queue-time": "1",
        "x-inference-time": "419",
        "x-time-per-token": "20",
        "x-prompt-tokens": str(sum(answer.prompt_tokens for answer in answers)),
        "x-generated-tokens": str(generated),
    }
    return Page(200, body, headers=headers)


def _info(model: str) -> Body:
    return {
        "model_id": model,
        "model_sha": "0e9e39f249a16976918f6564b8830bc894c89659",
        "model_pipeline_tag": "text-generation",
        "max_concurrent_requests": 128,
        "max_best_of": 2,
        "max_stop_sequences": MOST_STOPS,
        "max_top_n_tokens": MOST_TOP_TOKENS,
        "max_input_tokens": MOST_TOTAL_TOKENS - 1,
        "max_total_tokens": MOST_TOTAL_TOKENS,
        "validation_workers": 2,
        "max_client_batch_size": 4,
        "router": "text-generation-router",
        "version": "3.3.6-dev0",
    }
