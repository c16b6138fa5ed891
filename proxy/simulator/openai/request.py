"""Judge a chat completion request as the OpenAI API does, and reduce it to a question."""

import re
from collections.abc import Mapping
from typing import Any, Literal, cast

from proxy.simulator.answers import Question, Tool
from proxy.simulator.arguments import find_fault
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
    unsupported_choice,
    wrong_type,
)
from proxy.simulator.openai.messages import read_messages

MOST_STOPS = 4

_BAD_JSON = (
    "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP "
    "library correctly. The OpenAI API expects a JSON payload, but what was sent was not valid JSON.)"
)
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_REASONING_MODEL = re.compile(r"o[1-9](-|$)|gpt-5(-mini|-nano)?(-\d|$)")
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


def _stop(path: str, value: Any) -> None:
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


def _anything(path: str, value: Any) -> None:
    """Accept a field whose shape plays no part here."""


def _tools(path: str, value: Any) -> None:
    array(path, value)
    for index, tool in enumerate(value):
        _tool(f"{path}[{index}]", tool)


def _tool(path: str, tool: Any) -> None:
    mapping(path, tool)
    if "type" not in tool:
        raise missing(f"{path}.type")
    choice("function", "custom")(f"{path}.type", tool["type"])
    kind = tool["type"]
    known_fields(path, tool, frozenset({"type", kind}))
    if kind not in tool:
        raise missing(f"{path}.{kind}")
    mapping(f"{path}.{kind}", tool[kind])
    function = tool[kind]
    if "name" not in function:
        raise missing(f"{path}.{kind}.name")
    text(f"{path}.{kind}.name", function["name"])
    if _TOOL_NAME.fullmatch(function["name"]) is None:
        message = (
            f"Invalid '{path}.{kind}.name': string does not match pattern. "
            "Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'."
        )
        raise refuse(message, f"{path}.{kind}.name", "invalid_value")
    if kind == "function":
        known_fields(f"{path}.function", function, frozenset({"name", "description", "parameters", "strict"}))
        if function.get("parameters") is not None:
            mapping(f"{path}.function.parameters", function["parameters"])
            fault = find_fault(function["parameters"])
            if fault is not None:
                message = f"Invalid schema for function '{function['name']}': {fault}."
                raise refuse(message, f"{path}.function.parameters", "invalid_function_parameters")


def _response_format(path: str, value: Any) -> None:
    mapping(path, value)
    choice("text", "json_object", "json_schema")(f"{path}.type", value.get("type"))
    if value["type"] == "json_schema":
        if "json_schema" not in value:
            raise missing(f"{path}.json_schema")
        mapping(f"{path}.json_schema", value["json_schema"])


_FIELDS: Mapping[str, Check] = {
    "messages": _anything,
    "model": text,
    "max_completion_tokens": between("integer", 1, None),
    "max_tokens": between("integer", 1, None),
    "temperature": between("decimal", 0, 2),
    "top_p": between("decimal", 0, 1),
    "n": between("integer", 1, 128),
    "stop": _stop,
    "presence_penalty": between("decimal", -2, 2),
    "frequency_penalty": between("decimal", -2, 2),
    "logit_bias": mapping,
    "logprobs": boolean,
    "top_logprobs": between("integer", 0, 20),
    "seed": between("integer", None, None),
    "tools": _tools,
    "tool_choice": _anything,
    "parallel_tool_calls": boolean,
    "functions": array,
    "function_call": _anything,
    "response_format": _response_format,
    "reasoning_effort": choice(*_EFFORTS),
    "verbosity": choice("low", "medium", "high"),
    "stream": boolean,
    "stream_options": mapping,
    "modalities": array,
    "audio": mapping,
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


def read_question(headers: Mapping[str, str], body: bytes) -> Question:
    """Judge a request; null means absent.

    Raises:
        Refused: with the message, param and code of the OpenAI API.

    Source: OpenAI API reference, "Create chat completion".
    """
    content_type = headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise refuse(f"Invalid Content-Type header ({content_type}), expected application/json.")
    parsed = parse_object(body)
    if parsed is None:
        raise refuse(_BAD_JSON)
    request = without_nulls(parsed)
    if "model" not in request:
        raise refuse("you must provide a model parameter")
    for name, value in parsed.items():
        if name not in _FIELDS:
            raise unknown(name)
        if value is not None:
            _FIELDS[name](name, value)
    _check_together(request)
    turns = read_messages(request.get("messages"))
    tools, mode, named = _read_tool_choice(request)
    stop = request.get("stop", [])
    return Question(
        model=request["model"],
        turns=turns,
        tools=tools,
        tool_choice=mode,
        named_tool=named,
        parallel=request.get("parallel_tool_calls", True),
        max_tokens=request.get("max_completion_tokens", request.get("max_tokens")),
        stops=tuple([stop] if isinstance(stop, str) else stop),
        seed=request.get("seed"),
        n=request.get("n", 1),
        stream=request.get("stream", False),
        include_usage=bool(request.get("stream_options", {}).get("include_usage")),
    )


def _check_together(request: Body) -> None:
    """Refuse fields that exclude or need one another."""
    if "max_tokens" in request and "max_completion_tokens" in request:
        message = "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported."
        raise refuse(message, "max_tokens", "invalid_parameter_combination")
    if "top_logprobs" in request and not request.get("logprobs"):
        message = "The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled."
        raise refuse(message, "top_logprobs")
    if "stream_options" in request:
        if not request.get("stream"):
            message = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
            raise refuse(message, "stream_options")
        options = request["stream_options"]
        known_fields("stream_options", options, frozenset({"include_usage", "include_obfuscation"}))
        for name, value in options.items():
            boolean(f"stream_options.{name}", value)
    if _REASONING_MODEL.match(request["model"]):
        _check_reasoning_model(request)


def _check_reasoning_model(request: Body) -> None:
    if "max_tokens" in request:
        message = (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        )
        raise refuse(message, "max_tokens", "unsupported_parameter")
    for name, default in (("temperature", 1), ("top_p", 1), ("presence_penalty", 0), ("frequency_penalty", 0)):
        if request.get(name, default) != default:
            message = (
                f"Unsupported value: '{name}' does not support {request[name]} with this model. "
                f"Only the default ({default}) value is supported."
            )
            raise refuse(message, name, "unsupported_value")


_Mode = Literal["auto", "none", "required", "named"]


def _read_tool_choice(request: Body) -> tuple[tuple[Tool, ...], _Mode, str | None]:
    offered = [tool["function"] for tool in request.get("tools", ()) if tool["type"] == "function"]
    tools = tuple(Tool(each["name"], each.get("parameters") or {}) for each in offered)
    for name in ("tool_choice", "parallel_tool_calls"):
        if name in request and not request.get("tools"):
            raise refuse(f"'{name}' is only allowed when 'tools' are specified.", name)
    wish = request.get("tool_choice", "auto")
    if isinstance(wish, str):
        if wish not in ("auto", "none", "required"):
            raise unsupported_choice("tool_choice", wish, ("none", "auto", "required"))
        return tools, cast(_Mode, wish), None
    if not isinstance(wish, dict):
        raise wrong_type("tool_choice", "one of a string or an object", wish)
    kind = wish.get("type")
    choice("function", "custom", "allowed_tools")("tool_choice.type", kind)
    if not isinstance(wish.get(kind), dict):
        raise missing(f"tool_choice.{kind}")
    if kind == "allowed_tools":
        mode = wish[kind].get("mode", "auto")
        choice("auto", "required")("tool_choice.allowed_tools.mode", mode)
        array("tool_choice.allowed_tools.tools", wish[kind].get("tools"))
        names = [_name_of(each) for each in wish[kind]["tools"]]
        return tuple(tool for tool in tools if tool.name in names), mode, None
    name = wish[kind].get("name")
    if name not in [tool[tool["type"]]["name"] for tool in request["tools"]]:
        raise refuse(f"Tool choice '{name}' not found in 'tools' parameter.", "tool_choice")
    return tools, "named", name


def _name_of(tool: Any) -> Any:
    function = tool.get("function") if isinstance(tool, dict) else None
    return function.get("name") if isinstance(function, dict) else None
