"""How the simulator shall treat a call: what it says, how slowly, and where it breaks."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any, Literal

ErrorName = Literal["insufficient_quota", "context_length_exceeded", "content_filter", "overloaded", "model_not_found"]
Garbage = Literal["html", "json", "text", "empty", "not_sse"]
Place = Literal["before_headers", "before_first_token"]

ERROR_NAMES = ("insufficient_quota", "context_length_exceeded", "content_filter", "overloaded", "model_not_found")
GARBAGE = ("html", "json", "text", "empty", "not_sse")
PLACES = ("before_headers", "before_first_token")
USAGES = ("normal", "none", "finish_chunk")
QUIRKS = (
    "integer_code",  # error.code is a number
    "bare_error",  # error is a plain string
    "array_error",  # the body of an error is an array that holds one object
    "error_in_200",  # failures come with status 200, as an object or an event
    "no_index",  # fragments of tool calls without index
    "repeat_role",  # the role in every chunk
    "repeat_id",  # id and name of a tool call in every fragment
    "arguments_object",  # tool arguments as an object instead of a text
    "stop_for_tools",  # finish_reason stop although there are tool calls
    "empty_finish",  # finish_reason "" until the end
    "legacy_reasoning",  # reasoning_content instead of reasoning
    "explicit_nulls",  # absent fields are there and null
    "usage_every_chunk",
    "usage_on_finish",
    "filter_preamble",  # Azure: a first chunk without choices and with an empty id, model and object
    "big_event",  # one content event above 64 KiB
    "no_done",  # the terminal event is missing
    "duplicate_done",
    "after_done",  # an event after the terminal one
    "silent_end",  # the body ends without any closing event
    "bom",  # a byte order mark before the first event
    "no_final_blank",  # the last event without its closing blank line
    "retry_lines",  # event, id and retry fields, and events without data
)
_TEXT_FIELDS = frozenset({"content_type", "redirect", "finish", "text", "reasoning"})
_KEY = re.compile(r"([^=;\s]+)\s*(=?)\s*")


class BehaviourError(ValueError):
    """A behaviour that cannot be carried out; the message says which field and what was expected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """Everything that may be asked of the next call; every field is optional.

    Durations are seconds. The integers of `stall`, `cut` and `error_after` count content frames
    already sent; a count past the end of the answer means just before its terminal event. A JSON
    answer counts as one content frame, and breaks in its middle.
    """

    status: int | None = None
    error: ErrorName | None = None
    retry_after: float | None = None
    delay_seconds: float = 0.0
    first_token_seconds: float = 0.0
    token_seconds: float | None = None
    stall: Literal["accept"] | Place | int | None = None
    cut: Place | int | None = None
    clean_cut: bool = False
    error_after: int | None = None
    garbage: Garbage | None = None
    content_type: str | None = None
    redirect: str | None = None
    finish: str | None = None
    text: str | None = None
    reasoning: str | None = None
    tokens: int | None = None
    tool_calls: Sequence[Mapping[str, Any]] | None = None
    chunk_bytes: int | None = None
    crlf: bool = False
    comments: bool = False
    no_space: bool = False
    usage: Literal["normal", "none", "finish_chunk"] = "normal"
    whole: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    quirks: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Refuse what could not be carried out, at the place where it was written."""
        for name, (expected, holds) in _RULES.items():
            value = getattr(self, name)
            if value is not None and not holds(value):
                raise BehaviourError(f"{name}: expected {expected}, not {value!r}")
        for name in self.quirks:
            if name not in QUIRKS:
                raise BehaviourError(f"quirks: {_unknown('quirk', name, QUIRKS)}")
        breaks = [name for name in ("stall", "cut", "error_after") if getattr(self, name) is not None]
        if len(breaks) > 1:
            raise BehaviourError(f"{breaks[1]}: a call breaks only once, and {breaks[0]} is given too")
        if self.clean_cut and self.cut in (None, "before_headers"):
            raise BehaviourError("clean_cut: needs `cut` after the headers, there is no body to end otherwise")


def behaviour_from(mapping: Mapping[str, Any]) -> Behaviour:
    """Build a behaviour from plain data.

    Raises:
        BehaviourError: an unknown field (the message names the nearest right one) or a wrong value.
    """
    for name in mapping:
        if name not in _NAMES:
            raise BehaviourError(_unknown("field", name, _NAMES))
    return Behaviour(**mapping)


def _unknown(what: str, name: str, known: Sequence[str]) -> str:
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f", did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"
    return f"unknown {what} {name!r}{hint}"


def parse_behaviour(text: str) -> Behaviour:
    """Parse the header spelling: `status=503; retry_after=2; text="a; b"; whole`.

    A field without a value is true. Values that start with a quote, a bracket or a brace are JSON,
    others reach up to the next semicolon; quirks may be written as words with commas between them.
    """
    found: dict[str, Any] = {}
    rest = text.strip()
    while rest:
        match = _KEY.match(rest)
        if match is None:
            raise BehaviourError(f"expected a field name at {rest[:20]!r}")
        name, equals = match[1], match[2]
        if name in found:
            raise BehaviourError(f"{name}: given twice")
        value, rest = _take_value(name, rest[match.end() :]) if equals else (True, rest[match.end() :])
        found[name] = value
        if rest and not rest.startswith(";"):
            raise BehaviourError(f"{name}: expected ';' before {rest[:20]!r}")
        rest = rest[1:].strip()
    return behaviour_from(found)


def _take_value(name: str, text: str) -> tuple[Any, str]:
    """Split one value from what follows it."""
    if text[:1] in ('"', "[", "{"):
        try:
            value, end = json.JSONDecoder().raw_decode(text)
        except ValueError as error:
            raise BehaviourError(f"{name}: not JSON: {error}") from error
        return value, text[end:].lstrip()
    word, semicolon, rest = text.partition(";")
    return _from_word(name, word.strip()), semicolon + rest


def _from_word(name: str, word: str) -> Any:
    """Read a bare word; texts stay as they are, so that `text=5` is the text 5."""
    if not word:
        raise BehaviourError(f"{name}: a value is missing after '='")
    if name in _TEXT_FIELDS:
        return word
    if name == "quirks":
        return [each.strip() for each in word.split(",")]
    if word in ("true", "false"):
        return word == "true"
    for number in (int, float):
        try:
            return number(word)
        except ValueError:
            continue
    return word


def _is_count(value: object, least: int = 0) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_duration(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < float("inf")


def _is_line(value: object) -> bool:
    return isinstance(value, str) and value.isprintable()


def _are_calls(value: object) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and len(value) > 0
        and all(
            isinstance(call, Mapping)
            and set(call) <= {"name", "arguments"}
            and isinstance(call.get("name"), str)
            and isinstance(call.get("arguments", {}), Mapping)
            for call in value
        )
    )


def _are_headers(value: object) -> bool:
    return isinstance(value, Mapping) and all(_is_line(item) for pair in value.items() for item in pair)


def _are_names(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(each, str) for each in value)


def _flag(value: object) -> bool:
    return isinstance(value, bool)


_COUNT = "a whole number, 0 or more"
_SECONDS = "seconds, 0 or more"
_Rule = tuple[str, Callable[[Any], bool]]
_RULES: Mapping[str, _Rule] = {
    "status": ("a status from 200 to 599", lambda value: _is_count(value, 200) and value < 600),
    "error": (f"one of {', '.join(ERROR_NAMES)}", lambda value: value in ERROR_NAMES),
    "retry_after": (_SECONDS, _is_duration),
    "delay_seconds": (_SECONDS, _is_duration),
    "first_token_seconds": (_SECONDS, _is_duration),
    "token_seconds": (_SECONDS, _is_duration),
    "stall": (
        f"accept, {', '.join(PLACES)} or a number of frames",
        lambda value: value in ("accept", *PLACES) or _is_count(value),
    ),
    "cut": (
        f"{', '.join(PLACES)} or a number of frames",
        lambda value: value in PLACES or _is_count(value),
    ),
    "clean_cut": ("true or false", _flag),
    "error_after": (_COUNT, _is_count),
    "garbage": (f"one of {', '.join(GARBAGE)}", lambda value: value in GARBAGE),
    "content_type": ("one line of text", _is_line),
    "redirect": ("one line of text", _is_line),
    "finish": ("one line of text", _is_line),
    "text": ("text", lambda value: isinstance(value, str)),
    "reasoning": ("text", lambda value: isinstance(value, str)),
    "tokens": (_COUNT, _is_count),
    "tool_calls": ('a list of {"name": text, "arguments": object}', _are_calls),
    "chunk_bytes": ("a whole number, 1 or more", lambda value: _is_count(value, 1)),
    "crlf": ("true or false", _flag),
    "comments": ("true or false", _flag),
    "no_space": ("true or false", _flag),
    "usage": (f"one of {', '.join(USAGES)}", lambda value: value in USAGES),
    "whole": ("true or false", _flag),
    "headers": ("an object of texts", _are_headers),
    "quirks": ("a list of names", _are_names),
}
_NAMES = tuple(each.name for each in fields(Behaviour))
