"""Write what TGI generates from raw prompts: natively, or as legacy completions."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from proxy.simulator.answers import Answer, Finish, Question
from proxy.simulator.behaviour import Behaviour
from proxy.simulator.dialect import Frame, Stage
from proxy.simulator.tgi.chat_reply import CHUNKS_PER_SECOND, envelope, usage_of
from proxy.simulator.tgi.question import Prompted
from proxy.simulator.tgi.tokens import Token, others, said, tokens_of, write_token

_FINISHES: Mapping[Finish, str] = {
    "stop": "eos_token",
    "stop_sequence": "stop_sequence",
    "length": "length",
    "tool_calls": "eos_token",
}


def finish_of(answer: Answer, behaviour: Behaviour) -> str:
    """Name how an answer ended."""
    return behaviour.finish or _FINISHES[answer.finish]


def write_generated(question: Prompted, answer: Answer, behaviour: Behaviour) -> dict[str, Any]:
    """Render a whole native answer; details only if they were asked for.

    Source: text-generation-inference, router/src/lib.rs, GenerateResponse.
    """
    tokens = tokens_of(answer)
    body: dict[str, Any] = {"generated_text": _generated_text(question, tokens)}
    if question.details or question.prefill:
        body["details"] = {
            **_details(question, answer, tokens, behaviour),
            "prefill": _prefill(question, answer) if question.prefill else [],
            "tokens": [write_token(token) for token in tokens],
        }
        if question.top_n_tokens:
            body["details"]["top_tokens"] = [_top(token, question) for token in tokens]
    return body


def stream_generated(question: Prompted, answer: Answer, behaviour: Behaviour) -> Iterator[Frame]:
    """Render the events of a native stream; the last one has the whole text, and nothing says [DONE].

    Source: text-generation-inference, router/src/lib.rs, StreamResponse.
    """
    tokens = tokens_of(answer) or (Token("", special=True),)
    for index, token in enumerate(tokens, start=1):
        last = index == len(tokens)
        event: dict[str, Any] = {"index": index, "token": write_token(token)}
        if question.top_n_tokens:
            event["top_tokens"] = _top(token, question)
        event |= {"generated_text": _generated_text(question, tokens) if last else None, "details": None}
        if last and question.details:
            event["details"] = {
                **_details(question, answer, tokens, behaviour),
                "input_length": answer.prompt_tokens,
            }
        stage: Stage = "closing" if last else "content"
        yield Frame(msgspec.json.encode(event), stage)


def _generated_text(question: Prompted, tokens: tuple[Token, ...]) -> str:
    return (question.prompt if question.full_text else "") + said(tokens)


def _details(question: Prompted, answer: Answer, tokens: tuple[Token, ...], behaviour: Behaviour) -> dict[str, Any]:
    return {
        "finish_reason": finish_of(answer, behaviour),
        "generated_tokens": len(tokens),
        "seed": question.seed,
    }


def _prefill(question: Prompted, answer: Answer) -> list[dict[str, Any]]:
    """Write the tokens of the prompt; the first has no probability."""
    words = (question.prompt.split() or [""])[: answer.prompt_tokens]
    tokens = [Token(word) for word in words]
    return [
        {"id": token.id, "text": token.text, "logprob": token.logprob if index else None}
        for index, token in enumerate(tokens)
    ]


def _top(token: Token, question: Prompted) -> list[dict[str, Any]]:
    return [write_token(other) for other in others(token, question.top_n_tokens)]


def write_completion(answers: Sequence[Answer], behaviour: Behaviour) -> bytes:
    """Render a legacy completion, one choice per prompt.

    Source: text-generation-inference, router/src/lib.rs, CompletionFinal.
    """
    choices = [
        {"index": index, "text": said(tokens_of(each)), "logprobs": None, "finish_reason": finish_of(each, behaviour)}
        for index, each in enumerate(answers)
    ]
    return msgspec.json.encode({**envelope("text_completion"), "choices": choices, "usage": usage_of(answers)})


def stream_completion(question: Question, answers: Sequence[Answer], behaviour: Behaviour) -> Iterator[Frame]:
    """Render the chunks of a legacy completion; until the end the finish reason is an empty text.

    Source: text-generation-inference, router/src/server.rs, completions.
    """
    count = 0
    for index, answer in enumerate(answers):
        tokens = tokens_of(answer) or (Token("", special=True),)
        for place, token in enumerate(tokens, start=1):
            last = place == len(tokens)
            text = "" if token.special else token.text
            finish = finish_of(answer, behaviour) if last else ""
            choice = {"index": index, "text": text, "logprobs": None, "finish_reason": finish}
            start = envelope("text_completion", count // CHUNKS_PER_SECOND)
            ends_all = last and index == len(answers) - 1
            yield Frame(msgspec.json.encode({**start, "choices": [choice]}), "closing" if ends_all else "content")
            count += 1
    if question.include_usage and behaviour.usage == "normal":
        last_one = {
            **envelope("text_completion", count // CHUNKS_PER_SECOND),
            "choices": [],
            "usage": usage_of(answers),
        }
        yield Frame(msgspec.json.encode(last_one), "closing")
    yield Frame(b"[DONE]", "closing")
