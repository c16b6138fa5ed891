"""A call that an upstream's model refused is changed by name, and stays a call."""

import json
from typing import Any

import pytest

from proxy.admission.parsing import parse
from proxy.call import Call, Caller
from proxy.openai_format.amendments import changed, value_of

BODY = (
    '{"model": "m", "temperature": 1.5e0, "messages": [{"role": "user", "content": "\u2028 🦊"}],'
    ' "seed": null, "tool_choice": {"type": "function"}}'
).encode()


def call_of(body: bytes = BODY) -> Call:
    return parse(body, caller=Caller(), headers={"x": "1"}, call_id="1", received_at=1.0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", "m"),
        ("temperature", 1.5),
        ("seed", None),
        ("top_p", None),
        ("tool_choice", {"type": "function"}),
        ("type", None),
    ],
)
def test_a_member_is_read_by_name(name: str, value: Any) -> None:
    """A top-level member's value, null like absent; members further down are no members."""
    assert value_of(call_of(), name) == value


def test_members_are_taken_out_and_put_in() -> None:
    """The changed body holds what is added, lacks what is removed, and keeps the rest in its order."""
    amended = changed(call_of(), remove=["temperature", "top_p"], add={"tool_choice": "auto", "extra": [1]})
    before = json.loads(BODY)
    del before["temperature"]
    assert json.loads(amended.body) == {**before, "tool_choice": "auto", "extra": [1]}
    assert list(json.loads(amended.body)) == ["model", "messages", "seed", "tool_choice", "extra"]


def test_members_stand_where_the_changed_call_says() -> None:
    """The changed call is read like any other: by the places of its members."""
    amended = changed(call_of(), remove=["temperature"], add={"tool_choice": "auto"})
    assert amended.members.keys() == json.loads(amended.body).keys()
    assert [value_of(amended, name) for name in ("temperature", "tool_choice", "model")] == [None, "auto", "m"]
    assert value_of(amended, "messages") == value_of(call_of(), "messages")


def test_losses_are_added_up() -> None:
    """What was lost before is still named after another change."""
    once = changed(call_of(), remove=["temperature"], names=["temperature"])
    twice = changed(once, add={"tool_choice": "auto"}, names=["tool_choice:hint"])
    assert (once.amended, twice.amended) == (("temperature",), ("temperature", "tool_choice:hint"))
    assert value_of(twice, "temperature") is None


def test_only_the_body_is_another() -> None:
    """Who calls, for what, and under which id stays; and the call that was given is not changed."""
    call = call_of()
    amended = changed(call, remove=["temperature"], names=["temperature"])
    same = set(Call.__struct_fields__) - {"body", "members", "amended"}
    assert all(getattr(amended, name) == getattr(call, name) for name in same)
    assert call == call_of()


def test_a_change_of_nothing_says_the_same() -> None:
    """Without changes the members are the same."""
    amended = changed(call_of())
    assert json.loads(amended.body) == json.loads(BODY)
    assert amended.amended == ()
