"""How the answers of a server that follows OpenAI's API differ from OpenAI's own."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from proxy.simulator.answers import Answer, Question
from proxy.simulator.behaviour import Behaviour
from proxy.simulator.dialect import EPOCH

LEAST_CACHED, CACHE_STEP = 1024, 128  # prompt tokens


def _fields(**named: Any) -> Any:
    return field(default_factory=lambda: MappingProxyType(named))


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """OpenAI's own, unless told otherwise.

    Args:
        envelope: fields of every answer and chunk, beside those that all servers have.
        whole: fields of a whole answer only.
        choice: fields of each choice of a whole answer.
        message: fields of each message.
        role_delta: what the first chunk of a choice holds.
        logprobs: fields beside the content of log probabilities.
        chat_id: of which each answer's id is made; without a place for the key it is constant.
        text_id: the same, of a bare completion.
        call_id: the same, of a tool call.
        reasoning: the field in which thoughts are shown; None hides them.
        lists_no_calls: a message without tool calls holds an empty list of them.
        names_stop: a choice says in stop_reason which stop sequence ended it.
        joins_finish: the last chunk with content carries the finish reason.
        nulls_usage: chunks before the usage hold a null, if usage was asked for.
        named_finish: how an answer ends that calls the tool the caller named.
        details: usage holds its details.
    """

    envelope: Mapping[str, Any] = _fields(service_tier="default", system_fingerprint="fp_simulated")
    whole: Mapping[str, Any] = _fields()
    choice: Mapping[str, Any] = _fields()
    message: Mapping[str, Any] = _fields(refusal=None, annotations=[])
    role_delta: Mapping[str, Any] = _fields(role="assistant", content="", refusal=None)
    logprobs: Mapping[str, Any] = _fields(refusal=None)
    chat_id: str = "chatcmpl-{key}"
    text_id: str = "cmpl-{key}"
    call_id: str = "call_{key}"
    created: int = EPOCH
    reasoning: str | None = None
    lists_no_calls: bool = False
    names_stop: bool = False
    joins_finish: bool = False
    nulls_usage: bool = True
    named_finish: str = "stop"
    details: bool = True


def finish_reason(question: Question, answer: Answer, behaviour: Behaviour, traits: Traits) -> str:
    """Name how an answer ended."""
    if behaviour.finish is not None:
        return behaviour.finish
    if answer.finish == "stop_sequence" or (answer.finish == "tool_calls" and "stop_for_tools" in behaviour.quirks):
        return "stop"
    if answer.finish == "tool_calls" and question.tool_choice == "named":
        return traits.named_finish
    return "function_call" if answer.finish == "tool_calls" and question.legacy_functions else answer.finish


def write_usage(prompt: int, completion: int, reasoning: int, traits: Traits) -> dict[str, Any]:
    """Write the tokens of a call; long prompts count as cached."""
    usage: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    if not traits.details:
        return usage
    cached = prompt // CACHE_STEP * CACHE_STEP if prompt >= LEAST_CACHED else 0
    return usage | {
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
