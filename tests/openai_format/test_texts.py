"""The older completions and their streams say the same."""

import json
from typing import Any

import pytest

from proxy.call import Json
from proxy.errors import CutShort
from proxy.openai_format.texts import collect_texts, replay_texts

HEAD: Json = {"id": "cmpl-1", "object": "text_completion", "created": 1795000000, "model": "gpt-3.5-turbo-instruct"}
USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


def logprobs(*tokens: str, offset: int = 0) -> Json:
    return {
        "tokens": [*tokens],
        "token_logprobs": [-0.5] * len(tokens),
        "top_logprobs": [{token: -0.5} for token in tokens],
        "text_offset": [offset + place for place in range(len(tokens))],
    }


def choice(index: int = 0, text: str = "", reason: str | None = None, **more: Any) -> Json:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": reason, **more}


def chunk(*choices: Json, **more: Any) -> Json:
    return {**HEAD, "choices": [*choices], **more}


def whole(*choices: Json, **more: Any) -> Json:
    return chunk(*choices, usage=USAGE, **more)


@pytest.mark.parametrize(
    "answer",
    [
        whole(choice(text="Hello \u2028 🦊", reason="stop")),
        whole(choice(0, "a", "stop"), choice(1, "b", "length"), choice(2, "", "stop")),
        whole(choice(text="ab", reason="stop") | {"logprobs": logprobs("a", "b")}),
        whole(
            choice(0, "ab", "stop") | {"logprobs": logprobs("a", "b")},
            choice(1, "c", "length") | {"logprobs": logprobs("c")},
        ),
        whole(choice(text="a", reason="stop", stop_reason=None, prompt_logprobs=[None, {"1": {"logprob": -1}}])),
        whole(choice(text="a", reason="length"), system_fingerprint="fp", x_more={"a": [1]}),
        chunk(choice(text="a", reason="stop")),
    ],
)
def test_replayed_and_collected(answer: Json) -> None:
    """The chunks of a completion are collected into that completion, and say what each of its choices says."""
    chunks = replay_texts(answer)
    assert collect_texts(chunks) == answer
    assert all({name: each[name] for name in HEAD} == HEAD for each in chunks)
    assert [each["choices"] for each in chunks if each["choices"]] == [[one] for one in answer["choices"]]
    assert [each.get("usage") for each in chunks][-1] == answer.get("usage")


def test_texts_go_on() -> None:
    """Texts and log probabilities of each choice are joined in order; reasons, usage and extras are the last ones."""
    chunks = [
        chunk(choice(1, "b", x=1) | {"logprobs": logprobs("b")}, usage=None),
        chunk(choice(0, "a") | {"logprobs": logprobs("a")}, usage=None),
        chunk(choice(0, "A", "length"), choice(1, "B") | {"logprobs": logprobs("B", offset=1)}, usage=None),
        chunk(choice(1, "", "stop", x=2), usage=None),
        chunk(usage=USAGE),
    ]
    assert collect_texts(chunks) == whole(
        choice(0, "aA", "length") | {"logprobs": logprobs("a")},
        choice(1, "bB", "stop", x=2) | {"logprobs": logprobs("b", "B")},
    )


def test_usage_may_come_on_every_chunk() -> None:
    """The last word counts, and a null takes nothing back."""
    first = {**USAGE, "completion_tokens": 1}
    chunks = [chunk(choice(text="a"), usage=first), chunk(choice(reason="stop"), usage=USAGE), chunk(usage=None)]
    assert collect_texts(chunks)["usage"] == USAGE


@pytest.mark.parametrize(
    "chunks",
    [[], [chunk()], [chunk(choice(text="a"))], [chunk(choice(0, "a", "stop"), choice(1, "b"))]],
)
def test_cut_short(chunks: list[Json]) -> None:
    """A choice that never finished, or none at all, is no completion."""
    with pytest.raises(CutShort):
        collect_texts(chunks)


def test_nothing_given_is_changed() -> None:
    """Chunks and completions belong to others."""
    answer = whole(choice(0, "a", "stop") | {"logprobs": logprobs("a")}, choice(1, "b", "stop"))
    chunks = [
        chunk(choice(0, "a") | {"logprobs": logprobs("a")}),
        chunk(choice(0, "b", "stop") | {"logprobs": logprobs("b")}),
    ]
    before = json.dumps([answer, chunks])
    replay_texts(answer)
    collect_texts(chunks)
    assert json.dumps([answer, chunks]) == before


@pytest.mark.parametrize("answer", [{}, HEAD, {**HEAD, "choices": [{"index": 0, "message": {"content": "a"}}]}])
def test_what_is_no_completion(answer: Json) -> None:
    """It is missing what every completion has."""
    with pytest.raises(KeyError):
        replay_texts(answer)
