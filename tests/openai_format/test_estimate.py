"""How many tokens a call will use is guessed from its bytes and its limits, once, and only when somebody asks."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.admission.parsing import parse
from proxy.call import Call, Caller, Operation
from proxy.openai_format.estimate import ANSWER_TOKENS, MEDIA_TOKENS, Estimate

IMAGE = "iVBORw0KGgo+/AAAA" * 1000  # base64
MESSAGES = [{"role": "user", "content": "Hello"}]


def call(operation: Operation = "chat", **fields: Any) -> Call:
    return read(json.dumps({"model": "any", "messages": MESSAGES, "input": "Hello", **fields}).encode(), operation)


def read(body: bytes, operation: Operation = "chat") -> Call:
    whole = parse(body, caller=Caller(), headers={}, call_id="id", received_at=0.0)
    return Call("id", 0.0, body, whole.members, "any", stream=False, wants_usage=False, operation=operation)


def answers(operation: Operation = "chat", **fields: Any) -> int:
    """What is expected beside the prompt."""
    estimate = Estimate(call(operation, **fields))
    return estimate() - estimate.prompt


def told(text: str) -> int:
    """The prompt's tokens of a call with this text."""
    return Estimate(call(messages=[{"role": "user", "content": text}])).prompt


def test_a_token_is_four_bytes() -> None:
    """Of the whole body."""
    body = call(messages=[{"role": "user", "content": "word " * 600}]).body
    assert told("word " * 600) == len(body) // 4
    assert told("word " * 60_000) == pytest.approx(75_000, rel=0.01)


def test_there_is_at_least_one_token() -> None:
    """An estimate of nothing would reserve nothing."""
    empty = Call("id", 0.0, b"{}", {}, "any", stream=False, wants_usage=False, operation="embeddings")
    assert Estimate(empty).prompt == 1
    assert Estimate(empty)() == 1


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ANSWER_TOKENS),
        ({"max_tokens": 50}, 50),
        ({"max_completion_tokens": 60}, 60),
        ({"max_tokens": 50, "max_completion_tokens": 60}, 60),
        ({"max_tokens": 50, "max_completion_tokens": None}, 50),
        ({"max_tokens": None}, ANSWER_TOKENS),
        ({"max_tokens": 0}, 0),
        ({"max_tokens": 999_999_999}, 999_999_999),
        ({"n": 3}, 3 * ANSWER_TOKENS),
        ({"n": 3, "max_tokens": 50}, 150),
        ({"n": 1}, ANSWER_TOKENS),
        ({"n": 0}, ANSWER_TOKENS),
        ({"n": None}, ANSWER_TOKENS),
    ],
    ids=str,
)
def test_answers_are_as_long_as_they_may_be(fields: dict[str, Any], expected: int) -> None:
    """The caller's limit, for each of `n`; a guess where there is none."""
    assert answers(**fields) == expected


@pytest.mark.parametrize("value", [-5, 1.5, "50", "many", [50], {"a": 5}, True, 10**9, 10**400])
@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_what_is_no_number_is_not_counted(name: str, value: Any) -> None:
    """Nor what nobody can mean: the upstream will refuse it, if it likes."""
    assert answers(**{name: value}) == ANSWER_TOKENS


def test_embeddings_have_no_answer() -> None:
    """What comes back are no tokens."""
    assert answers("embeddings") == 0
    assert answers("completions") == ANSWER_TOKENS


def picture(data: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}


@pytest.mark.parametrize("count", [1, 2, 5])
def test_media_are_not_measured_by_their_bytes(count: int) -> None:
    """A picture costs the same however large its file is."""
    bare = Estimate(call(messages=[{"role": "user", "content": [picture("")] * count}])).prompt
    for size in (1, 20):
        content = [picture(IMAGE * size)] * count
        assert Estimate(call(messages=[{"role": "user", "content": content}])).prompt in (
            bare + count * MEDIA_TOKENS,
            bare + count * MEDIA_TOKENS + 1,
        )


def test_media_whose_slashes_are_escaped() -> None:
    """PHP's json_encode writes them so."""
    body = call(messages=[{"role": "user", "content": [picture(IMAGE * 20)]}]).body.replace(b"/", rb"\/")
    assert Estimate(read(body)).prompt < 2 * MEDIA_TOKENS


def test_text_is_no_medium() -> None:
    """Long words, other scripts and lists of numbers are counted as text."""
    assert 4000 < told(("A" * 1000 + " ") * 20) < 6000
    assert told("\u6f22\u5b57" * 5000) > 10_000
    numbers = Estimate(call("embeddings", input=list(range(10_000))))
    assert numbers.prompt > 10_000


def test_an_estimate_is_made_once() -> None:
    """And not before somebody asks; the prompt alone asks nothing of the answers."""
    asked = []

    class Members(dict[str, slice]):
        def __getitem__(self, key: str) -> slice:
            asked.append(key)
            return super().__getitem__(key)

    whole = call(max_tokens=50)
    members: Mapping[str, slice] = Members(whole.members)
    estimate = Estimate(Call("id", 0.0, whole.body, members, "any", stream=False, wants_usage=False))
    prompt = estimate.prompt
    assert asked == []
    assert estimate() == prompt + 50
    count = len(asked)
    assert count > 0
    assert (estimate(), estimate.prompt) == (prompt + 50, prompt)
    assert len(asked) == count


@given(st.binary(max_size=9000).map(lambda body: Call("id", 0.0, body, {}, "any", stream=False, wants_usage=False)))
def test_any_body_has_an_estimate(whole: Call) -> None:
    """At least one token, and no more than its bytes could be."""
    assert 1 <= Estimate(whole).prompt <= max(1, len(whole.body) // 4 + MEDIA_TOKENS * (len(whole.body) // 1024))


@pytest.mark.parametrize(
    "tail", ['{"data": 5}', '{"data":"', '"base64,', 'base64,base64,"data"', '"data""data""data"', '"data":"x"']
)
def test_odd_data_are_read_to_their_end(tail: str) -> None:
    """Whatever stands where data would: the estimate is made, and measures text by its bytes."""
    body = call().body
    odd = body[:-1] + b',"x":"' + b"a " * 1000 + b'"}' + tail.encode()
    members = read(body).members
    assert Estimate(Call("id", 0.0, odd, members, "any", stream=False, wants_usage=False)).prompt == len(odd) // 4
