"""Upstreams that send without end, or bombs: bounded memory, a clear error, and the process lives."""

import asyncio
import gzip
import json
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.conftest import DIALECTS, MODELS, Sidecar, Start
from tests.security.far_side import GOOD, answer, far_side
from tests.security.test_exhaustion import MIB, ONE, resident

STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
PIECE = b"a" * 65536
ENDLESS = {
    "a header's value": (b"HTTP/1.1 200 OK\r\nX: ", PIECE),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"X-A: 1\r\n" * 8192),
    "a status line": (b"HTTP/1.1 200 ", PIECE),
    "answers that are none": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 2048),
    "an extension of a chunk": (STREAM + b"5;", PIECE),
    "a frame": (STREAM, b"10000\r\n" + PIECE + b"\r\n"),
    "events without content": (STREAM, b'10\r\ndata: {"a": 1}\n\r\n' * 1024),
    "comments": (STREAM, b"4\r\n: a\n\r\n" * 4096),
    "trailers": (STREAM + b"0\r\n", b"X-A: 1\r\n" * 8192),
    "a JSON answer": (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n", PIECE),
    "an error": (b"HTTP/1.1 500 No\r\nContent-Type: application/json\r\n\r\n", PIECE),
}

PLAIN = ["headers", "an extension of a chunk", "trailers", "a JSON answer", "an error"]


class Endless:
    """Says something, and then the same for as long as anybody listens."""

    def __init__(self, begin: bytes, more: bytes) -> None:
        self._begin, self._more = begin, more
        self.sent = 0
        self.left = asyncio.Event()

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(self._begin)
            while self.sent < 256 * MIB:
                writer.write(self._more)
                await writer.drain()
                self.sent += len(self._more)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()
            self.left.set()


@asynccontextmanager
async def endless(start: Start, case: str) -> AsyncIterator[tuple[Sidecar, Endless]]:
    """A sidecar before such an upstream."""
    side = Endless(*ENDLESS[case])
    server = await asyncio.start_server(side.talk, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    upstream = {"base_url": f"http://127.0.0.1:{port}/v1", "max_frame_bytes": MIB, "timeouts": {"total_seconds": 20}}
    try:
        yield await start(upstreams={"openai": upstream}, routes=ONE), side
    finally:
        server.close()


@pytest.mark.parametrize(("case", "stream"), [*((case, True) for case in ENDLESS), *((case, False) for case in PLAIN)])
async def test_no_end(start: Start, case: str, stream: bool) -> None:
    """It is given up after a bounded number of bytes, its connection is closed, and the caller is told."""
    before = resident()
    async with endless(start, case) as (sidecar, side):
        response = await sidecar.chat(stream=stream)
        body = await response.read()
        assert response.status == 502, body
        assert json.loads(body)["error"]["code"]
        async with asyncio.timeout(10):
            await side.left.wait()
        assert side.sent < (80 if case == "a JSON answer" and not stream else 8) * MIB
        assert resident() - before < (32 if stream else 160) * MIB  # the longest answer, once in pieces and once whole
        async with sidecar.http.get(f"{sidecar.url}/healthz") as health:
            assert health.status == 200


BOMB = gzip.compress(GOOD[:-2] + b" " * 64 * MIB + GOOD[-2:], 1)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, gzip", "x-unheard-of"])
async def test_a_compressed_answer(start: Start, coding: str) -> None:
    """We ask for none: a packed answer is a 502 in either mode, and never unpacked."""
    packed = BOMB if "gzip" in coding else answer()[:1000]
    before = resident()
    async with far_side(answer(packed, b"Content-Encoding: " + coding.encode())) as side:
        sidecar = await start(upstreams={"openai": {"base_url": f"{side.url}/v1"}}, routes=ONE)
        for stream in (False, True):
            response = await sidecar.chat(stream=stream)
            assert response.status == 502
            assert "compress" in (await response.json())["error"]["message"]
        assert {b"accept-encoding: identity" in seen for seen in side.seen} == {True}
    assert resident() - before < 32 * MIB


DEEP = {
    "an array": b"[" * 100_000,
    "a whole array": b"[" * 5000 + b"]" * 5000,
    "objects": b'{"a":' * 5000 + b"1" + b"}" * 5000,
    "an error": b'{"error":' * 900 + b"1" + b"}" * 900,
    "choices": b'{"choices":' + b"[" * 900 + b"]" * 900 + b"}",
    "usage": GOOD[:-1] + b',"usage":' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}",
    "a number": GOOD[:-1] + b',"created":1' + b"0" * 5000 + b"}",
    "packed": struct.pack("<Q", 2**64 - 1) + gzip.compress(GOOD),
}


@pytest.mark.parametrize("case", DEEP)
async def test_deep_answers(start: Start, case: str) -> None:
    """However deep an answer is, it is passed on or a failure of the upstream's, in every dialect; never ours."""
    for head_line in (b"200 OK", b"400 Bad", b"500 No"):
        async with far_side(answer(DEEP[case], status=head_line)) as side:
            upstreams = {name: {"base_url": side.url, "list_models": False} for name in DIALECTS}
            sidecar = await start(upstreams=upstreams)
            for dialect in DIALECTS:
                for stream in (False, True):
                    response = await sidecar.chat(MODELS[dialect], stream=stream)
                    assert response.status in (200, 400, 502), (dialect, head_line)
                    await response.read()
            assert {line["outcome"] for line in sidecar.lines.kept} <= {"ok", "upstream_error", "caller_error"}
