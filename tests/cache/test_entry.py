"""What is written for Redis is read back as it was; whatever else stands there is foreign, and costs nothing."""

import random
import struct
import tracemalloc
import zlib
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.cache.entry import MARK, Entry, Foreign, pack, unpack
from proxy.openai_format.transcript import Transcript

MOST = 64 * 1024
WHOLE = Entry(
    bytes(range(32)), "chat", "ann", "up", "m", True, 1795000000.0, 600.0, Transcript(whole=b'{"choices":[]}'),
    ("top_k",), 0.0, 0.25,
)  # fmt: skip
STREAM = Entry(
    b"d" * 32, "chat", "-", "up", "m", False, 1795000000.5, 60.0,
    Transcript(None, b"data: {}\n\ndata: [DONE]\n\n", b"data: {}\n\n", True, True), (), 1.5, None,
)  # fmt: skip
GOOD = pytest.mark.parametrize("entry", [WHOLE, STREAM], ids=["whole", "stream"])


def told(data: bytes, most: int = MOST) -> Entry | None:
    """The entry, or None for what is foreign; any other failure is one of the test."""
    try:
        return unpack(data, most)
    except Foreign:
        return None


def packed(value: Any) -> bytes:
    return MARK + zlib.compress(value if isinstance(value, bytes) else msgspec.msgpack.encode(value))


def fields(**changes: Any) -> dict[str, Any]:
    """An entry as plain data, with changes."""
    plain: dict[str, Any] = msgspec.msgpack.decode(msgspec.msgpack.encode(WHOLE))
    return plain | changes


finite = st.floats(0, 2**39)
names = st.from_regex(r"[A-Za-z0-9_.-]{1,64}", fullmatch=True)
entries = st.builds(
    Entry,
    digest=st.binary(min_size=32, max_size=32),
    route=names,
    tenant=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    upstream=names,
    model=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    chat=st.booleans(),
    made=finite,
    good=finite,
    transcript=st.builds(
        Transcript,
        whole=st.none() | st.binary(min_size=1, max_size=200),
        events=st.binary(max_size=200),
        usage_event=st.binary(max_size=50),
        shows_usage=st.booleans(),
        encoded=st.booleans(),
    ),
    dropped=st.lists(names, max_size=3).map(tuple),
    streamed=st.floats(0, 86_400),
    cost=st.none() | finite,
)


@given(entry=entries)
def test_round_trip(entry: Entry) -> None:
    """Every entry comes back as it was."""
    assert unpack(pack(entry), MOST) == entry


@GOOD
def test_cut_short(entry: Entry) -> None:
    """Wherever it was cut, it is foreign."""
    data = pack(entry)
    assert [told(data[:length]) for length in range(len(data))] == [None] * len(data)


@GOOD
def test_one_bit_turned(entry: Entry) -> None:
    """Any bit of it, turned, makes it foreign, or leaves all it says."""
    data = pack(entry)
    for place in range(len(data) * 8):
        turned = bytearray(data)
        turned[place // 8] ^= 1 << place % 8
        assert told(bytes(turned)) in (None, entry)


@GOOD
def test_several_bytes_changed(entry: Entry) -> None:
    """Nor does worse damage make another entry of it."""
    data, chance = pack(entry), random.Random(6)
    for _ in range(2000):
        changed = bytearray(data)
        for _ in range(chance.randrange(1, 6)):
            changed[chance.randrange(len(data))] = chance.randrange(256)
        assert told(bytes(changed)) in (None, entry)


@settings(max_examples=300)
@given(rest=st.binary(max_size=100), marked=st.booleans(), deflated=st.booleans())
def test_any_bytes(rest: bytes, marked: bool, deflated: bool) -> None:
    """Whoever wrote it, it is an entry or foreign."""
    told((MARK if marked else b"") + (zlib.compress(rest) if deflated else rest))


@settings(max_examples=300)
@given(place=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255))
def test_any_change_beneath_the_checksum(place: float, value: int) -> None:
    """Also where the checksum is right, what is read is what an entry may say."""
    raw = bytearray(msgspec.msgpack.encode(WHOLE))
    raw[int(place * len(raw))] = value
    found = told(packed(bytes(raw)))
    assert found is None or 0 <= found.made < 2**40


def foreign() -> Iterator[Any]:
    wrongs: list[Any] = [1, None, []]
    transcripts: list[Any] = [None, [], b"", {"whole": 1}, {"events": None}]
    other = pack(WHOLE).replace(b"answer-1", b"answer-2")
    assert other != pack(WHOLE)
    yield from (other, b"", MARK, MARK + b"x", MARK + pack(WHOLE), b"\x80\x04N.", pack(WHOLE)[len(MARK) :])
    yield from map(packed, (None, 1, [], {}, "x", b"", b"\xc1", [fields()], fields(digest=None), fields(digest=1)))
    yield from (packed(fields(**{name: wrong})) for name in ("route", "upstream", "model") for wrong in wrongs)
    yield from (packed(fields(**{name: {}})) for name in ("made", "good", "streamed", "cost", "chat", "dropped"))
    yield from (packed(fields(transcript=value)) for value in transcripts)
    yield from (packed(fields(upstream=name)) for name in ("", "a b", "a\r\nb", "é", "x" * 65, "a\n"))
    for number in (float("nan"), float("inf"), -float("inf"), -1.0, 1e300, 2.0**40):
        yield from (packed(fields(made=number)), packed(fields(good=number)))
    yield from (
        packed({name: value for name, value in fields().items() if name != gone})
        for gone in fields()
        if gone not in ("dropped", "streamed", "cost")
    )
    raw = msgspec.msgpack.encode(WHOLE)
    yield packed(raw.replace(b"ann", b"\xff\xfe\xfd"))  # no text
    yield from (packed(raw + b"\xc0"), packed(raw[:-1]), packed(b"\x91" * 100_000), packed(b"\x81\xa1x" * 30_000))


@pytest.mark.parametrize("data", [*foreign()])
def test_what_is_foreign(data: bytes) -> None:
    """Another version, another type, fields that are missing or cannot be: none of it is an entry."""
    assert told(data) is None


@pytest.mark.parametrize("name", ["streamed", "cost"])
@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), -1.0])
def test_numbers_that_cannot_be(name: str, number: float) -> None:
    """They would spoil what is counted, for good."""
    assert told(packed(fields(**{name: number}))) is None


@pytest.mark.parametrize("digest", [b"", b"d", b"d" * 31, b"d" * 33])
def test_a_digest_of_another_length(digest: bytes) -> None:
    """It is that of no key."""
    found = told(packed(fields(digest=digest)))
    assert found is None or found.digest == digest  # which the tier compares with the key it asked for


@pytest.mark.parametrize("size", [10**4, 10**6, 10**8, 2**32 - 1])
@pytest.mark.parametrize("kind", [b"\xdd", b"\xdf", b"\xdb", b"\xc6"])
def test_a_length_that_is_a_lie(size: int, kind: bytes) -> None:
    """A list, mapping or text that claims to be huge takes no memory."""
    raw = msgspec.msgpack.encode(WHOLE)
    at = raw.index(b"\xa7dropped") + len(b"\xa7dropped")
    assert memory_of(packed(raw[:at] + kind + struct.pack(">I", size) + raw[at + 1 :])) < 16 * MOST


def memory_of(data: bytes) -> int:
    """Most bytes taken while foreign bytes are looked at."""
    tracemalloc.start()
    try:
        assert told(data) is None
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_bomb() -> None:
    """A value that would unfold to 100 MB is not unfolded."""
    bomb = MARK + zlib.compress(msgspec.msgpack.encode(fields(model="x" * 100_000_000)), 9)
    assert len(bomb) < 200_000
    assert memory_of(bomb) < 16 * MOST


def test_the_limit_is_exact() -> None:
    """An entry of just so many bytes is read; one more is too many."""
    size = len(msgspec.msgpack.encode(WHOLE))
    assert told(pack(WHOLE), size) == WHOLE
    assert told(pack(WHOLE), size - 1) is None


def test_what_more_is_there_is_passed_over() -> None:
    """A field that a later version adds under the same mark does no harm."""
    assert told(packed(fields(later=1))) == WHOLE


def test_sizes() -> None:
    """An answer's size is that of its bytes, in whatever form it came; in memory it has company."""
    assert WHOLE.answer_size == len(b'{"choices":[]}')
    assert STREAM.answer_size == len(STREAM.transcript.events) + len(STREAM.transcript.usage_event)
    beside = [
        entry.size - entry.answer_size - len(entry.model) - sum(map(len, entry.dropped)) for entry in (WHOLE, STREAM)
    ]
    assert beside[0] == beside[1] > 0


def test_all_that_callers_choose_is_counted() -> None:
    """The names of dropped fields are theirs to invent: they take room, and are part of an entry's size."""
    grown = msgspec.structs.replace(WHOLE, dropped=tuple(f"x{number:099}" for number in range(1000)))
    assert grown.size - WHOLE.size >= 99_000
