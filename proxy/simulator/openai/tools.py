"""Judge the tools of a request, and the deprecated functions, and which of them must be called."""

import re
from typing import Any, Literal, cast

from proxy.simulator.answers import Tool
from proxy.simulator.arguments import find_fault
from proxy.simulator.dialect import Body
from proxy.simulator.openai.checks import (
    array,
    boolean,
    choice,
    known_fields,
    mapping,
    missing,
    refuse,
    text,
    unsupported_choice,
    wrong_type,
)
from proxy.simulator.openai.schemas import find_strict_fault

Mode = Literal["auto", "none", "required", "named"]
Offer = tuple[tuple[Tool, ...], Mode, str | None]

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_FUNCTION_FIELDS = frozenset({"name", "description", "parameters", "strict"})


def tools(path: str, value: Any) -> None:
    """Accept an array of functions and custom tools."""
    array(path, value)
    for index, each in enumerate(value):
        _tool(f"{path}[{index}]", each)


def functions(path: str, value: Any) -> None:
    """Accept the deprecated array of functions."""
    array(path, value)
    for index, each in enumerate(value):
        mapping(f"{path}[{index}]", each)
        _function(f"{path}[{index}]", each)


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
    if kind == "function":
        _function(f"{path}.function", tool["function"])
    else:
        _name(f"{path}.{kind}", tool[kind])


def _name(path: str, owner: Body) -> None:
    if "name" not in owner:
        raise missing(f"{path}.name")
    text(f"{path}.name", owner["name"])
    if _NAME.fullmatch(owner["name"]) is None:
        message = (
            f"Invalid '{path}.name': string does not match pattern. "
            "Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'."
        )
        raise refuse(message, f"{path}.name", "invalid_value")


def _function(path: str, function: Body) -> None:
    _name(path, function)
    known_fields(path, function, _FUNCTION_FIELDS)
    if function.get("strict") is not None:
        boolean(f"{path}.strict", function["strict"])
    if function.get("parameters") is None:
        return
    mapping(f"{path}.parameters", function["parameters"])
    fault = find_fault(function["parameters"])
    if fault is None and function.get("strict"):
        fault = find_strict_fault(function["parameters"])
    if fault is not None:
        message = f"Invalid schema for function '{function['name']}': {fault}."
        raise refuse(message, f"{path}.parameters", "invalid_function_parameters")


def read_tools(request: Body, tool_kinds: tuple[str, ...], choice_kinds: tuple[str, ...]) -> Offer:
    """Read the tools and the choice among them, of either spelling; raises Refused."""
    if "functions" in request:
        return _read_functions(request)
    for index, tool in enumerate(request.get("tools", ())):
        if tool["type"] not in tool_kinds:
            raise unsupported_choice(f"tools[{index}].type", tool["type"], tool_kinds)
    offered = [tool["function"] for tool in request.get("tools", ()) if tool["type"] == "function"]
    known = tuple(_read_function(each) for each in offered)
    for name in ("tool_choice", "parallel_tool_calls"):
        if name in request and not request.get("tools"):
            raise refuse(f"'{name}' is only allowed when 'tools' are specified.", name)
    wish = request.get("tool_choice", "auto")
    if isinstance(wish, str):
        if wish not in ("auto", "none", "required"):
            raise unsupported_choice("tool_choice", wish, ("none", "auto", "required"))
        return known, cast(Mode, wish), None
    return _read_wish(wish, request, known, choice_kinds)


def _read_wish(wish: Any, request: Body, known: tuple[Tool, ...], choice_kinds: tuple[str, ...]) -> Offer:
    """Read a tool_choice that is an object."""
    if not isinstance(wish, dict):
        raise wrong_type("tool_choice", "one of a string or an object", wish)
    kind = wish.get("type")
    choice(*choice_kinds)("tool_choice.type", kind)
    if not isinstance(wish.get(kind), dict):
        raise missing(f"tool_choice.{kind}")
    if kind == "allowed_tools":
        return _read_allowed(wish[kind], known)
    name = wish[kind].get("name")
    if name not in [tool[tool["type"]]["name"] for tool in request["tools"]]:
        raise refuse(f"Tool choice '{name}' not found in 'tools' parameter.", "tool_choice")
    return known, "named", name


def _read_function(function: Body) -> Tool:
    return Tool(function["name"], function.get("parameters") or {})


def _read_allowed(allowed: Body, known: tuple[Tool, ...]) -> Offer:
    mode = allowed.get("mode", "auto")
    choice("auto", "required")("tool_choice.allowed_tools.mode", mode)
    array("tool_choice.allowed_tools.tools", allowed.get("tools"))
    names = [_name_of(each) for each in allowed["tools"]]
    return tuple(tool for tool in known if tool.name in names), mode, None


def _name_of(tool: Any) -> Any:
    function = tool.get("function") if isinstance(tool, dict) else None
    return function.get("name") if isinstance(function, dict) else None


def _read_functions(request: Body) -> Offer:
    if "tools" in request:
        raise refuse("'functions' and 'tools' are mutually exclusive.", "functions")
    known = tuple(_read_function(each) for each in request["functions"])
    wish = request.get("function_call", "auto")
    if isinstance(wish, str):
        choice("none", "auto")("function_call", wish)
        return known, cast(Mode, wish), None
    mapping("function_call", wish)
    name = wish.get("name")
    if name not in [each.name for each in known]:
        raise refuse(f"Invalid value for 'function_call': no function named '{name}' was specified.", "function_call")
    return known, "named", name
