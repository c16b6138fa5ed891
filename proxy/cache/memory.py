"""The memory tier: bounded in bytes; what was used longest ago makes room, and nothing sweeps."""

from collections import OrderedDict
from collections.abc import Callable

from proxy.cache.entry import Entry
from proxy.openai_format.transcript import Form, tell

FORM_BYTES = 300  # of a form beside its text: measured


class Kept:
    """An entry in memory, and its answer in the forms that were asked for.

    Args:
        age: of the answer, in seconds, when it came here.
        now: the clock's time.
        good: seconds that it may serve as it is, from now on.
        stale: seconds that it may serve after that, where stale answers may.
    """

    __slots__ = ("_forms", "came", "entry", "good_until", "size", "until")

    def __init__(self, entry: Entry, age: float, now: float, good: float, stale: float) -> None:
        self.entry = entry
        self.came = now - age
        self.good_until = now + good
        self.until = self.good_until + stale
        self.size = entry.size
        self._forms: dict[Form, bytes] | None = None  # other than its own

    def age(self, now: float) -> float:
        """Seconds since the answer was made."""
        return max(0.0, now - self.came)

    def told(self, form: Form) -> bytes | None:
        """The answer in a form that was asked for before."""
        own = self.entry.transcript.own(form)
        return self._forms.get(form) if own is None and self._forms is not None else own

    def tell(self, form: Form) -> bytes:
        """The answer in a form; raises Untellable."""
        text = self.told(form)
        if text is None:
            text = tell(self.entry.transcript, form, chat=self.entry.chat)
            self._forms = {**(self._forms or {}), form: text}
            self.size += FORM_BYTES + len(text)
        return text


class MemoryTier:
    """Entries by their digests.

    Args:
        clock: that is never set back.
        evicted: told of each entry that made room, or had had its time: `room` or `age`.
    """

    def __init__(self, max_bytes: int, clock: Callable[[], float], evicted: Callable[[str], object]) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self._clock = clock
        self._evicted = evicted
        self._kept: OrderedDict[bytes, Kept] = OrderedDict()  # the one used longest ago first

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, digest: bytes) -> Kept | None:
        """What is kept, good or stale; it counts as used."""
        kept = self._kept.get(digest)
        if kept is None:
            return None
        if kept.until <= self._clock():
            self.drop(digest)
            self._evicted("age")
            return None
        self._kept.move_to_end(digest)
        return kept

    def peek(self, digest: bytes) -> Kept | None:
        """The same, asked by somebody who only wants to know: it does not count as used."""
        kept = self._kept.get(digest)
        return kept if kept is not None and kept.until > self._clock() else None

    def put(self, kept: Kept) -> bool:
        """Keep it, in place of what was there; whether it fits at all."""
        digest = kept.entry.digest
        if digest in self._kept:
            self.drop(digest)
        if kept.size > self.max_bytes:
            return False
        self._kept[digest] = kept
        self.bytes += kept.size
        if self.bytes > self.max_bytes:
            self._make_room()
        return True

    def resize(self, max_bytes: int) -> None:
        """Hold so many bytes from now on."""
        self.max_bytes = max_bytes
        self._make_room()

    def tell(self, kept: Kept, form: Form) -> bytes:
        """An entry's answer in a form, which is kept beside it; raises Untellable."""
        before = kept.size
        text = kept.tell(form)
        if kept.size != before and self._kept.get(kept.entry.digest) is kept:
            self.bytes += kept.size - before
            self._make_room()
        return text

    def _make_room(self) -> None:
        while self.bytes > self.max_bytes:
            _, oldest = self._kept.popitem(last=False)
            self.bytes -= oldest.size
            self._evicted("room")

    def drop(self, digest: bytes) -> bool:
        """Keep it no longer; whether it was there."""
        kept = self._kept.pop(digest, None)
        if kept is None:
            return False
        self.bytes -= kept.size
        return True

    def drop_if(self, wanted: Callable[[Entry], bool]) -> int:
        """Keep none of these any longer; how many there were."""
        digests = [digest for digest, kept in self._kept.items() if wanted(kept.entry)]
        return sum(map(self.drop, digests))
