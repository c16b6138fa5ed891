"""Bare completions through Ollama's OpenAI layer, which has errors of its own and loses late ones."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from proxy.simulator.answers import Answer, Question
from proxy.simulator.behaviour import Behaviour
from proxy.simulator.dialect import EPOCH, Frame, Framing, Problem, Refused, parse_object
from proxy.simulator.openai.checks import Check, text
from proxy.simulator.openai.problems import INVALID
from proxy.simulator.openai.texts import TEXT_FIELDS, Texts
from proxy.simulator.openai.traits import Traits

LAYER = "/v1/completions:"  # before the model's name in questions, so that failures are phrased as here
MISSING = "missing"  # models whose names start so do not exist

_NUMBER = "cmpl-417"  # ids are numbers below a thousand, and collide
EMPTY_CHUNK = msgspec.json.encode(
    {
        "id": _NUMBER,
        "object": "text_completion",
        "created": EPOCH,
        "choices": [{"text": "", "index": 0, "finish_reason": None}],
        "model": "",
        "system_fingerprint": "fp_ollama",
    }
)
_READ = (
    "model prompt max_tokens temperature top_p seed stop frequency_penalty presence_penalty stream stream_options "
    "suffix"
).split()
_KINDS: Mapping[int, str] = {404: "not_found_error", 400: INVALID}


def in_layer(problem: Problem) -> Problem:
    """Give a native problem the type that makes it an OpenAI error."""
    return replace(problem, type=_KINDS.get(problem.status, "api_error"))


def _fields() -> Mapping[str, Check]:
    return {name: text if name == "prompt" else TEXT_FIELDS[name] for name in _READ}


def _traits() -> Traits:
    return Traits(text_id=_NUMBER, nulls_usage=False, details=False)


@dataclass(frozen=True, slots=True)
class LayerTexts:
    """The operation behind /v1/completions: one prompt, and no limit unless it is given.

    Source: ollama, openai/openai.go, CompletionRequest.
    """

    framing: Framing = "sse"
    inner: Texts = field(default_factory=lambda: Texts(fields=_fields(), ignores_unknown=True, traits=_traits()))

    def read(self, headers: Mapping[str, str], body: bytes) -> Question:
        """Judge a request; fields that the layer does not read do not exist for it."""
        sent = parse_object(body)
        known = None if sent is None else {name: value for name, value in sent.items() if name in _READ}
        question = self.inner.read(headers, body if known is None else msgspec.json.encode(known))
        if question.model.startswith(MISSING):
            raise Refused(in_layer(Problem(404, f"model '{question.model}' not found")))
        limit = (known or {}).get("max_tokens")
        return replace(question, model=LAYER + question.model, max_tokens=limit)

    def whole(self, question: Question, answers: Sequence[Answer], behaviour: Behaviour) -> bytes:
        """Render the answer."""
        return self.inner.whole(_unmarked(question), answers, behaviour)

    def frames(self, question: Question, answers: Sequence[Answer], behaviour: Behaviour) -> Iterator[Frame]:
        """Render a stream."""
        return self.inner.frames(_unmarked(question), answers, behaviour)


def _unmarked(question: Question) -> Question:
    return replace(question, model=question.model.removeprefix(LAYER))
