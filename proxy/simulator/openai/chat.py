"""Chat completions: what goes in, and how the answer is written whole or in chunks."""

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from proxy.simulator.answers import Answer, Question, ToolCall
from proxy.simulator.behaviour import Behaviour
from proxy.simulator.dialect import Frame, Framing, Stage
from proxy.simulator.openai.logprobs import chat_logprob
from proxy.simulator.openai.request import read_question
from proxy.simulator.openai.traits import Traits, finish_reason, write_usage

Read = Callable[[Mapping[str, str], bytes], Question]
DONE = Frame(b"[DONE]", "closing")
SOUND = base64.b64encode(b"RIFF simulated sound").decode()
_NULLS = {"role": None, "content": None, "tool_calls": None, "function_call": None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """The operation behind /chat/completions."""

    reader: Read = read_question
    traits: Traits = Traits()
    framing: Framing = "sse"

    def read(self, headers: Mapping[str, str], body: bytes) -> Question:
        """Judge a request."""
        return self.reader(headers, body)

    def whole(self, question: Question, answers: Sequence[Answer], behaviour: Behaviour) -> bytes:
        """Render a chat completion."""
        write = _Writer(question, answers, behaviour, self.traits)
        body: dict[str, Any] = write.envelope("chat.completion")
        body["choices"] = [write.choice(index, answer) for index, answer in enumerate(answers)]
        if behaviour.usage != "none":
            body["usage"] = write.usage()
        return msgspec.json.encode(body | dict(self.traits.whole))

    def frames(self, question: Question, answers: Sequence[Answer], behaviour: Behaviour) -> Iterator[Frame]:
        """Render the chunks of a stream; those of several choices take turns."""
        return _Writer(question, answers, behaviour, self.traits).frames()


class _Writer:
    """Writes the answers to one question."""

    def __init__(self, question: Question, answers: Sequence[Answer], behaviour: Behaviour, traits: Traits) -> None:
        self._question = question
        self._answers = answers
        self._behaviour = behaviour
        self._quirks = behaviour.quirks
        self._traits = traits
        self._asked_usage = question.include_usage and behaviour.usage == "normal"
        self._on_finish = behaviour.usage == "finish_chunk" or "usage_on_finish" in self._quirks
        self._always = (question.continuous_usage and self._asked_usage) or "usage_every_chunk" in self._quirks
        self._head: dict[str, Any] = {}
        self._said = 0

    def envelope(self, kind: str) -> dict[str, Any]:
        return {
            "id": self._traits.chat_id.replace("{key}", self._answers[0].key),
            "object": kind,
            "created": self._traits.created,
            "model": self._question.model,
            **self._traits.envelope,
        }

    def usage(self, completion: int | None = None) -> dict[str, Any]:
        total = sum(answer.completion_tokens for answer in self._answers)
        thought = sum(answer.reasoning_tokens for answer in self._answers)
        spent = total if completion is None else completion
        return write_usage(self._answers[0].prompt_tokens, spent, thought, self._traits)

    def choice(self, index: int, answer: Answer) -> dict[str, Any]:
        finish = finish_reason(self._question, answer, self._behaviour, self._traits)
        logprobs = self._logprobs(answer.pieces) if self._question.logprobs else None
        choice = {"index": index, "message": self._message(answer), "logprobs": logprobs, "finish_reason": finish}
        return choice | dict(self._traits.choice) | self._stop_reason(answer)

    def frames(self) -> Iterator[Frame]:
        self._head = self.envelope("chat.completion.chunk")
        if "filter_preamble" in self._quirks:
            yield Frame(msgspec.json.encode(_PREAMBLE), "setup")
        for index in range(len(self._answers)):
            yield self._chunk("setup", index, dict(self._traits.role_delta))
        last: dict[int, dict[str, Any]] = {}
        streams = {index: self._deltas(answer) for index, answer in enumerate(self._answers)}
        while streams:
            for index, deltas in list(streams.items()):
                delta = next(deltas, None)
                if delta is None:
                    del streams[index]
                    continue
                if index in last:
                    yield self._chunk("content", index, last.pop(index))
                if self._traits.joins_finish:
                    last[index] = delta
                else:
                    yield self._chunk("content", index, delta)
        for index, answer in enumerate(self._answers):
            yield self._chunk("closing", index, last.get(index, {}), answer)
        if self._asked_usage and not self._on_finish:
            body = {**self._head, "choices": [], "usage": self.usage()}
            yield Frame(msgspec.json.encode(body), "closing")
        yield DONE

    def _chunk(self, stage: Stage, index: int, delta: dict[str, Any], ended: Answer | None = None) -> Frame:
        said = next((delta[name] for name in ("content", "refusal") if delta.get(name)), None)
        wants = self._question.logprobs and said is not None
        delta = ({"role": "assistant"} if "repeat_role" in self._quirks else {}) | delta
        delta = _NULLS | delta if "explicit_nulls" in self._quirks else delta
        finish = "" if "empty_finish" in self._quirks else None
        stop: dict[str, Any] = {}
        if ended is not None:
            finish = finish_reason(self._question, ended, self._behaviour, self._traits)
            stop = self._stop_reason(ended)
        choice = {
            "index": index,
            "delta": delta,
            "logprobs": self._logprobs([str(said)]) if wants else None,
            "finish_reason": finish,
            **stop,
        }
        self._said += stage != "setup" and delta != {}
        return Frame(msgspec.json.encode({**self._head, "choices": [choice], **self._chunk_usage(ended)}), stage)

    def _chunk_usage(self, ended: Answer | None) -> dict[str, Any]:
        if self._always:
            return {"usage": self.usage(None if ended is not None else self._said)}
        if self._on_finish:
            return {"usage": self.usage()} if ended is not None else {}
        return {"usage": None} if self._asked_usage and self._traits.nulls_usage else {}

    def _stop_reason(self, answer: Answer) -> dict[str, Any]:
        return {"stop_reason": answer.stopped_by} if self._traits.names_stop else {}

    def _logprobs(self, tokens: Sequence[str]) -> dict[str, Any]:
        top = self._question.top_logprobs
        return {"content": [chat_logprob(token, top) for token in tokens], **self._traits.logprobs}

    def _reasoning_field(self) -> str | None:
        return "reasoning_content" if "legacy_reasoning" in self._quirks else self._traits.reasoning

    def _message(self, answer: Answer) -> dict[str, Any]:
        said = answer.text if answer.pieces or not answer.calls else None
        message: dict[str, Any] = {"role": "assistant", "content": said, **self._traits.message}
        if answer.thoughts and (name := self._reasoning_field()):
            message[name] = answer.reasoning
        if self._question.audio and said is not None:
            sound = {"id": f"audio_{answer.key}", "data": SOUND, "expires_at": self._traits.created + 3600}
            message |= {"content": None, "audio": sound | {"transcript": said}}
        calls = [
            {"id": self._call_id(call), "type": "function", "function": self._function(call)} for call in answer.calls
        ]
        if calls and self._question.legacy_functions:
            message["function_call"] = calls[0]["function"]
        elif calls or self._traits.lists_no_calls:
            message["tool_calls"] = calls
        return _NULLS | message if "explicit_nulls" in self._quirks else message

    def _call_id(self, call: ToolCall) -> str:
        return self._traits.call_id.replace("{key}", call.key)

    def _function(self, call: ToolCall) -> dict[str, Any]:
        as_object = "arguments_object" in self._quirks
        return {"name": call.name, "arguments": call.arguments if as_object else "".join(call.pieces)}

    def _deltas(self, answer: Answer) -> Iterator[dict[str, Any]]:
        """Yield the content of an answer: thoughts, then text, then each tool call and its fragments."""
        name = self._reasoning_field()
        if name:
            yield from ({name: piece} for piece in answer.thoughts)
        if self._question.audio and answer.pieces:
            yield {"audio": {"id": f"audio_{answer.key}"}}
            yield from ({"audio": {"transcript": piece}} for piece in answer.pieces)
            yield {"audio": {"data": SOUND, "expires_at": self._traits.created + 3600}}
        else:
            yield from ({"content": piece} for piece in answer.pieces)
        for index, call in enumerate(answer.calls):
            yield from self._call_deltas(index, call)

    def _call_deltas(self, index: int, call: ToolCall) -> Iterator[dict[str, Any]]:
        if self._question.legacy_functions:
            yield {"function_call": {"name": call.name, "arguments": ""}}
            yield from ({"function_call": {"arguments": piece}} for piece in call.pieces)
            return
        place = {} if "no_index" in self._quirks else {"index": index}
        known = {"id": self._call_id(call), "type": "function"}
        if "arguments_object" in self._quirks:
            yield {"tool_calls": [place | known | {"function": self._function(call)}]}
            return
        yield {"tool_calls": [place | known | {"function": {"name": call.name, "arguments": ""}}]}
        repeats = "repeat_id" in self._quirks
        for piece in call.pieces:
            function = ({"name": call.name} if repeats else {}) | {"arguments": piece}
            yield {"tool_calls": [place | (known if repeats else {}) | {"function": function}]}


_PREAMBLE: Mapping[str, Any] = {
    "choices": [],
    "created": 0,
    "id": "",
    "model": "",
    "object": "",
    "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": {}}],
}
