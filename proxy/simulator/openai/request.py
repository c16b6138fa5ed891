"""Judge a chat completion request as the OpenAI API does, and reduce it to a question."""

from collections.abc import Mapping
from typing import Any

import msgspec

from proxy.simulator.answers import Question, Turn
from proxy.simulator.dialect import Body, parse_object, without_nulls
from proxy.simulator.openai.checks import (
    Check,
    array,
    between,
    boolean,
    choice,
    known_fields,
    mapping,
    missing,
    refuse,
    text,
    unknown,
    wrong_type,
)
from proxy.simulator.openai.families import check_family, count_hidden_thoughts
from proxy.simulator.openai.grammar import Grammar
from proxy.simulator.openai.messages import count_pictures, read_messages
from proxy.simulator.openai.schemas import response_format
from proxy.simulator.openai.tools import Offer, functions, read_tools, tools

MOST_STOPS = 4

_BAD_JSON = (
    "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP "
    "library correctly. The OpenAI API expects a JSON payload, but what was sent was not valid JSON.)"
)
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


def stop(path: str, value: Any) -> None:
    stops = value if isinstance(value, list) else [value]
    if len(stops) > MOST_STOPS:
        message = (
            f"Invalid '{path}': array too long. Expected an array with maximum length {MOST_STOPS}, "
            f"but got an array with length {len(stops)} instead."
        )
        raise refuse(message, path, "array_above_max_length")
    for stop in stops:
        if not isinstance(stop, str):
            raise wrong_type(path, "one of a string or array of strings", stop)


def anything(path: str, value: Any) -> None:
    """Accept a field whose shape plays no part here."""


def _modalities(path: str, value: Any) -> None:
    array(path, value)
    for index, each in enumerate(value):
        choice("text", "audio")(f"{path}[{index}]", each)


def _audio(path: str, value: Any) -> None:
    mapping(path, value)
    for name in ("voice", "format"):
        if name not in value:
            raise missing(f"{path}.{name}")
    choice("wav", "aac", "mp3", "flac", "opus", "pcm16")(f"{path}.format", value["format"])


def _stream_options(path: str, value: Any) -> None:
    mapping(path, value)
    known_fields(path, value, frozenset({"include_usage", "include_obfuscation"}))
    for name, each in value.items():
        boolean(f"{path}.{name}", each)


def _logit_bias(path: str, value: Any) -> None:
    mapping(path, value)
    for token, bias in value.items():
        if not token.isdigit():
            raise refuse(
                f"Invalid key in '{path}': {token}. You should only be submitting non-negative integers.", path
            )
        between("decimal", -100, 100)(f"{path}.{token}", bias)


def check_pairs(request: Body) -> None:
    """Refuse fields that need one another."""
    if "top_logprobs" in request and not request.get("logprobs"):
        message = "The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled."
        raise refuse(message, "top_logprobs")
    if "stream_options" in request and not request.get("stream"):
        message = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
        raise refuse(message, "stream_options")


def _check_together(request: Body) -> None:
    if "max_tokens" in request and "max_completion_tokens" in request:
        message = "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported."
        raise refuse(message, "max_tokens", "invalid_parameter_combination")
    check_pairs(request)
    check_family(request)
    if "audio" in request.get("modalities", ()) and "audio" not in request:
        raise missing("audio")
    wants_json = request.get("response_format", {}).get("type") == "json_object"
    if wants_json and "json" not in msgspec.json.encode(request.get("messages", [])).decode().lower():
        message = (
            "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'."
        )
        raise refuse(message, "messages")


FIELDS: Mapping[str, Check] = {
    "messages": anything,
    "model": text,
    "max_completion_tokens": between("integer", 1, None),
    "max_tokens": between("integer", 1, None),
    "temperature": between("decimal", 0, 2),
    "top_p": between("decimal", 0, 1),
    "n": between("integer", 1, 128),
    "stop": stop,
    "presence_penalty": between("decimal", -2, 2),
    "frequency_penalty": between("decimal", -2, 2),
    "logit_bias": _logit_bias,
    "logprobs": boolean,
    "top_logprobs": between("integer", 0, 20),
    "seed": between("integer", None, None),
    "tools": tools,
    "tool_choice": anything,
    "parallel_tool_calls": boolean,
    "functions": functions,
    "function_call": anything,
    "response_format": response_format,
    "reasoning_effort": choice(*EFFORTS),
    "verbosity": choice("low", "medium", "high"),
    "stream": boolean,
    "stream_options": _stream_options,
    "modalities": _modalities,
    "audio": _audio,
    "prediction": mapping,
    "service_tier": choice("auto", "default", "flex", "scale", "priority", "fast"),
    "store": boolean,
    "metadata": mapping,
    "user": text,
    "safety_identifier": text,
    "prompt_cache_key": text,
    "prompt_cache_options": mapping,
    "prompt_cache_retention": choice("in_memory", "24h"),
    "moderation": mapping,
    "web_search_options": mapping,
}
OPENAI = Grammar(fields=FIELDS, together=_check_together)


def read_question(headers: Mapping[str, str], body: bytes, grammar: Grammar = OPENAI) -> Question:
    """Judge a request; null means absent.

    Raises:
        Refused: with the message, param and code of the OpenAI API.

    Source: OpenAI API reference, "Create chat completion".
    """
    parsed = read_body(headers, body)
    request = without_nulls(parsed)
    if "model" not in request:
        if grammar.default_model is None:
            raise refuse("you must provide a model parameter")
        request["model"] = grammar.default_model
    for name, value in parsed.items():
        if name in grammar.fields:
            if value is not None:
                grammar.fields[name](name, value)
        elif not grammar.ignores_unknown:
            raise unknown(name)
    request = {name: value for name, value in request.items() if name in grammar.fields}
    turns = read_messages(request.get("messages"), grammar)
    offer = read_tools(request, grammar.tool_kinds, grammar.choice_kinds)
    grammar.together(request)
    return _reduce(request, turns, offer)


def read_body(headers: Mapping[str, str], body: bytes) -> Body:
    """Decode a request that says it is JSON, and is an object; raises Refused."""
    content_type = headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise refuse(f"Invalid Content-Type header ({content_type}), expected application/json.")
    parsed = parse_object(body)
    if parsed is None:
        raise refuse(_BAD_JSON)
    return parsed


def _reduce(request: Body, turns: tuple[Turn, ...], offer: Offer) -> Question:
    known, mode, named = offer
    stops = request.get("stop", [])
    form = request.get("response_format", {})
    options = request.get("stream_options", {})
    effort = request.get("reasoning_effort")
    return Question(
        model=request["model"],
        turns=turns,
        tools=known,
        tool_choice=mode,
        named_tool=named,
        parallel=request.get("parallel_tool_calls", "functions" not in request),
        max_tokens=request.get("max_completion_tokens", request.get("max_tokens")),
        stops=tuple([stops] if isinstance(stops, str) else stops),
        seed=request.get("seed"),
        n=request.get("n", 1),
        stream=request.get("stream", False),
        include_usage=bool(options.get("include_usage")),
        continuous_usage=bool(options.get("continuous_usage_stats")),
        json_schema=form["json_schema"].get("schema") or {} if form.get("type") == "json_schema" else None,
        json_object=form.get("type") == "json_object",
        logprobs=request.get("logprobs", False),
        top_logprobs=request.get("top_logprobs", 0),
        images=count_pictures(request["messages"]),
        reasoning_effort=effort,
        hidden_thoughts=count_hidden_thoughts(request["model"], effort),
        legacy_functions="functions" in request,
        audio="audio" in request.get("modalities", ()),
    )
