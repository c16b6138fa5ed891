"""Answers are the same for the same question, plausible, and obey limits."""

import json
from dataclasses import replace
from typing import Any

import pytest

from proxy.simulator.answers import Answer, Question, Tool, Turn, compose, compose_all
from proxy.simulator.behaviour import Behaviour

WEATHER = Tool(
    "get_weather",
    {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer", "minimum": 2, "maximum": 5},
            "unit": {"enum": ["celsius", "kelvin"]},
            "where": {"$ref": "#/$defs/place"},
            "tags": {"type": "array", "items": {"type": ["null", "boolean"]}},
            "optional": {"type": "string"},
        },
        "required": ["city", "days", "unit", "where", "tags"],
        "$defs": {"place": {"type": "object", "properties": {"zone": {"const": "UTC"}}, "required": ["zone"]}},
    },
)
CLOCK = Tool("clock", {"type": "object", "properties": {}})


def ask(text: str = "Tell me about mountains", **fields: Any) -> Question:
    return replace(Question(model="any", turns=(Turn("user", text),)), **fields)


def answer(question: Question, behaviour: Behaviour | None = None, seed: int = 0, index: int = 0) -> Answer:
    return compose(question, behaviour or Behaviour(), seed=seed, index=index)


def test_the_same_question_gives_the_same_answer() -> None:
    """Nothing but the seed and the question decides."""
    assert answer(ask()) == answer(ask())


@pytest.mark.parametrize(
    "other",
    [answer(ask(), seed=1), answer(ask(seed=1)), answer(ask("Tell me about mountains!")), answer(ask(), index=1)],
)
def test_another_seed_or_conversation_gives_another_answer(other: Answer) -> None:
    """The simulator's seed, the request's, the words and the index of the choice all count."""
    assert other.key != answer(ask()).key


def test_the_model_does_not_change_the_words() -> None:
    """Dialects with different model names can be compared word for word."""
    assert answer(ask(model="a")) == answer(ask(model="b"))


@pytest.mark.parametrize("number", range(20))
def test_an_answer_has_12_to_40_words_about_the_question(number: int) -> None:
    """Its length is plausible, it repeats the topic, and some of it needs 2, 3 and 4 bytes of UTF-8."""
    given = answer(ask(f"Tell me about mountains {number}"))
    assert 12 <= len(given.text.split()) <= 40
    assert "mountains" in given.text
    assert {len(letter.encode()) for letter in given.text} == {1, 2, 3, 4}
    assert given.completion_tokens == len(given.pieces) == len(given.text.split())


@pytest.mark.parametrize("tokens", [0, 1, 13, 1000])
def test_the_number_of_tokens_can_be_fixed(tokens: int) -> None:
    """So many pieces, no more and no fewer."""
    assert len(answer(ask(), Behaviour(tokens=tokens)).pieces) == tokens


def test_the_text_can_be_fixed() -> None:
    """A fixed text comes back exactly, white space included."""
    text = "  Exactly this,\nand no\tmore. "
    assert answer(ask(), Behaviour(text=text)).text == text


def test_the_token_limit_cuts_the_answer() -> None:
    """Beyond the limit the answer ends with length; at the limit it ends as usual."""
    cut = answer(ask(max_tokens=2), Behaviour(text="one two three"))
    assert (cut.text, cut.finish, cut.completion_tokens) == ("one two", "length", 2)
    assert answer(ask(max_tokens=3), Behaviour(text="one two three")).finish == "stop"


def test_the_first_stop_sequence_ends_the_text() -> None:
    """What comes first in the text wins, and is not echoed."""
    given = answer(ask(stops=("d e", "b c", "zzz")), Behaviour(text="a b c d e"))
    assert (given.text, given.finish, given.stopped_by) == ("a ", "stop_sequence", "b c")


def test_a_mentioned_tool_is_called_with_arguments_of_its_schema() -> None:
    """Required properties are invented by type, optional ones left out."""
    given = answer(ask("Please use get_weather for Lisbon", tools=(CLOCK, WEATHER)))
    (call,) = given.calls
    assert (call.name, given.finish, given.pieces) == ("get_weather", "tool_calls", ())
    arguments = dict(call.arguments)
    assert arguments.pop("city") in ("Please", "weather", "Lisbon")
    assert 2 <= arguments.pop("days") <= 5
    assert arguments == {"unit": "celsius", "where": {"zone": "UTC"}, "tags": [True]}
    assert given.completion_tokens == len(call.pieces) > 1


def test_several_mentioned_tools_are_called_together() -> None:
    """Calls are parallel, unless that is switched off."""
    question = ask("get_weather and clock", tools=(CLOCK, WEATHER))
    assert [call.name for call in answer(question).calls] == ["clock", "get_weather"]
    assert [call.name for call in answer(replace(question, parallel=False)).calls] == ["clock"]


def test_a_part_of_a_word_is_no_mention() -> None:
    """`clock` is not called for the sake of `clockwork`."""
    assert answer(ask("clockwork and o-clock", tools=(CLOCK,))).calls == ()


def test_forced_tools_are_called_unmentioned() -> None:
    """`required` takes the first tool, a named one itself; `none` takes none."""
    question = ask(tools=(CLOCK, WEATHER))
    assert answer(question).calls == ()
    assert [call.name for call in answer(replace(question, tool_choice="required")).calls] == ["clock"]
    named = replace(question, tool_choice="named", named_tool="get_weather")
    assert [call.name for call in answer(named).calls] == ["get_weather"]
    assert answer(ask("clock", tools=(CLOCK,), tool_choice="none")).calls == ()


def test_tool_calls_can_be_fixed_with_a_text_before_them() -> None:
    """Scripted calls are made as written, after the scripted text."""
    behaviour = Behaviour(text="Let me see.", tool_calls=[{"name": "anything", "arguments": {"a": [1]}}, {"name": "b"}])
    given = answer(ask(), behaviour)
    assert given.text == "Let me see."
    assert [(call.name, dict(call.arguments)) for call in given.calls] == [("anything", {"a": [1]}), ("b", {})]


def test_a_tool_call_beyond_the_token_limit_is_left_out() -> None:
    """A call is made whole or not at all."""
    behaviour = Behaviour(tool_calls=[{"name": "a"}, {"name": "b"}])
    given = answer(ask(max_tokens=1), behaviour)
    assert ([call.name for call in given.calls], given.finish) == (["a"], "length")


def test_tool_results_are_quoted_and_end_the_calls() -> None:
    """After results comes a text that quotes them all, even if a tool is mentioned again."""
    turns = (Turn("user", "clock"), Turn("assistant", ""), Turn("tool", "It is noon"), Turn("tool", "21 °C"))
    given = answer(ask(turns=turns, tools=(CLOCK,)), Behaviour())
    assert "It is noon; 21 °C" in given.text
    assert answer(ask(turns=(*turns, Turn("user", "clock")), tools=(CLOCK,))).calls == ()


def test_a_schema_that_refers_to_itself_ends() -> None:
    """Recursive schemas are cut off at some depth."""
    schema = {"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]}
    assert answer(ask("chain", tools=(Tool("chain", schema),))).calls[0].name == "chain"


def test_thoughts_count_and_come_first_out_of_the_limit() -> None:
    """What was thought is spent, and the text has what is left."""
    question = Question(model="m", turns=(Turn("user", "x"),), max_tokens=4)
    answer = compose(question, Behaviour(reasoning="a b c", text="d e f"), seed=0)
    assert (answer.reasoning, answer.text, answer.finish) == ("a b c", "d", "length")
    assert (answer.completion_tokens, answer.reasoning_tokens) == (4, 3)


def test_every_prompt_is_answered_by_itself() -> None:
    """`n` times, in order, as if it stood alone."""
    question = Question(model="m", turns=(), prompts=("sea", "sand"), n=2)
    answers = compose_all(question, Behaviour(), seed=0)
    alone = compose(Question(model="m", turns=(Turn("user", "sand"),), n=2), Behaviour(), seed=0)
    assert len({answer.text for answer in answers}) == 4
    assert answers[2].text == alone.text


def test_a_schema_decides_the_text() -> None:
    """The pieces join to JSON with the required properties."""
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    question = Question(model="m", turns=(Turn("user", "x"),), json_schema=schema)
    assert set(json.loads(compose(question, Behaviour(), seed=0).text)) == {"a"}


def test_a_schema_holds_after_tool_results_too() -> None:
    """Who asks for JSON gets JSON, whatever the tools said."""
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    turns = (Turn("user", "x"), Turn("assistant", ""), Turn("tool", "sunny"))
    told = answer(ask(turns=turns, json_schema=schema))
    assert isinstance(json.loads("".join(told.pieces))["a"], int)
