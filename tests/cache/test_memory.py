"""The memory tier never holds more than it may, and lets go of what was used longest ago."""

from collections import OrderedDict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.cache.entry import Entry
from proxy.cache.memory import Kept, MemoryTier
from proxy.openai_format.encoding import encode_event
from proxy.openai_format.transcript import Form, Transcript, Untellable
from tests.clock import Clock

EMPTY = Entry(b"", "r", "-", "up", "m", True, 1.0, 60.0, Transcript(whole=b"")).size
FORMS: tuple[Form, ...] = ("whole", "events", "events_usage")
CHUNK = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}


def stream(text: str) -> Transcript:
    """A stream that can be told in all forms, none of them its own but one."""
    choice = {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = encode_event({**CHUNK, "choices": [], "usage": {"prompt_tokens": 1}})
    events = encode_event({**CHUNK, "choices": [choice]})
    return Transcript(None, events + b"data: [DONE]\n\n", usage, encoded=True)


def entry(digest: bytes, size: int = 0, transcript: Transcript | None = None, route: str = "r") -> Entry:
    transcript = transcript or Transcript(whole=b"x" * size)
    return Entry(digest, route, "-", "up", "m", True, 1.0, 60.0, transcript)


def kept(clock: Clock, digest: bytes, size: int = 0, good: float = 60.0, stale: float = 0.0, **more: Any) -> Kept:
    return Kept(entry(digest, size, **more), 0.0, clock(), good, stale)


class Scene:
    """A tier, its clock, and what it told of evictions."""

    def __init__(self, max_bytes: int) -> None:
        self.clock = Clock()
        self.evicted: list[str] = []
        self.tier = MemoryTier(max_bytes, self.clock, self.evicted.append)

    def put(self, digest: bytes, size: int = 0, **more: Any) -> bool:
        return self.tier.put(kept(self.clock, digest, size, **more))

    def has(self, digest: bytes) -> bool:
        return self.tier.get(digest) is not None


def test_what_was_used_longest_ago_goes_first() -> None:
    """Reading counts as use, and so does being put again."""
    scene = Scene(3 * EMPTY)
    for digest in (b"a", b"b", b"c"):
        assert scene.put(digest)
    assert scene.has(b"a")
    assert scene.put(b"b")
    assert scene.put(b"d")
    assert [scene.has(digest) for digest in (b"a", b"b", b"c", b"d")] == [True, True, False, True]
    assert scene.evicted == ["room"]


def test_the_bound_is_exact() -> None:
    """What just fits stays; one byte more makes room."""
    scene = Scene(2 * EMPTY + 10)
    assert scene.put(b"a", 4)
    assert scene.put(b"b", 6)
    assert (len(scene.tier), scene.tier.bytes) == (2, scene.tier.max_bytes)
    assert scene.put(b"c", 5)
    assert (len(scene.tier), scene.tier.bytes) == (1, EMPTY + 5)


def test_an_entry_larger_than_the_tier() -> None:
    """It is not kept, moves nobody out, and what stood under its key is gone: it was older."""
    scene = Scene(2 * EMPTY)
    assert scene.put(b"a")
    assert scene.put(b"b")
    assert not scene.put(b"a", EMPTY + 1)
    assert [scene.has(b"a"), scene.has(b"b")] == [False, True]
    assert (scene.tier.bytes, scene.evicted) == (EMPTY, [])


def test_overwriting() -> None:
    """The new one stands in the old one's place, and only it is counted."""
    scene = Scene(10 * EMPTY)
    scene.put(b"a", 100)
    scene.put(b"a", 30)
    found = scene.tier.get(b"a")
    assert found is not None
    assert found.entry.answer_size == 30
    assert (len(scene.tier), scene.tier.bytes, scene.evicted) == (1, EMPTY + 30, [])


def test_time() -> None:
    """An entry is there until its time and its stale time are over, and not at that moment."""
    scene = Scene(10 * EMPTY)
    scene.put(b"a", good=10.0, stale=5.0)
    scene.clock.now += 14.9
    found = scene.tier.get(b"a")
    assert found is not None
    assert found.good_until < scene.clock() < found.until
    scene.clock.now += 0.1
    assert not scene.has(b"a")
    assert (len(scene.tier), scene.tier.bytes, scene.evicted) == (0, 0, ["age"])


def test_reading_does_not_lengthen_its_life() -> None:
    """However often it is read."""
    scene = Scene(10 * EMPTY)
    scene.put(b"a", good=10.0)
    for _ in range(10):
        assert scene.has(b"a")
        scene.clock.now += 1.0
    assert not scene.has(b"a")


def test_no_time_at_all() -> None:
    """An entry whose time is over when it comes is never seen."""
    scene = Scene(10 * EMPTY)
    scene.put(b"a", good=0.0)
    assert not scene.has(b"a")


def test_a_clock_that_stands_still() -> None:
    """The order of use needs no clock."""
    scene = Scene(2 * EMPTY)
    for number in range(100):
        scene.put(bytes([number]))
        assert scene.has(bytes([max(0, number - 1)]))
        assert scene.has(bytes([number]))
    assert len(scene.tier) == 2


@pytest.mark.parametrize(
    ("came", "passed", "age"), [(0.0, 0.0, 0.0), (5.0, 0.0, 5.0), (5.0, 2.5, 7.5), (0.0, -3.0, 0.0)]
)
def test_age(came: float, passed: float, age: float) -> None:
    """It counts from when the answer was made, and is never less than nothing."""
    clock = Clock()
    found = Kept(entry(b"a"), came, clock(), 60.0, 0.0)
    assert found.age(clock() + passed) == age


def test_forms_are_told_once_and_counted() -> None:
    """What is told in another form is kept beside it, and takes its room."""
    scene = Scene(100 * EMPTY)
    found = kept(scene.clock, b"a", transcript=stream("Hello"))
    scene.tier.put(found)
    before = scene.tier.bytes
    assert [found.told("whole"), found.told("events_usage")] == [None, None]
    told = {form: scene.tier.tell(found, form) for form in FORMS}
    assert len(set(told.values())) == 3
    assert all(scene.tier.tell(found, form) is text for form, text in told.items())
    assert all(found.told(form) is text for form, text in told.items())
    own = found.entry.transcript.events
    assert told["events"] == own
    assert scene.tier.bytes == found.size
    assert 0 <= found.size - before - len(told["whole"]) - len(told["events_usage"]) < 2 * EMPTY
    scene.tier.drop(b"a")
    assert scene.tier.bytes == 0


def test_forms_make_room() -> None:
    """Also for them others go, and in the end the entry itself; it is told all the same."""
    scene = Scene(2 * EMPTY + 3000)
    found = kept(scene.clock, b"a", transcript=stream("x" * 2000))
    scene.tier.put(found)
    scene.put(b"b")
    assert b"x" * 2000 in scene.tier.tell(found, "whole")
    assert scene.tier.bytes <= scene.tier.max_bytes
    assert b"x" * 2000 in scene.tier.tell(found, "events_usage")
    assert scene.tier.bytes == sum(each.size for each in scene.tier._kept.values()) <= scene.tier.max_bytes


def test_forms_of_what_is_no_longer_kept() -> None:
    """They are told, and not counted."""
    scene = Scene(10 * EMPTY)
    old = kept(scene.clock, b"a", transcript=stream("old"))
    scene.tier.put(old)
    scene.put(b"a", 10)
    scene.tier.tell(old, "whole")
    assert scene.tier.bytes == EMPTY + 10
    scene.tier.drop(b"a")
    scene.tier.tell(old, "events_usage")
    assert scene.tier.bytes == 0


def test_what_cannot_be_told() -> None:
    """It says so, each time, and the bytes stay as they were."""
    scene = Scene(10 * EMPTY)
    found = kept(scene.clock, b"a", 10)
    scene.tier.put(found)
    for _ in range(2):
        with pytest.raises(Untellable):
            scene.tier.tell(found, "events")
    assert scene.tier.bytes == EMPTY + 10


def test_dropping_by_wish() -> None:
    """All that fit go, and no others; how many is told."""
    scene = Scene(100 * EMPTY)
    for number in range(10):
        scene.put(bytes([number]), number, route="odd" if number % 2 else "even")
    assert scene.tier.drop_if(lambda each: each.route == "odd") == 5
    assert scene.tier.drop_if(lambda each: each.route == "odd") == 0
    assert (len(scene.tier), scene.tier.bytes) == (5, 5 * EMPTY + 20)
    assert [scene.tier.drop(b"\0"), scene.tier.drop(b"\0"), scene.tier.drop(b"\1")] == [True, False, False]
    assert scene.evicted == []


def test_a_million_keys() -> None:
    """However many come, as many stay as there is room for: the last ones."""
    scene = Scene(100 * EMPTY)
    for number in range(1_000_000):
        scene.tier.put(Kept(entry(b"%d" % number), 0.0, 0.0, 1e9, 0.0))
    assert (len(scene.tier), scene.tier.bytes) == (100, 100 * EMPTY)
    assert len(scene.evicted) == 999_900
    assert scene.has(b"999900")
    assert not scene.has(b"999899")


class Model:
    """The same tier, written as plainly as can be."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.kept: OrderedDict[bytes, tuple[int, float]] = OrderedDict()  # size and end

    def get(self, digest: bytes, now: float) -> bool:
        if digest in self.kept and self.kept[digest][1] <= now:
            del self.kept[digest]
        if digest in self.kept:
            self.kept.move_to_end(digest)
        return digest in self.kept

    def put(self, digest: bytes, size: int, until: float) -> None:
        self.kept.pop(digest, None)
        if size <= self.max_bytes:
            self.kept[digest] = (size, until)
        self.shrink()

    def grow(self, digest: bytes, size: int) -> None:
        self.kept[digest] = (size, self.kept[digest][1])
        self.shrink()

    def shrink(self) -> None:
        while sum(size for size, _ in self.kept.values()) > self.max_bytes:
            self.kept.popitem(last=False)


digests = st.sampled_from([b"a", b"b", b"c", b"d", b"e"])
puts = st.tuples(st.just("put"), digests, st.integers(0, 3000), st.sampled_from([0.0, 1.0, 5.0]))
gets = st.tuples(st.just("get"), digests)
tells = st.tuples(st.just("tell"), digests, st.sampled_from(FORMS))
drops = st.tuples(st.just("drop"), digests)
ticks = st.tuples(st.just("tick"), st.sampled_from([0.0, 0.5, 1.0, 5.0]))


@settings(max_examples=300)
@given(steps=st.lists(puts | puts | gets | tells | drops | ticks, max_size=60))
def test_any_course(steps: list[tuple[Any, ...]]) -> None:
    """Whatever is put, read, told, dropped and grows old: who stays is as plainly said, and the bytes are right."""
    scene, model = Scene(3 * EMPTY + 2500), Model(3 * EMPTY + 2500)
    tier = scene.tier
    for name, *rest in steps:
        if name == "tick":
            scene.clock.now += rest[0]
        elif name == "put":
            digest, size, good = rest
            new = kept(scene.clock, digest, good=good, transcript=stream("x" * size))
            model.put(digest, new.size, scene.clock() + good)
            assert tier.put(new) is (new.size <= tier.max_bytes)
        elif name == "drop":
            assert tier.drop(*rest) is (model.kept.pop(rest[0], None) is not None)
        else:
            found = tier.get(rest[0])
            assert (found is not None) is model.get(rest[0], scene.clock())
            if found is not None and name == "tell":
                tier.tell(found, rest[1])
                model.grow(rest[0], found.size)
        assert [*tier._kept] == [*model.kept]
        assert tier.bytes == sum(size for size, _ in model.kept.values()) <= tier.max_bytes
