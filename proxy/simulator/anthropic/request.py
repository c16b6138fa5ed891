"""Judge a request as the Messages API does, and reduce it to a question."""

import re
from collections.abc import Mapping
from typing import Any, Literal

from proxy.simulator.answers import Tool, Turn
from proxy.simulator.anthropic.blocks import check_text
from proxy.simulator.anthropic.caching import check_breakpoint, count_cached, was_written_before
from proxy.simulator.anthropic.checks import (
    Check,
    array,
    boolean,
    choice,
    fraction,
    integer,
    known_fields,
    mapping,
    needed_fields,
    refuse,
    required,
    text,
)
from proxy.simulator.anthropic.formats import check_output, output_config
from proxy.simulator.anthropic.messages import count_images, read_messages
from proxy.simulator.anthropic.models import Model, model_named
from proxy.simulator.anthropic.question import MessagesQuestion
from proxy.simulator.anthropic.thinking import check_blocks, check_thinking, is_on, is_shown, place_of, thinking_field
from proxy.simulator.arguments import find_fault
from proxy.simulator.dialect import Body, parse_object

LONGEST_WHOLE = 21_333  # tokens that fit in ten minutes; longer answers have to be streamed
LONGEST_USER = 256  # characters

_VERSIONS = ("2023-06-01", "2026-10-21")
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_TOOL_FIELDS = frozenset({"name", "description", "input_schema", "type", "cache_control", "strict"})


def _anything(path: str, value: Any) -> None:
    """Accept a field whose shape plays no part here."""


def _stop_sequences(path: str, value: Any) -> None:
    array(path, value)
    for index, each in enumerate(value):
        text(f"{path}.{index}", each)
        if not each.strip():
            raise refuse(f"{path}: each stop sequence must contain non-whitespace")


def _system(path: str, value: Any) -> None:
    if isinstance(value, str):
        return
    if not isinstance(value, list):
        raise refuse(f"{path}: Input should be a valid string or a valid list")
    for index, block in enumerate(value):
        mapping(f"{path}.{index}", block)
        choice("text")(f"{path}.{index}.type", block.get("type"))
        known_fields(f"{path}.{index}", block, frozenset({"type", "text", "cache_control", "citations"}))
        needed_fields(f"{path}.{index}", block, "text")
        check_breakpoint(f"{path}.{index}", block)
        check_text(f"{path}.{index}.text", block["text"], "system")


def _metadata(path: str, value: Any) -> None:
    mapping(path, value)
    known_fields(path, value, frozenset({"user_id"}))
    if value.get("user_id") is not None:
        text(f"{path}.user_id", value["user_id"])
        if len(value["user_id"]) > LONGEST_USER:
            raise refuse(f"{path}.user_id: String should have at most {LONGEST_USER} characters")


def _tools(path: str, value: Any) -> None:
    array(path, value)
    for index, tool in enumerate(value):
        mapping(f"{path}.{index}", tool)
        check_breakpoint(f"{path}.{index}", tool)
        if tool.get("type", "custom") == "custom":
            _custom_tool(f"{path}.{index}.custom", tool)
    names = [str(tool.get("name")) for tool in value]
    if len(set(names)) < len(names):
        raise refuse(f"{path}: Tool names must be unique.")


def _custom_tool(path: str, tool: Body) -> None:
    """Accept a tool of the caller; those that the server runs have fields of their own."""
    known_fields(path, tool, _TOOL_FIELDS)
    needed_fields(path, tool, "name", "input_schema")
    text(f"{path}.name", tool["name"])
    if _TOOL_NAME.fullmatch(tool["name"]) is None:
        raise refuse(f"{path}.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'")
    if "description" in tool:
        text(f"{path}.description", tool["description"])
    if "strict" in tool:
        boolean(f"{path}.strict", tool["strict"])
    mapping(f"{path}.input_schema", tool["input_schema"])
    needed_fields(f"{path}.input_schema", tool["input_schema"], "type")
    choice("object")(f"{path}.input_schema.type", tool["input_schema"]["type"])
    fault = find_fault(tool["input_schema"])
    if fault is not None:
        raise refuse(f"{path}.input_schema: JSON schema is invalid: {fault}")


def _tool_choice(path: str, value: Any) -> None:
    mapping(path, value)
    choice("auto", "any", "tool", "none")(f"{path}.type", value.get("type"))
    kind = value["type"]
    known = {"type"} | ({"name"} if kind == "tool" else set())
    known |= set() if kind == "none" else {"disable_parallel_tool_use"}
    known_fields(f"{path}.{kind}", value, frozenset(known))
    if kind == "tool":
        needed_fields(f"{path}.tool", value, "name")
        text(f"{path}.tool.name", value["name"])
    boolean(f"{path}.{kind}.disable_parallel_tool_use", value.get("disable_parallel_tool_use", False))


def _cache_control(path: str, value: Any) -> None:
    check_breakpoint("", {path: value})


_FIELDS: Mapping[str, Check] = {
    "model": text,
    "messages": array,
    "max_tokens": integer(1),
    "system": _system,
    "metadata": _metadata,
    "stop_sequences": _stop_sequences,
    "stream": boolean,
    "temperature": fraction,
    "top_p": fraction,
    "top_k": integer(0),
    "thinking": thinking_field,
    "tools": _tools,
    "tool_choice": _tool_choice,
    "service_tier": choice("auto", "standard_only"),
    "output_config": output_config,
    "cache_control": _cache_control,
    "container": _anything,
    "context_management": _anything,
    "inference_geo": _anything,
    "mcp_servers": _anything,
}


def read_question(headers: Mapping[str, str], body: bytes) -> MessagesQuestion:
    """Judge a request; null is a wrong type here, not absence.

    Raises:
        Refused: with the words of the Messages API.

    Source: Anthropic API reference, "Create a Message".
    """
    strict = _read_version(headers) != _VERSIONS[0]
    request = parse_object(body)
    if request is None:
        raise refuse("The request body is not valid JSON: expected an object")
    for name in ("model", "max_tokens", "messages"):
        if name not in request:
            raise required(name)
    known_fields("", request, frozenset(_FIELDS))
    for name, value in request.items():
        _FIELDS[name](name, value)
    model = model_named(request["model"])
    turns = read_messages(request["messages"], prefill=model is None or model.knows_prefill, strict=strict)
    _check_model(request, model, strict=strict)
    return _question(request, model, turns)


def _question(request: Body, model: Model | None, turns: tuple[Turn, ...]) -> MessagesQuestion:
    """Reduce a request that was judged."""
    system = request.get("system")
    spoken = [system] if isinstance(system, str) else [block["text"] for block in system or ()]
    tools, mode, named = _read_tools(request)
    config = request.get("output_config", {})
    cached = count_cached(request)
    reads = was_written_before(request)
    return MessagesQuestion(
        model=request["model"],
        turns=(*(Turn("system", each) for each in spoken if each), *turns),
        tools=tools,
        tool_choice=mode,
        named_tool=named,
        parallel=not request.get("tool_choice", {}).get("disable_parallel_tool_use", False),
        max_tokens=request["max_tokens"],
        stops=tuple(request.get("stop_sequences", ())),
        stream=request.get("stream", False),
        include_usage=True,
        json_schema=(config.get("format") or {}).get("schema"),
        images=count_images(request["messages"]),
        reasoning_effort=config.get("effort"),
        thinks=is_on(request, model),
        shown=is_shown(request, model),
        place=place_of(request),
        written=0 if reads else cached,
        read=cached if reads else 0,
    )


def _read_version(headers: Mapping[str, str]) -> str:
    version = headers.get("anthropic-version")
    if version is None:
        raise refuse("anthropic-version: header is required")
    if version not in _VERSIONS:
        raise refuse(f'anthropic-version: "{version}" is not a valid version')
    if not headers.get("content-type", "").startswith("application/json"):
        raise refuse("content-type: must be application/json")
    return version


def _check_model(request: Body, model: Model | None, *, strict: bool) -> None:
    """Refuse what a generation of models, or the newer version of the API, has given up."""
    sampling = [name for name in ("temperature", "top_p", "top_k") if name in request]
    if sampling and (strict or (model is not None and not model.knows_sampling)):
        raise refuse(f"`{sampling[0]}` is deprecated for this model.")
    if model is not None and model.version >= (4, 1) and {"temperature", "top_p"} <= set(sampling):
        raise refuse("`temperature` and `top_p` cannot both be specified for this model. Please use only one.")
    if not request.get("stream", False) and request["max_tokens"] > LONGEST_WHOLE:
        raise refuse("max_tokens: Streaming is required for operations that may take longer than 10 minutes.")
    forced = request.get("tool_choice", {}).get("type") in ("any", "tool")
    if forced and model is not None and not model.knows_forced_tools:
        raise refuse('tool_choice: type "tool" and "any" are not supported for this model')
    check_thinking(request, model)
    check_output(request, model)
    check_blocks(request, model)


_Mode = Literal["auto", "none", "required", "named"]
_MODES: Mapping[str, _Mode] = {"auto": "auto", "none": "none", "any": "required", "tool": "named"}


def _read_tools(request: Body) -> tuple[tuple[Tool, ...], _Mode, str | None]:
    offered = [tool for tool in request.get("tools", ()) if tool.get("type", "custom") == "custom"]
    tools = tuple(Tool(each["name"], each["input_schema"]) for each in offered)
    wish = request.get("tool_choice", {"type": "auto"})
    if "tool_choice" in request and not request.get("tools"):
        raise refuse("tool_choice may only be specified while providing tools")
    name = wish.get("name")
    if wish["type"] == "tool" and name not in [tool.get("name") for tool in request["tools"]]:
        raise refuse(f"Tool '{name}' not found in provided tools")
    return tools, _MODES[wish["type"]], name
