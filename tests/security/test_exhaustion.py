"""Callers and upstreams that send without end, or bombs: bounded memory, a clear answer, and the process lives."""

import asyncio
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.edge import server as edge
from proxy.simulator import Simulator
from tests.conftest import DIALECTS, MODELS, Sidecar, Start
from tests.edge.wire import asking, read_answer
from tests.security.wire import BODY, CHUNKED, LENGTH, MARKER, chunked, head, read_answers, talk
from tests.waiting import until

MIB = 1024 * 1024
ONE = [{"name": "one", "targets": [{"upstream": "openai"}], "retry": {"attempts": 1}}]


def where(sidecar: Sidecar) -> tuple[str, int]:
    return sidecar.app.addresses[0].host, sidecar.app.addresses[0].port


def resident() -> int:
    """Bytes of memory that this process has, with the sidecar in it."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


GZIP = gzip.compress(b" " * 64 * MIB, 1)
BOMBS = {
    "gzip": (b"Content-Encoding: gzip", GZIP),
    "deflate": (b"Content-Encoding: deflate", zlib.compress(b" " * 64 * MIB, 1)),
    "an empty coding": (b"Content-Encoding: ", BODY),
    "in capitals": (b"Content-Encoding: GZIP", GZIP),
    "brotli": (b"Content-Encoding: br", b"\x00" * 1000),
    "several": (b"Content-Encoding: gzip, gzip", gzip.compress(GZIP)),
}


@pytest.mark.parametrize("case", BOMBS)
async def test_a_compressed_body(sidecar: Sidecar, simulator: Simulator, case: str) -> None:
    """A body in any coding is a 415, or on other paths unread, and is never unpacked into memory."""
    coding, data = BOMBS[case]
    before = resident()
    for target, status in (("/v1/chat/completions", 415), ("/v1/nothing", 404)):
        whole = head(coding, b"Content-Length: %d" % len(data), b"Connection: close", target=target) + data
        (told,) = read_answers(await talk(where(sidecar), whole))
        assert told.status in (400, status)  # a coding that aiohttp does not know is none it can read
    assert resident() - before < 32 * MIB
    assert simulator.report.calls == 0


async def test_a_second_coding(sidecar: Sidecar, simulator: Simulator) -> None:
    """A coding that stands in a second line counts as much."""
    data = gzip.compress(BODY)
    lines = [b"Content-Encoding: identity", b"Content-Encoding: gzip", b"Content-Length: %d" % len(data)]
    (told,) = read_answers(await talk(where(sidecar), head(*lines, b"Connection: close") + data))
    assert told.status == 415
    assert simulator.report.calls == 0


@pytest.mark.parametrize("lines", [[b"X-%d: 1" % each for each in range(200)], [b"X: " + b"a" * 20_000]])
async def test_a_head_without_measure(sidecar: Sidecar, simulator: Simulator, lines: list[bytes]) -> None:
    """Too many headers, or one that is too long, are a 400 and the end of the connection."""
    (told,) = read_answers(await talk(where(sidecar), head(*lines, LENGTH) + BODY + MARKER))
    assert told.status == 400
    assert simulator.report.calls == 0


async def test_an_address_without_measure(sidecar: Sidecar) -> None:
    """A target that is too long is a 400, and quoted nowhere."""
    (told,) = read_answers(await talk(where(sidecar), head(target="/v1/" + "a" * 20_000) + MARKER))
    assert told.status == 400
    assert len(told.body) < 500


@pytest.mark.parametrize(
    ("begin", "more"),
    [(b"GET /v1/models HTTP/1.1\r\nHost: a\r\nX: ", b"a"), (b"GET /", b"a"), (b"", b"X: 1\r\n")],
    ids=["a value", "a target", "lines"],
)
async def test_a_head_without_end(sidecar: Sidecar, begin: bytes, more: bytes) -> None:
    """A head that never ends is given up long before a megabyte of it is kept."""
    async with asking(sidecar, begin or b"GET /v1/models HTTP/1.1\r\nHost: a\r\n") as (reader, writer):
        told = asyncio.ensure_future(reader.read())
        try:
            for _ in range(64):
                writer.write(more * (MIB // 16 // len(more)))
                await writer.drain()
        except ConnectionError:
            pass
        data = await _gently(told)
    assert not data or read_answers(data)[0].status == 400


async def _gently(told: "asyncio.Future[bytes]") -> bytes:
    """What was read, if the connection was not reset under it."""
    try:
        return await told
    except ConnectionError:
        return b""


async def test_an_extension_without_end(start: Start) -> None:
    """A chunk's extension that never ends is no progress of the body: a 408, in time."""
    sidecar = await start(server={"body_timeout_seconds": 0.2})
    async with asking(sidecar, head(CHUNKED) + b"5;") as (reader, writer):
        writer.write(b"a" * MIB)
        assert (await read_answer(reader))[0].status in (400, 408)


async def test_trailers_without_end(sidecar: Sidecar, simulator: Simulator) -> None:
    """Thousands of trailers are a 400: they are headers, and as many may come."""
    lines = b"".join(b"X-%d: 1\r\n" % each for each in range(5000))
    whole = head(CHUNKED) + chunked(BODY)[:-2] + lines + b"\r\n"
    (told,) = read_answers(await talk(where(sidecar), whole + MARKER))
    assert told.status == 400


async def test_requests_that_nobody_waits_for(sidecar: Sidecar, simulator: Simulator) -> None:
    """Who sends requests without reading answers is not listened to any more, and others are served."""
    before = resident()
    asked = head(method="GET", target="/v1/models") * 1000
    async with asking(sidecar, receive_bytes=4096) as (_, writer):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                for _ in range(1000):
                    writer.write(asked)
                    await writer.drain()
        assert (await sidecar.chat()).status == 200
        assert resident() - before < 64 * MIB


async def test_connections_that_say_nothing(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections without a whole head are closed when their time is over: before the first request, and behind one."""
    monkeypatch.setattr(edge, "KEEP_ALIVE_SECONDS", 0.2)
    sidecar = await start()
    for begin in (b"", b"POST /v1/chat/comp", MARKER.replace(b"Connection: close\r\n", b"") + b"GET /v1/mod"):
        async with asking(sidecar, begin) as (reader, _):
            answers = read_answers(await reader.read())
            assert [told.status for told in answers] == [200] * begin.count(b"\r\n\r\n")
    await until(lambda: not sidecar.app._servers[0][1].connections)


def _nested(depth: int) -> Iterator[dict[str, Any]]:
    """Calls with something deep in them; as text, since Python's own encoder would not write it."""
    deep: Any = json.loads("[" * depth + "]" * depth)
    schema = json.loads('{"type":"object","properties":{"a":' * depth + "{}" + "}}" * depth)
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    form = {"type": "json_schema", "json_schema": {"name": "s", "strict": True, "schema": schema}}
    said = {"role": "assistant", "content": None, "tool_calls": [
        {"id": "1", "type": "function", "function": {"name": "f", "arguments": json.dumps(deep)}}
    ]}  # fmt: skip
    yield {"messages": [{"role": "user", "content": deep}]}
    yield {"tools": [tool]}
    yield {"response_format": form}
    yield {"metadata": {"a": deep}}
    yield {"unheard_of": deep}
    yield {"stop": deep}
    yield {
        "messages": [{"role": "user", "content": "hi"}, said, {"role": "tool", "tool_call_id": "1", "content": deep}]
    }
    yield {
        "messages": [{"role": "assistant", "content": "x", "thinking_blocks": deep}, {"role": "user", "content": "x"}]
    }


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_deep_calls(start: Start, simulator: Simulator, dialect: str) -> None:
    """However deep a call is, it is served or a 400, with the cache too; never a fault of ours."""
    route = {
        "name": "r",
        "targets": [{"upstream": dialect}],
        "retry": {"attempts": 1},
        "cache": {"any_temperature": True},
    }
    sidecar = await start(routes=[route], cache={"memory": {}})
    for depth in (50, 180, 240):
        for fields in _nested(depth):
            for stream in (False, True):
                response = await sidecar.chat(MODELS[dialect], **fields, stream=stream)
                assert response.status in (200, 400), (depth, list(fields))
                await response.read()
    assert (await sidecar.chat(MODELS[dialect])).status == 200


async def test_a_call_that_is_too_deep(sidecar: Sidecar) -> None:
    """A hundred thousand brackets, anywhere, are a 400 and no end of the process."""
    for opened, closed in ((b"[", b"]"), (b'{"a":', b"}")):
        deep = opened * 100_000 + b"1" + closed * 100_000
        for data in (deep, BODY[:-1] + b',"x":' + deep + b"}", BODY[:-1] + b',"x":' + deep[:100_000]):
            whole = head(b"Content-Length: %d" % len(data), b"Connection: close") + data
            (told,) = read_answers(await talk(where(sidecar), whole))
            assert told.status == 400
    async with sidecar.http.post(f"{sidecar.admin_url}/admin/explain", data=b"[" * 1_000_000) as response:
        assert response.status == 400


NUMBERS = ["1e400", "-1e400", "1" + "0" * 5000, "-" + "9" * 400, "1e-400", "1." + "1" * 5000, "1e99999999999", "-0"]
FIELDS = """max_tokens max_completion_tokens temperature top_p seed n top_logprobs presence_penalty stop user
stream_options logit_bias top_k""".split()


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_numbers_without_measure(sidecar: Sidecar, dialect: str) -> None:
    """Numbers that no machine holds are passed on as they stand, or a 400; never a fault of ours."""
    for field in FIELDS:
        for number in NUMBERS:
            data = BODY.replace(b"gpt-4o-mini", MODELS[dialect].encode())[:-1] + f',"{field}":{number}}}'.encode()
            whole = head(b"Content-Length: %d" % len(data), b"Connection: close") + data
            (told,) = read_answers(await talk(where(sidecar), whole))
            assert told.status in (200, 400), (field, number[:12])
