"""Several answers to one request become one completion, and their usage is counted once."""

import copy
from typing import Any

from proxy.call import Json
from proxy.openai_format.chunks import completion, merge, merge_usage, tool_call, usage

USAGE = usage(7, 5, prompt_tokens_details={"cached_tokens": 3}, completion_tokens_details={}) or {}
CALLS = [tool_call("call_1", "weather", '{"city":"Oslo"}'), tool_call("call_2", "time", "")]


def whole(message: Json, finish_reason: str = "stop", **more: Any) -> Json:
    return completion("chatcmpl-1", 1795000000, "gpt-4o-mini", message, finish_reason, USAGE) | more


def test_several_completions_become_one() -> None:
    """Choices are numbered in order, and the first answer gives id, time and model."""
    others = [
        whole({"content": "two"}, "length", id="chatcmpl-2", created=1),
        whole({"tool_calls": CALLS}, "tool_calls"),
    ]
    answers = [whole({"content": "one"}, system_fingerprint="fp"), *others]
    before = copy.deepcopy(answers)
    merged = merge(answers)
    assert {**merged, "choices": [], "usage": None} == {**answers[0], "choices": [], "usage": None}
    assert [choice["index"] for choice in merged["choices"]] == [0, 1, 2]
    assert [choice["finish_reason"] for choice in merged["choices"]] == ["stop", "length", "tool_calls"]
    assert [choice["message"] for choice in merged["choices"]] == [each["choices"][0]["message"] for each in answers]
    assert answers == before


def test_the_prompt_counts_once() -> None:
    """Of several answers to one prompt, only what was written is added up, details included."""
    one = usage(7, 5, prompt_tokens_details={"cached_tokens": 3}, completion_tokens_details={"reasoning_tokens": 2})
    two = usage(7, 4, completion_tokens_details={"reasoning_tokens": 1, "audio_tokens": 1})
    together = usage(
        7,
        9,
        prompt_tokens_details={"cached_tokens": 3},
        completion_tokens_details={"reasoning_tokens": 3, "audio_tokens": 1},
    )
    assert one
    assert two
    assert merge_usage([one, two]) == together
    assert merge([whole({}, usage=one), whole({}, usage=two)])["usage"] == together
    assert merge_usage([one]) == one


def test_usage_that_nobody_told_is_left_out() -> None:
    """Nothing is invented for answers without usage, and those without do not hide the others'."""
    untold = {name: value for name, value in whole({"content": "a"}).items() if name != "usage"}
    assert merge_usage([]) is None
    assert "usage" not in merge([untold, untold])
    assert merge([untold, whole({})])["usage"] == USAGE


def test_the_largest_prompt_counts() -> None:
    """Where upstreams count the prompt differently, or not at all, the largest count stands."""
    counts = [{"prompt_tokens": 0, "completion_tokens": 1}, {"prompt_tokens": 9, "completion_tokens": 1}]
    assert merge_usage([*counts, {"prompt_tokens": 7, "completion_tokens": 1}]) == usage(9, 3)


def test_details_that_are_null_are_absent() -> None:
    """What one answer does not count is no reason to lose the other's, or to fail."""
    known: Json = {"completion_tokens_details": {"reasoning_tokens": 5}}
    unknown: Json = {"completion_tokens_details": {"reasoning_tokens": None}}
    none: Json = {"completion_tokens_details": None}
    for counts in ([known, unknown], [unknown, known], [none, known]):
        assert merge_usage(counts) == usage(0, 0, **known)


def test_usage_adds_up() -> None:
    """The total is the sum, and empty groups of details are left out."""
    assert (USAGE["total_tokens"], USAGE["prompt_tokens_details"]) == (12, {"cached_tokens": 3})
    assert "completion_tokens_details" not in USAGE
