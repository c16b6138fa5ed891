"""The exact wire: an OpenAI body goes through as it came, but for a few splices.

Source: DESIGN.md §3, "Exact wire".
"""

import re
from enum import Enum
from typing import Any

import msgspec

from proxy.call import Call, Facts, Json
from proxy.errors import Broken, CutShort, UpstreamError
from proxy.framing import NAMED_ERROR, SseFrames, is_json, lone_data, sse_data
from proxy.openai_format.encoding import DONE, decode, encode
from proxy.openai_format.errors import in_stream_error
from proxy.openai_format.members import find_members
from proxy.openai_format.observing import note, text_size_of
from proxy.providers.pattern import Pattern, renamed, same
from proxy.providers.splice import splice

_DATA_LINE = re.compile(rb"(?:^|[\r\n])data:")
_LINE = re.compile(rb"[^\r\n]*(?:\r\n|\n|\r)")


class _Choice(msgspec.Struct):
    index: int | None = None
    delta: dict[str, Any] | None = None
    text: str | None = None  # of a completion that is no chat
    finish_reason: str | None = None


class _Answer(msgspec.Struct):
    """What is read of a chunk, or of a whole completion."""

    choices: list[_Choice] | None = None
    usage: dict[str, Any] | None = None
    error: Any = None
    object: Any = None


_read_answer = msgspec.json.Decoder(_Answer).decode


class ExactRelay:
    """Relays the frames of an OpenAI stream, reading along only what accounting needs.

    Withheld are frames without choices that the caller did not ask for, and the fields `event`, `id` and `retry`,
    which OpenAI's clients stumble over. `failure` is set when the stream turns out to be broken; the bytes that
    `feed` and `finish` return are good until then.
    """

    encoded = False

    def __init__(self, call: Call, model: str, max_frame_bytes: int) -> None:
        self.facts = Facts()
        self.usage_event = b""
        self.failure: UpstreamError | None = None
        self._frames = SseFrames(max_frame_bytes)
        self._wants_usage = call.wants_usage
        self._rename = _Renamer(call.model) if model != call.model else None
        self._open: set[int] = set()  # choices that have begun and not finished
        self._done = False
        self._lone = False  # what was last fed was one whole frame

    def feed(self, data: bytes) -> bytes:
        """Take what arrived; return what may go to the caller."""
        try:
            frames = self._frames.feed(data)
        except UpstreamError as error:
            self.failure = error
            return b""
        self._lone = frames == [data]
        return self._relay(frames)

    def finish(self) -> bytes:
        """The body has ended."""
        tail = self._frames.flush()
        out = b""
        if tail.strip() and is_json(b"".join(sse_data(tail))):  # only the blank line is missing
            out = self._relay([tail.rstrip(b"\r\n") + b"\n\n"])
        if self.failure is None and not self._done:
            if self.facts.finish_reason is None or self._open:
                self.failure = CutShort("the upstream ended its answer early")
                return out
            self._done = self.facts.finished = True
            out += DONE
        return out

    def _relay(self, frames: list[bytes]) -> bytes:
        out: list[bytes] = []
        try:
            for frame in frames:
                payload = lone_data(frame)
                if payload.startswith(b"{") and not self._done:  # as nearly all do
                    out.append(self._shown(frame, payload))
                    continue
                for part, each in _parted(frame):
                    if not self._done:
                        out.append(self._judge(part, each))
        except UpstreamError as error:
            self.failure = error
        return b"".join(out)

    def _judge(self, frame: bytes, payload: bytes) -> bytes:
        """What of this frame goes on."""
        if not payload:
            return _only(frame, (b":",))
        if payload.strip().startswith(b"[DONE]"):
            if self.facts.finish_reason is None and not self._open:
                raise CutShort("the upstream ended its answer before it began")
            self._done = self.facts.finished = True
            return frame if frame.startswith((b"data: [DONE]", b"data:[DONE]")) else DONE
        if b"event" in frame and NAMED_ERROR.search(frame):
            raise in_stream_error(payload)
        return self._shown(frame if frame.startswith(b"data:") else _only(frame, (b"data:", b":")), payload)

    def _shown(self, frame: bytes, payload: bytes) -> bytes:
        """What of a frame with such a payload the caller gets."""
        told = self._read(payload)
        if told is _Told.NOTHING:
            return b""
        if self._rename:
            frame = self._rename.apply(frame)
        if told is _Told.USAGE:
            self.usage_event += frame
            return frame if self._wants_usage else b""
        return frame

    def pattern(self, frame: bytes, out: bytes) -> Pattern | None:
        """What was just fed, and what became of it, as a pattern of more that would come to the same.

        What is noted of a frame is noted once: another that differs in its texts changes nothing more.
        """
        if not self._lone or self._done or self.failure is not None:
            return None
        if self._rename:
            return renamed(frame, out)
        return same(frame) if out == frame else None

    def _read(self, payload: bytes) -> "_Told":
        """Note what a payload tells."""
        answer = read_answer(payload)
        if answer.usage:
            self.facts.usage = answer.usage
        if answer.choices == []:
            return _Told.USAGE if answer.usage else _Told.NOTHING
        if not answer.choices:
            return _Told.MORE
        for choice in answer.choices:
            if choice.finish_reason:
                self._open.discard(choice.index or 0)
                self.facts.finish_reason = self.facts.finish_reason or choice.finish_reason
            elif choice.delta is not None or choice.text is not None:
                self._open.add(choice.index or 0)
            if choice.text:
                note(self.facts, {"content": choice.text})
            elif choice.delta:
                note(self.facts, choice.delta)
        return _Told.MORE


class _Told(Enum):
    """What stands in a frame of a stream."""

    NOTHING = 0  # neither choices nor usage
    USAGE = 1  # nothing but usage
    MORE = 2


def read_answer(payload: bytes) -> _Answer:
    """What accounting reads of a chunk or a completion.

    Raises:
        UpstreamError: it is an error, or not JSON.
    """
    try:
        answer = _read_answer(payload)
    except msgspec.ValidationError:
        answer = _read_oddity(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Broken("the upstream sent what is not JSON", code="upstream_bad_response") from error
    if answer.error or answer.object == "error":
        raise in_stream_error(payload)
    return answer


def _read_oddity(payload: bytes) -> _Answer:
    """The same, of a payload with other types than OpenAI's: what can be read of it."""
    try:
        whole = decode(payload)
    except ValueError as error:
        raise Broken("the upstream sent what is not JSON", code="upstream_bad_response") from error
    if not isinstance(whole, dict):
        return _Answer(choices=[])
    choices, usage = whole.get("choices"), whole.get("usage")
    return _Answer(
        choices=[_read_choice(choice) for choice in choices if isinstance(choice, dict)]
        if isinstance(choices, list)
        else None,
        usage=usage if isinstance(usage, dict) else None,
        error=whole.get("error"),
        object=whole.get("object"),
    )


def _read_choice(choice: Json) -> _Choice:
    index, delta, reason = choice.get("index"), choice.get("delta"), choice.get("finish_reason")
    text = choice.get("text")
    return _Choice(
        index=index if isinstance(index, int) else None,
        delta=delta if isinstance(delta, dict) else None,
        text=text if isinstance(text, str) else None,
        finish_reason=reason if isinstance(reason, str) else None,
    )


def relay_completion(call: Call, model: str, body: bytes) -> tuple[bytes, Facts]:
    """A whole answer, its bytes untouched but for a renamed model.

    Raises:
        UpstreamError: the body is an error, or no completion.
    """
    answer = read_answer(body)
    if not answer.choices:
        raise Broken("the upstream's answer is not a completion", code="upstream_bad_response")
    first = answer.choices[0]
    facts = Facts(content=True, finished=True, finish_reason=first.finish_reason, usage=answer.usage)
    if not answer.usage:
        facts.text_bytes = text_size_of(body)
    return rename(call, model, body), facts


def rename(call: Call, model: str, body: bytes) -> bytes:
    """A whole answer under the name that the caller asked for; raises Broken when it cannot be read."""
    if model == call.model:
        return body
    try:
        place = find_members(body).get("model")
    except ValueError as error:
        raise Broken("the upstream's answer cannot be read", code="upstream_bad_response") from error
    return splice(body, [(place, encode(call.model))]) if place else body


class _Renamer:
    """Puts the asked name in place of the upstream's.

    The bytes up to the name are mostly the same in every frame of a stream: once a frame has been read, those that
    begin alike need no reading.
    """

    def __init__(self, model: str) -> None:
        self._model = encode(model)
        self._known = b"\0"
        self._renamed = b""

    def apply(self, frame: bytes) -> bytes:
        if frame.startswith(self._known):
            return self._renamed + frame[len(self._known) :]
        data = _DATA_LINE.search(frame)
        start = frame.find(b"{", data.start() if data else 0)
        end = frame.rfind(b"}") + 1
        try:
            place = find_members(frame[start:end]).get("model")
        except ValueError:
            return frame
        if place is None:
            return frame
        self._known = frame[: start + place.stop]
        self._renamed = frame[: start + place.start] + self._model
        return self._renamed + frame[start + place.stop :]


def _parted(frame: bytes) -> list[tuple[bytes, bytes]]:
    """A frame with its payload, which may be empty; or several, where a server forgot the blank lines."""
    payloads = sse_data(frame)
    if len(payloads) > 1:
        return [(b"data: %b\n\n" % payload, payload) for payload in payloads]
    return [(frame, payloads[0] if payloads else b"")]


def _only(frame: bytes, kept: tuple[bytes, ...]) -> bytes:
    """The lines of a frame that begin so, and its end; nothing when there are none."""
    lines = [line for line in _LINE.findall(frame) if line.startswith((*kept, b"\r", b"\n"))]
    while lines and not lines[0].strip():
        del lines[0]
    return b"".join(lines)
