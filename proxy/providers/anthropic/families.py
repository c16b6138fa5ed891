"""What Anthropic's model families differ in: one table, which YAML may overrule for a model that appears tomorrow.

Source: reference/upstreams.md §5.3-§5.5.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from proxy.config import Section

_NEW = re.compile(r"claude-[a-z]+-(\d{1,2})(?!\d)(?:[-.](\d{1,2})(?!\d))?")
_OLD = re.compile(r"claude-(\d)(?:[-.](\d))?-[a-z]+")
_NAME = re.compile(r"claude-(?:[\d.]+-)*([a-z]+)")

Sampling = Literal["both", "one", "none"]
Thinking = Literal["none", "manual", "adaptive"]
Without = Literal["disabled", "between_tools", "low_effort"]
Effort = Literal["low", "medium", "high", "xhigh", "max"]


class Family(Section):
    """What a model's family takes; what is left out is as the model's name tells."""

    sampling: Sampling | None = None
    """Whether temperature and top_p are taken: both, one of them, or none."""
    thinking: Thinking | None = None
    """How reasoning is asked for: none, manual (budget_tokens) or adaptive (effort)."""
    without_thinking: Without | None = None
    """How `reasoning_effort: none` is said to a model with adaptive thinking."""
    efforts: Annotated[tuple[Effort, ...] | None, Field(strict=False, min_length=1)] = None
    """The efforts that the model knows, from low to high."""
    shows_thinking: bool | None = None
    """Whether thinking text comes without being asked for."""
    forced_tools: bool | None = None
    """Whether a call of a tool can be forced."""
    prefill: bool | None = None
    """Whether the last message may be the assistant's."""
    json_schema: bool | None = None
    """Whether answers can be held to a JSON Schema."""


@dataclass(frozen=True, slots=True)
class Traits:
    """A family, known in full; the fields are those of `Family`."""

    sampling: Sampling
    thinking: Thinking
    without_thinking: Without
    efforts: tuple[Effort, ...]
    shows_thinking: bool
    forced_tools: bool
    prefill: bool
    json_schema: bool


class Version(NamedTuple):
    """A model's version; (0, 0) when its name does not tell."""

    major: int
    minor: int


def version(model: str) -> Version:
    """`claude-haiku-4-5` is 4.5, `claude-3-5-sonnet-20241022` is 3.5, `claude-opus-4-20250514` is 4.0."""
    match = _NEW.search(model) or _OLD.search(model)
    return Version(int(match[1]), int(match[2] or 0)) if match else Version(0, 0)


def name(model: str) -> str:
    """opus, sonnet, haiku, fable, mythos; empty when the name does not tell."""
    match = _NAME.search(model)
    return match[1] if match else ""


def traits(model: str, api_version: str, overruled: Mapping[str, Family]) -> Traits:
    """What this model takes.

    Args:
        overruled: globs of model names and what differs for them; the first that fits counts.
    """
    number, kind = version(model), name(model)
    known = Traits(
        sampling=_sampling(number, api_version),
        thinking=_thinking(number),
        without_thinking=_without_thinking(number, kind),
        efforts=("low", "medium", "high", "max") if number < (4, 7) else ("low", "medium", "high", "xhigh", "max"),
        shows_thinking=number < (4, 7),
        forced_tools=not _refuses_force(number, kind),
        prefill=number < (4, 6),
        json_schema=number == (0, 0) or number >= (4, 5) or (kind == "opus" and number == (4, 1)),
    )
    family = next((each for glob, each in overruled.items() if fnmatchcase(model, glob)), Family())
    chosen = {
        field: getattr(known, field) if getattr(family, field) is None else getattr(family, field)
        for field in Traits.__slots__
    }
    return Traits(**chosen)


def _sampling(number: Version, api_version: str) -> Sampling:
    if api_version >= "2026-10-21" or number >= (4, 7):
        return "none"
    return "one" if number.major == 4 else "both"


def _thinking(number: Version) -> Thinking:
    if number >= (4, 6):
        return "adaptive"
    return "manual" if number >= (3, 7) else "none"


def _without_thinking(number: Version, kind: str) -> Without:
    if kind in ("fable", "mythos") or (kind == "opus" and number >= (5, 5)):
        return "low_effort"
    return "between_tools" if kind == "sonnet" and number >= (5, 5) else "disabled"


def _refuses_force(number: Version, kind: str) -> bool:
    since = {"fable": (5, 1), "mythos": (5, 1), "opus": (5, 5), "sonnet": (5, 5)}
    return kind in since and number >= since[kind]
