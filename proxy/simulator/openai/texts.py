"""Bare completions: prompts in, texts out, whole or in chunks."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from proxy.simulator.answers import Answer, Question
from proxy.simulator.behaviour import Behaviour
from proxy.simulator.dialect import Frame, Framing, without_nulls
from proxy.simulator.openai.chat import DONE
from proxy.simulator.openai.checks import Check, between, boolean, refuse, text, unknown, wrong_type
from proxy.simulator.openai.logprobs import text_logprobs
from proxy.simulator.openai.request import FIELDS, check_pairs, read_body
from proxy.simulator.openai.traits import Traits, finish_reason, write_usage

DEFAULT_MAX_TOKENS = 16

_SHARED = (
    "model n stop presence_penalty frequency_penalty logit_bias seed temperature top_p stream stream_options user"
).split()


def prompt(path: str, value: Any) -> None:
    """Accept a text, texts, tokens, or arrays of tokens."""
    if isinstance(value, str):
        return
    if value == []:
        raise refuse(f"Invalid '{path}': expected at least one.", path, "empty_array")
    if not isinstance(value, list) or not (
        _are(value, str) or _are_tokens(value) or all(_are_tokens(inner) for inner in value)
    ):
        raise wrong_type(path, "a string, array of strings, array of tokens, or array of token arrays", value)


def texts_of(value: Any) -> tuple[str, ...]:
    """Return a checked prompt as texts; tokens are spelt as words."""
    if isinstance(value, str):
        return (value,)
    if _are(value, str):
        return tuple(value)
    arrays = [value] if _are_tokens(value) else value
    return tuple(" ".join(f"token{number}" for number in tokens) for tokens in arrays)


def _are(values: Any, kind: type) -> bool:
    return isinstance(values, list) and all(type(each) is kind for each in values)


def _are_tokens(values: Any) -> bool:
    return _are(values, int) and len(values) > 0 and min(values) >= 0


TEXT_FIELDS: Mapping[str, Check] = {name: FIELDS[name] for name in _SHARED} | {
    "prompt": prompt,
    "best_of": between("integer", 1, 20),
    "echo": boolean,
    "logprobs": between("integer", 0, 5),
    "max_tokens": between("integer", 0, None),
    "suffix": text,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """The operation behind /completions.

    Source: OpenAI API reference, "Create completion (legacy)".
    """

    fields: Mapping[str, Check] = field(default_factory=lambda: TEXT_FIELDS)
    ignores_unknown: bool = False
    default_model: str | None = None
    traits: Traits = Traits()
    framing: Framing = "sse"

    def read(self, headers: Mapping[str, str], body: bytes) -> Question:
        """Judge a request."""
        parsed = read_body(headers, body)
        request = without_nulls(parsed)
        if self.default_model is not None:
            request.setdefault("model", self.default_model)
        for name in ("model", "prompt"):
            if name not in request:
                raise refuse(f"you must provide a {name} parameter", name)
        for name, value in request.items():
            if name in self.fields:
                self.fields[name](name, value)
            elif not self.ignores_unknown:
                raise unknown(name)
        check_pairs({name: value for name, value in request.items() if name != "logprobs"})
        stops = request.get("stop", [])
        options = request.get("stream_options", {})
        return Question(
            model=request["model"],
            turns=(),
            prompts=texts_of(request["prompt"]),
            max_tokens=request.get("max_tokens", DEFAULT_MAX_TOKENS),
            stops=tuple([stops] if isinstance(stops, str) else stops),
            seed=request.get("seed"),
            n=request.get("n", 1),
            stream=request.get("stream", False),
            include_usage=bool(options.get("include_usage")),
            continuous_usage=bool(options.get("continuous_usage_stats")),
            logprobs="logprobs" in request,
            top_logprobs=request.get("logprobs", 0),
            echo=request.get("echo", False),
        )

    def whole(self, question: Question, answers: Sequence[Answer], behaviour: Behaviour) -> bytes:
        """Render a completion."""
        choices = []
        for index, answer in enumerate(answers):
            pieces = self._pieces(question, answer, index)
            choices.append(self._choice(question, index, pieces, 0, (answer, behaviour)) | dict(self.traits.choice))
        body: dict[str, Any] = {**self._head(question, answers), "choices": choices}
        if behaviour.usage != "none":
            body["usage"] = self._usage(question, answers)
        return msgspec.json.encode(body | dict(self.traits.whole))

    def frames(self, question: Question, answers: Sequence[Answer], behaviour: Behaviour) -> Iterator[Frame]:
        """Render the chunks of a stream; those of several choices take turns."""
        head = self._head(question, answers)
        asked = question.include_usage and behaviour.usage == "normal"
        on_finish = behaviour.usage == "finish_chunk" or "usage_on_finish" in behaviour.quirks
        nulls = {"usage": None} if asked and self.traits.nulls_usage else {}
        says = [self._pieces(question, answer, index) for index, answer in enumerate(answers)]
        for turn in range(max(len(pieces) for pieces in says)):
            for index, pieces in enumerate(says):
                if turn < len(pieces):
                    start = sum(len(piece) for piece in pieces[:turn])
                    choice = self._choice(question, index, pieces[turn : turn + 1], start, None)
                    yield Frame(msgspec.json.encode({**head, "choices": [choice], **nulls}), "content")
        for index, answer in enumerate(answers):
            choice = self._choice(question, index, (), 0, (answer, behaviour))
            usage = {"usage": self._usage(question, answers)} if on_finish else nulls
            yield Frame(msgspec.json.encode({**head, "choices": [choice], **usage}), "closing")
        if asked and not on_finish:
            body = {**head, "choices": [], "usage": self._usage(question, answers)}
            yield Frame(msgspec.json.encode(body), "closing")
        yield DONE

    def _pieces(self, question: Question, answer: Answer, index: int) -> tuple[str, ...]:
        asked = question.prompts[index // question.n]
        return (asked, *answer.pieces) if question.echo and asked else answer.pieces

    def _head(self, question: Question, answers: Sequence[Answer]) -> dict[str, Any]:
        return {
            "id": self.traits.text_id.replace("{key}", answers[0].key),
            "object": "text_completion",
            "created": self.traits.created,
            "model": question.model,
            "system_fingerprint": "fp_simulated",
        }

    def _choice(
        self,
        question: Question,
        index: int,
        pieces: Sequence[str],
        start: int,
        ended: tuple[Answer, Behaviour] | None,
    ) -> dict[str, Any]:
        logprobs = text_logprobs(pieces, question.top_logprobs, start) if question.logprobs and pieces else None
        finish = None if ended is None else finish_reason(question, *ended, self.traits)
        choice = {"text": "".join(pieces), "index": index, "logprobs": logprobs, "finish_reason": finish}
        if ended is not None and self.traits.names_stop:
            choice["stop_reason"] = ended[0].stopped_by
        return choice

    def _usage(self, question: Question, answers: Sequence[Answer]) -> dict[str, Any]:
        asked = sum(answer.prompt_tokens for answer in answers[:: question.n])
        said = sum(answer.completion_tokens for answer in answers)
        return write_usage(asked, said, 0, self.traits)
