"""Several streams of one request are told as one stream with several choices."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.admission.parsing import parse
from proxy.call import Call, Caller, Json
from proxy.errors import Broken, CutShort, UpstreamError
from proxy.openai_format.chunks import ROLE, ChunkBuilder, collect, tool_arguments, tool_start, usage
from proxy.openai_format.encoding import DONE
from proxy.providers.fanout import Branch, MergedRelay

BUILDS = [ChunkBuilder(f"chatcmpl-{number}", 1795000000 + number, "m") for number in range(4)]


def answer(number: int, text: str, reason: str = "stop") -> list[Json]:
    """The chunks of one stream, usage last."""
    build = BUILDS[number]
    said = [build.delta({"content": piece}) for piece in text]
    return [build.delta(ROLE), *said, build.finish(reason), build.usage(usage(7, len(text)) or {})]


class Script:
    """A parser that gives one chunk for each byte, and the rest at the end."""

    begun = None

    def __init__(self, chunks: Iterable[Json], failure: Exception | None = None, ends: bool = False) -> None:
        self._chunks, self._failure, self._ends = list(chunks), failure, ends
        self.thinking = self.plain = False

    @property
    def ended(self) -> bool:
        return self._ends and not self._chunks

    def feed(self, data: bytes) -> Iterable[Json]:
        given_, self._chunks = self._chunks[: len(data)], self._chunks[len(data) :]
        yield from given_
        if data == b"?":
            raise Broken("nonsense")

    def finish(self) -> Iterable[Json]:
        yield from self._chunks
        if self._failure:
            raise self._failure


def call(*, wants_usage: bool = True, **fields: Any) -> Call:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True, "n": 3, **fields}
    if wants_usage:
        body["stream_options"] = {"include_usage": True}
    return parse(json.dumps(body).encode(), caller=Caller(), headers={}, call_id="1", received_at=1.0)


class Stream:
    """What the caller gets of several branches, and how it ended."""

    def __init__(self, *parsers: Script, asked: Call | None = None) -> None:
        self.relay = MergedRelay([*parsers], asked or call())
        self.out = b""
        self.sizes: list[int] = []
        self.ends = 0
        self.failures: list[Exception] = []
        self.branches = [
            Branch(self.relay, index, self._absorb, self._end, self.failures.append) for index in range(len(parsers))
        ]

    def _absorb(self, size: int, data: bytes) -> None:
        self.sizes.append(size)
        self.out += data

    def _end(self) -> None:
        self.ends += 1
        self.out += self.relay.finish()

    @property
    def chunks(self) -> list[Json]:
        events = self.out.removesuffix(DONE).split(b"\n\n")[:-1]
        return [json.loads(event.removeprefix(b"data: ")) for event in events]


turns = st.permutations([index for index in range(3) for _ in range(6)])


@given(turns, st.permutations(range(3)))
def test_branches_may_come_in_any_turn(order: list[int], ends: list[int]) -> None:
    """Each branch is one choice with its own text and end, whoever speaks and ends first."""
    texts, reasons = ["one", "two", "six"], ["stop", "length", "content_filter"]
    stream = Stream(*(Script(answer(index, texts[index], reasons[index])) for index in range(3)))
    for index in order:
        stream.branches[index].feed(b"x")
    for index in ends:
        assert stream.ends == 0
        stream.branches[index].end()
    whole = collect(stream.chunks)
    told = [(each["index"], each["message"]["content"], each["finish_reason"]) for each in whole["choices"]]
    assert told == [(0, "one", "stop"), (1, "two", "length"), (2, "six", "content_filter")]
    assert whole["usage"] == usage(7, 9)
    assert (stream.ends, stream.failures, stream.relay.failure) == (1, [], None)


def test_the_head_is_that_of_the_first_who_speaks() -> None:
    """Id and time are the same in every chunk, as in a stream of one."""
    stream = Stream(Script(answer(0, "one")), Script(answer(1, "two")))
    for index in (1, 0):
        stream.branches[index].feed(b"xxxxxxx")
        stream.branches[index].end()
    assert {(chunk["id"], chunk["created"]) for chunk in stream.chunks} == {("chatcmpl-1", 1795000001)}


def test_usage_comes_once_and_last() -> None:
    """The branches' own usage is kept back; the sum is the last chunk before the end of the stream."""
    stream = Stream(Script(answer(0, "a")), Script(answer(1, "bc")))
    for branch in stream.branches:
        branch.feed(b"x" * 9)
        branch.end()
    assert stream.out.endswith(DONE)
    assert [chunk["usage"] for chunk in stream.chunks if chunk["usage"]] == [usage(7, 3)]
    assert (stream.chunks[-1]["choices"], stream.chunks[-1]["usage"]) == ([], usage(7, 3))
    assert stream.relay.facts.usage == usage(7, 3)


def test_usage_is_counted_for_who_did_not_ask() -> None:
    """Accounting learns of it; the caller sees none."""
    stream = Stream(Script(answer(0, "a")), Script(answer(1, "bc")), asked=call(wants_usage=False))
    for branch in stream.branches:
        branch.end()
    assert not any("usage" in chunk for chunk in stream.chunks)
    assert stream.relay.facts.usage == usage(7, 3)


def test_no_usage_is_invented() -> None:
    """Where no branch tells, none is told."""
    stream = Stream(Script(answer(0, "a")[:-1]), Script(answer(1, "bc")[:-1]))
    for branch in stream.branches:
        branch.end()
    assert not any(chunk["choices"] == [] for chunk in stream.chunks)
    assert stream.relay.facts.usage is None


def test_the_stream_is_finished_with_its_last_branch() -> None:
    """What accounting is told: content when it comes, the end when all have ended."""
    stream = Stream(Script(answer(0, "a"), ends=True), Script(answer(1, "b")))
    stream.branches[0].feed(b"x")
    assert not stream.relay.facts.content
    stream.branches[0].feed(b"xxx")
    assert (stream.relay.facts.content, stream.relay.facts.finished, stream.relay.complete) == (True, False, False)
    stream.branches[1].end()
    assert (stream.relay.facts.finished, stream.relay.complete, stream.ends) == (True, True, 1)


def test_a_terminal_event_ends_a_branch() -> None:
    """A body that goes on after its terminal event is not waited for, and ends once."""
    stream = Stream(Script(answer(0, "a"), ends=True))
    branch = stream.branches[0]
    branch.feed(b"xxxx")
    assert (stream.ends, stream.out.endswith(DONE)) == (1, True)
    out = stream.out
    branch.feed(b"more")
    branch.end()
    branch.fail(CutShort("late"))
    assert (stream.out, stream.ends, stream.failures) == (out, 1, [])


def test_thinking_counts_as_content() -> None:
    """A branch that has begun to think has begun to answer, although it shows nothing."""
    quiet = Script([])
    stream = Stream(quiet, Script([]))
    stream.branches[0].feed(b"x")
    assert not stream.relay.facts.content
    quiet.thinking = True
    stream.branches[0].feed(b"x")
    assert stream.relay.facts.content


def test_bytes_are_counted_as_they_came() -> None:
    """What came over the wire is counted for every branch."""
    stream = Stream(Script(answer(0, "a")), Script(answer(1, "b")))
    stream.branches[0].feed(b"xx")
    stream.branches[1].feed(b"xxx")
    stream.branches[0].end()
    assert stream.sizes == [2, 3, 0]


def broken_by_bytes(stream: Stream) -> None:
    stream.branches[1].feed(b"?")


def broken_by_end(stream: Stream) -> None:
    stream.branches[1].end()


@pytest.mark.parametrize(("breaks", "kind"), [(broken_by_bytes, Broken), (broken_by_end, CutShort)])
def test_one_broken_branch_breaks_the_stream(breaks: Any, kind: type[UpstreamError]) -> None:
    """What came until then is good; the end is not told, although the others have ended well."""
    stream = Stream(Script(answer(0, "one")), Script(answer(1, "two")[:3], CutShort("cut")))
    stream.branches[1].feed(b"xx")
    stream.branches[0].end()
    breaks(stream)
    assert isinstance(stream.relay.failure, kind)
    assert (stream.ends, DONE in stream.out) == (0, False)
    said = [choice["delta"].get("content") for chunk in stream.chunks for choice in chunk["choices"]]
    assert said == ["", "t", "", "o", "n", "e", None, "w"]


def test_a_lost_connection_is_the_streams_failure() -> None:
    """A branch's connection fails once, and what still comes of it is not read."""
    stream = Stream(Script(answer(0, "a")), Script(answer(1, "b")))
    lost = CutShort("reset")
    stream.branches[0].fail(lost)
    stream.branches[0].fail(CutShort("again"))
    stream.branches[0].feed(b"xxxx")
    stream.branches[0].end()
    assert (stream.failures, stream.out, stream.relay.complete) == ([lost], b"", False)


def test_tool_calls_keep_their_own_index() -> None:
    """Only the choice is numbered anew; a call's place within it is its own."""
    build = BUILDS[0]
    chunks = [
        build.delta(tool_start(1, "call_1", "f")),
        build.delta(tool_arguments(1, "{}")),
        build.finish("tool_calls"),
    ]
    stream = Stream(Script([]), Script(chunks))
    stream.branches[1].feed(b"xxx")
    choices = [choice for chunk in stream.chunks for choice in chunk["choices"]]
    assert [choice["index"] for choice in choices] == [1, 1, 1]
    assert [choice["delta"] for choice in choices] == [tool_start(1, "call_1", "f"), tool_arguments(1, "{}"), {}]


def test_callers_with_functions_read_function_calls() -> None:
    """Who asked with `functions` is answered that way in every choice."""
    build = BUILDS[0]
    chunks = [build.delta(tool_start(0, "call_1", "f")), build.finish("tool_calls")]
    stream = Stream(Script(chunks), Script(chunks), asked=call(functions=[{"name": "f"}]))
    for branch in stream.branches:
        branch.end()
    choices = [choice for chunk in stream.chunks for choice in chunk["choices"]]
    assert [choice["delta"].get("function_call", {}).get("name") for choice in choices] == ["f", None, "f", None]
    assert [choice["finish_reason"] for choice in choices] == [None, "function_call"] * 2
