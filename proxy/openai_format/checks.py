"""Refusals of a field by its name, worded as OpenAI words them."""

from collections.abc import Mapping
from typing import Any, NoReturn

from proxy.call import Json
from proxy.errors import InvalidRequest

_KINDS = {"an integer": int, "a string": str, "a boolean": bool, "an array": list, "an object": dict}
_NAMES: Mapping[type, str] = {
    bool: "a boolean",
    int: "an integer",
    float: "a decimal",
    str: "a string",
    list: "an array",
    dict: "an object",
    type(None): "null",
}


def expect(fields: Json, name: str, kind: str) -> Any:
    """The field's value, of this kind or None."""
    value = fields.get(name)
    if value is not None and (not isinstance(value, _KINDS[kind]) or (isinstance(value, bool) and kind != "a boolean")):
        wrong_type(name, kind, value)
    return value


def wrong_type(param: str, kind: str, value: object) -> NoReturn:
    """Refuse a value of the wrong JSON type."""
    found = _NAMES.get(type(value), "something else")
    raise InvalidRequest(
        f"Invalid type for '{param}': expected {kind}, but got {found} instead.",
        param=param,
        code="invalid_type",
    )


def wrong_value(param: str, message: str, code: str = "invalid_value") -> NoReturn:
    """Refuse a value of the right type."""
    raise InvalidRequest(message, param=param, code=code)
