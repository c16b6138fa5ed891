"""What Hugging Face's services accept, and how the router reads a model's name."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from proxy.simulator.answers import Question, Role
from proxy.simulator.arguments import find_fault
from proxy.simulator.dialect import Body, Problem, Refused, parse_object
from proxy.simulator.openai.checks import Check, array, between, choice, known_fields, mapping, refuse, text
from proxy.simulator.openai.grammar import COMMON, Grammar
from proxy.simulator.openai.request import FIELDS, check_pairs, read_question
from proxy.simulator.openai.schemas import response_format

MOST_STOPS = 4
POLICIES = ("fastest", "cheapest", "preferred")
PROVIDERS = (
    "cerebras cohere fal-ai featherless-ai fireworks-ai groq hf-inference hyperbolic nebius novita nscale ovhcloud "
    "publicai sambanova scaleway together zai-org"
).split()

_ROLES: Mapping[str, Role] = {"system": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
_MESSAGE_FIELDS = {
    "system": COMMON,
    "user": COMMON,
    "assistant": COMMON | {"tool_calls"},
    "tool": COMMON | {"tool_call_id"},
}
_SHARED = (
    "messages model max_tokens temperature top_p n presence_penalty frequency_penalty logit_bias logprobs seed tools "
    "tool_choice parallel_tool_calls reasoning_effort stream"
).split()


def _stop(path: str, value: Any) -> None:
    array(path, value)
    for index, each in enumerate(value):
        text(f"{path}[{index}]", each)
    if len(value) > MOST_STOPS:
        raise refuse(f"`{path}` supports up to {MOST_STOPS} stop sequences. Given: {len(value)}", path)


def _format(path: str, value: Any) -> None:
    if not (isinstance(value, dict) and value.get("type") == "json_object"):
        response_format(path, value)
        return
    known_fields(path, value, frozenset({"type", "value"}))
    if value.get("value") is not None:
        mapping(f"{path}.value", value["value"])
        fault = find_fault(value["value"])
        if fault is not None:
            raise refuse(f"Invalid grammar: {fault}", path)


def _stream_options(path: str, value: Any) -> None:
    mapping(path, value)
    known_fields(path, value, frozenset({"include_usage"}))


_FIELDS: dict[str, Check] = {name: FIELDS[name] for name in _SHARED} | {
    "stop": _stop,
    "top_logprobs": between("integer", 0, 5),
    "response_format": _format,
    "stream_options": _stream_options,
    "tool_prompt": text,
    "reasoning_effort": choice("none", "minimal", "low", "medium", "high", "xhigh"),
}


def _check_together(request: Body) -> None:
    check_pairs(request)


GRAMMAR = Grammar(
    fields=_FIELDS,
    together=_check_together,
    roles=_ROLES,
    message_fields=_MESSAGE_FIELDS,
    parts={"user": ("text", "image_url")},
    tool_kinds=("function",),
    choice_kinds=("function",),
    links_results=False,
)


def read_routed(headers: Mapping[str, str], body: bytes) -> Question:
    """Judge a request to the router; the answer names the model without the provider.

    Raises:
        Refused: the model is not the first field, its provider is unknown, or a field is.

    Source: huggingface/hub-docs, inference-providers, "Chat Completion"; the reference, section 6.
    """
    question = read_documented(headers, body)
    if next(iter(parse_object(body) or {}), None) != "model":
        message = "Could not find the model near the start of the body: `model` must be its first field."
        raise Refused(Problem(400, message))
    model, _, provider = question.model.partition(":")
    if provider and provider not in (*POLICIES, *PROVIDERS):
        raise Refused(not_supported(model, f"provider {provider}"))
    return replace(question, model=model)


def read_documented(headers: Mapping[str, str], body: bytes) -> Question:
    """Judge the fields that are documented; strict providers refuse all others, and `n` is not used."""
    question = read_question(headers, body, GRAMMAR)
    form = (parse_object(body) or {}).get("response_format") or {}
    schema = form.get("value") if form.get("type") == "json_object" else question.json_schema
    return replace(question, n=1, json_schema=schema)


def not_supported(model: str, whom: str = "any provider you have enabled") -> Problem:
    """Phrase that nobody serves a model."""
    message = f"The requested model '{model}' is not supported by {whom}."
    return Problem(400, message, "invalid_request_error", "model", "model_not_supported")
