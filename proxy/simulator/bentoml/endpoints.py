"""The endpoints that a simulated BentoML service declares itself: no model, no roles, no end marker but its own."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from proxy.simulator.answers import Answer, Question, Role, Turn
from proxy.simulator.behaviour import Behaviour
from proxy.simulator.bentoml.checks import Parameter, check_messages, read_input
from proxy.simulator.dialect import Body, Frame, Framing, Operation, Page

DEFAULT_TOKENS = 1024
EVENTS_PATH = "/generate_sse"

PLAIN = "text/plain; charset=utf-8"
_LIMIT = Parameter(int, default=DEFAULT_TOKENS, least=1)
_PROMPT: Mapping[str, Parameter] = {"prompt": Parameter(str, required=True), "max_tokens": _LIMIT}
_ROLES: Mapping[str, Role] = {"system": "system", "assistant": "assistant", "tool": "tool"}


@dataclass(frozen=True, slots=True)
class Prompted:
    """An endpoint that takes a prompt; `model` of its questions is its path, since it knows no models."""

    path: str
    framing: Framing = "unframed"
    streams: bool = True

    def read(self, headers: Mapping[str, str], body: bytes) -> Question:
        """Judge a request; whether it streams is the endpoint's affair, not the caller's."""
        given = read_input(headers, body, _PROMPT)
        return Question(
            model=self.path,
            turns=(Turn("user", given["prompt"]),),
            max_tokens=given["max_tokens"],
            stream=self.streams,
        )

    def whole(self, question: Question, answers: Sequence[Answer], behaviour: Behaviour) -> bytes | Page:  # noqa: ARG002
        """Render what a method returns that is annotated as str."""
        return Page(200, answers[0].text.encode(), PLAIN)

    def frames(self, question: Question, answers: Sequence[Answer], behaviour: Behaviour) -> Iterator[Frame]:  # noqa: ARG002
        """Render what a generator yields: bytes as they are, and nothing at the end."""
        for piece in answers[0].pieces:
            yield Frame(piece.encode(), "content")
        yield Frame(b"", "closing")


@dataclass(frozen=True, slots=True)
class Events:
    """An endpoint whose author writes server-sent events, and says in the last one that it is the last."""

    framing: Framing = "sse"

    def read(self, headers: Mapping[str, str], body: bytes) -> Question:
        """Judge a request."""
        return Prompted(EVENTS_PATH).read(headers, body)

    def whole(self, question: Question, answers: Sequence[Answer], behaviour: Behaviour) -> bytes:  # noqa: ARG002
        """Render the last event alone."""
        return msgspec.json.encode(_last_event(answers[0], behaviour))

    def frames(self, question: Question, answers: Sequence[Answer], behaviour: Behaviour) -> Iterator[Frame]:  # noqa: ARG002
        """Render an event per piece, then the last."""
        for piece in answers[0].pieces:
            yield Frame(msgspec.json.encode({"text": piece}), "content")
        yield Frame(msgspec.json.encode(_last_event(answers[0], behaviour)), "closing")


def _last_event(answer: Answer, behaviour: Behaviour) -> Body:
    usage = {"prompt_tokens": answer.prompt_tokens, "completion_tokens": answer.completion_tokens}
    reason = behaviour.finish or ("length" if answer.finish == "length" else "stop")
    return {"text": "", "done": True, "finish_reason": reason, "usage": usage}


@dataclass(frozen=True, slots=True)
class Items:
    """An endpoint whose generator yields objects: they are written back to back, without anything between."""

    path: str
    framing: Framing = "unframed"

    def read(self, headers: Mapping[str, str], body: bytes) -> Question:
        """Judge a request."""
        return Prompted(self.path).read(headers, body)

    def whole(self, question: Question, answers: Sequence[Answer], behaviour: Behaviour) -> bytes:  # noqa: ARG002
        """Render one object."""
        return msgspec.json.encode({"text": answers[0].text})

    def frames(self, question: Question, answers: Sequence[Answer], behaviour: Behaviour) -> Iterator[Frame]:  # noqa: ARG002
        """Render an object per piece."""
        for piece in answers[0].pieces:
            yield Frame(msgspec.json.encode({"text": piece}), "content")
        yield Frame(b"", "closing")


@dataclass(frozen=True, slots=True)
class Summarize:
    """An endpoint that takes a text and returns a JSON string."""

    framing: Framing = "text"

    def read(self, headers: Mapping[str, str], body: bytes) -> Question:
        """Judge a request."""
        given = read_input(headers, body, {"text": Parameter(str, required=True)})
        return Question(model="/summarize", turns=(Turn("user", given["text"]),))

    def whole(self, question: Question, answers: Sequence[Answer], behaviour: Behaviour) -> bytes:  # noqa: ARG002
        """Render the answer as a JSON string."""
        return msgspec.json.encode(answers[0].text)

    def frames(self, question: Question, answers: Sequence[Answer], behaviour: Behaviour) -> Iterator[Frame]:
        """Render nothing else: it never streams."""
        yield Frame(self.whole(question, answers, behaviour), "closing")


@dataclass(frozen=True, slots=True)
class Talk:
    """An endpoint that takes messages and returns an object."""

    framing: Framing = "text"

    def read(self, headers: Mapping[str, str], body: bytes) -> Question:
        """Judge a request."""
        parameters = {"messages": Parameter(list, required=True), "max_tokens": _LIMIT}
        given = read_input(headers, body, parameters)
        check_messages(given["messages"])
        turns = tuple(Turn(_ROLES.get(each["role"], "user"), each["content"]) for each in given["messages"])
        return Question(model="/chat", turns=turns, max_tokens=given["max_tokens"])

    def whole(self, question: Question, answers: Sequence[Answer], behaviour: Behaviour) -> bytes:  # noqa: ARG002
        """Render the answer as an object."""
        return msgspec.json.encode({"text": answers[0].text})

    def frames(self, question: Question, answers: Sequence[Answer], behaviour: Behaviour) -> Iterator[Frame]:
        """Render nothing else: it never streams."""
        yield Frame(self.whole(question, answers, behaviour), "closing")


PLAIN_OPERATIONS: Mapping[str, Operation] = {
    "/generate": Prompted("/generate"),
    "/generate_text": Prompted("/generate_text", streams=False),
    EVENTS_PATH: Events(),
    "/generate_items": Items("/generate_items"),
    "/summarize": Summarize(),
    "/chat": Talk(),
}


def schema() -> dict[str, Any]:
    """Describe the endpoints, as GET /schema.json does."""
    routes = [
        {"name": path[1:], "route": path, "is_stream": path not in ("/generate_text", "/summarize", "/chat")}
        for path in PLAIN_OPERATIONS
    ]
    return {"name": "llm", "type": "service", "routes": routes}
