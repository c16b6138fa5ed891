"""A dialect's column settles what becomes of every member: carried, left out by name, or refused."""

from typing import Any

import pytest

from proxy.call import Json
from proxy.errors import UnsupportedParameter
from proxy.openai_format.parameters import (
    DROP,
    EMULATE,
    FIELDS,
    MAP,
    PARAMETERS,
    PASS,
    REJECT,
    Cell,
    Column,
    Treatment,
    refuse,
)

NAMES = [parameter.name for parameter in PARAMETERS]
ALL = Column(dict.fromkeys(NAMES, PASS))
NONE = Column(dict.fromkeys(NAMES, REJECT))
LOST = Column(dict.fromkeys(NAMES, DROP))
MADE = Column(dict.fromkeys(NAMES, EMULATE))
TOOL = {"type": "function", "function": {"name": "f"}}
CUSTOM = {"type": "custom", "custom": {"name": "c"}}

# A value that asks for each row.
ASKED: dict[str, tuple[str, Any]] = {
    "custom tools": ("tools", [TOOL, CUSTOM]),
    "tools": ("tools", [TOOL]),
    "tool_choice none": ("tool_choice", "none"),
    "tool_choice required": ("tool_choice", "required"),
    "tool_choice named": ("tool_choice", TOOL),
    "tool_choice allowed_tools": ("tool_choice", {"type": "allowed_tools", "allowed_tools": {}}),
    "parallel_tool_calls": ("parallel_tool_calls", False),
    "json_object": ("response_format", {"type": "json_object"}),
    "json_schema": ("response_format", {"type": "json_schema", "json_schema": {}}),
    "n": ("n", 2),
    "logprobs": ("logprobs", True),
    "user": ("safety_identifier", "u"),
    "include_usage": ("stream_options", {"include_usage": True}),
    "modalities with audio": ("modalities", ["text", "audio"]),
    "prompt_cache_*": ("prompt_cache_key", "k"),
    "functions": ("functions", [{"name": "f"}]),
}
IN_FIELDS = [parameter.name for parameter in PARAMETERS if parameter.fields]


def refusal(column: Column, fields: Json) -> tuple[str | None, str | None]:
    """The param and the code with which a column refuses."""
    with pytest.raises(UnsupportedParameter) as caught:
        column.settle(fields)
    assert (caught.value.status, bool(caught.value.message)) == (400, True)
    return caught.value.param, caught.value.code


@pytest.mark.parametrize("name", IN_FIELDS)
@pytest.mark.parametrize("treatment", list(Treatment))
def test_every_row_is_settled_by_its_own_cell(name: str, treatment: Treatment) -> None:
    """What asks for a row is carried, dropped by name, or refused, as that row's cell says and no other."""
    field, value = ASKED.get(name, (name, "a value"))
    column = ALL.but({name: treatment})
    if treatment is REJECT:
        assert refusal(column, {field: value})[0] == field
    elif name == "tool_choice none" and treatment is EMULATE:
        assert column.settle({field: value, "tools": [{}]}) == ({}, [])  # by leaving the tools out
    else:
        dropped = treatment is DROP
        is_left_out = dropped or (name == "tool_choice none" and treatment is EMULATE)
        assert column.settle({field: value}) == ({} if is_left_out else {field: value}, [field] if dropped else [])


def test_what_may_not_be_called_is_left_out() -> None:
    """Where the choice of no tool is brought about here, the tools go with it, and none of both is named as lost."""
    column = ALL.but({"tool_choice none": EMULATE})
    assert column.settle({"tools": [TOOL], "tool_choice": "none", "seed": 1}) == ({"seed": 1}, [])
    assert column.settle({"tools": [TOOL], "tool_choice": "auto"})[0] == {"tools": [TOOL], "tool_choice": "auto"}


@pytest.mark.parametrize(
    ("field", "default"),
    [("n", 1), ("logprobs", False), ("modalities", ["text"])],
)
def test_a_spelled_out_default_asks_for_nothing(field: str, default: Any) -> None:
    """A default is never refused nor named as dropped, and goes along only where the field is known."""
    for column in (NONE, LOST, MADE):
        assert column.settle({field: default}) == ({}, [])
    assert ALL.settle({field: default}) == ({field: default}, [])


@pytest.mark.parametrize(
    ("field", "value"), [("tools", []), ("tool_choice", "auto"), ("response_format", {"type": "text"})]
)
@pytest.mark.parametrize("column", [ALL, NONE, LOST, MADE])
def test_what_each_dialect_writes_itself_stays(column: Column, field: str, value: Any) -> None:
    """No tools, a free choice and plain text are read further, whatever the column says of their other values."""
    assert column.settle({field: value}) == ({field: value}, [])


def test_nothing_is_kept_of_what_is_dropped() -> None:
    """The names come in the order of the request, fields of one row each by its own name."""
    fields = {"user": "u", "temperature": 1, "seed": 1, "safety_identifier": "s", "never_heard_of": 1}
    column = ALL.but({"user": DROP, "seed": DROP})
    assert column.settle(fields) == ({"temperature": 1}, ["user", "seed", "safety_identifier", "never_heard_of"])


def test_the_frame_is_always_carried() -> None:
    """Model, messages and stream are no parameters: every column carries them."""
    frame = {"model": "m", "messages": [], "stream": True}
    assert NONE.settle(frame) == (frame, [])


def test_one_refused_row_refuses_the_field() -> None:
    """Among function tools a custom one is refused, although the others would be taken."""
    column = ALL.but({"custom tools": REJECT})
    assert column.settle({"tools": [TOOL]}) == ({"tools": [TOOL]}, [])
    assert refusal(column, {"tools": [TOOL, CUSTOM]}) == ("tools", "unsupported_value")


@pytest.mark.parametrize(
    ("column", "fields", "code"),
    [
        pytest.param(NONE, {"n": 3}, "unsupported_value", id="one choice is always to be had"),
        pytest.param(NONE, {"modalities": ["audio"]}, "unsupported_value", id="text is always to be had"),
        pytest.param(NONE, {"logprobs": True}, "unsupported_parameter", id="the whole field"),
        pytest.param(NONE, {"audio": {}}, "unsupported_parameter", id="the whole field, of any value"),
        pytest.param(NONE, {"functions": []}, "unsupported_parameter", id="the deprecated pair"),
        pytest.param(
            ALL.but({"tool_choice required": REJECT}), {"tool_choice": "required"}, "unsupported_value", id="one value"
        ),
        pytest.param(
            ALL.but({"json_schema": REJECT}),
            {"response_format": {"type": "json_schema"}},
            "unsupported_value",
            id="one format",
        ),
        pytest.param(NONE, {"tools": [TOOL]}, "unsupported_parameter", id="no tools of any kind"),
    ],
)
def test_a_refusal_tells_value_from_field(column: Column, fields: Json, code: str) -> None:
    """Another value helps after `unsupported_value`, none after `unsupported_parameter`."""
    assert refusal(column, fields) == (next(iter(fields)), code)


def test_extras_and_restricted_fields() -> None:
    """A dialect's extras pass; what it guards is refused until the upstream's settings allow it."""
    column = ALL.but({}, extras=["top_k"], restricted=["priority"])
    assert column.settle({"top_k": 1}) == ({"top_k": 1}, [])
    assert refusal(column, {"priority": 1}) == ("priority", "unsupported_parameter")
    assert column.but({}, extras=["priority"]).settle({"priority": 1}) == ({"priority": 1}, [])


def test_differences_leave_the_original_alone() -> None:
    """A column with differences keeps notes, extras and formats, and changes nothing where it came from."""
    original = Column(
        {**dict.fromkeys(NAMES, PASS), "seed": (MAP, "a note")}, extras=["x"], in_messages=["name"], formats=["odd"]
    )
    changed = original.but({"user": (DROP, "gone")}, in_messages=())
    assert (changed.cells["seed"], changed.cells["user"]) == (Cell(MAP, "a note"), Cell(DROP, "gone"))
    assert changed.extras == frozenset({"x"})
    assert changed.formats == frozenset({"odd"})
    assert changed.in_messages == frozenset()
    assert original.but({}).in_messages == frozenset({"name"})
    assert (original["user"], original.cells["user"].note) == (PASS, "")


@pytest.mark.parametrize(
    "cells",
    [
        {},
        dict.fromkeys(NAMES[1:], PASS),
        dict.fromkeys([*NAMES, "tool_chioce"], PASS),
    ],
)
def test_a_column_says_something_of_every_row(cells: dict[str, Treatment]) -> None:
    """A forgotten or misspelt row is a mistake of the program, found when it starts."""
    with pytest.raises(ValueError, match="missing or unknown"):
        Column(cells)


def test_rows_are_told_apart_by_their_names() -> None:
    """No two rows have one name, and every row's fields are known fields."""
    assert len(set(NAMES)) == len(NAMES)
    assert {field for parameter in PARAMETERS for field in parameter.fields} < FIELDS


@pytest.mark.parametrize(
    ("value", "code"), [(True, "unsupported_value"), (False, "unsupported_parameter")], ids=["value", "field"]
)
def test_refusals_name_the_parameter(value: bool, code: str) -> None:
    """The message holds the name unless it is given in full."""
    with pytest.raises(UnsupportedParameter, match="'seed'") as caught:
        refuse("seed", value=value)
    assert (caught.value.param, caught.value.code) == ("seed", code)
    with pytest.raises(UnsupportedParameter, match=r"^No seeds[.]$"):
        refuse("seed", "No seeds.", value=value)
