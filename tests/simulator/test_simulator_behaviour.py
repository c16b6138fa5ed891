"""Behaviours are read strictly, from data and from the header's spelling."""

import pytest

from proxy.simulator import Behaviour, BehaviourError
from proxy.simulator.behaviour import behaviour_from, parse_behaviour


def test_a_header_gives_typed_fields() -> None:
    """Numbers, texts, flags and JSON each arrive as what the field is."""
    parsed = parse_behaviour('status=503; retry_after=2.5; text="a; b"; whole; headers={"x-a": "1"}; crlf=true')
    assert parsed == Behaviour(status=503, retry_after=2.5, text="a; b", whole=True, headers={"x-a": "1"}, crlf=True)


def test_a_bare_word_of_a_text_field_stays_text() -> None:
    """`text=5` is the text 5, and reaches up to the semicolon."""
    assert parse_behaviour("text=5") == Behaviour(text="5")
    assert parse_behaviour("text= two words ;tokens=3") == Behaviour(text="two words", tokens=3)


@pytest.mark.parametrize("place", ["accept", "before_headers", "before_first_token", 0, 7])
def test_a_stall_is_a_place_or_a_number(place: str | int) -> None:
    """Both spellings of where to stall are understood."""
    assert parse_behaviour(f"stall={place}").stall == place


@pytest.mark.parametrize("text", ["quirks=bom, no_done", 'quirks=["bom", "no_done"]'])
def test_quirks_are_words_or_a_list(text: str) -> None:
    """Names with commas between them are enough."""
    assert parse_behaviour(text).quirks == ["bom", "no_done"]


def test_an_unknown_quirk_names_the_nearest() -> None:
    """Known to no dialect, it is an error."""
    with pytest.raises(BehaviourError, match="quirks: unknown quirk 'no_don', did you mean 'no_done'"):
        Behaviour(quirks=["no_don"])
    with pytest.raises(BehaviourError, match="quirks: expected a list of names"):
        behaviour_from({"quirks": "bom"})


def test_an_empty_header_asks_for_nothing() -> None:
    """No field means the usual behaviour."""
    assert parse_behaviour("  ") == Behaviour()


@pytest.mark.parametrize(
    ("name", "nearest"), [("stats", "status"), ("retryafter", "retry_after"), ("tool_call", "tool_calls")]
)
def test_an_unknown_field_names_the_nearest_right_one(name: str, nearest: str) -> None:
    """A misspelt field is an error that says how it is spelt."""
    with pytest.raises(BehaviourError, match=f"did you mean '{nearest}'"):
        behaviour_from({name: 1})


@pytest.mark.parametrize(
    "text",
    [
        "status=42",
        "status=many",
        "status=true",
        "error=unheard_of",
        "stall=somewhere",
        "stall=-1",
        "cut=accept",
        "error_after=1.5",
        "garbage=rubbish",
        "usage=some",
        "chunk_bytes=0",
        "delay_seconds=-1",
        "whole=1",
        "headers=[]",
        "tool_calls=[]",
        'tool_calls=[{"arguments": {}}]',
        'text="unfinished',
        'text="a" b',
        "text=",
        "=5",
        "status=500; status=501",
        "stall=1; cut=1",
        "cut=1; error_after=1",
        "clean_cut",
        "cut=before_headers; clean_cut",
    ],
)
def test_what_cannot_be_carried_out_is_refused(text: str) -> None:
    """Wrong values, contradictions and broken spelling are errors, never ignored."""
    with pytest.raises(BehaviourError):
        parse_behaviour(text)


def test_a_wrong_value_is_refused_in_python_too() -> None:
    """The constructor checks what the parser checks."""
    with pytest.raises(BehaviourError, match="status: expected a status from 200 to 599, not 1000"):
        Behaviour(status=1000)
