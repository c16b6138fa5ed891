"""Frames are found whatever the cuts and the line ends (reference/upstreams.md §12.1, vectors 1-6)."""

import json
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from proxy.errors import Broken
from proxy.framing import MAX_FRAME_BYTES, FrameSplitter, JsonLines, JsonValues, SseFrames, is_json, sse_data

BOM = b"\xef\xbb\xbf"
LINE_ENDS = (b"\n", b"\r\n", b"\r")
Splitter = type[FrameSplitter] | type[JsonValues]
unhurried = settings(suppress_health_check=[HealthCheck.too_slow])

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=12).map(str.encode)
events = st.lists(texts, min_size=1, max_size=4)
places = st.lists(st.integers(0, 300), max_size=12)
# Bytes as confused servers write them: every line end, blank lines in series, fields of all kinds.
scraps = st.lists(
    st.sampled_from([*LINE_ENDS, b"data: x", b"data:y", b": note", b"event: e", b"id: 1", b"data", b"\xe2\x80\xa8"])
).map(b"".join)

inside = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6) | st.sampled_from(['"', "\\", '\\"', "}{", "],["]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
containers = inside.filter(lambda value: isinstance(value, dict | list | str))
between = st.sampled_from([b"", b"\n", b" ", b",", b", ", b"\r\n\t"])


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """The data in reads that end at the given places."""
    ends = sorted(place for place in cuts if place < len(data))
    return [data[start:end] for start, end in zip([0, *ends], [*ends, len(data)], strict=True)]


def read_all(splitter: FrameSplitter | JsonValues, reads: list[bytes]) -> tuple[list[bytes], bytes]:
    """Every frame, and what is left at the end."""
    return [frame for read in reads for frame in splitter.feed(read)], splitter.flush()


def payloads(reads: list[bytes]) -> list[bytes]:
    """What the data lines of a stream say."""
    frames, rest = read_all(SseFrames(), reads)
    return [payload for frame in [*frames, rest] for payload in sse_data(frame)]


def standard_payloads(stream: bytes) -> list[bytes]:
    """The same as the standard's text has it, read from the whole stream, line by line."""
    found, lines = list[bytes](), list[bytes]()
    for line in [*re.split(rb"\r\n|\n|\r", stream), b""]:
        name, _, value = line.partition(b":")
        if name == b"data":
            lines.append(value.removeprefix(b" "))
        elif not line:
            found.append(b"\n".join(lines))
            lines.clear()
    return [payload for payload in found if payload.strip()]  # one of empty lines says nothing


@unhurried
@given(st.lists(events, max_size=6), st.sampled_from(LINE_ENDS), places)
def test_cuts_and_line_ends_do_not_matter(stream: list[list[bytes]], end: bytes, cuts: list[int]) -> None:
    """The same events come out of any reads, with any line end, raw U+2028 and split characters included."""
    data = b"".join(b"".join(b"data: ~" + line + end for line in lines) + end for lines in stream)
    assert payloads(pieces(data, cuts)) == payloads([data])
    assert payloads([data]) == standard_payloads(data)


@unhurried
@given(scraps, places)
@example(b"data: x\rdata:y\n\n", [])
@example(b"data: x\r\n\n", [])
@example(b"data: x\n\r", [9])
def test_mixed_line_ends_are_read_as_the_standard_says(data: bytes, cuts: list[int]) -> None:
    """CR, LF and CRLF may change from line to line."""
    assert payloads(pieces(data, cuts)) == standard_payloads(data)


@unhurried
@given(scraps | st.binary(max_size=60), places, st.sampled_from([SseFrames, JsonLines]))
def test_nothing_is_lost(data: bytes, cuts: list[int], kind: type[FrameSplitter]) -> None:
    """Frames and rest, joined, are the bytes that came in (but for one BOM)."""
    frames, rest = read_all(kind(), pieces(data, cuts))
    assert b"".join(frames) + rest in (data, data.removeprefix(BOM))


@unhurried
@given(scraps, places)
def test_frames_are_the_same_for_any_cuts(data: bytes, cuts: list[int]) -> None:
    """How the network cuts the bytes changes no frame."""
    assert read_all(SseFrames(), pieces(data, cuts)) == read_all(SseFrames(), [data])


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_character_may_be_split(cut: int) -> None:
    """Vector 1: an emoji split over reads arrives whole."""
    head, emoji, tail = b'data: {"a":"', "🦊".encode(), b'"}\n\n'
    assert payloads([head + emoji[:cut], emoji[cut:] + tail]) == [b'{"a":"' + emoji + b'"}']


@pytest.mark.parametrize("cut", range(1, 16))
def test_crlf_may_be_split(cut: int) -> None:
    """Vector 2: CR and LF of one line end may come in different reads."""
    data = b"data: 1\r\n\r\ndata: 2\r\n\r\n"
    assert read_all(SseFrames(), [data[:cut], data[cut:]]) == ([b"data: 1\r\n\r\n", b"data: 2\r\n\r\n"], b"")


def test_a_frame_does_not_wait_for_the_next() -> None:
    """An event is given out as soon as its blank line is there."""
    assert SseFrames().feed(b"data: 1\r\n\r\n") == [b"data: 1\r\n\r\n"]
    assert SseFrames().feed(b"data: 1\n\n") == [b"data: 1\n\n"]


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        pytest.param(b'data:{"a":1}\n\n', [b'{"a":1}'], id="vector 3: no space"),
        pytest.param(b'data: {"a":1}\n\n', [b'{"a":1}'], id="one space"),
        pytest.param(b"data:  x\n\n", [b" x"], id="only one space is taken off"),
        pytest.param(b": ping\n\n", [], id="vector 4: comment"),
        pytest.param(b"\n\n", [], id="vector 4: blank lines"),
        pytest.param(b"event: ping\nid: 7\nretry: 10\n\n", [], id="vector 4: other fields"),
        pytest.param(b": hi\nevent: e\ndata: 1\nid: 7\n\n", [b"1"], id="data between other fields"),
        pytest.param(b"database: 1\n\n", [], id="another field's name begins alike"),
        pytest.param(b'data: {"a":\ndata: 1}\n\n', [b'{"a":\n1}'], id="two lines, one value"),
        pytest.param(b'data: {"a":1}\ndata: {"b":2}\n\n', [b'{"a":1}', b'{"b":2}'], id="a blank line forgotten"),
        pytest.param(b"data: a\ndata: b\n\n", [b"a\nb"], id="two lines of text"),
        pytest.param(b"data: a\r\ndata: b\r\n\r\n", [b"a\nb"], id="two lines of text, CRLF"),
        pytest.param('data: "\u2028"\n\n'.encode(), ['"\u2028"'.encode()], id="vector 6: U+2028"),
        pytest.param(b"data:\n\n", [], id="data without anything in it"),
        pytest.param(b"data: \n\n", [], id="data with only the space"),
    ],
)
def test_what_an_event_says(frame: bytes, said: list[bytes]) -> None:
    """The payloads of one event, as the standard and the field have it."""
    assert sse_data(frame) == said


@pytest.mark.parametrize("size", [1, 1000, 65536, 1 << 21])
def test_a_large_event_arrives_whole(size: int) -> None:
    """Vector 5: an event of 1 MiB is intact, however small the reads."""
    data = b"data: " + b"x" * (1 << 20) + b"\n\n"
    reads = [data[start : start + size] for start in range(0, len(data), size)]
    assert read_all(SseFrames(), reads) == ([data], b"")


def test_the_default_limit_is_eight_mebibytes() -> None:
    """A frame may be up to 8 MiB."""
    assert MAX_FRAME_BYTES == 8 * 1024 * 1024


@pytest.mark.parametrize("kind", [SseFrames, JsonLines])
def test_a_frame_without_end_is_refused(kind: type[FrameSplitter]) -> None:
    """Beyond the limit the upstream is at fault, in our words and with a code."""
    splitter = kind(100)
    assert splitter.feed(b"x" * 100) == []
    with pytest.raises(Broken, match="100 bytes") as caught:
        splitter.feed(b"x")
    assert caught.value.code == "upstream_bad_response"


@unhurried
@given(st.lists(st.binary(max_size=8).map(lambda text: text.replace(b"\n", b"") + b"\n")), places)
def test_frames_within_the_limit_are_never_refused(lines: list[bytes], cuts: list[int]) -> None:
    """The limit counts a frame, not what has come so far."""
    frames, rest = read_all(JsonLines(9), pieces(b"".join(lines), cuts))
    assert (b"".join(frames), rest) == (b"".join(lines).removeprefix(BOM), b"")


@pytest.mark.parametrize("ended", [True, False], ids=["ended", "at the end of the body"])
@pytest.mark.parametrize(
    ("splitter", "text", "end"),
    [(SseFrames, b"data: 1", b"\n\n"), (JsonLines, b"{}", b"\n"), (JsonValues, b'{"a":1', b"}")],
    ids=["sse", "ndjson", "json"],
)
def test_one_leading_bom_is_taken_off(splitter: Splitter, text: bytes, end: bytes, ended: bool) -> None:
    """A BOM before the first frame is no part of it, also when it comes in pieces or nothing follows."""
    data = BOM + text + (end if ended else b"")
    for reads in ([data], [data[place : place + 1] for place in range(len(data))]):
        frames, rest = read_all(splitter(), reads)
        assert b"".join(frames) + rest == data.removeprefix(BOM)


def test_a_later_bom_stays() -> None:
    """Only the first three bytes of a body can be a BOM."""
    assert JsonLines().feed(b"1\n" + BOM + b"2\n") == [b"1\n", BOM + b"2\n"]


def test_a_line_without_end_is_left() -> None:
    """Vector 23: the last line may lack its end; it is handed out once."""
    splitter = JsonLines()
    assert splitter.feed(b'{"a":1}\n{"b"') == [b'{"a":1}\n']
    assert splitter.feed(b":2}") == []
    assert splitter.flush() == b'{"b":2}'
    assert splitter.flush() == b""


@pytest.mark.parametrize(
    ("text", "is_one"),
    [(b"1", True), (b'{"a":1}', True), (b"", False), (b"1 2", False), (b"NaN", False), (b"[" * 100_000, False)],
)
def test_is_json(text: bytes, is_one: bool) -> None:
    """One value, whole and alone; deep nesting is no way to crash."""
    assert is_json(text) is is_one


@unhurried
@given(st.lists(st.tuples(containers, between)), st.booleans(), places)
@example([({"a": '\\"}{'}, b""), ("]", b","), ([["\\"]], b"")], True, [6, 7, 8, 9])
def test_values_are_found_for_any_cuts(written: list[tuple[Any, bytes]], ascii_only: bool, cuts: list[int]) -> None:
    """Objects, arrays and strings one after the other come out one by one, whatever they hold and however they come."""
    texts = [json.dumps(value, ensure_ascii=ascii_only).encode() for value, _ in written]
    data = b"".join(text + gap for text, (_, gap) in zip(texts, written, strict=True))
    for reads in ([data], pieces(data, cuts), [data[place : place + 1] for place in range(len(data))]):
        assert read_all(JsonValues(), reads) == (texts, b"")


@pytest.mark.parametrize(
    ("data", "values"),
    [
        pytest.param(b'{"a":1}{"b":2}', [b'{"a":1}', b'{"b":2}'], id="back to back"),
        pytest.param(b'{"a":{"b":[{}]}}[[],{}]', [b'{"a":{"b":[{}]}}', b"[[],{}]"], id="nested"),
        pytest.param(b'"a""b"', [b'"a"', b'"b"'], id="strings"),
        pytest.param(b'{"a":"}{"}"{"', [b'{"a":"}{"}', b'"{"'], id="braces in strings"),
        pytest.param(rb'"\\""\""{"a":"\\\"}"}', [rb'"\\"', rb'"\""', rb'{"a":"\\\"}"}'], id="escapes"),
        pytest.param(b' {"a": 1 }\n,\r\n\t{} ', [b'{"a": 1 }', b"{}"], id="spaces and commas between"),
        pytest.param('{"a":"\u2028🦊"}"é"'.encode(), ['{"a":"\u2028🦊"}'.encode(), '"é"'.encode()], id="not ASCII"),
    ],
)
def test_values_written_one_after_the_other(data: bytes, values: list[bytes]) -> None:
    """A value ends where its bracket or quote is closed; in strings brackets and escaped quotes mean nothing."""
    assert read_all(JsonValues(), [data]) == (values, b"")
    assert read_all(JsonValues(), [data[place : place + 1] for place in range(len(data))]) == (values, b"")


def test_a_value_does_not_wait_for_the_next() -> None:
    """A value is given out with its last byte."""
    values = JsonValues()
    assert [values.feed(bytes([byte])) for byte in b'{"a":1}'] == [[]] * 6 + [[b'{"a":1}']]


@pytest.mark.parametrize(
    ("data", "tail"),
    [(b'{}{"a":', b'{"a":'), (b'{} "ab', b'"ab'), (b'{}"a\\', b'"a\\'), (b"{}, [[]\n", b"[[]"), (b"{},\n ", b"")],
)
def test_a_value_that_was_cut_is_left(data: bytes, tail: bytes) -> None:
    """What never ended is handed out at the end of the body, once; what only stood between is not."""
    values = JsonValues()
    assert values.feed(data) == [b"{}"]
    assert (values.flush(), values.flush()) == (tail, b"")


@pytest.mark.parametrize("cut", [1, 5, 99])
def test_a_value_without_end_is_refused(cut: int) -> None:
    """Beyond the limit the upstream is at fault; values that end in time may be as many as they like."""
    values = JsonValues(100)
    data = b'"' + b"x" * 99
    assert values.feed(b"{}" * 100) == [b"{}"] * 100
    assert values.feed(data[:cut]) + values.feed(data[cut:]) == []
    with pytest.raises(Broken, match="100 bytes") as caught:
        values.feed(b"x")
    assert caught.value.code == "upstream_bad_response"
