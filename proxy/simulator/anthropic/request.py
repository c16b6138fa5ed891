"""Judge a request as the Messages API does, and reduce it to a question."""

import re
from collections.abc import Mapping
from typing import Any, Literal

from proxy.simulator.answers import Question, Tool, Turn
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
from proxy.simulator.anthropic.messages import check_text, read_messages
from proxy.simulator.arguments import find_fault
from proxy.simulator.dialect import Body, parse_object

LEAST_THINKING = 1024  # tokens of a manual thinking budget

_VERSIONS = ("2023-06-01", "2026-10-21")
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_VERSIONED_MODEL = re.compile(r"claude-(?P<family>[a-z]+)-(?P<major>\d)(?:-(?P<minor>\d)(?!\d))?")
_TOOL_FIELDS = frozenset({"name", "description", "input_schema", "type", "cache_control", "strict"})
_NO_FORCED_TOOLS = {("opus", 5, 5), ("sonnet", 5, 5), ("fable", 5, 1), ("fable", 5, 2), ("mythos", 5, 1)}


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
        check_text(f"{path}.{index}.text", block["text"], "system")


def _metadata(path: str, value: Any) -> None:
    mapping(path, value)
    known_fields(path, value, frozenset({"user_id"}))
    if value.get("user_id") is not None:
        text(f"{path}.user_id", value["user_id"])


def _thinking(path: str, value: Any) -> None:
    mapping(path, value)
    choice("enabled", "adaptive", "disabled", "between_tools")(f"{path}.type", value.get("type"))
    if value["type"] == "enabled":
        needed_fields(path, value, "budget_tokens")
        integer(LEAST_THINKING)(f"{path}.budget_tokens", value["budget_tokens"])


def _tools(path: str, value: Any) -> None:
    array(path, value)
    for index, tool in enumerate(value):
        at = f"{path}.{index}"
        mapping(at, tool)
        if tool.get("type", "custom") != "custom":
            continue  # a tool that the server runs, with fields of its own
        known_fields(f"{at}.custom", tool, _TOOL_FIELDS)
        needed_fields(f"{at}.custom", tool, "name", "input_schema")
        text(f"{at}.custom.name", tool["name"])
        if _TOOL_NAME.fullmatch(tool["name"]) is None:
            raise refuse(f"{at}.custom.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'")
        if "description" in tool:
            text(f"{at}.custom.description", tool["description"])
        mapping(f"{at}.custom.input_schema", tool["input_schema"])
        needed_fields(f"{at}.custom.input_schema", tool["input_schema"], "type")
        choice("object")(f"{at}.custom.input_schema.type", tool["input_schema"]["type"])
        fault = find_fault(tool["input_schema"])
        if fault is not None:
            raise refuse(f"{at}.custom.input_schema: JSON schema is invalid: {fault}")
    names = [str(tool.get("name")) for tool in value]
    if len(set(names)) < len(names):
        raise refuse(f"{path}: Tool names must be unique.")


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
    "thinking": _thinking,
    "tools": _tools,
    "tool_choice": _tool_choice,
    "service_tier": choice("auto", "standard_only"),
    "output_config": mapping,
    "cache_control": _anything,
    "container": _anything,
    "context_management": _anything,
    "inference_geo": _anything,
    "mcp_servers": _anything,
}


def read_question(headers: Mapping[str, str], body: bytes) -> Question:
    """Judge a request; null is a wrong type here, not absence.

    Raises:
        Refused: with the words of the Messages API.

    Source: Anthropic API reference, "Create a Message".
    """
    version = _read_version(headers)
    request = parse_object(body)
    if request is None:
        raise refuse("The request body is not valid JSON: expected an object")
    for name in ("model", "max_tokens", "messages"):
        if name not in request:
            raise required(name)
    known_fields("", request, frozenset(_FIELDS))
    for name, value in request.items():
        _FIELDS[name](name, value)
    _check_model(request, version)
    turns = read_messages(request["messages"], prefill=not _is_from(request["model"], 4, 6))
    system = request.get("system")
    spoken = [system] if isinstance(system, str) else [block["text"] for block in system or ()]
    tools, mode, named = _read_tools(request)
    return Question(
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


def _version_of(model: str) -> tuple[str, int, int] | None:
    """Read family and version out of a name like claude-opus-4-8 or claude-haiku-4-5-20251001."""
    match = _VERSIONED_MODEL.match(model)
    if match is None:
        return None
    return match["family"], int(match["major"]), int(match["minor"] or 0)


def _is_from(model: str, major: int, minor: int) -> bool:
    found = _version_of(model)
    return found is not None and found[1:] >= (major, minor)


def _check_model(request: Body, version: str) -> None:
    """Refuse what a generation of models, or a version of the API, has given up."""
    model = request["model"]
    for name in ("temperature", "top_p", "top_k"):
        if name in request and (version != _VERSIONS[0] or _is_from(model, 4, 7)):
            raise refuse(f"`{name}` is deprecated for this model.")
    thinking = request.get("thinking", {})
    if thinking.get("type") == "enabled" and thinking["budget_tokens"] >= request["max_tokens"]:
        raise refuse("`max_tokens` must be greater than `thinking.budget_tokens`.")
    forced = request.get("tool_choice", {}).get("type") in ("any", "tool")
    if forced and _version_of(model) in _NO_FORCED_TOOLS:
        raise refuse('tool_choice: type "tool" and "any" are not supported for this model')
    if forced and thinking.get("type") == "enabled":
        raise refuse("Thinking may not be enabled when tool_choice forces tool use.")


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
