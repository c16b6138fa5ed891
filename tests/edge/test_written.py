"""Good answers on the wire, byte by byte: their heads, their framing, and whether the connection goes on."""

import asyncio
import re
from email.utils import parsedate_to_datetime
from inspect import iscoroutine
from typing import Any

import pytest

from proxy.edge.stream import CallerStream
from proxy.resilience.attempts import Walk
from proxy.simulator import Behaviour, Simulator
from proxy.telemetry import Telemetry
from tests.conftest import Sidecar, Start
from tests.edge.wire import (
    END,
    STREAM_HEAD,
    Head,
    asking,
    call,
    event,
    pouring,
    read_answer,
    read_chunk,
    read_head,
    request,
    whole,
)

DONE = b"data: [DONE]\n\n"
both_kinds = pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])


def assert_head(head: Head, *, stream: bool) -> None:
    """What every good answer says, each once."""
    assert parsedate_to_datetime(head["date"]).tzinfo is not None
    assert head["server"] == "octet"
    assert head["content-type"] == ("text/event-stream; charset=utf-8" if stream else "application/json")
    names = [name for name, _ in head.headers]
    assert len(names) == len(set(names))


def assert_body(body: bytes, *, stream: bool) -> None:
    """A whole answer, and nothing behind it."""
    if stream:
        assert body.startswith(b"data: {")
        assert body.endswith(DONE)
        assert body.count(DONE) == 1
    else:
        assert body.startswith(b"{")
        assert body.endswith(b"}")
    assert b"HTTP/1." not in body


@both_kinds
async def test_http_1_1_goes_on(sidecar: Sidecar, stream: bool) -> None:
    """An answer has its framing and no word of the connection, which takes one call after another."""
    async with asking(sidecar) as (reader, writer):
        for _ in range(3):
            writer.write(request(stream=stream))
            head, body = await read_answer(reader)
            assert head.line == "HTTP/1.1 200 OK"
            assert "connection" not in head
            assert ("content-length" in head, "transfer-encoding" in head) == (not stream, stream)
            assert_head(head, stream=stream)
            assert_body(body, stream=stream)


@both_kinds
async def test_connection_close_is_heeded(sidecar: Sidecar, stream: bool) -> None:
    """A caller who wants the connection closed is told so, and it is closed behind the answer."""
    async with asking(sidecar, request("Connection: close", stream=stream)) as (reader, _):
        head, body = await read_answer(reader)
        assert await reader.read() == b""
    assert head["connection"] == "close"
    assert_head(head, stream=stream)
    assert_body(body, stream=stream)


async def test_http_1_0_json(sidecar: Sidecar) -> None:
    """HTTP/1.0 gets the length of a JSON answer, and keeps its connection as long as it asks for that."""
    async with asking(sidecar) as (reader, writer):
        for headers, told in ((("Connection: keep-alive",), ["keep-alive"]),) * 2 + (((), []),):
            writer.write(request(*headers, version="1.0"))
            head, body = await read_answer(reader)
            assert head.line == "HTTP/1.0 200 OK"
            assert "transfer-encoding" not in head
            assert head.all("connection") == told
            assert_head(head, stream=False)
            assert_body(body, stream=False)
        assert await reader.read() == b""


@pytest.mark.parametrize("headers", [(), ("Connection: keep-alive",)], ids=["plain", "keep-alive"])
async def test_http_1_0_streams_end_with_the_connection(sidecar: Sidecar, headers: tuple[str, ...]) -> None:
    """HTTP/1.0 knows no chunks: a stream is its events alone, whatever was asked for, and its end is the close."""
    async with asking(sidecar, request(*headers, version="1.0", stream=True)) as (reader, _):
        head = await read_head(reader)
        body = await reader.read()
    assert head.line == "HTTP/1.0 200 OK"
    assert "transfer-encoding" not in head
    assert "content-length" not in head
    assert head.all("connection") in ([], ["close"])
    assert_head(head, stream=True)
    assert_body(body, stream=True)
    assert all(event.startswith(b"data: ") for event in body.removesuffix(b"\n\n").split(b"\n\n"))


@pytest.mark.parametrize("kinds", [(False, False), (True, False), (False, True), (True, True)], ids=str)
async def test_pipelined_calls_are_answered_in_order(
    sidecar: Sidecar, simulator: Simulator, kinds: tuple[bool, bool]
) -> None:
    """Two calls in one packet get two answers, the first one first, though the second would be ready earlier."""
    simulator.script("openai", Behaviour(text="the slow one", delay_seconds=0.1), Behaviour(text="the fast one"))
    calls = [request(f"x-request-id: call-{place}", stream=stream) for place, stream in enumerate(kinds)]
    async with asking(sidecar, b"".join(calls)) as (reader, _):
        for place, stream in enumerate(kinds):
            head, body = await read_answer(reader)
            assert head["x-request-id"] == f"call-{place}"
            assert (b"slow" in body, b"fast" in body) == (place == 0, place == 1)
            assert_head(head, stream=stream)
            assert_body(body, stream=stream)


async def test_the_first_event_does_not_wait(sidecar: Sidecar, simulator: Simulator) -> None:
    """The head and the first content are there while the upstream has not sent the second; chunks hold whole events."""
    simulator.always("openai", Behaviour(text="one two three", stall=1))
    async with asking(sidecar, request(stream=True)) as (reader, _):
        assert (await read_head(reader)).status == 200
        seen = b""
        while b"one" not in seen:
            chunk = await read_chunk(reader)
            assert chunk.startswith(b"data: ")
            assert chunk.endswith(b"\n\n")
            seen += chunk
        assert b"two" not in seen


@both_kinds
async def test_while_draining(start: Start, simulator: Simulator, stream: bool) -> None:
    """Once stopping has begun, each answer says that it is the connection's last, and it is."""
    sidecar = await start(server={"drain_delay_seconds": 0.2})
    simulator.script("openai", Behaviour(), Behaviour(delay_seconds=0.1))
    async with asking(sidecar, request(stream=stream)) as (kept, writer), asking(sidecar) as (begun, other):
        assert "connection" not in (await read_answer(kept))[0]
        other.write(request(stream=stream))
        await simulator.report.wait_for(lambda report: report.open_calls == 1)
        stopping = asyncio.create_task(sidecar.app.stop())
        await asyncio.sleep(0)  # it has begun
        writer.write(request(stream=stream))
        for reader in (kept, begun):
            head, body = await read_answer(reader)
            assert head.status == 200
            assert head["connection"] == "close"
            assert_body(body, stream=stream)
            assert await reader.read() == b""
        await stopping


@both_kinds
async def test_cors(start: Start, stream: bool) -> None:
    """Pages of allowed origins may read the answer and its headers; others are told nothing."""
    sidecar = await start(server={"cors_origins": ["https://app.example"]})
    head, body = await call(sidecar, request("Origin: https://app.example", stream=stream))
    assert head["access-control-allow-origin"] == "https://app.example"
    assert head["access-control-expose-headers"] == "*"
    assert "origin" in head["vary"].lower()
    assert_head(head, stream=stream)
    assert_body(body, stream=stream)
    for headers in (("Origin: https://evil.example",), ()):
        head, _ = await call(sidecar, request(*headers, stream=stream))
        assert "access-control-allow-origin" not in head


@both_kinds
@pytest.mark.parametrize("origin", ["https://東京.example", "\udcff"], ids=ascii)
async def test_an_odd_origin_costs_no_call(start: Start, stream: bool, origin: str) -> None:
    """Where every origin is allowed, one that is not ASCII is served like the others."""
    sidecar = await start(server={"cors_origins": ["*"]})
    data = request(stream=stream).replace(b"\r\n\r\n", f"\r\nOrigin: {origin}\r\n\r\n".encode(errors="surrogateescape"))
    head, body = await call(sidecar, data)
    assert head.status == 200
    assert_body(body, stream=stream)


@both_kinds
async def test_what_the_sidecar_says_of_a_call(sidecar: Sidecar, stream: bool) -> None:
    """The headers name the call, and where it went."""
    head, _ = await call(sidecar, request("x-request-id: mine-7", stream=stream))
    assert head["x-request-id"] == "mine-7"
    assert head["x-octet-route"] == head["x-octet-upstream"] == "openai"
    assert head["x-octet-model"] == "gpt-4o-mini"
    assert head["x-octet-attempts"] == "1"
    assert head["x-octet-cache"] == "bypass"
    assert head["x-upstream-request-id"]
    head, _ = await call(sidecar, request(stream=stream, model="claude-haiku-4-5", seed=7))
    assert head["x-octet-upstream"] == "anthropic"
    assert head["x-octet-dropped"] == "seed"


@both_kinds
async def test_server_timing(sidecar: Sidecar, simulator: Simulator, stream: bool) -> None:
    """Server-Timing is as W3C writes it; connecting is named whenever there was a connection to make, and only then."""
    simulator.script("openai", *[Behaviour(headers={"connection": "close"})] * 10)
    for place in range(12):
        head, _ = await call(sidecar, request(stream=stream))
        metrics = head["server-timing"].split(", ")
        assert all(re.fullmatch(r"[a-z]+;dur=\d+(\.\d+)?", metric) for metric in metrics)
        durations = {name: float(value) for name, _, value in (metric.partition(";dur=") for metric in metrics)}
        assert list(durations) == (["octet", "upstream"] if place == 11 else ["octet", "upstream", "connect"])
        assert durations["upstream"] >= durations.get("connect", 0.0)


@both_kinds
@pytest.mark.parametrize("odd", [b"a\x01b", b"a\tb", b"a\x7fb", b"\xe9", "…".encode()], ids=repr)
async def test_odd_headers_of_an_upstream_go_nowhere(start: Start, stream: bool, odd: bytes) -> None:
    """What of an upstream's headers is not printable ASCII reaches no caller; the others do."""
    lines = b"x-ratelimit-limit-requests: %b\r\nx-ratelimit-remaining-requests: 7\r\n" % odd
    lines += b"openai-version: %b\r\nopenai-processing-ms: 12\r\nx-request-id: %b\r\n\r\n" % (odd, odd)
    answer = STREAM_HEAD + event("word") + END if stream else whole(20)
    async with pouring(answer.replace(b"\r\n", b"\r\n" + lines.removesuffix(b"\r\n"), 1)) as upstream:
        sidecar = await start(upstreams={"openai": {"base_url": upstream.url, "list_models": False}})
        head, _ = await call(sidecar, request(stream=stream))
    assert all(value.isascii() and value.isprintable() for _, value in head.headers)
    assert head.status in (200, 502)  # with some it is no HTTP at all
    if head.status == 200:
        for name in ("x-ratelimit-limit-requests", "openai-version", "x-upstream-request-id"):
            assert name not in head
        assert (head["x-ratelimit-remaining-requests"], head["openai-processing-ms"]) == ("7", "12")
    (line,) = await sidecar.lines.wait_for(1)
    assert line["upstream_request_id"] is None


def break_behind(patched: pytest.MonkeyPatch, where: type, name: str) -> None:
    """Have a method do its work and fail then."""
    method = getattr(where, name)

    def broken(*arguments: Any, **named: Any) -> Any:
        done = method(*arguments, **named)
        if not iscoroutine(done):
            raise ZeroDivisionError("secret detail")

        async def fail() -> None:
            await done
            raise ZeroDivisionError("secret detail")

        return fail()

    patched.setattr(where, name, broken)


BEHIND_STREAMS = [(CallerStream, "follow", True), (CallerStream, "end", True), (Walk, "__aexit__", True)]


@pytest.mark.parametrize(("where", "name", "stream"), [*BEHIND_STREAMS, (Walk, "__aexit__", False)], ids=str)
async def test_a_failure_behind_the_head_adds_no_second_one(
    sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch, where: type, name: str, stream: bool
) -> None:
    """When our own code fails behind an answer's head, there is no other answer behind it, but the connection's end."""
    with monkeypatch.context() as patched:
        break_behind(patched, where, name)
        async with asking(sidecar, request(stream=stream)) as (reader, _):
            told = b""
            while more := await reader.read(65_536):
                told += more
                assert told.count(b"HTTP/1.") == 1
    assert told.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"secret" not in told
    assert (await call(sidecar, request(stream=stream)))[0].status == 200
    assert len(await sidecar.lines.wait_for(2)) == 2


async def test_a_failure_while_a_failure_is_told(
    sidecar: Sidecar, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When even the error event fails, the stream is cut off: no second head, and no end that looks like a good one."""
    simulator.script("openai", Behaviour(text="one two three", cut=2))
    with monkeypatch.context() as patched:
        patched.setattr(CallerStream, "break_off", lambda *_: 1 / 0)
        async with asking(sidecar, request(stream=True)) as (reader, _):
            told = await reader.read()
    assert told.count(b"HTTP/1.") == 1
    assert b"one" in told
    assert not told.endswith(b"0\r\n\r\n")
    assert (await call(sidecar, request(stream=True)))[0].status == 200


@both_kinds
async def test_a_failure_of_accounting_costs_no_answer(
    sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    """When telemetry fails, the caller has its answer all the same, and the connection goes on."""
    async with asking(sidecar, request(stream=stream)) as (reader, writer):
        with monkeypatch.context() as patched:
            break_behind(patched, Telemetry, "settle")
            assert_body((await read_answer(reader))[1], stream=stream)
        writer.write(request(stream=stream))
        assert_body((await read_answer(reader))[1], stream=stream)
