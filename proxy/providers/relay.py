"""From an upstream's bytes to the caller's: one stream, whatever its wire."""

from collections.abc import Iterable
from typing import Protocol

from proxy.call import Call, Facts, Json
from proxy.errors import Broken, UpstreamError
from proxy.openai_format.chunks import collect, observe, replay
from proxy.openai_format.encoding import DONE, encode, encode_event
from proxy.providers.exact import ExactRelay, relay_completion
from proxy.providers.seam import Provider, StreamParser, Target


class Relay(Protocol):
    """Takes what the upstream sends, gives what the caller may have.

    `failure` is set when the stream turns out to be broken; what was returned until then is good.
    """

    facts: Facts
    failure: UpstreamError | None

    def feed(self, data: bytes) -> bytes: ...

    def finish(self) -> bytes: ...


class EncodedRelay:
    """Chunks of a parser, written as OpenAI writes them."""

    def __init__(self, parser: StreamParser, *, wants_usage: bool) -> None:
        self.facts = Facts()
        self.failure: UpstreamError | None = None
        self._parser = parser
        self._wants_usage = wants_usage

    def feed(self, data: bytes) -> bytes:
        return self._write(self._parser.feed(data))

    def finish(self) -> bytes:
        out = self._write(self._parser.finish())
        if self.failure is None:
            self.facts.finished = True
            out += DONE
        return out

    def _write(self, chunks: Iterable[Json]) -> bytes:
        out: list[bytes] = []
        try:
            for chunk in chunks:
                observe(self.facts, chunk)
                if self._wants_usage:
                    out.append(encode_event(chunk if "usage" in chunk else {**chunk, "usage": None}))
                elif chunk["choices"]:
                    out.append(encode_event(chunk))
        except UpstreamError as error:
            self.failure = error
        except (TypeError, AttributeError, KeyError, ValueError) as error:
            self.failure = Broken("the upstream's stream has an unknown shape", code="upstream_bad_response")
            self.failure.__cause__ = error
        if self._parser.thinking:
            self.facts.content = True
        if self._parser.ended and self.failure is None:
            self.facts.finished = True
        return b"".join(out)


class WholeAnswer:
    """A stream answered by one JSON completion: some servers ignore `stream`.

    Its size is bounded as that of everything before first content.
    """

    def __init__(self, provider: Provider, call: Call, target: Target) -> None:
        self.facts = Facts()
        self.failure: UpstreamError | None = None
        self._parts: list[bytes] = []
        self._provider, self._call, self._target = provider, call, target

    def feed(self, data: bytes) -> bytes:
        self._parts.append(data)
        return b""

    def finish(self) -> bytes:
        parser = _Replay(self._provider, self._call, self._target, b"".join(self._parts))
        encoded = EncodedRelay(parser, wants_usage=self._call.wants_usage)
        encoded.facts = self.facts
        out = encoded.finish()
        self.failure = encoded.failure
        return out


class _Replay:
    thinking = False
    ended = False

    def __init__(self, provider: Provider, call: Call, target: Target, body: bytes) -> None:
        self._provider, self._call, self._target, self._body = provider, call, target, body

    def feed(self, data: bytes) -> Iterable[Json]:  # noqa: ARG002
        return ()

    def finish(self) -> Iterable[Json]:
        yield from replay(self._provider.parse_completion(self._call, self._target, self._body))


def open_relay(provider: Provider, call: Call, target: Target, content_type: str) -> Relay:
    """The relay for a stream that was answered with this content type.

    Raises:
        Broken: a type that no stream has.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "application/json":
        return WholeAnswer(provider, call, target)
    if kind in ("text/html", "application/xhtml+xml"):
        raise Broken("the upstream answered with an HTML page: check its base_url", code="upstream_bad_response")
    if target.upstream.wire == "exact":
        return ExactRelay(call, target.model, target.upstream.max_frame_bytes)
    return EncodedRelay(provider.open_stream(call, target), wants_usage=call.wants_usage)


def read_completion(
    provider: Provider, call: Call, target: Target, content_type: str, body: bytes
) -> tuple[bytes, Facts]:
    """The answer to a JSON call as the caller gets it; a stream that comes instead is folded.

    Raises:
        UpstreamError: the body is an error, or no answer.
    """
    kind = content_type.partition(";")[0].strip().lower()
    try:
        if kind == "text/event-stream":
            parser = provider.open_stream(call, target)
            whole = collect([*parser.feed(body), *parser.finish()])
        elif target.upstream.wire == "exact":
            return relay_completion(call, target.model, body)
        else:
            whole = provider.parse_completion(call, target, body)
        choice = whole["choices"][0]
        facts = Facts(
            content=True, finished=True, finish_reason=choice["finish_reason"], usage=whole.get("usage") or None
        )
        return encode(whole), facts
    except (TypeError, AttributeError, KeyError, ValueError) as error:
        raise Broken("the upstream's answer has an unknown shape", code="upstream_bad_response") from error
