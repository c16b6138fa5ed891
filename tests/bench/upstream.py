"""A raw mock upstream: `python -m tests.bench.upstream PORT`.

The model's name says what comes back: `bench-600` an answer of about 600 bytes, `bench-50x20` a stream of 50 chunks
20 ms apart. The path says the dialect. It does as little as it can: it shares its core with the load.
"""

import asyncio
import re
import sys
from collections.abc import Callable, Mapping
from typing import ClassVar, cast

import uvloop

_ASKED = re.compile(rb'"model":\s*"bench-(\d+)(?:x(\d+))?"')
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_SSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_NDJSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n"

_HEAD = b'{"id":"chatcmpl-bench","object":"chat.completion","created":1700000000,"model":"m",'
_OPENAI_CHUNK = (
    b'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1700000000,"model":"bench-50x20",'
    b'"service_tier":"default","system_fingerprint":"fp_44709d6fcb","choices":[{"index":0,"delta":{%b},'
    b'"logprobs":null,"finish_reason":%b}],"usage":null}\n\n'
)
_OPENAI_USAGE = (
    b'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1700000000,"model":"bench-50x20",'
    b'"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":50,"total_tokens":59}}\n\n'
)


def whole(size: int) -> bytes:
    """An OpenAI completion of about `size` bytes, with its head."""
    text = b"word " * max(1, (size - 330) // 5)
    body = (
        _HEAD + b'"choices":[{"index":0,"message":{"role":"assistant","content":"%b","refusal":null},"logprobs":null,'
        b'"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":12,"total_tokens":21}}' % text
    )
    return (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req_bench\r\ncontent-length: %d\r\n\r\n%b"
        % (
            len(body),
            body,
        )
    )


def openai(count: int) -> list[bytes]:
    """The writes of a stream in OpenAI's dialect: `count` chunks of content between a first and some last ones."""
    words = [chunked(_OPENAI_CHUNK % (b'"content":"w%d "' % number, b"null")) for number in range(count)]
    first = _OPENAI_CHUNK % (b'"role":"assistant","content":"","refusal":null', b"null")
    last = (_OPENAI_CHUNK % (b"", b'"stop"'), _OPENAI_USAGE, b"data: [DONE]\n\n")
    return [_SSE + chunked(first) + words[0], *words[1:], b"".join(map(chunked, last)) + END]


def anthropic(count: int) -> list[bytes]:
    """The same in Anthropic's dialect."""
    start = event(
        b"message_start",
        b'"message":{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[],"stop_reason":null,'
        b'"stop_sequence":null,"usage":{"input_tokens":9,"output_tokens":1}}',
    ) + event(b"content_block_start", b'"index":0,"content_block":{"type":"text","text":""}')
    words = [
        event(b"content_block_delta", b'"index":0,"delta":{"type":"text_delta","text":"w%d "}' % number)
        for number in range(count)
    ]
    last = (
        event(b"content_block_stop", b'"index":0')
        + event(
            b"message_delta",
            b'"delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":50}',
        )
        + event(b"message_stop", b"")
    )
    return [_SSE + chunked(start + words[0]), *map(chunked, words[1:]), chunked(last) + END]


def ollama(count: int) -> list[bytes]:
    """The same in Ollama's dialect."""
    head = b'{"model":"m","created_at":"2026-01-01T00:00:00.000000000Z","message":{"role":"assistant","content":"%b"},'
    words = [chunked(head % (b"w%d " % number) + b'"done":false}\n') for number in range(count)]
    last = chunked(
        head % b"" + b'"done_reason":"stop","done":true,"total_duration":1,"prompt_eval_count":9,"eval_count":50}\n'
    )
    return [_NDJSON + words[0], *words[1:], last + END]


def event(name: bytes, fields: bytes) -> bytes:
    comma = b"," if fields else b""
    return b'event: %b\ndata: {"type":"%b"%b%b}\n\n' % (name, name, comma, fields)


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


END = b"0\r\n\r\n"
STREAMS: Mapping[bytes, Callable[[int], list[bytes]]] = {b"messages": anthropic, b"api/chat": ollama}


class Upstream(asyncio.Protocol):
    """One connection: requests in, prepared bytes out."""

    answers: ClassVar[dict[bytes, bytes]] = {}
    streams: ClassVar[dict[tuple[bytes, int], list[bytes]]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        self._loop = asyncio.get_running_loop()
        self._parts: list[bytes] = []
        self._missing = 0
        self._timer: asyncio.TimerHandle | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._parts.append(data)
        self._missing -= len(data)
        if self._missing > 0:
            return
        whole_so_far = b"".join(self._parts)
        self._parts = [whole_so_far]
        end = whole_so_far.find(b"\r\n\r\n")
        if end < 0:
            self._missing = 0
            return
        length = _LENGTH.search(whole_so_far, 0, end)
        self._missing = end + 4 + (int(length[1]) if length else 0) - len(whole_so_far)
        if self._missing <= 0:
            self._parts, self._missing = [], 0
            self._answer(whole_so_far)

    def _answer(self, request: bytes) -> None:
        asked = _ASKED.search(request)
        if asked is None:
            self._transport.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
        elif asked[2] is None:
            answer = self.answers.get(asked[1])
            if answer is None:
                answer = self.answers[asked[1]] = whole(int(asked[1]))
            self._transport.write(answer)
        else:
            path = request[:80]
            kind = next((name for name in STREAMS if name in path), b"")
            key = (kind, int(asked[1]))
            if key not in self.streams:
                self.streams[key] = STREAMS.get(kind, openai)(int(asked[1]))
            self._send(self.streams[key], 0, int(asked[2]) / 1000, self._loop.time())

    def _send(self, writes: list[bytes], number: int, pace: float, began: float) -> None:
        if not pace:
            self._transport.write(b"".join(writes))
            return
        self._transport.write(writes[number])
        number += 1
        if number < len(writes):
            self._timer = self._loop.call_at(began + number * pace, self._send, writes, number, pace, began)


async def main(port: int) -> None:
    """Serve for ever."""
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(int(sys.argv[1])))
