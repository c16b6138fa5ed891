"""An effort becomes what the model's family calls it, or is named as lost."""

import json
from typing import Any, Literal

import pytest

from proxy.call import Json
from proxy.openai_format.request import EFFORTS, read_chat
from proxy.providers.anthropic.families import Family, traits
from proxy.providers.anthropic.settings import COLUMN
from proxy.providers.anthropic.thinking import LEAST_BUDGET, Asked, Budgets, ask

USER = {"role": "user", "content": "Hello"}
TOOL = {"type": "function", "function": {"name": "f"}}
CALLING = {
    "role": "assistant",
    "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
}
ANSWERING = {"role": "tool", "tool_call_id": "a", "content": "42"}
BLOCKS = [{"type": "thinking", "thinking": "hm", "signature": "s"}]
OLDEST, MANUAL, ADAPTIVE, LATER = "claude-3-5-haiku-latest", "claude-sonnet-4-5", "claude-opus-4-6", "claude-opus-4-8"
DEFAULT = 4096


def asked(
    model: str,
    effort: str | None = None,
    *,
    budgets: Budgets | None = None,
    display: Literal["summarized", "omitted"] = "summarized",
    headroom: int = 0,
    family: Family | None = None,
    **fields: Any,
) -> Asked:
    """What a request says of thinking to this model."""
    body = json.dumps({"model": "m", "messages": [USER], "reasoning_effort": effort, **fields}).encode()
    return ask(
        read_chat(body, COLUMN),
        traits(model, "2023-06-01", {"*": family} if family else {}),
        budgets=budgets or Budgets(),
        display=display,
        default_max_tokens=DEFAULT,
        headroom=headroom,
    )


def enabled(budget: int) -> Json:
    return {"thinking": {"type": "enabled", "budget_tokens": budget}}


def adaptive(effort: str, **more: str) -> Json:
    return {"thinking": {"type": "adaptive", **more}, "output_config": {"effort": effort}}


@pytest.mark.parametrize("model", [OLDEST, MANUAL, ADAPTIVE, LATER, "claude-fable-5", "unknown"])
def test_who_asks_for_nothing_gets_the_models_default(model: str) -> None:
    """Without an effort nothing is said of thinking, and nothing is lost."""
    silent = asked(model)
    assert (silent.fields, silent.max_tokens, silent.lost, silent.thinks) == ({}, DEFAULT, [], False)


@pytest.mark.parametrize("effort", EFFORTS)
def test_a_model_that_cannot_think_is_not_asked_to(effort: str) -> None:
    """Before 3.7 the effort is left out by name."""
    silent = asked(OLDEST, effort)
    assert (silent.fields, silent.max_tokens, silent.lost) == ({}, DEFAULT, ["reasoning_effort"])


@pytest.mark.parametrize(
    ("effort", "budget"),
    [("minimal", 1024), ("low", 2048), ("medium", 8192), ("high", 16384), ("xhigh", 16384), ("max", 32768)],
)
def test_efforts_are_budgets_up_to_4_5(effort: str, budget: int) -> None:
    """Each effort has its tokens, which come on top of the default limit."""
    thinking = asked(MANUAL, effort)
    assert (thinking.fields, thinking.max_tokens, thinking.lost) == (enabled(budget), DEFAULT + budget, [])
    assert thinking.thinks


def test_budgets_are_configured() -> None:
    """What an effort is worth is for YAML to say; less than the least is raised to it."""
    assert asked(MANUAL, "low", budgets=Budgets(low=3000)).fields == enabled(3000)
    assert asked(MANUAL, "low", budgets=Budgets(low=5)).fields == enabled(LEAST_BUDGET)


@pytest.mark.parametrize(
    ("limit", "effort", "budget"),
    [
        (100_000, "high", 16384),
        (8192, "high", 4096),
        (8192, "low", 2048),
        (2048, "high", LEAST_BUDGET),
        (1500, "high", LEAST_BUDGET),
        (1025, "minimal", LEAST_BUDGET),
    ],
)
def test_the_callers_limit_holds(limit: int, effort: str, budget: int) -> None:
    """Thinking takes at most half of the caller's tokens, or the least there is, and the limit stays as it is."""
    for thinking in (asked(MANUAL, effort, max_tokens=limit), asked(MANUAL, effort, max_completion_tokens=limit)):
        assert (thinking.fields, thinking.max_tokens, thinking.lost) == (enabled(budget), limit, [])


@pytest.mark.parametrize("limit", [1, 100, 1024])
def test_a_small_limit_leaves_no_room_to_think(limit: int) -> None:
    """The budget must be below the limit: where it cannot be, the effort is lost."""
    silent = asked(MANUAL, "low", max_tokens=limit)
    assert (silent.fields, silent.max_tokens, silent.lost) == ({}, limit, ["reasoning_effort"])


def test_manual_thinking_is_off_unless_asked_for() -> None:
    """`none` needs no word there."""
    silent = asked(MANUAL, "none")
    assert (silent.fields, silent.max_tokens, silent.lost) == ({}, DEFAULT, [])


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "f"}}])
def test_forced_tools_and_manual_thinking_exclude_each_other(choice: Any) -> None:
    """The tool call is the answer that was asked for; the effort gives way. Adaptive thinking need not."""
    silent = asked(MANUAL, "high", tools=[TOOL], tool_choice=choice)
    assert (silent.fields, silent.max_tokens, silent.lost) == ({}, DEFAULT, ["reasoning_effort"])
    assert asked(ADAPTIVE, "high", tools=[TOOL], tool_choice=choice).thinks


@pytest.mark.parametrize(
    ("history", "thinks"),
    [
        pytest.param([USER, CALLING, ANSWERING], False, id="blocks are missing"),
        pytest.param([USER, {**CALLING, "thinking_blocks": BLOCKS}, ANSWERING], True, id="blocks are there"),
        pytest.param([USER, CALLING, ANSWERING, USER], True, id="a new question"),
        pytest.param([USER, {"role": "assistant", "content": "Hi"}], True, id="no tools"),
    ],
)
def test_a_turn_goes_on_with_its_thinking(history: list[Json], thinks: bool) -> None:
    """Manual thinking is refused after tool calls whose blocks the caller does not send back."""
    thinking = asked(MANUAL, "low", messages=history, tools=[TOOL])
    assert (thinking.thinks, thinking.lost) == (thinks, [] if thinks else ["reasoning_effort"])
    assert asked(ADAPTIVE, "low", messages=history, tools=[TOOL]).thinks


@pytest.mark.parametrize(
    ("effort", "before", "since"),
    [
        ("minimal", "low", "low"),
        ("low", "low", "low"),
        ("medium", "medium", "medium"),
        ("high", "high", "high"),
        ("xhigh", "high", "xhigh"),
        ("max", "max", "max"),
    ],
)
def test_efforts_are_efforts_from_4_6_on(effort: str, before: str, since: str) -> None:
    """The nearest that the model knows stands in, and is named; from 4.7 on its thinking is asked to be shown."""
    first, later = asked(ADAPTIVE, effort), asked(LATER, effort)
    assert (first.fields, later.fields) == (adaptive(before), adaptive(since, display="summarized"))
    assert [(each.max_tokens, each.thinks) for each in (first, later)] == [(DEFAULT, True)] * 2
    assert first.lost == ([] if before == effort else [f"reasoning_effort:{before}"])
    assert later.lost == ([] if since == effort else [f"reasoning_effort:{since}"])


@pytest.mark.parametrize(
    ("efforts", "effort", "nearest"),
    [
        (("low", "medium", "high", "xhigh"), "max", "xhigh"),
        (("low", "medium", "high"), "max", "high"),
        (("low", "medium"), "max", "medium"),
        (("low", "medium"), "high", "medium"),
    ],
)
def test_the_highest_effort_stands_in_for_a_higher(efforts: Any, effort: str, nearest: str) -> None:
    """A family that knows fewer efforts is asked for the most that it knows."""
    assert asked(LATER, effort, family=Family(efforts=efforts)).fields["output_config"] == {"effort": nearest}


def test_thinking_may_stay_hidden() -> None:
    """Who does not want to see it says so; models that always show it are not told."""
    assert asked(LATER, "low", display="omitted").fields == adaptive("low", display="omitted")
    assert asked(ADAPTIVE, "low", display="omitted").fields == adaptive("low")


@pytest.mark.parametrize(
    ("model", "fields", "lost"),
    [
        (ADAPTIVE, {"thinking": {"type": "disabled"}}, []),
        (LATER, {"thinking": {"type": "disabled"}}, []),
        ("claude-sonnet-5-5", {"thinking": {"type": "between_tools"}}, []),
        ("claude-opus-5-5", {"output_config": {"effort": "low"}}, ["reasoning_effort:low"]),
        ("claude-fable-5", {"output_config": {"effort": "low"}}, ["reasoning_effort:low"]),
    ],
)
def test_thinking_is_switched_off(model: str, fields: Json, lost: list[str]) -> None:
    """Where it cannot be, the least effort stands in, and the caller is told."""
    quiet = asked(model, "none")
    assert (quiet.fields, quiet.max_tokens, quiet.lost, quiet.thinks) == (fields, DEFAULT, lost, False)


@pytest.mark.parametrize(
    ("model", "limit", "sent"),
    [
        (ADAPTIVE, 100, 1100),
        ("claude-fable-5", 100, 1100),
        (ADAPTIVE, None, DEFAULT),
        (MANUAL, 4096, 4096),
        (OLDEST, 100, 100),
    ],
)
@pytest.mark.parametrize("effort", [None, "low"])
def test_headroom_is_for_models_that_think_by_themselves(
    model: str, limit: int | None, sent: int, effort: str | None
) -> None:
    """It is added to the caller's limit, and to no other, where thinking counts without having a budget."""
    assert asked(model, effort, headroom=1000, max_tokens=limit).max_tokens == sent
