"""A text ends before the first stop string, whole or as a stream, however it was cut (vectors 21 and 22)."""

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.call import Json
from proxy.errors import CutShort
from proxy.openai_format.chunks import (
    ROLE,
    ChunkBuilder,
    collect,
    completion,
    reasoning,
    tool_arguments,
    tool_call,
    tool_start,
    usage,
)
from proxy.openai_format.stops import CutStream, cut_completion

BUILD = ChunkBuilder("chatcmpl-1", 1795000000, "m")
USAGE = usage(7, 5) or {}
END = (BUILD.finish("length"), BUILD.usage(USAGE))
answers = st.text("ab#", max_size=14)
stops = st.text("ab#", min_size=1, max_size=4)
places = st.lists(st.integers(0, 14), max_size=8)


class Script:
    """A parser that gives its chunks one read at a time."""

    thinking = False
    ended = False
    begun: Json | None = None

    def __init__(self, chunks: Iterable[Json], failure: Exception | None = None) -> None:
        self._chunks = list(chunks)
        self._failure = failure

    def feed(self, data: bytes) -> Iterable[Json]:
        return [self._chunks.pop(0)]

    def finish(self) -> Iterable[Json]:
        yield from self._chunks
        self.ended = True
        if self._failure:
            raise self._failure


def said(*texts: str, index: int = 0) -> list[Json]:
    """The chunks of a text in these pieces, without an end."""
    return [BUILD.delta(ROLE, index=index), *(BUILD.delta({"content": text}, index=index) for text in texts)]


def shown(chunks: list[Json], *stop: str) -> list[Json]:
    """What is left of the chunks, each fed by itself."""
    stream = CutStream(Script(chunks), stop)
    return [*(chunk for _ in chunks for chunk in stream.feed(b"x")), *stream.finish()]


def pieces(text: str, cuts: list[int]) -> list[str]:
    """The text in pieces that end at the given places."""
    ends = sorted(place for place in cuts if place < len(text))
    return [text[start:end] for start, end in pairwise([0, *ends, len(text)])]


def text_of(chunks: Iterable[Json], index: int = 0) -> str:
    return "".join(
        choice["delta"].get("content") or ""
        for chunk in chunks
        for choice in chunk["choices"]
        if choice["index"] == index
    )


def reasons(chunks: Iterable[Json]) -> list[str]:
    return [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"] if choice["finish_reason"]]


def whole(text: str | None, **message: object) -> Json:
    return completion("chatcmpl-1", 1795000000, "m", {"content": text, **message}, "length", USAGE)


def cut(text: str, *stop: str) -> str:
    """The whole text, cut."""
    content: str = cut_completion(whole(text), stop)["choices"][0]["message"]["content"]
    return content


@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        ("Hello###", ("###",), "Hello"),
        ("Hello### and ###", ("###",), "Hello"),
        ("Hello##", ("###",), "Hello##"),
        ("###", ("###",), ""),
        ("Hello", ("o", "l"), "He"),
        ("Hello 🦊 there", ("🦊",), "Hello "),
        ("Hello", (), "Hello"),
        ("", ("a",), ""),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_the_text_ends_before_the_first_stop(text: str, stop: tuple[str, ...], expected: str, size: int) -> None:
    """Neither the stop string nor anything after it is told."""
    assert cut(text, *stop) == expected
    assert text_of(shown([*said(*pieces(text, list(range(0, len(text), size)))), *END], *stop)) == expected


@given(answers, st.lists(stops, min_size=1, max_size=4), places)
@example("ab##", ["###"], [2, 3])
@example("a#a##a#", ["#a##b"], [])
@example("aab", ["ab"], [1, 2])
@example("abb", ["abb", "b"], [1])
def test_a_cut_stream_is_the_cut_whole(text: str, several: list[str], cuts: list[int]) -> None:
    """However a text is cut into chunks, and for any number of stops, the caller sees the cut completion."""
    chunks = [*said(*pieces(text, cuts)), *END]
    assert collect(shown(chunks, *several)) == cut_completion(whole(text), tuple(several))


@given(answers, st.lists(stops, max_size=4), places)
def test_without_a_hit_nothing_is_lost(text: str, several: list[str], cuts: list[int]) -> None:
    """What only looked like the beginning of a stop is told in the end (vector 22)."""
    missing = tuple(stop + "!" for stop in several)
    chunks = shown([*said(*pieces(text, cuts)), *END], *missing)
    assert text_of(chunks) == text
    assert reasons(chunks) == ["length"]
    assert cut(text, *missing) == text


@given(answers, st.lists(stops, min_size=1, max_size=4))
def test_no_stop_is_ever_told(text: str, several: list[str]) -> None:
    """What the caller sees is a beginning of the text, and holds no stop string, with any number of them."""
    seen = text_of(shown([*said(*text), *END], *several))
    for told in (seen, cut(text, *several)):
        assert text.startswith(told)
        assert not any(stop in told for stop in several)


def test_no_more_is_held_back_than_need_be() -> None:
    """Only what may begin a stop string waits for what follows."""
    stream = CutStream(Script(said("Hello #", "#", "a", "b")), ("###",))
    assert [text_of(stream.feed(b"x")) for _ in range(5)] == ["", "Hello ", "", "##a", "b"]


def test_a_held_tail_comes_before_the_end() -> None:
    """The tail is told in a chunk of its own, then the end as it was."""
    assert shown([*said("a#"), *END], "##") == [*said("a", "#"), *END]


def test_a_held_tail_comes_before_a_tool_call() -> None:
    """Text and tool call keep their order."""
    start = BUILD.delta(tool_start(0, "call_1", "f"))
    assert shown([*said("a#"), start, *END], "##") == [*said("a", "#"), start, *END]


def test_after_a_hit_only_end_and_usage_are_told() -> None:
    """Text, tool calls and thoughts after the cut are not; the end is a `stop`."""
    after = [
        BUILD.delta({"content": "more"}),
        BUILD.delta(reasoning("hm")),
        BUILD.delta(tool_start(0, "call_1", "f")),
        BUILD.delta(tool_arguments(0, "{}")),
        BUILD.finish("tool_calls"),
        BUILD.usage(USAGE),
    ]
    assert shown([*said("a##b"), *after], "##") == [*said("a"), BUILD.finish("stop"), BUILD.usage(USAGE)]


def test_thoughts_are_not_cut() -> None:
    """Only the answer's text is looked at, as OpenAI does."""
    chunks = [BUILD.delta(ROLE), BUILD.delta(reasoning("a##b")), *END]
    assert shown(chunks, "##") == chunks
    thoughtful = whole("a", **reasoning("a##b"))
    assert cut_completion(thoughtful, ("##",)) == thoughtful


def test_each_choice_is_cut_by_itself() -> None:
    """One choice's tail is no beginning of another's stop."""
    chunks = [
        *said("a#"),
        *said("#b##", index=1),
        BUILD.delta({"content": "#"}),
        BUILD.finish("stop"),
        BUILD.finish("length", index=1),
    ]
    seen = shown(chunks, "##")
    assert (text_of(seen), text_of(seen, 1)) == ("a", "#b")
    assert reasons(seen) == ["stop", "stop"]


def test_leaving_ends_the_stream_at_the_cut() -> None:
    """Where the upstream would go on writing, the stream ends by itself, once, and nothing follows."""
    stream = CutStream(Script([*said("a", "#", "#b", "c"), *END]), ("##",), leave=True)
    seen = [chunk for _ in range(5) for chunk in stream.feed(b"x")]
    assert stream.ended
    assert list(stream.finish()) == []
    assert seen == [*said("a"), BUILD.finish("stop")]


def test_a_stream_without_a_hit_is_not_left() -> None:
    """It ends where the upstream's ends, and not before."""
    stream = CutStream(Script([*said("a"), *END]), ("##",), leave=True)
    seen = [chunk for _ in range(3) for chunk in stream.feed(b"x")]
    assert not stream.ended
    assert [*seen, *stream.finish()] == [*said("a"), *END]
    assert stream.ended


def test_a_cut_connection_is_still_a_failure() -> None:
    """A hit does not hide that the upstream broke off."""
    stream = CutStream(Script(said("a##"), CutShort("cut")), ("##",))
    with pytest.raises(CutShort):
        list(stream.finish())


def test_thinking_is_told_through() -> None:
    """Whether the model has begun to think, and with how long a prompt, is for the parser behind to say."""
    script = Script([])
    script.thinking = True
    script.begun = {"prompt_tokens": 3}
    stream = CutStream(script, ("a",))
    assert stream.thinking
    assert stream.begun == {"prompt_tokens": 3}


def test_a_cut_completion_ends_with_stop() -> None:
    """What would have come after the stop is gone with the text; what was not hit stays as it is."""
    message = {"tool_calls": [tool_call("call_1", "f", "{}")], "thinking_blocks": [{}], **reasoning("hm")}
    (choice,) = cut_completion(whole("a##b", **message), ("##",))["choices"]
    assert choice["finish_reason"] == "stop"
    assert choice["message"] == {"role": "assistant", "content": "a", "refusal": None, **reasoning("hm")}
    for answer in (whole("a", **message), whole(None, **message)):
        assert cut_completion(answer, ("##",)) == answer
        assert cut_completion(answer, ()) == answer


def test_the_completion_is_not_changed() -> None:
    """A value that is given is never changed."""
    answer = whole("a##b")
    cut_completion(answer, ("##",))
    assert answer == whole("a##b")
