"""The deployment's stream as chunks.

Source: reference/upstreams.md §10.6, §11.4.
"""

import codecs
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from proxy.call import Call, Json
from proxy.errors import Broken, CutShort
from proxy.framing import BOM, NAMED_ERROR, JsonLines, JsonValues, SseFrames, is_json, sse_data
from proxy.openai_format import chunks
from proxy.openai_format.encoding import decode
from proxy.openai_format.errors import in_stream_error
from proxy.openai_format.stops import held_back
from proxy.providers.seam import media_type
from proxy.providers.template.reply import (
    charset_of,
    check_error,
    decode_text,
    find,
    find_text,
    no_text,
    reason_of,
    usage_of,
)
from proxy.providers.template.settings import Framing, Shape

_SSE_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")
_MOST_BEFORE_FIELDS = 1024  # bytes of blank lines
_NDJSON = tuple(
    f"application/{name}"
    for name in ("x-ndjson", "ndjson", "jsonl", "x-jsonl", "jsonlines", "x-jsonlines", "stream+json", "x-json-stream")
)


class _Items(Protocol):
    """Cuts a body into items."""

    def feed(self, data: bytes) -> list[bytes]: ...

    def flush(self) -> bytes: ...


class TemplateStream:
    """One stream; see `StreamParser`."""

    thinking = plain = False
    begun = None

    def __init__(self, call: Call, shape: Shape, headers: Mapping[str, str], max_frame_bytes: int) -> None:
        self._shape = shape
        self._headers = headers
        self._build = chunks.ChunkBuilder(f"chatcmpl-{call.id}", int(call.received_at), call.model)
        self._max_frame_bytes = max_frame_bytes
        self._first: bytes | None = b""  # what came before it was clear how the stream is framed
        self._frame_as(framing_of(shape, headers))
        if self._framing != "sse" or shape.stream.framing == "sse":
            self._first = None
        self._decoder = codecs.getincrementaldecoder(charset_of(headers))("replace")
        self._begun = False
        self._so_far = ""  # of a cumulative stream
        self._tail = ""  # what may be the beginning of the text that ends a stream of plain text
        self._usage: Json | None = None
        self._reason = "stop"
        self.ended = False

    def _frame_as(self, framing: Framing) -> None:
        self._framing = framing
        self._items = _ITEMS[framing](self._max_frame_bytes) if framing in _ITEMS else None
        self._found = False  # some item had a text

    def _sniff(self, first: bytes, *, last: bool = False) -> bytes:
        """BentoML calls every stream an event stream, also one of plain text: the first line tells."""
        start = first.lstrip(b"\r\n").removeprefix(BOM)
        last = last or len(first) > _MOST_BEFORE_FIELDS
        if not last and any(field.startswith(start) for field in _SSE_FIELDS):
            self._first = first
            return b""
        self._first = None
        if not start.startswith(_SSE_FIELDS):
            self._frame_as("text")
        return first

    def feed(self, data: bytes) -> Iterator[Json]:
        if self._first is not None:
            data = self._sniff(self._first + data)
        yield from self._take(data)

    def _take(self, data: bytes) -> Iterator[Json]:
        if self._items is None:
            yield from self._text(self._decoder.decode(data))
            return
        for item in self._items.feed(data):
            yield from self._item(item)

    def finish(self) -> Iterator[Json]:
        if self._first is not None:
            yield from self._take(self._sniff(self._first, last=True))
        if self._items is None:
            yield from self._text(self._decoder.decode(b"", final=True))
        else:
            yield from self._last_item(self._items.flush())
        stream = self._shape.stream
        if not self.ended:
            if stream.end or stream.end_field:
                yield from self._say(self._tail)
                raise CutShort("the upstream ended its answer early")
            yield from self._end()

    def _last_item(self, tail: bytes) -> Iterator[Json]:
        """What has no end of its own: whole all the same, or cut."""
        payload = b"".join(sse_data(tail)) if self._framing == "sse" else tail.strip()
        is_text = self._framing == "sse" and not payload.startswith((b"{", b"["))
        end = self._shape.stream.end
        whole = is_text or not payload or is_json(payload) or (end is not None and payload == end.encode())
        if not whole and not self.ended:
            raise CutShort("the upstream ended its answer early")
        yield from self._item(tail)

    def _item(self, item: bytes) -> Iterator[Json]:
        if self._framing == "sse":
            for payload in sse_data(item):
                if NAMED_ERROR.search(item):
                    raise in_stream_error(payload)
                yield from self._payload(payload)
        elif item.strip():
            yield from self._payload(item.strip())

    def _payload(self, payload: bytes) -> Iterator[Json]:
        stream = self._shape.stream
        if self.ended:
            return
        if (self._framing == "sse" and payload.strip() == b"[DONE]") or (
            stream.end is not None and payload.strip() == stream.end.encode()
        ):
            yield from self._end()
            return
        value = self._value(payload)
        check_error(value, self._shape.answer, payload)
        self._usage = usage_of(value, self._shape.answer) or self._usage
        self._reason = reason_of(value, self._shape.answer) or self._reason
        text = find_text(value, stream.text)
        self._found = self._found or text is not None
        if text is not None:
            yield from self._say(self._new(text) if stream.cumulative else text)
        if stream.end_field and find(value, stream.end_field):
            yield from self._end()

    def _value(self, payload: bytes) -> Any:
        """JSON, or the text that it is: authors of event streams write either."""
        try:
            value = decode(payload)
        except ValueError:
            if self._framing != "sse":
                raise Broken("the upstream sent what is not JSON", code="upstream_bad_response") from None
            return decode_text(payload, self._headers)
        return value if isinstance(value, dict | list | str) else decode_text(payload, self._headers)

    def _text(self, text: str) -> Iterator[Json]:
        """Plain text, up to the text that ends it."""
        end = self._shape.stream.end
        if self.ended:
            return
        if not end:
            yield from self._say(self._new(text) if self._shape.stream.cumulative else text)
            return
        whole = self._tail + text
        place = whole.find(end)
        if place >= 0:
            yield from self._say(whole[:place])
            yield from self._end()
            return
        kept = held_back(whole, (end,))
        self._tail = whole[len(whole) - kept :]
        yield from self._say(whole[: len(whole) - kept])

    def _new(self, text: str) -> str:
        """What a cumulative text has more than the one before."""
        if not text.startswith(self._so_far):
            raise Broken("the upstream's text so far has changed", code="upstream_bad_response")
        new, self._so_far = text[len(self._so_far) :], text
        return new

    def _say(self, text: str) -> Iterator[Json]:
        if not self._begun:
            self._begun = True
            yield self._build.delta(chunks.ROLE)
        if text:
            self._found = True
            yield self._build.delta({"content": text})

    def _end(self) -> Iterator[Json]:
        self.ended = True
        if not self._found:
            raise no_text(self._shape.stream.text, "settings.stream.text")
        yield from self._say("")
        yield self._build.finish(self._reason)
        if self._usage:
            yield self._build.usage(self._usage)


_ITEMS: Mapping[str, Callable[[int], _Items]] = {"sse": SseFrames, "ndjson": JsonLines, "json": JsonValues}


def framing_of(shape: Shape, headers: Mapping[str, str]) -> Framing:
    """How this stream is framed."""
    if shape.stream.framing != "auto":
        return shape.stream.framing
    kind = media_type(headers)
    if kind == "text/event-stream":
        return "sse"
    return "ndjson" if kind in _NDJSON else "text"


def is_stream(shape: Shape, content_type: str) -> bool:
    """Whether an answer of this type comes in pieces."""
    if shape.stream.framing == "auto":
        return content_type != "application/json"
    if shape.stream.framing == "sse" and content_type == "application/json":
        return False  # a server that ignores `stream`
    return shape.stream.framing != "none"


def is_folded(shape: Shape, content_type: str) -> bool:
    """Whether an answer of this type to a JSON call comes in pieces all the same."""
    framing = framing_of(shape, {"content-type": content_type})
    return content_type not in ("", "application/json", "text/plain") and framing in ("sse", "ndjson", "json")
