"""Callers that send slowly, read slowly, or do neither: they are bounded, and nobody else notices them."""

import asyncio
import contextlib
import json
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from proxy.simulator import Simulator
from tests.conftest import Sidecar, Start
from tests.edge.wire import (
    END,
    STREAM_HEAD,
    Upstream,
    asking,
    call,
    connect,
    event,
    pouring,
    read_answer,
    read_head,
    request,
    whole,
)

FLOOD = [STREAM_HEAD, *[event("x" * 16_000)] * 3_200, END]  # 51 MB
PATIENCE = 0.5


async def until(sidecar: Sidecar, holds: Callable[[float], bool], name: str) -> None:
    """Scrape until a metric is as it should be."""
    async with asyncio.timeout(10):
        while not holds(await sidecar.metric(name)):
            pass


async def in_front_of(start: Start, upstream: Upstream, **server: Any) -> Sidecar:
    """A sidecar whose vLLM is the given upstream; the others are simulated."""
    return await start(server=server, upstreams={"vllm": {"base_url": upstream.url, "list_models": False}}, routes=[])


def narrow(sidecar: Sidecar) -> Sidecar:
    """Have the network keep little on the way to callers: what they take, or do not, is soon felt."""
    for listening in sidecar.app._listeners._open[0].sockets:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
    return sidecar


async def read_slowly(reader: asyncio.StreamReader, is_all: Callable[[bytes], bool]) -> bytes:
    """Read, at half a megabyte per second, until all is there."""
    text = b""
    async with asyncio.timeout(10):
        while not is_all(text):
            piece = await reader.read(16_384)
            assert piece, "it broke off"
            text += piece
            await asyncio.sleep(0.03)
    return text


@asynccontextmanager
async def trickling(writer: asyncio.StreamWriter, piece: bytes, pause: float) -> AsyncIterator[None]:
    """Meanwhile a piece is sent after each pause, without end."""

    async def trickle() -> None:
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)

    task = asyncio.create_task(trickle())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):
            await task


async def test_a_body_that_trickles_is_not_waited_for(start: Start, simulator: Simulator) -> None:
    """A byte now and then, for ever, is a 408 and the end of the connection, although no pause is long."""
    sidecar = await start(server={"body_timeout_seconds": 0.3})
    head = request().replace(b"Content-Length: ", b"Content-Length: 99999").partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    async with asking(sidecar, head) as (reader, writer), trickling(writer, b" ", 0.02):
        answer, body = await read_answer(reader)
    assert answer.status == 408
    assert answer["connection"] == "close"
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert answer["x-request-id"] in error["message"]
    (line,) = await sidecar.lines.wait_for(1)
    assert (line["status"], line["outcome"], line["reason"]) == (408, "caller_error", "ReadTimeout")
    assert simulator.report.calls == 0


async def test_a_large_body_may_take_longer_than_the_timeout(start: Start, simulator: Simulator) -> None:
    """A body that brings 64 KiB in each window, or its end, is taken, however long it takes in all."""
    sidecar = await start(server={"body_timeout_seconds": 0.5})
    body = request().partition(b"\r\n\r\n")[2]
    pieces = [body[:-1], *[b" " * 65_536] * 8, b" " * 100, body[-1:]]
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: octet\r\nContent-Length: %d\r\n\r\n"
    async with asking(sidecar, head % sum(map(len, pieces))) as (reader, writer):
        for piece in pieces:
            await asyncio.sleep(0.1)
            writer.write(piece)
            await writer.drain()
        answer, _ = await read_answer(reader)
    assert answer.status == 200
    assert simulator.report.calls == 1


async def test_half_a_head_stops_nobody(sidecar: Sidecar) -> None:
    """While callers have sent only a part of a request's head, others are served; then they are too."""
    whole = request()
    halves = [await connect(sidecar) for _ in range(20)]
    for place, (_, writer) in enumerate(halves):
        writer.write(whole[: 5 * place + 1])
    for _ in range(5):
        assert (await call(sidecar, whole))[0].status == 200
    for place, (reader, writer) in enumerate(halves):
        writer.write(whole[5 * place + 1 :])
        assert (await read_answer(reader))[0].status == 200
        writer.close()


async def test_a_stream_that_is_never_read(start: Start) -> None:
    """The upstream waits within bounds, others are served, and then the connection is dropped and freed."""
    async with pouring(*FLOOD) as upstream:
        sidecar = await in_front_of(start, upstream, send_timeout_seconds=PATIENCE)
        served = 0
        async with asking(sidecar, request(model="vllm/m", stream=True), receive_bytes=16_384):
            while not upstream.left.is_set():
                assert (await call(sidecar, request(model="openai/m")))[0].status == 200
                served += 1
            await until(sidecar, lambda connections: connections == 0, "octet_caller_connections")
        lines = await sidecar.lines.wait_for(served + 1)
    assert 0 < upstream.sent < sum(map(len, FLOOD)) / 2
    assert served > 0
    (line,) = [line for line in lines if line["upstream"] == "vllm"]
    assert (line["outcome"], line["status"]) == ("hangup", 200)
    assert await sidecar.metric("octet_hangups_total", phase="stream") == 1
    assert await sidecar.metric("octet_calls_total", upstream="vllm", outcome="ok") == 0
    assert await sidecar.metric("octet_connections", upstream="vllm", state="active") == 0
    assert await sidecar.metric("octet_open_streams") == 0


async def test_a_large_answer_that_is_never_read(start: Start) -> None:
    """A JSON answer of 20 MB that nobody takes is dropped in time, and logged once, as the caller's doing."""
    async with pouring(whole(20_000_000)) as upstream:
        sidecar = await in_front_of(start, upstream, send_timeout_seconds=PATIENCE)
        async with asking(sidecar, request(model="vllm/m"), receive_bytes=16_384) as (reader, _):
            answer = await read_head(reader)
            assert (await call(sidecar, request(model="openai/m")))[0].status == 200
            await until(sidecar, lambda connections: connections == 0, "octet_caller_connections")
            with contextlib.suppress(ConnectionError):
                assert len(await reader.read()) < int(answer["content-length"])
    (line,) = [line for line in await sidecar.lines.wait_for(2) if line["upstream"] == "vllm"]
    assert line["outcome"] == "hangup"
    assert await sidecar.metric("octet_hangups_total") == 1


async def test_a_last_event_that_is_never_read(start: Start) -> None:
    """The end of a stream, too large for the network's buffers, is not kept for ever for who does not take it."""
    async with pouring(whole(400_000)) as upstream:
        sidecar = narrow(await in_front_of(start, upstream, send_timeout_seconds=PATIENCE))
        async with asking(sidecar, request(model="vllm/m", stream=True), receive_bytes=16_384) as (reader, _):
            assert (await read_head(reader)).status == 200
            await until(sidecar, lambda connections: connections == 0, "octet_caller_connections")


async def test_a_slow_reader_gets_the_whole_stream(start: Start) -> None:
    """Who always takes something gets every event in order, though it takes longer than the timeout."""
    events = [event(f"<{number}>" + "." * 1_000) for number in range(600)]
    async with pouring(STREAM_HEAD + b"".join([*events, END])) as upstream:
        sidecar = narrow(await in_front_of(start, upstream, send_timeout_seconds=0.25))
        async with asking(sidecar, request(model="vllm/m", stream=True, version="1.0"), receive_bytes=16_384) as (
            reader,
            _,
        ):
            text = await read_slowly(reader, lambda text: text.endswith(b"data: [DONE]\n\n"))
            assert await reader.read() == b""
    assert re.findall(rb"<(\d+)>", text) == [b"%d" % number for number in range(600)]
    (line,) = await sidecar.lines.wait_for(1)
    assert line["outcome"] == "ok"


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
async def test_a_slow_reader_keeps_its_connection(start: Start, stream: bool) -> None:
    """An answer that came at once and is taken slowly is whole, and the next call is answered on that connection."""
    async with pouring(whole(400_000)) as upstream:
        sidecar = narrow(await in_front_of(start, upstream, send_timeout_seconds=0.25))
        async with asking(sidecar, request(model="vllm/m", stream=stream), receive_bytes=16_384) as (reader, writer):
            head = await read_head(reader)
            end = b"data: [DONE]\n\n\r\n0\r\n\r\n" if stream else b"}"
            text = await read_slowly(reader, lambda text: len(text) > 400_000 and text.endswith(end))
            assert stream or len(text) == int(head["content-length"])
            writer.write(request(model="openai/m"))
            assert (await read_answer(reader))[0].status == 200


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
async def test_a_slow_reader_holds_up_the_end(start: Start, stream: bool) -> None:
    """A process that stops waits, within drain_seconds, until an answer has been taken, not only until it is there."""
    async with pouring(whole(800_000)) as upstream:
        sidecar = narrow(await in_front_of(start, upstream, drain_seconds=10))
        async with asking(sidecar, request(model="vllm/m", stream=stream), receive_bytes=16_384) as (reader, _):
            assert (await read_head(reader)).status == 200
            kept = [connection.transport for connection in sidecar.app._servers[0][1].connections]
            end = b"data: [DONE]\n\n\r\n0\r\n\r\n" if stream else b"}"
            reading = asyncio.create_task(read_slowly(reader, lambda text: len(text) > 800_000 and text.endswith(end)))
            await sidecar.app.stop()
            for transport in kept:
                if transport is not None:
                    transport.abort()  # as when the process ends
            await reading


async def test_two_hundred_idle_connections(sidecar: Sidecar) -> None:
    """Connections that say nothing cost their place and nothing else."""
    idle = [await connect(sidecar) for _ in range(200)]
    for _ in range(5):
        assert (await call(sidecar, request()))[0].status == 200
    assert await sidecar.metric("octet_caller_connections") >= 200
    for reader, writer in idle:
        assert not reader.at_eof()
        writer.close()


async def test_more_connections_than_allowed(start: Start) -> None:
    """Above the limit the answer is 503 and the end of the connection; when there is room, calls are served again."""
    sidecar = await start(server={"max_connections": 20})
    idle = [await connect(sidecar) for _ in range(20)]
    await until(sidecar, lambda connections: connections == 20, "octet_caller_connections")
    async with asking(sidecar, request()) as (reader, _):
        answer, body = await read_answer(reader)
        assert await reader.read() == b""
    assert answer.status == 503
    assert answer["connection"] == "close"
    assert int(answer["retry-after"]) >= 1
    assert json.loads(body)["error"]["code"] == "overloaded"
    assert await sidecar.metric("octet_refusals_total", reason="too_many_connections") == 1
    for _, writer in idle:
        writer.close()
    await until(sidecar, lambda connections: connections == 0, "octet_caller_connections")
    assert (await call(sidecar, request()))[0].status == 200


async def test_a_burst_of_connections(start: Start, simulator: Simulator) -> None:
    """300 callers that connect at once and call once are all answered."""
    sidecar = await start(upstreams={"openai": {"max_connections": 64}})
    answers = await asyncio.gather(*(call(sidecar, request()) for _ in range(300)))
    assert [head.status for head, _ in answers] == [200] * 300
    assert simulator.report.calls == 300
    assert len(await sidecar.lines.wait_for(300)) == 300
