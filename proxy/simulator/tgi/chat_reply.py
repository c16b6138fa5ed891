"""Write chat completions and their chunks as TGI does: no ids, the role everywhere, at most one tool call."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from proxy.simulator.answers import Answer, Finish, Question
from proxy.simulator.behaviour import Behaviour
from proxy.simulator.dialect import EPOCH, Frame, Stage
from proxy.simulator.tgi.tokens import Token, others, said, tokens_of

MODEL = "meta-llama/Llama-3.1-8B-Instruct"
FINGERPRINT = "3.3.6-dev0-native"
CHUNKS_PER_SECOND = 5  # after so many `created` is another second

TOOL_ID = "0"
_FINISHES: Mapping[Finish, str] = {
    "stop": "stop",
    "stop_sequence": "stop_sequence",
    "length": "length",
    "tool_calls": "stop",
}


def finish_of(answer: Answer, behaviour: Behaviour) -> str:
    """Name how an answer ended; tool calls are nothing special here."""
    return behaviour.finish or _FINISHES[answer.finish]


def usage_of(answers: Sequence[Answer]) -> dict[str, int]:
    """Count tokens: three numbers, no details."""
    prompt = sum(answer.prompt_tokens for answer in answers)
    completion = sum(answer.completion_tokens for answer in answers)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def envelope(kind: str, second: int = 0) -> dict[str, Any]:
    """Return what every object begins with; its id is empty."""
    return {
        "object": kind,
        "id": "",
        "created": EPOCH + second,
        "model": MODEL,
        "system_fingerprint": FINGERPRINT,
    }


def write_chat(question: Question, answers: Sequence[Answer], behaviour: Behaviour) -> bytes:
    """Render a chat completion.

    Source: text-generation-inference, router/src/lib.rs, ChatCompletion.
    """
    answer = answers[0]
    tokens = tokens_of(answer)
    message: dict[str, Any] = {"role": "assistant", "content": said(tokens)}
    if answer.calls:
        message = {"role": "assistant", "tool_calls": [_whole_call(answer, behaviour)]}
    choice = {
        "index": 0,
        "message": message,
        "logprobs": _logprobs(tokens, question) if question.logprobs else None,
        "finish_reason": finish_of(answer, behaviour),
    }
    usage = {} if behaviour.usage == "none" else {"usage": usage_of(answers)}
    return msgspec.json.encode({**envelope("chat.completion"), "choices": [choice], **usage})


def stream_chat(question: Question, answers: Sequence[Answer], behaviour: Behaviour) -> Iterator[Frame]:
    """Render the chunks of a stream; the last token brings the finish reason.

    Source: text-generation-inference, router/src/chat.rs, ChatState.
    """
    answer = answers[0]
    deltas = list(_call_deltas(answer, behaviour) if answer.calls else _text_deltas(answer))
    for place, (token, delta) in enumerate(deltas):
        stage: Stage = "closing" if place == len(deltas) - 1 else "content"
        choice = {
            "index": 0,
            "delta": {"role": "assistant", **delta},
            "logprobs": _logprobs((token,), question) if question.logprobs else None,
            "finish_reason": finish_of(answer, behaviour) if stage == "closing" else None,
        }
        on_finish = stage == "closing" and behaviour.usage == "finish_chunk"
        usage = usage_of(answers) if on_finish else None
        yield _chunk(place, stage, [choice], usage)
    if question.include_usage and behaviour.usage == "normal":
        yield _chunk(len(deltas), "closing", [], usage_of(answers))
    yield Frame(b"[DONE]", "closing")


def _chunk(place: int, stage: Stage, choices: list[dict[str, Any]], usage: dict[str, int] | None) -> Frame:
    start = envelope("chat.completion.chunk", place // CHUNKS_PER_SECOND)
    return Frame(msgspec.json.encode({**start, "choices": choices, "usage": usage}), stage)


def _text_deltas(answer: Answer) -> Iterator[tuple[Token, dict[str, Any]]]:
    """Yield each token's delta; a special token has an empty text."""
    for token in tokens_of(answer) or (Token("", special=True),):
        yield token, {"content": "" if token.special else token.text}


def _call_deltas(answer: Answer, behaviour: Behaviour) -> Iterator[tuple[Token, dict[str, Any]]]:
    """Yield the one call: its name comes with the first brace, and its id with every fragment."""
    call = answer.calls[0]
    if "arguments_object" in behaviour.quirks:
        yield Token("{"), _fragment(call.name, call.arguments)
    else:
        yield Token("{"), _fragment(call.name, "{")
        for piece in (call.pieces[0][1:], *call.pieces[1:]):
            yield Token(piece), _fragment(None, piece)
    yield tokens_of(answer)[-1], {"content": ""}


def _fragment(name: str | None, arguments: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"tool_calls": [{"index": 0, "id": TOOL_ID, "type": "function", "function": function}]}


def _whole_call(answer: Answer, behaviour: Behaviour) -> dict[str, Any]:
    call = answer.calls[0]
    arguments = call.arguments if "arguments_object" in behaviour.quirks else "".join(call.pieces)
    function = {"description": None, "name": call.name, "arguments": arguments}
    return {"id": TOOL_ID, "type": "function", "function": function}


def _logprobs(tokens: tuple[Token, ...], question: Question) -> dict[str, Any]:
    """Write log probabilities; its entries have no `bytes`."""
    entries = [
        {
            "token": token.text,
            "logprob": token.logprob,
            "top_logprobs": [
                {"token": other.text, "logprob": other.logprob} for other in others(token, question.top_logprobs)
            ],
        }
        for token in tokens
    ]
    return {"content": entries}
