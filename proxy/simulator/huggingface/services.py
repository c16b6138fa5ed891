"""The three services: router, hf-inference and a dedicated endpoint that runs vLLM."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from proxy.simulator.answers import Answer, Question
from proxy.simulator.behaviour import Behaviour
from proxy.simulator.dialect import (
    EPOCH,
    Frame,
    Framing,
    Operation,
    Page,
    Problem,
    Refused,
    bearer,
    parse_object,
)
from proxy.simulator.huggingface.problems import ENGINE, LOADING, as_validation, find_problem, write_body, write_page
from proxy.simulator.huggingface.request import read_documented, read_routed
from proxy.simulator.openai.chat import Chat
from proxy.simulator.openai.embeddings import embed
from proxy.simulator.openai.traits import Traits
from proxy.simulator.vllm.reply import operations as vllm_operations

SLEEPING = "cold"  # models whose names start so are scaled to zero
FEATURES = 384  # numbers of an embedding

TRAITS = Traits(
    envelope={"system_fingerprint": ""},
    message={},
    role_delta={"role": "assistant", "content": "", "tool_calls": None},
    logprobs={},
    chat_id="",
    created=0,
    reasoning="reasoning",
    joins_finish=True,
    nulls_usage=False,
    details=False,
)
_SERVERLESS = re.compile(r"/hf-inference/models/(?P<model>.+?)(?P<rest>/v1/chat/completions|/pipeline/.+)")
_FEATURES = "/pipeline/feature-extraction"
_ENDPOINT = "/endpoint"


@dataclass(frozen=True, slots=True)
class Serverless:
    """A chat whose model stands in the path and in the body."""

    model: str
    chat: Chat = Chat(reader=read_documented, traits=TRAITS)
    framing: Framing = "sse"

    def read(self, headers: Mapping[str, str], body: bytes) -> Question:
        """Judge a request."""
        question = self.chat.read(headers, body)
        if question.model != self.model:
            raise Refused(Problem(400, f"The model of the body is {question.model}, of the path {self.model}"))
        return question

    def whole(self, question: Question, answers: Sequence[Answer], behaviour: Behaviour) -> bytes:
        """Render a chat completion."""
        return self.chat.whole(question, answers, behaviour)

    def frames(self, question: Question, answers: Sequence[Answer], behaviour: Behaviour) -> Iterator[Frame]:
        """Render a stream."""
        return self.chat.frames(question, answers, behaviour)


@dataclass(frozen=True, slots=True)
class Features:
    """Embeddings: a text gives one array of numbers, a list gives a list of them."""

    model: str
    framing: Framing = "sse"

    def read(self, headers: Mapping[str, str], body: bytes) -> Question:  # noqa: ARG002 - no header matters
        """Judge a request."""
        inputs = (parse_object(body) or {}).get("inputs")
        several = isinstance(inputs, list) and inputs and all(isinstance(each, str) for each in inputs)
        if not several and not isinstance(inputs, str):
            raise Refused(Problem(422, "Failed to deserialize the JSON body: inputs: expected text", "validation"))
        texts = tuple(inputs) if isinstance(inputs, list) else (inputs,)
        return Question(model=self.model, turns=(), inputs=texts, flat=not several)

    def whole(self, question: Question, answers: Sequence[Answer], behaviour: Behaviour) -> bytes:  # noqa: ARG002
        """Render the numbers."""
        vectors = [embed(each, FEATURES) for each in question.inputs]
        return msgspec.json.encode(vectors[0] if question.flat else vectors)

    def frames(self, question: Question, answers: Sequence[Answer], behaviour: Behaviour) -> Iterator[Frame]:
        """Nothing streams here: questions never ask for it."""
        yield Frame(self.whole(question, answers, behaviour), "content")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An operation of a dedicated endpoint, which may have to wake first."""

    engine: Operation

    @property
    def framing(self) -> Framing:
        """How the engine frames a stream."""
        return self.engine.framing

    def read(self, headers: Mapping[str, str], body: bytes) -> Question:
        """Judge a request; one that waits for the engine to wake says so."""
        try:
            question = self.engine.read(headers, body)
        except Refused as refused:
            raise Refused(replace(refused.problem, type=ENGINE)) from refused
        if question.model.startswith(SLEEPING) and "x-scale-up-timeout" not in headers:
            raise Refused(find_problem(503, None, question.model))
        return question

    def whole(self, question: Question, answers: Sequence[Answer], behaviour: Behaviour) -> bytes | Page:
        """Render an answer."""
        return self.engine.whole(question, answers, behaviour)

    def frames(self, question: Question, answers: Sequence[Answer], behaviour: Behaviour) -> Iterator[Frame]:
        """Render a stream."""
        return self.engine.frames(question, answers, behaviour)


_ROUTER = Chat(reader=read_routed, traits=TRAITS)
_ENGINE = vllm_operations()


@dataclass(frozen=True, slots=True)
class HuggingFace:
    """Hugging Face's inference services."""

    name: str = "huggingface"
    base_path: str = "/v1"
    models: tuple[str, ...] = ("openai/gpt-oss-120b", "Qwen/Qwen3-32B")

    def operation(self, path: str) -> Operation | None:
        """Return what a POST to a path does."""
        if path == "/v1/chat/completions":
            return _ROUTER
        if path.startswith(_ENDPOINT):
            engine = _ENGINE.get(path.removeprefix(_ENDPOINT))
            return None if engine is None else Endpoint(engine)
        found = _SERVERLESS.fullmatch(path)
        if found is None:
            return None
        if found["rest"] == _FEATURES:
            return Features(found["model"])
        return Serverless(found["model"]) if found["rest"].startswith("/v1") else None

    def authorize(self, headers: Mapping[str, str], key: str | None) -> None:
        """Raise Refused unless the Bearer token is the key."""
        if key is not None and bearer(headers) != key:
            raise Refused(find_problem(401, None, ""))

    def page(self, path: str, models: Sequence[str]) -> Page | None:
        """List the models with their providers, tell of one, and of the endpoint's health."""
        if path == f"{_ENDPOINT}/health":
            return Page(200, b"", "text/plain; charset=utf-8", public=True)
        listed = [_model(each) for each in models]
        if path in ("/v1/models", f"{_ENDPOINT}/v1/models"):
            return Page(200, msgspec.json.encode({"object": "list", "data": listed}))
        found = next((each for each in listed if path == f"/v1/models/{each['id']}"), None)
        return None if found is None else Page(200, msgspec.json.encode(found))

    def lost(self, method: str, path: str, request_id: str) -> Page:  # noqa: ARG002 - the services name neither
        """Answer a path or a method that does not exist."""
        return write_page(find_problem(404, None, ""))

    def problem(self, status: int | None, error: str | None, model: str) -> Problem:
        """Phrase a scripted failure."""
        return find_problem(status, error, model)

    def problem_page(self, problem: Problem, request_id: str) -> Page:
        """Render a problem as an answer."""
        page = write_page(as_validation(problem))
        return replace(page, headers={**page.headers, **self.headers(request_id)})

    def problem_frame(self, problem: Problem, request_id: str) -> Frame:  # noqa: ARG002 - it has no such field
        """Render a problem as an event within a stream."""
        plain = replace(problem, type=None) if problem.type == LOADING else problem
        return Frame(write_body(as_validation(plain)), "closing")

    def headers(self, request_id: str) -> dict[str, str]:
        """Return the headers of every answer."""
        return {"x-request-id": request_id, "inference-id": request_id, "x-inference-provider": "groq"}


def _model(name: str) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": EPOCH,
        "owned_by": name.partition("/")[0],
        "providers": [
            {
                "provider": "groq",
                "status": "live",
                "context_length": 131_072,
                "pricing": {"input": 0.15, "output": 0.75},
                "supports_tools": True,
                "supports_structured_output": True,
            }
        ],
    }
