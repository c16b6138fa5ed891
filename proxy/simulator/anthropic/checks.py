"""How the Messages API names what is wrong with a field."""

from collections.abc import Callable, Mapping
from typing import Any

from proxy.simulator.dialect import Problem, Refused

Check = Callable[[str, Any], None]


def refuse(message: str) -> Refused:
    """Build the refusal of a request with status 400."""
    return Refused(Problem(400, message, "invalid_request_error"))


def required(path: str) -> Refused:
    """Refuse a request for a field that it lacks."""
    return refuse(f"{path}: Field required")


def text(path: str, value: Any) -> None:
    """Accept a string."""
    if not isinstance(value, str):
        raise refuse(f"{path}: Input should be a valid string")


def boolean(path: str, value: Any) -> None:
    """Accept true or false."""
    if not isinstance(value, bool):
        raise refuse(f"{path}: Input should be a valid boolean")


def mapping(path: str, value: Any) -> None:
    """Accept an object."""
    if not isinstance(value, dict):
        raise refuse(f"{path}: Input should be a valid dictionary")


def array(path: str, value: Any) -> None:
    """Accept an array."""
    if not isinstance(value, list):
        raise refuse(f"{path}: Input should be a valid list")


def integer(least: int) -> Check:
    """Accept a whole number from `least` on."""

    def check(path: str, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int):
            raise refuse(f"{path}: Input should be a valid integer")
        if value < least:
            raise refuse(f"{path}: Input should be greater than or equal to {least}")

    return check


def fraction(path: str, value: Any) -> None:
    """Accept a number from 0 to 1."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise refuse(f"{path}: Input should be a valid number")
    if not 0 <= value <= 1:
        raise refuse(f"{path}: range: 0..1")


def choice(*values: str) -> Check:
    """Accept one of the given strings."""

    def check(path: str, value: Any) -> None:
        if value not in values:
            known = " or ".join(f"'{each}'" for each in values)
            raise refuse(f"{path}: Input should be {known}")

    return check


def known_fields(path: str, value: Mapping[str, Any], known: frozenset[str]) -> None:
    """Refuse the first field that does not exist."""
    for name in value:
        if name not in known:
            raise refuse(f"{path}.{name}: Extra inputs are not permitted".removeprefix("."))


def needed_fields(path: str, value: Mapping[str, Any], *names: str) -> None:
    """Refuse an object that lacks one of the given fields."""
    for name in names:
        if name not in value:
            raise required(f"{path}.{name}".removeprefix("."))
