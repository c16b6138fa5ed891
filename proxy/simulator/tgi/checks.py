"""How the Rust server names what is wrong: while it decodes a body, and while it validates what it decoded."""

from collections.abc import Callable, Mapping
from typing import Any

from proxy.simulator.dialect import Body, Problem, Refused

BODY = "body"  # the type of a problem that is answered as plain text, before anything was looked at

Check = Callable[[str, Any], None]


def undecodable(path: str, what: str) -> Refused:
    """Refuse a body that does not have the types of the request.

    Source: axum, extract::Json, JsonRejection; serde_path_to_error.
    """
    where = f"{path}: " if path else ""
    message = f"Failed to deserialize the JSON body into the target type: {where}{what} at line 1 column 2"
    return Refused(Problem(422, message, BODY))


def invalid(what: str) -> Refused:
    """Refuse values that decode well but cannot be used.

    Source: text-generation-inference, router/src/validation.rs, ValidationError.
    """
    return Refused(Problem(422, f"Input validation error: {what}", "validation"))


def unprepared(kind: str, what: str) -> Refused:
    """Refuse a chat that cannot be made into a prompt (`kind` "template_error" or "tool_error")."""
    name = kind.partition("_")[0].title()
    return Refused(Problem(422, f"{name} error: {what}", kind))


def spell(value: Any) -> str:
    """Name a value as serde does in its messages."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"boolean `{str(value).lower()}`"
    if isinstance(value, int):
        return f"integer `{value}`"
    if isinstance(value, float):
        return f"floating point `{value}`"
    if isinstance(value, str):
        return f'string "{value}"'
    return "sequence" if isinstance(value, list) else "map"


def wrong_type(path: str, value: Any, expected: str) -> Refused:
    """Refuse a value of the wrong type."""
    return undecodable(path, f"invalid type: {spell(value)}, expected {expected}")


def text(path: str, value: Any) -> None:
    """Accept a string."""
    if not isinstance(value, str):
        raise wrong_type(path, value, "a string")


def boolean(path: str, value: Any) -> None:
    """Accept true or false."""
    if not isinstance(value, bool):
        raise wrong_type(path, value, "a boolean")


def number(path: str, value: Any) -> None:
    """Accept any number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise wrong_type(path, value, "f32")


def unsigned(path: str, value: Any) -> None:
    """Accept a whole number, 0 or more."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong_type(path, value, "u64")
    if value < 0:
        raise undecodable(path, f"invalid value: {spell(value)}, expected u64")


def mapping(path: str, value: Any) -> None:
    """Accept an object."""
    if not isinstance(value, dict):
        raise wrong_type(path, value, "a map")


def sequence(check: Check) -> Check:
    """Accept an array whose items the check accepts."""

    def check_all(path: str, value: Any) -> None:
        if not isinstance(value, list):
            raise wrong_type(path, value, "a sequence")
        for index, each in enumerate(value):
            check(f"{path}[{index}]", each)

    return check_all


def needed(path: str, value: Body, *names: str) -> None:
    """Refuse an object that lacks one of the given fields."""
    for name in names:
        if name not in value:
            raise undecodable(path, f"missing field `{name}`")


def decode(body: Body, fields: Mapping[str, Check], *, never_null: frozenset[str] = frozenset()) -> Body:
    """Check the known fields; unknown ones are ignored, null is absence except for those that cannot be null."""
    found: Body = {}
    for name, check in fields.items():
        if name not in body:
            continue
        if body[name] is not None or name in never_null:
            check(name, body[name])
            found[name] = body[name]
    return found


def grammar(path: str, value: Any) -> None:
    """Accept a grammar: a JSON schema or a regular expression, in the server's own shape.

    Source: text-generation-inference, router/src/lib.rs, GrammarType.
    """
    mapping(path, value)
    needed(path, value, "type")
    kind = value["type"]
    if kind not in ("json", "json_object", "regex"):
        raise undecodable(path, f"unknown variant `{kind}`, expected one of `json`, `json_object`, `regex`")
    needed(path, value, "value")
    if kind == "regex":
        text(f"{path}.value", value["value"])
    elif not isinstance(value["value"], dict):
        raise invalid("grammar must be a JSON object")
