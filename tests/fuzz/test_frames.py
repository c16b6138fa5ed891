"""Bytes of any kind, cut anywhere: the same frames, within their bounds, and nothing but `Broken`."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import Broken
from proxy.framing import BOM, FrameSplitter, JsonLines, JsonValues, SseFrames, sse_data
from tests.fuzz.effort import tries
from tests.fuzz.goldens import STREAMS
from tests.fuzz.mutations import cuts, is_json, pieces, spoilt_bytes

Splitter = FrameSplitter | JsonValues
KINDS = (SseFrames, JsonLines, JsonValues)
scraps = st.lists(
    st.sampled_from(
        [
            b"\n", b"\r", b"\r\n", b"\n\n", b"data: x", b"data", b"data:", b"data:  {", b'"', b"\\", b'\\"', b"{}",
            b"[1]", b"event: error", b": c", b"id: 1", b"retry: x", BOM, b"\x00", b"\xff\xfe", b"\xe2\x80\xa8", b'"a"',
            b"}", b"[",
        ]
    ),
    max_size=24,
).map(b"".join)  # fmt: skip
streams = scraps | st.binary(max_size=80) | spoilt_bytes(st.sampled_from([golden.reply for golden in STREAMS]))


def taken(splitter: Splitter, reads: list[bytes]) -> tuple[list[bytes], bytes]:
    """The frames, and what is left at the end."""
    return [frame for read in reads for frame in splitter.feed(read)], splitter.flush()


@pytest.mark.parametrize("kind", KINDS)
@tries(130)
@given(streams, cuts)
def test_cuts_change_nothing(kind: type[Splitter], data: bytes, places: list[int]) -> None:
    """The frames of any bytes are the same, whole, in pieces, and byte by byte."""
    whole = taken(kind(), [data])
    assert taken(kind(), pieces(data, places)) == whole
    assert taken(kind(), [data[place : place + 1] for place in range(len(data))]) == whole


def events(stream: bytes) -> Iterator[bytes]:
    """The data of each event, character by character as the standard's text has it; the last may lack its end.

    Source: WHATWG HTML, "Server-sent events", 9.2.5 and 9.2.6.
    """
    data: list[bytes] = []
    line, after_return = b"", False
    for byte in [*(bytes([byte]) for byte in stream.removeprefix(BOM)), b"\n", b"\n"]:
        if byte == b"\n" and after_return:
            after_return = False
            continue
        after_return = byte == b"\r"
        if byte not in b"\r\n":
            line += byte
            continue
        if not line:
            yield b"\n".join(data)
            data = []
        elif line == b"data" or line.startswith(b"data:"):
            value = line[5:]
            data.append(value[1:] if value.startswith(b" ") else value)
        line = b""


@tries(220)
@given(streams, cuts)
def test_events_are_those_of_the_standard(data: bytes, places: list[int]) -> None:
    """Each event says what a reader written from the standard reads, unless its lines are values of their own."""
    frames, rest = taken(SseFrames(), pieces(data, places))
    said = [b"".join(sse_data(frame)) for frame in [*frames, rest]]
    wanted = [event.replace(b"\n", b"") if _is_several(event) else event for event in events(data)]
    assert [each for each in said if each.strip()] == [each for each in wanted if each.strip()]


def _is_several(event: bytes) -> bool:
    """Whether a server forgot the blank lines: each line is JSON, and the lines together are not."""
    lines = event.split(b"\n")
    if len(lines) < 2 or is_json(event):
        return False
    return all(line.startswith(b"[DONE]") or is_json(line) for line in lines)


@tries(110)
@given(streams, cuts)
def test_lines_are_lines(data: bytes, places: list[int]) -> None:
    """A line ends at its line feed and nowhere else."""
    frames, rest = taken(JsonLines(), pieces(data, places))
    *lines, last = data.split(b"\n")
    wanted = [line + b"\n" for line in lines]
    if wanted:
        wanted[0] = wanted[0].removeprefix(BOM)
    assert frames == wanted
    assert rest == (last if wanted else last.removeprefix(BOM))


@pytest.mark.parametrize("kind", KINDS)
@tries(100)
@given(streams, cuts, st.integers(1, 60))
def test_frames_have_a_bound(kind: type[Splitter], data: bytes, places: list[int], most: int) -> None:
    """What waits for its end is never longer than it may be; where all is shorter, nothing is refused."""
    splitter = kind(most)
    frames: list[bytes] = []
    try:
        for read in pieces(data, places):
            frames += splitter.feed(read)
            waiting = splitter.rest if isinstance(splitter, FrameSplitter) else splitter._rest
            assert len(waiting) <= most
    except Broken:
        assert len(data) > most
        return
    frames.append(splitter.flush())
    unbound = taken(kind(), [data])
    assert frames == [*unbound[0], unbound[1]]


@pytest.mark.parametrize("kind", KINDS)
@tries(60)
@given(data=st.text("ab{}[,: \u2028", max_size=200), most=st.integers(1, 60), size=st.integers(1, 30))
def test_what_never_ends_is_refused(kind: type[Splitter], data: str, most: int, size: int) -> None:
    """A frame without an end is refused with the first byte that is too many, however it comes."""
    raw = b'"' + data.encode()
    splitter, length = kind(most), 0
    for read in [raw[place : place + size] for place in range(0, len(raw), size)]:
        length += len(read)
        if length > most:
            with pytest.raises(Broken):
                splitter.feed(read)
            return
        assert splitter.feed(read) == []
