"""What vLLM accepts of a request: OpenAI's fields, its own, and silence about all others."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from proxy.simulator.answers import Question, Role, count_prompt
from proxy.simulator.arguments import find_fault
from proxy.simulator.dialect import Body, Problem, Refused, parse_object
from proxy.simulator.openai.checks import (
    Check,
    array,
    between,
    boolean,
    choice,
    mapping,
    missing,
    refuse,
    text,
    wrong_type,
)
from proxy.simulator.openai.grammar import Grammar
from proxy.simulator.openai.request import FIELDS, anything, check_pairs, read_question
from proxy.simulator.openai.schemas import response_format
from proxy.simulator.openai.texts import TEXT_FIELDS

CONTEXT = 32_768  # tokens of a prompt and its answer

_ROLES: Mapping[str, Role] = {"system": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
_PARTS: Mapping[str, tuple[str, ...]] = {
    "user": ("text", "image_url", "input_audio", "audio_url", "video_url", "refusal"),
    "assistant": ("text", "refusal"),
}
_CONSTRAINTS = ("json", "regex", "choice", "grammar", "json_object", "structural_tag")
_SHARED = (
    "messages model max_completion_tokens max_tokens n presence_penalty frequency_penalty logprobs seed tools "
    "tool_choice parallel_tool_calls reasoning_effort stream logit_bias user"
).split()
_FLAGS = (
    "include_stop_str_in_output ignore_eos skip_special_tokens spaces_between_special_tokens use_beam_search echo "
    "add_generation_prompt continue_final_message add_special_tokens include_reasoning return_token_ids "
    "return_tokens_as_token_ids"
).split()


def _stop(path: str, value: Any) -> None:
    if not all(isinstance(each, str) for each in (value if isinstance(value, list) else [value])):
        raise wrong_type(path, "a string or a list of strings", value)


def _above_zero(path: str, value: Any) -> None:
    between("decimal", 0, 1)(path, value)
    if value == 0:
        raise refuse(f"{path} must be in (0, 1], got {value}.", path)


def _format(path: str, value: Any) -> None:
    if not (isinstance(value, dict) and value.get("type") == "structural_tag"):
        response_format(path, value)


def _stream_options(path: str, value: Any) -> None:
    mapping(path, value)
    for name in ("include_usage", "continuous_usage_stats"):
        if value.get(name) is not None:
            boolean(f"{path}.{name}", value[name])


def _structured(path: str, value: Any) -> None:
    mapping(path, value)
    given = [name for name in _CONSTRAINTS if value.get(name) is not None]
    if len(given) != 1:
        message = (
            "You must use one kind of structured outputs constraint"
            if not given
            else ("You can only use one kind of structured outputs constraint but multiple are specified")
        )
        raise refuse(f"{message}: {value}", path)


_EXTRAS: dict[str, Check] = {
    "top_k": between("integer", -1, None),
    "min_p": between("decimal", 0, 1),
    "repetition_penalty": between("decimal", 0, None),
    "length_penalty": between("decimal", None, None),
    "stop_token_ids": anything,
    "min_tokens": between("integer", 0, None),
    "allowed_token_ids": anything,
    "bad_words": anything,
    "prompt_logprobs": between("integer", -1, None),
    "truncate_prompt_tokens": between("integer", -1, None),
    "documents": array,
    "chat_template": text,
    "chat_template_kwargs": mapping,
    "mm_processor_kwargs": mapping,
    "structured_outputs": _structured,
    "priority": between("integer", None, None),
    "request_id": text,
    "session_id": text,
    "cache_salt": text,
    "thinking_token_budget": between("integer", None, None),
    "stream_interval": between("integer", 1, None),
    "vllm_xargs": mapping,
    "kv_transfer_params": mapping,
}
_OWN: dict[str, Check] = {
    "temperature": between("decimal", 0, 2),
    "top_p": _above_zero,
    "stop": _stop,
    "stream_options": _stream_options,
}
_FIELDS: Mapping[str, Check] = (
    {name: FIELDS[name] for name in _SHARED}
    | _EXTRAS
    | _OWN
    | dict.fromkeys(_FLAGS, boolean)
    | {
        "top_logprobs": between("integer", 0, 20),
        "response_format": _format,
        "reasoning_effort": choice("none", "minimal", "low", "medium", "high", "xhigh", "max"),
    }
)


def _no_suffix(path: str, value: Any) -> None:  # noqa: ARG001 - no value is right
    raise refuse("suffix is not currently supported", path)


COMPLETION_FIELDS: Mapping[str, Check] = {
    **TEXT_FIELDS,
    **_EXTRAS,
    **_OWN,
    "logprobs": between("integer", 0, 20),
    "suffix": _no_suffix,
}


def _check_together(request: Body) -> None:
    check_pairs(request)
    if request.get("n", 1) > 1 and request.get("temperature") == 0:
        raise refuse(f"n must be 1 when using greedy sampling, got {request['n']}.", "n")


GRAMMAR = Grammar(
    fields=_FIELDS,
    together=_check_together,
    ignores_unknown=True,
    roles=_ROLES,
    parts=_PARTS,
    tool_kinds=("function",),
    choice_kinds=("function",),
    links_results=False,
)


def read_chat(headers: Mapping[str, str], body: bytes, grammar: Grammar = GRAMMAR) -> Question:
    """Judge a chat request; unknown fields are ignored, null means absent.

    Raises:
        Refused: with the status and the fault; the dialect gives it its shape.

    Source: vLLM 0.33, entrypoints/openai/chat_completion/protocol.py.
    """
    question = read_question(headers, body, grammar)
    request = parse_object(body) or {}
    asked = count_prompt(question)
    wanted = question.max_tokens or 0
    if asked + wanted > CONTEXT:
        name = "max_completion_tokens" if request.get("max_completion_tokens") is not None else "max_tokens"
        message = (
            f"'max_tokens' or 'max_completion_tokens' is too large: {wanted}. This model's maximum context length is "
            f"{CONTEXT} tokens and your request has {asked} input tokens ({wanted} > {CONTEXT} - {asked})."
        )
        raise Refused(Problem(400, message, "BadRequestError", name))
    return _constrain(question, request.get("structured_outputs") or {})


def _constrain(question: Question, constraint: Body) -> Question:
    if isinstance(constraint.get("json"), dict):
        fault = find_fault(constraint["json"])
        if fault is not None:
            raise refuse(f"Invalid JSON schema: {fault}.", "structured_outputs")
        return replace(question, json_schema=constraint["json"])
    if constraint.get("json_object"):
        return replace(question, json_object=True)
    options = constraint.get("choice")
    if options is not None:
        if not isinstance(options, list) or not options:
            raise missing("structured_outputs.choice")
        return replace(question, dictated=str(options[0]))
    return question
