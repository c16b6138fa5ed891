"""What becomes of each of OpenAI's parameters in a dialect: one source for requests, documentation and tests.

Source: reference/upstreams.md §2.2, §3.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NoReturn

from proxy.call import Json
from proxy.errors import UnsupportedParameter


class Treatment(StrEnum):
    """What a dialect does with a parameter."""

    PASS = "passed"  # noqa: S105, the same field, the same value
    MAP = "mapped"  # another field or another shape, the same meaning
    EMULATE = "emulated"  # the sidecar brings the effect about
    DROP = "dropped"  # left out, and named in x-octet-dropped
    REJECT = "refused"  # 400, nothing is sent


PASS, MAP, EMULATE, DROP, REJECT = Treatment


@dataclass(frozen=True, slots=True)
class Cell:
    """A treatment, and a word on it for the documentation."""

    treatment: Treatment
    note: str = ""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One row: something that a request may ask for.

    Args:
        fields: the top-level members that ask it; empty when it stands in messages.
        asks: whether the members' values ask for it; a field that only spells its default asks for nothing.
    """

    name: str
    fields: tuple[str, ...] = ()
    asks: Callable[[Any], bool] = lambda value: True  # noqa: ARG005


def _type_of(value: Any) -> Any:
    kind = value.get("type") if isinstance(value, dict) else value
    return kind if isinstance(kind, str) else None


def _chosen(*kinds: str) -> Callable[[Any], bool]:
    return lambda choice: _type_of(choice) in kinds


def _has_custom(tools: Any) -> bool:
    return isinstance(tools, list) and any(_type_of(tool) == "custom" for tool in tools)


PARAMETERS: tuple[Parameter, ...] = (
    Parameter("developer role"),
    Parameter("image data:"),
    Parameter("image https:"),
    Parameter("input_audio"),
    Parameter("file"),
    Parameter("custom tools", ("tools",), _has_custom),
    Parameter("tools", ("tools",), bool),
    Parameter("tool_choice none", ("tool_choice",), _chosen("none")),
    Parameter("tool_choice required", ("tool_choice",), _chosen("required")),
    Parameter("tool_choice named", ("tool_choice",), _chosen("function")),
    Parameter("tool_choice allowed_tools", ("tool_choice",), _chosen("allowed_tools")),
    Parameter("parallel_tool_calls", ("parallel_tool_calls",)),
    Parameter("json_object", ("response_format",), _chosen("json_object")),
    Parameter("json_schema", ("response_format",), _chosen("json_schema")),
    Parameter("temperature", ("temperature",)),
    Parameter("top_p", ("top_p",)),
    Parameter("max_completion_tokens", ("max_completion_tokens",)),
    Parameter("max_tokens", ("max_tokens",)),
    Parameter("stop", ("stop",)),
    Parameter("seed", ("seed",)),
    Parameter("n", ("n",), lambda n: n != 1),
    Parameter("logprobs", ("logprobs",), lambda asked: asked is not False),
    Parameter("top_logprobs", ("top_logprobs",)),
    Parameter("presence_penalty", ("presence_penalty",)),
    Parameter("frequency_penalty", ("frequency_penalty",)),
    Parameter("logit_bias", ("logit_bias",)),
    Parameter("user", ("user", "safety_identifier")),
    Parameter("metadata", ("metadata",)),
    Parameter("store", ("store",)),
    Parameter("include_usage", ("stream_options",)),
    Parameter("reasoning_effort", ("reasoning_effort",)),
    Parameter("verbosity", ("verbosity",)),
    Parameter("service_tier", ("service_tier",)),
    Parameter("modalities with audio", ("modalities",), lambda kinds: kinds != ["text"]),
    Parameter("audio", ("audio",)),
    Parameter("prediction", ("prediction",)),
    Parameter("prompt_cache_*", ("prompt_cache_key", "prompt_cache_options", "prompt_cache_retention")),
    Parameter("moderation", ("moderation",)),
    Parameter("web_search_options", ("web_search_options",)),
    Parameter("functions", ("functions", "function_call")),
)
_ROWS = {parameter.name: parameter for parameter in PARAMETERS}
_BY_FIELD: Mapping[str, list[Parameter]] = {
    name: [row for row in PARAMETERS if name in row.fields] for row in PARAMETERS for name in row.fields
}
FIELDS = frozenset({"model", "messages", "stream", *_BY_FIELD})

_OPTIONAL = frozenset({"n", "modalities"})  # there is always a value that asks for nothing


class Column:
    """What one dialect does with every parameter.

    Args:
        cells: a treatment, or one with a note, for every row of `PARAMETERS`; a missing or unknown one is an error.
        extras: further top-level fields that pass as they are.
        restricted: further fields that are known there but not for every caller: refused.
        in_messages: further keys of messages that are carried.
        formats: further types of `response_format`.
        text_arguments: tool arguments are a text there too, whatever the model wrote.
    """

    def __init__(
        self,
        cells: Mapping[str, Treatment | tuple[Treatment, str]],
        *,
        extras: Iterable[str] = (),
        restricted: Iterable[str] = (),
        in_messages: Iterable[str] = (),
        formats: Iterable[str] = (),
        text_arguments: bool = False,
    ) -> None:
        if set(cells) != set(_ROWS):
            raise ValueError(f"these rows are missing or unknown: {set(cells) ^ set(_ROWS)}")
        self.cells = {
            name: Cell(cell) if isinstance(cell, Treatment) else Cell(*cell)
            for name, cell in ((name, cells[name]) for name in _ROWS)
        }
        self.extras = frozenset(extras)
        self.restricted = frozenset(restricted) - self.extras
        self.in_messages = frozenset(in_messages)
        self.formats = frozenset(formats)
        self.text_arguments = text_arguments

    def __getitem__(self, name: str) -> Treatment:
        return self.cells[name].treatment

    def but(
        self,
        cells: Mapping[str, Treatment | tuple[Treatment, str]],
        *,
        extras: Iterable[str] = (),
        restricted: Iterable[str] = (),
        in_messages: Iterable[str] | None = None,
    ) -> "Column":
        """The same dialect with differences."""
        own = {name: (cell.treatment, cell.note) for name, cell in self.cells.items()}
        return Column(
            {**own, **cells},
            extras=self.extras | set(extras),
            restricted=self.restricted | set(restricted),
            in_messages=self.in_messages if in_messages is None else in_messages,
            formats=self.formats,
            text_arguments=self.text_arguments,
        )

    def settle(self, fields: Json) -> tuple[Json, list[str]]:
        """The members that are carried, and the names of those that are not.

        Args:
            fields: a request's members that are not null.

        Raises:
            UnsupportedParameter: one that this dialect refuses.
        """
        kept, dropped = {}, []
        if fields.get("tool_choice") == "none" and self["tool_choice none"] is EMULATE:
            fields = {name: value for name, value in fields.items() if name not in ("tools", "tool_choice")}
        for name, value in fields.items():
            treatment = self._treatment(name, value)
            if treatment is DROP:
                dropped.append(name)
            elif treatment is REJECT:
                refuse(name, value=self._has_other_values(name))
            elif treatment is not None:
                kept[name] = value
        return kept, dropped

    def _has_other_values(self, name: str) -> bool:
        """Whether a refused member could be had with another value."""
        return name in _OPTIONAL or any(self[row.name] is not REJECT for row in _BY_FIELD.get(name, ()))

    def _treatment(self, name: str, value: Any) -> Treatment | None:
        """What becomes of a member; None when it only spells a default that has no place there."""
        if name not in FIELDS:
            if name in self.restricted:
                return REJECT
            return PASS if name in self.extras else DROP
        rows = _BY_FIELD.get(name)
        if rows is None:
            return PASS
        asked = [self[row.name] for row in rows if row.asks(value)]
        if asked:
            return next((each for each in asked if each is REJECT), asked[0])
        carried = any(self[row.name] is PASS for row in rows)
        return PASS if carried or name in ("tools", "tool_choice", "response_format") else None


def refuse(param: str, message: str = "", *, value: bool = True) -> NoReturn:
    """Refuse a parameter by its name.

    Args:
        value: it is the value that is refused, and not the whole field.
    """
    what = f"This value of '{param}' is" if value else f"'{param}' is"
    raise UnsupportedParameter(
        message or f"{what} not carried to this upstream.",
        param=param,
        code="unsupported_value" if value else "unsupported_parameter",
    )
