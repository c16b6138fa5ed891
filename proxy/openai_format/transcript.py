"""One answer in each form that callers ask for: whole, or as events with or without usage. Pure.

Source: OpenAI API reference, "Streaming" (stream_options.include_usage).
"""

from collections.abc import Iterable, Iterator
from typing import Any, Literal

import msgspec

from proxy.call import Json
from proxy.errors import UpstreamError
from proxy.framing import SseFrames, sse_data
from proxy.openai_format.chunks import collect, replay
from proxy.openai_format.encoding import DONE, decode, decode_object, encode, encode_event
from proxy.openai_format.texts import collect_texts, replay_texts

Form = Literal["whole", "events", "events_usage"]

_END, _NULL_USAGE = b"}\n\n", b',"usage":null}\n\n'  # of an event as we write it; no JSON string holds a line end


class Transcript(msgspec.Struct, frozen=True):
    """An answer as it came: `whole`, or the events of a stream.

    Args:
        events: all that one caller got, to the terminal event.
        usage_event: those of the events that hold usage and nothing else.
        shows_usage: whether they stand among the others.
        encoded: the events are written by us.
    """

    whole: bytes | None = None
    events: bytes = b""
    usage_event: bytes = b""
    shows_usage: bool = False
    encoded: bool = False

    def own(self, form: Form) -> bytes | None:
        """The answer as it came, if that is the form."""
        if form == "whole":
            return self.whole
        return self.events if self.whole is None and self.shows_usage is (form == "events_usage") else None


class Untellable(ValueError):
    """An answer cannot be told in another form than its own: it has not the shape of OpenAI's."""


def form_of(*, stream: bool, wants_usage: bool) -> Form:
    """The form a caller asks for."""
    if not stream:
        return "whole"
    return "events_usage" if wants_usage else "events"


def tell(transcript: Transcript, form: Form, *, chat: bool) -> bytes:
    """The answer in a form; to the byte as it came, where that is its own form.

    Args:
        chat: a chat's; else of the older completions.

    Raises:
        Untellable
    """
    own = transcript.own(form)
    if own is not None:
        return own
    if form == "whole":
        return _as_whole(Retelling(transcript, wants_usage=True).all(transcript.events), chat=chat)
    wants_usage = form == "events_usage"
    if transcript.whole is not None:
        return _as_events(transcript.whole, chat=chat, wants_usage=wants_usage)
    return Retelling(transcript, wants_usage=wants_usage).all(transcript.events)


class Retelling:
    """Events of one caller as another one wants them, piece by piece.

    Args:
        told: how the first caller is told; its `usage_event` may come later.
    """

    def __init__(self, told: Transcript, *, wants_usage: bool) -> None:
        self._adds = wants_usage and not told.shows_usage
        self._takes = told.shows_usage and not wants_usage
        self._encoded, self._usage = told.encoded, told.usage_event

    @property
    def same(self) -> bool:
        """Whether there is nothing to change."""
        return not (self._adds or self._takes)

    def piece(self, events: bytes, usage_event: bytes = b"") -> bytes:
        """Whole events, but for the last ones; `usage_event` as it is known by now."""
        self._usage = usage_event or self._usage
        if self._adds and self._encoded:
            return events.replace(_END, _NULL_USAGE)
        if self._takes:
            for event in _split(self._usage):
                events = events.replace(event, b"")
            return events.replace(_NULL_USAGE, _END) if self._encoded else events
        return events

    def last(self, events: bytes, usage_event: bytes = b"") -> bytes:
        """The last events, the terminal one among them."""
        self._usage = usage_event or self._usage
        if not self._adds or not self._usage:
            return self.piece(events)
        end = _terminal(events)
        return self.piece(events[:end]) + self._usage + events[end:]

    def all(self, events: bytes) -> bytes:
        """A whole stream."""
        return events if self.same else self.last(events)


def _split(events: bytes) -> list[bytes]:
    return SseFrames(len(events) + 1).feed(events) if events else []


def _terminal(events: bytes) -> int:
    """Where the terminal event begins; the end, when there is none."""
    mark = events.rfind(b"[DONE]")
    begins = events.rfind(b"data:", 0, mark) if mark >= 0 else -1
    return begins if begins >= 0 else len(events)


def _as_whole(events: bytes, *, chat: bool) -> bytes:
    try:
        chunks = [_bare(chunk) for chunk in _chunks(events)]
        return encode(collect(chunks) if chat else collect_texts(chunks))
    except (UpstreamError, KeyError, TypeError, AttributeError, ValueError, IndexError, RecursionError) as error:
        raise Untellable("these events are no answer of OpenAI's") from error


def _chunks(events: bytes) -> Iterator[Json]:
    for frame in _split(events):
        for payload in sse_data(frame):
            if not payload.strip().startswith(b"[DONE]"):
                yield decode_object(payload)


def _bare(chunk: Json) -> Json:
    """A chunk without what only hides the lengths of the texts."""
    return {name: value for name, value in chunk.items() if name != "obfuscation"}


def _as_events(whole: bytes, *, chat: bool, wants_usage: bool) -> bytes:
    try:
        value: Any = decode(whole)
        chunks: Iterable[Json] = replay(value) if chat else replay_texts(value)
        told = [_event(chunk, wants_usage=wants_usage) for chunk in chunks]
    except (KeyError, TypeError, AttributeError, ValueError, IndexError, RecursionError) as error:
        raise Untellable("this answer is none of OpenAI's") from error
    return b"".join([*told, DONE])


def _event(chunk: Json, *, wants_usage: bool) -> bytes:
    if not chunk["choices"]:
        return encode_event(chunk) if wants_usage else b""
    return encode_event({**chunk, "usage": None} if wants_usage else chunk)
