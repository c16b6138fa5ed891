"""From an upstream's bytes to the caller's: one stream, whatever its wire."""

from collections.abc import Iterable, Mapping
from typing import Protocol

from proxy.call import Call, Facts, Json
from proxy.errors import Broken, UpstreamError
from proxy.openai_format.amendments import value_of
from proxy.openai_format.chunks import collect, replay
from proxy.openai_format.encoding import DONE, encode, encode_event
from proxy.openai_format.legacy import restore_chunk, restore_completion
from proxy.openai_format.observing import observe, whole_text_size
from proxy.openai_format.shapes import check_chunk, check_completion
from proxy.providers.embeddings import read_embeddings
from proxy.providers.exact import ExactRelay, relay_completion
from proxy.providers.pattern import Pattern, retold
from proxy.providers.seam import Provider, StreamParser, Target, media_type


class Relay(Protocol):
    """Takes what the upstream sends, gives what the caller may have.

    `failure` is set when the stream turns out to be broken; what was returned until then is good.
    """

    facts: Facts
    failure: UpstreamError | None
    usage_event: bytes  # of the events fed so far, those that hold usage and nothing else, whether or not given
    encoded: bool  # what is given is written by us, and not the upstream's own bytes

    def feed(self, data: bytes) -> bytes: ...

    def pattern(self, frame: bytes, out: bytes) -> Pattern | None:
        """What was just fed, and what became of it, as a pattern of more that would come to the same."""
        ...

    def finish(self) -> bytes: ...


class EncodedRelay:
    """Chunks of a parser, written as OpenAI writes them."""

    encoded = True

    def __init__(self, parser: StreamParser, call: Call) -> None:
        self.facts = Facts()
        self.failure: UpstreamError | None = None
        self.usage_event = b""
        self._parser = parser
        self._wants_usage = call.wants_usage
        self._legacy = reads_function_call(call)

    def feed(self, data: bytes) -> bytes:
        out = self.write(self._parser.feed(data))
        self.facts.begun = self._parser.begun
        if self._parser.thinking:
            self.facts.content = True
        if self._parser.ended and self.failure is None:
            self.facts.finished = True
        return out

    def pattern(self, frame: bytes, out: bytes) -> Pattern | None:
        return retold(frame, out) if self._parser.plain and self.failure is None else None

    def finish(self) -> bytes:
        return self.close(self._parser.finish())

    def close(self, chunks: Iterable[Json]) -> bytes:
        """The last chunks, and the terminal event unless they break."""
        out = self.write(chunks)
        if self.failure is None:
            self.facts.finished = True
            out += DONE
        return out

    def write(self, chunks: Iterable[Json]) -> bytes:
        """Chunks as events."""
        out: list[bytes] = []
        try:
            for chunk in chunks:
                check_chunk(chunk)
                observe(self.facts, chunk)
                shown = restore_chunk(chunk) if self._legacy else chunk
                if shown is None:
                    continue
                if not chunk["choices"]:
                    event = encode_event(shown)
                    self.usage_event += event
                    if self._wants_usage:
                        out.append(event)
                elif self._wants_usage:
                    out.append(encode_event(shown if "usage" in chunk else {**shown, "usage": None}))
                else:
                    out.append(encode_event(shown))
        except UpstreamError as error:
            self.failure = error
        except (TypeError, AttributeError, KeyError, ValueError, RecursionError) as error:
            self.failure = Broken("the upstream's stream has an unknown shape", code="upstream_bad_response")
            self.failure.__cause__ = error
        return b"".join(out)


class WholeAnswer:
    """A stream answered by one JSON completion, as a parser: some servers ignore `stream`.

    Its size is bounded as that of a frame.
    """

    thinking = False
    ended = False
    plain = False
    begun = None

    def __init__(self, provider: Provider, call: Call, target: Target, headers: Mapping[str, str]) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._provider, self._call, self._target, self._headers = provider, call, target, headers

    def feed(self, data: bytes) -> Iterable[Json]:
        self._parts.append(data)
        self._size += len(data)
        if self._size > self._target.upstream.max_frame_bytes:
            raise Broken("the upstream's answer is too large for a stream", code="upstream_bad_response")
        yield from ()

    def finish(self) -> Iterable[Json]:
        body = b"".join(self._parts)
        yield from replay(self._provider.parse_completion(self._call, self._target, self._headers, body))


def open_relay(provider: Provider, call: Call, target: Target, headers: Mapping[str, str]) -> Relay:
    """The relay for a stream that was answered with these headers.

    Raises:
        Broken: a type that no stream has.
    """
    if target.upstream.wire == "exact" or call.operation != "chat":
        if media_type(headers) != "application/json":
            _refuse_pages(headers)
            return ExactRelay(call, target.model, target.upstream.max_frame_bytes)
        if call.operation != "chat":
            raise Broken("the upstream answered a stream with JSON", code="upstream_bad_response")
    return EncodedRelay(open_parser(provider, call, target, headers), call)


def open_parser(provider: Provider, call: Call, target: Target, headers: Mapping[str, str]) -> StreamParser:
    """The parser for an answer with these headers; raises Broken as `open_relay`."""
    _refuse_pages(headers)
    if not provider.is_stream(target, media_type(headers)):
        return WholeAnswer(provider, call, target, headers)
    return provider.open_stream(call, target, headers)


def _refuse_pages(headers: Mapping[str, str]) -> None:
    if media_type(headers) in ("text/html", "application/xhtml+xml"):
        raise Broken("the upstream answered with an HTML page: check its base_url", code="upstream_bad_response")


def reads_function_call(call: Call) -> bool:
    """Whether the caller asked with the deprecated `functions`, and reads its answer."""
    return "functions" in call.members and value_of(call, "functions") is not None


def read_whole(provider: Provider, call: Call, target: Target, headers: Mapping[str, str], body: bytes) -> Json:
    """The answer to a JSON call as a completion; a stream that comes instead is folded.

    Raises:
        UpstreamError: the body is an error, or no answer.
    """
    try:
        if provider.is_folded(target, media_type(headers)):
            parser = provider.open_stream(call, target, headers)
            whole = collect([*parser.feed(body), *parser.finish()])
        else:
            whole = provider.parse_completion(call, target, headers, body)
        check_completion(whole)
        return restore_completion(whole) if reads_function_call(call) else whole
    except (TypeError, AttributeError, KeyError, ValueError, RecursionError) as error:
        raise Broken("the upstream's answer has an unknown shape", code="upstream_bad_response") from error


def encode_whole(whole: Json) -> tuple[bytes, Facts]:
    """A completion in bytes, and what accounting needs of it."""
    reason = whole["choices"][0]["finish_reason"]
    facts = Facts(content=True, finished=True, finish_reason=reason, usage=whole.get("usage") or None)
    if not facts.usage:
        facts.text_bytes = whole_text_size(whole)
    return encode(whole), facts


def read_completion(
    provider: Provider, call: Call, target: Target, headers: Mapping[str, str], body: bytes
) -> tuple[bytes, Facts]:
    """The answer to a JSON call as the caller gets it.

    Raises:
        UpstreamError: the body is an error, or no answer.
    """
    if call.operation == "embeddings":
        return read_embeddings(provider, call, target, body)
    exact = target.upstream.wire == "exact" or call.operation != "chat"
    if exact and media_type(headers) != "text/event-stream":
        return relay_completion(call, target.model, body)
    return encode_whole(read_whole(provider, call, target, headers, body))
