"""Native embeddings."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from proxy.simulator.answers import Answer, Question
from proxy.simulator.behaviour import Behaviour
from proxy.simulator.dialect import Frame, Framing
from proxy.simulator.ollama.request import read_body, refuse
from proxy.simulator.openai.embeddings import embed

LENGTH = 768
CONTEXT = 2048  # words of one input


@dataclass(frozen=True, slots=True)
class Embed:
    """The operation behind /api/embed.

    Source: ollama, docs/api.md, "Generate Embeddings"; server/routes.go, EmbedHandler.
    """

    framing: Framing = "ndjson"

    def read(self, headers: Mapping[str, str], body: bytes) -> Question:  # noqa: ARG002 - no header matters
        """Judge a request; inputs beyond the context are cut, unless `truncate` is false."""
        request = read_body(body)
        model, truncate = request.get("model", ""), request.get("truncate", True)
        if not isinstance(model, str) or not isinstance(truncate, bool):
            raise refuse("json: cannot unmarshal value into Go struct field EmbedRequest")
        if not model:
            raise refuse("model is required")
        dimensions = request.get("dimensions", LENGTH)
        if isinstance(dimensions, bool) or not isinstance(dimensions, int) or dimensions < 0:
            raise refuse("json: cannot unmarshal value into Go struct field EmbedRequest.dimensions of type int")
        inputs = _texts(request.get("input", []))
        if not truncate and any(len(each.split()) > CONTEXT for each in inputs):
            raise refuse("the input length exceeds the context length")
        return Question(model=model, turns=(), inputs=inputs, dimensions=min(dimensions or LENGTH, LENGTH))

    def whole(self, question: Question, answers: Sequence[Answer], behaviour: Behaviour) -> bytes:  # noqa: ARG002
        """Render all vectors, always as numbers."""
        cut = [" ".join(each.split()[:CONTEXT]) for each in question.inputs]
        body: dict[str, Any] = {
            "model": question.model,
            "embeddings": [embed(each, question.dimensions or LENGTH) for each in cut],
            "total_duration": 14_143_917,
            "load_duration": 1_019_500,
        }
        if behaviour.usage != "none":
            body["prompt_eval_count"] = sum(len(each.split()) for each in cut)
        return msgspec.json.encode(body)

    def frames(self, question: Question, answers: Sequence[Answer], behaviour: Behaviour) -> Iterator[Frame]:
        """Nothing streams here: questions never ask for it."""
        yield Frame(self.whole(question, answers, behaviour), "content")


def _texts(value: Any) -> tuple[str, ...]:
    """Return one text or several; tokens are no input."""
    texts = value if isinstance(value, list) else [value]
    if not all(isinstance(each, str) for each in texts):
        raise refuse("invalid input type")
    return tuple(each for each in texts if each or len(texts) > 1)
