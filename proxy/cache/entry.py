"""What is kept of an answer, and how it is written for Redis. Pure."""

import re
import zlib

import msgspec

from proxy.openai_format.transcript import Transcript

# Another shape of an entry is another mark: sidecars of two versions may share a Redis, and pass over each other's.
MARK = b"octet-answer-1\n"
LONGEST_STREAM = 86400.0  # seconds that one may have taken
LEVEL = 1  # of compression: the quickest
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_OVERHEAD = 760  # bytes of an entry beside its answer, in memory: measured


class Entry(msgspec.Struct, frozen=True):
    """An answer, whole and good.

    Args:
        digest: of the key it is kept under.
        upstream, model: where it came from.
        made: when, as unix time in seconds.
        good: how long, in seconds.
        streamed: seconds from its first content to its end, if it came as a stream.
        cost: in US dollars, where prices are known.
    """

    digest: bytes
    route: str
    tenant: str
    upstream: str
    model: str
    chat: bool
    made: float
    good: float
    transcript: Transcript
    dropped: tuple[str, ...] = ()
    streamed: float = 0.0
    cost: float | None = None

    @property
    def answer_size(self) -> int:
        """Bytes of the answer."""
        told = self.transcript
        return len(told.whole or b"") + len(told.events) + len(told.usage_event)

    @property
    def size(self) -> int:
        """Bytes in memory, about."""
        return _OVERHEAD + self.answer_size + len(self.model) + sum(map(len, self.dropped))


class Foreign(ValueError):
    """What stands under a key of ours is no entry that we can read."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Entry).decode


def pack(entry: Entry) -> bytes:
    """An entry in bytes."""
    return MARK + zlib.compress(_encode(entry), LEVEL)


def unpack(data: bytes, most_bytes: int) -> Entry:
    """The entry that bytes hold.

    Args:
        most_bytes: more than that is not read, whatever its beginning promises.

    Raises:
        Foreign: they hold none of this version, or not the whole of it.
    """
    if not data.startswith(MARK):
        raise Foreign("another format")
    reader = zlib.decompressobj()
    try:
        text = reader.decompress(data[len(MARK) :], most_bytes + 1)
        if not reader.eof or reader.unused_data or len(text) > most_bytes:
            raise Foreign("cut short, or with more behind it, or too large")
        entry = _decode(text)
    except (zlib.error, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Foreign("damaged") from error
    numbers = (entry.made, entry.good, entry.cost or 0.0)
    sane = all(0 <= number < 2**40 for number in numbers) and 0 <= entry.streamed <= LONGEST_STREAM  # nan is neither
    if not sane or not _NAME.fullmatch(entry.upstream):
        raise Foreign("of another shape")
    return entry
