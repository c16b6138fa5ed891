"""Log probabilities go with the text that they belong to: told with it, cut with it."""

from collections.abc import Iterable
from itertools import accumulate, pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.call import Json
from proxy.openai_format.chunks import ROLE, ChunkBuilder, collect, completion
from proxy.openai_format.stops import CutStream, cut_completion

BUILD = ChunkBuilder("chatcmpl-1", 1795000000, "m")
tokens = st.lists(st.text("ab#", min_size=1, max_size=3), max_size=6)
stops = st.lists(st.text("ab#", min_size=1, max_size=4), min_size=1, max_size=3)
places = st.lists(st.integers(0, 5), max_size=4)


class Script:
    """A parser that gives its chunks at the end."""

    thinking = False
    ended = False
    begun = None

    def __init__(self, chunks: Iterable[Json]) -> None:
        self._chunks = list(chunks)

    def feed(self, data: bytes) -> Iterable[Json]:
        return ()

    def finish(self) -> Iterable[Json]:
        return self._chunks


def entries(*texts: str) -> Json:
    """The log probabilities of these tokens."""
    return {"content": [{"token": text, "logprob": -0.5} for text in texts], "refusal": None}


def said(*texts: str) -> Json:
    """A chunk with these tokens."""
    return BUILD.delta({"content": "".join(texts)}, logprobs=entries(*texts))


def shown(chunks: list[Json], *stop: str) -> list[tuple[str, list[str]]]:
    """Each text that is left, and the tokens whose log probabilities come with it."""
    choices = [chunk["choices"][0] for chunk in CutStream(Script(chunks), stop).finish()]
    return [
        (choice["delta"]["content"], [entry["token"] for entry in (choice["logprobs"] or {}).get("content") or ()])
        for choice in choices
        if "content" in choice["delta"]
    ]


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        pytest.param([said("a"), said("b")], [("a", ["a"]), ("b", ["b"])], id="nothing held"),
        pytest.param([said("#"), said("a")], [("#a", ["#", "a"])], id="a token held, then told"),
        pytest.param([said("a#"), said("b")], [("a", []), ("#b", ["a#", "b"])], id="half a token held"),
        pytest.param([said("a", "b#"), said("c")], [("ab", ["a"]), ("#c", ["b#", "c"])], id="half of the second held"),
        pytest.param([said("a"), said("#")], [("a", ["a"]), ("#", ["#"])], id="held to the end"),
        pytest.param([said("a", "#"), said("#", "b")], [("a", ["a"])], id="cut"),
        pytest.param([said("a##b")], [("a", [])], id="cut within a token"),
        pytest.param([said("a"), said("##"), said("b")], [("a", ["a"])], id="after the cut"),
    ],
)
def test_entries_come_with_the_end_of_their_token(chunks: list[Json], expected: list[tuple[str, list[str]]]) -> None:
    """A token's entry is told with the last of its characters, and never when they are not."""
    assert shown([*chunks, BUILD.finish("stop")], "##") == expected


@given(tokens, stops, places)
@example(["a#", "#"], ["##"], [1])
@example(["#", "a"], ["##"], [1])
def test_stream_and_completion_lose_the_same(said_: list[str], several: list[str], cuts: list[int]) -> None:
    """However tokens are cut into chunks, the entries that are left are those of the cut completion."""
    text = "".join(said_)
    whole = completion("chatcmpl-1", 1795000000, "m", {"content": text}, "length", None)
    whole["choices"][0]["logprobs"] = entries(*said_) if said_ else None
    ends = sorted({place for place in cuts if place < len(said_)} | {len(said_)})
    chunks = [said(*said_[start:end]) for start, end in pairwise([0, *ends]) if start < end]
    streamed = collect(CutStream(Script([BUILD.delta(ROLE), *chunks, BUILD.finish("length")]), tuple(several)).finish())
    assert streamed == cut_completion(whole, tuple(several))
    left = len(streamed["choices"][0]["message"]["content"])
    kept = (streamed["choices"][0]["logprobs"] or {}).get("content") or []
    assert kept == entries(*said_)["content"][: sum(end <= left for end in accumulate(map(len, said_)))]


def test_a_completion_without_entries_gets_none() -> None:
    """Nothing is made up where nothing was asked."""
    whole = completion("chatcmpl-1", 1795000000, "m", {"content": "a##b"}, "stop", None)
    assert cut_completion(whole, ("##",))["choices"][0]["logprobs"] is None
    streamed = [*CutStream(Script([BUILD.delta({"content": "a##b"})]), ("##",)).finish()]
    assert streamed == [BUILD.delta({"content": "a"})]
