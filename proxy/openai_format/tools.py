"""The tools of a request, and how they may be chosen."""

import re
from dataclasses import dataclass
from typing import Any, Literal

from proxy.call import Json
from proxy.errors import InvalidRequest
from proxy.openai_format.checks import wrong_type
from proxy.openai_format.parameters import refuse

TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Tool:
    """A function tool; `parameters` is a JSON Schema or None."""

    name: str
    description: str | None
    parameters: Json | None
    strict: bool | None


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """How tools may be chosen; `name` only when one is named."""

    mode: Literal["auto", "none", "required", "named"] | None = None
    name: str = ""


def force_in_words(name: str | None) -> str:
    """What a model is told that cannot be forced to call a tool: a named one, or any."""
    return f"You must call the tool {name}." if name else "You must call one of the tools."


def read_tools(tools: list[Any]) -> tuple[Tool, ...]:
    read = tuple(_read_tool(tool, f"tools[{index}]") for index, tool in enumerate(tools))
    names = [tool.name for tool in read]
    if len(set(names)) < len(names):
        raise InvalidRequest("Tool names must be unique.", param="tools", code="invalid_value")
    return read


def _read_tool(tool: Any, place: str) -> Tool:
    if not isinstance(tool, dict):
        wrong_type(place, "an object", tool)
    if tool.get("type") != "function":
        refuse("tools", f"'{place}': only function tools are carried to this upstream.")
    function = tool.get("function")
    if not isinstance(function, dict):
        wrong_type(f"{place}.function", "an object", function)
    name, parameters = function.get("name"), function.get("parameters")
    if not isinstance(name, str) or not TOOL_NAME.fullmatch(name):
        raise InvalidRequest(
            f"'{place}.function.name' must be 1 to 64 characters of a-z, A-Z, 0-9, _ and -.",
            param=f"{place}.function.name",
            code="invalid_value",
        )
    if parameters is not None and not isinstance(parameters, dict):
        wrong_type(f"{place}.function.parameters", "an object", parameters)
    description, strict = function.get("description"), function.get("strict")
    if not isinstance(description, str | None):
        wrong_type(f"{place}.function.description", "a string", description)
    if not isinstance(strict, bool | None):
        wrong_type(f"{place}.function.strict", "a boolean", strict)
    return Tool(name, description, parameters, strict)


def read_tool_choice(choice: Any, tools: tuple[Tool, ...]) -> tuple[ToolChoice, set[str] | None]:
    """The choice, and the names that `allowed_tools` leaves, or None when all are left."""
    if choice is None:
        return ToolChoice(), None
    if choice in ("auto", "none", "required"):
        return ToolChoice(choice), None
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind == "function":
        name = _name_of(choice.get("function"))
        _check_offered({name}, tools)
        return ToolChoice("named", name), None
    if kind == "allowed_tools" and isinstance(allowed := choice.get("allowed_tools"), dict):
        listed = allowed.get("tools")
        if not isinstance(listed, list):
            wrong_type("tool_choice", "an object with 'allowed_tools.tools', an array", listed)
        names = {_name_of(tool.get("function") if isinstance(tool, dict) else None) for tool in listed}
        _check_offered(names, tools)
        return ToolChoice("required" if allowed.get("mode") == "required" else "auto"), names
    if kind == "custom":
        refuse("tool_choice", "Custom tools are not carried to this upstream.")
    raise InvalidRequest("'tool_choice' has an unknown form.", param="tool_choice", code="invalid_value")


def _name_of(function: Any) -> str:
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else ""


def _check_offered(names: set[str], tools: tuple[Tool, ...]) -> None:
    if not names <= {tool.name for tool in tools}:
        raise InvalidRequest(
            "'tool_choice' names a tool that is not in 'tools'.", param="tool_choice", code="invalid_value"
        )
