"""What a run is told by its environment: who is asked, by how many, for how long, and what must hold in the end."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PREFIX = "OCTET_LOAD_"
SCENARIOS = ("generation", "streaming", "health", "hangup")


class SettingsError(ValueError):
    """A variable that cannot be meant; the message names it and what was expected."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One run.

    Args:
        calls: the run ends when so many have been made; 0: after `seconds` alone.
        repeated: the share of calls that ask, at temperature 0, what was asked before.
        success: what share of each scenario's calls must be exceeded by its successes.
    """

    models: tuple[str, ...]
    api_key: str
    users: int
    spawn_rate: float
    seconds: float
    calls: int
    weights: Mapping[str, int]
    think_seconds: tuple[float, float]
    prompt_bytes: tuple[int, ...]
    max_tokens: int
    repeated: float
    timeout_seconds: float
    max_seconds: float
    first_token_seconds: float
    success: float
    insecure: bool
    report: Path


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable of the environment: how it is read, and the text that stands for it when it is not set."""

    read: Callable[[str], Any]
    default: str
    expected: str


def _number(least: float, most: float = float("inf")) -> Callable[[str], float]:
    def read(text: str) -> float:
        if not least <= (number := float(text)) <= most:
            raise ValueError
        return number

    return read


def _count(least: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if (number := int(text)) < least:
            raise ValueError
        return number

    return read


def _words(text: str) -> tuple[str, ...]:
    if not (words := tuple(word.strip() for word in text.split(",") if word.strip())):
        raise ValueError
    return words


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(map(_count(1), _words(text)))


def _range(text: str) -> tuple[float, float]:
    low, _, high = text.partition("-")
    least = _number(0)(low)
    return least, _number(least)(high or low)


def _weights(text: str) -> Mapping[str, int]:
    given = {name.strip(): _count(0)(number) for name, _, number in (word.partition("=") for word in _words(text))}
    if not set(given) <= set(SCENARIOS) or not any(given.values()):
        raise ValueError
    return {name: given.get(name, 0) for name in SCENARIOS}


def _flag(text: str) -> bool:
    return {"1": True, "0": False}[text]


SECONDS = "seconds above 0"
VARIABLES: Mapping[str, Variable] = {
    "users": Variable(_count(1), "10", "a whole number, 1 or more"),
    "spawn_rate": Variable(_number(0.01), "5", "users per second"),
    "seconds": Variable(_number(0.1), "30", SECONDS),
    "calls": Variable(_count(0), "0", "a whole number, 0 or more"),
    "weights": Variable(
        _weights, "generation=4,streaming=5,health=1", f"name=number,... with names from {', '.join(SCENARIOS)}"
    ),
    "think_seconds": Variable(_range, "0.5-2", "least-most seconds"),
    "models": Variable(_words, "gpt-4o-mini,claude-haiku-4-5", "names with commas between them"),
    "prompt_bytes": Variable(_sizes, "200,2000", "sizes with commas between them"),
    "max_tokens": Variable(_count(1), "200", "a whole number, 1 or more"),
    "repeated": Variable(_number(0, 1), "0", "a share from 0 to 1"),
    "api_key": Variable(str, "any", "a text"),
    "insecure": Variable(_flag, "0", "1 or 0"),
    "timeout_seconds": Variable(_number(0.1), "60", SECONDS),
    "max_seconds": Variable(_number(0), "30", SECONDS),
    "first_token_seconds": Variable(_number(0), "5", SECONDS),
    "success": Variable(_number(0, 1), "0.95", "a share from 0 to 1"),
    "report": Variable(Path, "build/load", "a folder"),
}


def settings_from(environ: Mapping[str, str]) -> Settings:
    """The settings that an environment holds.

    Raises:
        SettingsError: a variable with the prefix that is not known, or a value that cannot be read.
    """
    known = {f"{PREFIX}{name.upper()}": name for name in VARIABLES}
    for name in environ:
        if name.startswith(PREFIX) and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise SettingsError(f"{name} is not known; did you mean {near[0] if near else ', '.join(known)}?")
    return Settings(**{name: _read(key, environ) for key, name in known.items()})


def _read(key: str, environ: Mapping[str, str]) -> Any:
    variable = VARIABLES[key.removeprefix(PREFIX).lower()]
    text = environ.get(key) or variable.default
    try:
        return variable.read(text)
    except (ValueError, KeyError) as error:
        raise SettingsError(f"{key}: expected {variable.expected}, not {text!r}") from error
