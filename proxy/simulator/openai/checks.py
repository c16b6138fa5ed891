"""How the OpenAI API names what is wrong with a field."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from proxy.simulator.dialect import Problem, Refused

Check = Callable[[str, Any], None]

_KINDS = {bool: "a boolean", int: "an integer", float: "a decimal", str: "a string", list: "an array"}


def refuse(message: str, param: str | None = None, code: str | None = None) -> Refused:
    """Build the refusal of a request with status 400."""
    return Refused(Problem(400, message, "invalid_request_error", param, code))


def unknown(path: str) -> Refused:
    """Refuse a field that does not exist."""
    return refuse(f"Unknown parameter: '{path}'.", path, "unknown_parameter")


def missing(path: str) -> Refused:
    """Refuse a request for a field that it lacks."""
    return refuse(f"Missing required parameter: '{path}'.", path, "missing_required_parameter")


def wrong_type(path: str, expected: str, value: Any) -> Refused:
    """Refuse a value of the wrong type."""
    got = "null" if value is None else _KINDS.get(type(value), "an object")
    message = f"Invalid type for '{path}': expected {expected}, but got {got} instead."
    return refuse(message, path, "invalid_type")


def text(path: str, value: Any) -> None:
    """Accept a string."""
    if not isinstance(value, str):
        raise wrong_type(path, "a string", value)


def boolean(path: str, value: Any) -> None:
    """Accept true or false."""
    if not isinstance(value, bool):
        raise wrong_type(path, "a boolean", value)


def mapping(path: str, value: Any) -> None:
    """Accept an object."""
    if not isinstance(value, dict):
        raise wrong_type(path, "an object", value)


def array(path: str, value: Any) -> None:
    """Accept an array that is not empty."""
    if not isinstance(value, list):
        raise wrong_type(path, "an array", value)
    if not value:
        message = (
            f"Invalid '{path}': empty array. Expected an array with minimum length 1, but got an empty array instead."
        )
        raise refuse(message, path, "empty_array")


def choice(*values: str) -> Check:
    """Accept one of the given strings."""

    def check(path: str, value: Any) -> None:
        text(path, value)
        if value not in values:
            raise unsupported_choice(path, value, values)

    return check


def unsupported_choice(path: str, value: str, values: Sequence[str]) -> Refused:
    """Refuse a string that is none of the known ones."""
    known = " and ".join(f"'{each}'" for each in values)
    if len(values) > 2:
        known = ", ".join(f"'{each}'" for each in values[:-1]) + f", and '{values[-1]}'"
    return refuse(f"Invalid value: '{value}'. Supported values are: {known}.", path, "invalid_value")


def between(kind: str, low: float | None, high: float | None) -> Check:
    """Accept a number (`kind` "decimal") or a whole number (`kind` "integer") within bounds."""

    def check(path: str, value: Any) -> None:
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole and not (kind == "decimal" and isinstance(value, float)):
            raise wrong_type(path, "an integer" if kind == "integer" else "a decimal", value)
        if low is not None and value < low:
            raise _out_of_range(path, kind, f"below minimum value. Expected a value >= {low:g}", value)
        if high is not None and value > high:
            raise _out_of_range(path, kind, f"above maximum value. Expected a value <= {high:g}", value)

    return check


def _out_of_range(path: str, kind: str, what: str, value: float) -> Refused:
    side = "below_min" if what.startswith("below") else "above_max"
    message = f"Invalid '{path}': {kind} {what}, but got {value} instead."
    return refuse(message, path, f"{kind}_{side}_value")


def known_fields(prefix: str, value: Mapping[str, Any], known: frozenset[str]) -> None:
    """Refuse the first field that does not exist."""
    for name in value:
        if name not in known:
            raise unknown(f"{prefix}.{name}" if prefix else name)
