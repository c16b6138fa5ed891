"""Embeddings: unit vectors that are the same for the same text and length."""

import base64
import math
import random
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from proxy.simulator.answers import Answer, Question
from proxy.simulator.behaviour import Behaviour
from proxy.simulator.dialect import Frame, Framing, without_nulls
from proxy.simulator.openai.checks import Check, between, choice, refuse, text, unknown
from proxy.simulator.openai.request import read_body
from proxy.simulator.openai.texts import prompt, texts_of

MOST_INPUTS = 2048
LENGTH = 1536
_FIXED_LENGTH = "text-embedding-ada"


def _input(path: str, value: Any) -> None:
    prompt(path, value)
    texts = texts_of(value)
    if len(texts) > MOST_INPUTS:
        message = f"Invalid '{path}': array too long. Expected an array with maximum length {MOST_INPUTS}."
        raise refuse(message, path, "array_above_max_length")
    if not all(texts):
        raise refuse(f"Invalid '{path}': input cannot be an empty string.", path)


EMBEDDING_FIELDS: Mapping[str, Check] = {
    "model": text,
    "input": _input,
    "encoding_format": choice("float", "base64"),
    "dimensions": between("integer", 1, None),
    "user": text,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Embeddings:
    """The operation behind /embeddings.

    Source: OpenAI API reference, "Create embeddings".
    """

    fields: Mapping[str, Check] = field(default_factory=lambda: EMBEDDING_FIELDS)
    ignores_unknown: bool = False
    length: int = LENGTH
    extras: Mapping[str, Any] = field(default_factory=dict)
    framing: Framing = "sse"

    def read(self, headers: Mapping[str, str], body: bytes) -> Question:
        """Judge a request."""
        request = without_nulls(read_body(headers, body))
        for name in ("model", "input"):
            if name not in request:
                raise refuse(f"you must provide a {name} parameter", name)
        for name, value in request.items():
            if name in self.fields:
                self.fields[name](name, value)
            elif not self.ignores_unknown:
                raise unknown(name)
        if "dimensions" in request and request["model"].startswith(_FIXED_LENGTH):
            raise refuse("This model does not support specifying dimensions.", "dimensions")
        return Question(
            model=request["model"],
            turns=(),
            inputs=texts_of(request["input"]),
            dimensions=request.get("dimensions"),
            base64=request.get("encoding_format") == "base64",
        )

    def whole(self, question: Question, answers: Sequence[Answer], behaviour: Behaviour) -> bytes:  # noqa: ARG002
        """Render the list of embeddings."""
        length = question.dimensions or self.length
        vectors = [embed(each, length) for each in question.inputs]
        spoken = [pack(vector) if question.base64 else vector for vector in vectors]
        data = [{"object": "embedding", "index": index, "embedding": each} for index, each in enumerate(spoken)]
        body: dict[str, Any] = {**self.extras, "object": "list", "data": data, "model": question.model}
        if behaviour.usage != "none":
            tokens = sum(len(each.split()) for each in question.inputs)
            body["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
        return msgspec.json.encode(body)

    def frames(self, question: Question, answers: Sequence[Answer], behaviour: Behaviour) -> Iterator[Frame]:
        """Nothing streams here: questions never ask for it."""
        yield Frame(self.whole(question, answers, behaviour), "content")


def embed(said: str, length: int) -> list[float]:
    """Return a vector of length 1 in numbers of single precision."""
    chance = random.Random(said)
    drawn = [chance.gauss(0, 1) for _ in range(length)]
    size = math.hypot(*drawn)
    return list(struct.unpack(f"<{length}f", struct.pack(f"<{length}f", *(each / size for each in drawn))))


def pack(vector: Sequence[float]) -> str:
    """Write a vector as base64 of little-endian single-precision numbers."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
