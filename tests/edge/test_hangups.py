"""Callers that leave: the upstream is let go at once, in every phase, and nothing is left behind."""

import asyncio
import contextlib
import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from proxy.simulator import Behaviour, Report, Simulator
from tests.conftest import DIALECTS, MODELS, MuteServer, Sidecar, Start

LONG = "one two three four five six seven eight nine ten " * 4

PHASES = {
    "waiting for the head": (Behaviour(stall="before_headers"), False, "connect"),
    "waiting for the head of a stream": (Behaviour(stall="before_headers"), True, "connect"),
    "waiting for the first token": (Behaviour(stall="before_first_token"), True, "first_token"),
    "in mid-stream": (Behaviour(text=LONG, stall=3), True, "stream"),
}


def request(model: str, *, stream: bool, **more: Any) -> bytes:
    fields = {"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": stream, **more}
    body = json.dumps(fields).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: octet\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def connect(sidecar: Sidecar) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    address = sidecar.app.addresses[0]
    return await asyncio.open_connection(address.host, address.port)


def reached(phase: str) -> Callable[[Report], bool]:
    """The simulator's sign that the call is in this phase."""
    if phase == "stream":
        return lambda report: report.frames >= 3
    return lambda report: report.open_calls == 1


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("abrupt", [False, True], ids=["FIN", "RST"])
async def test_a_hang_up_reaches_the_upstream(
    sidecar: Sidecar, simulator: Simulator, dialect: str, phase: str, abrupt: bool
) -> None:
    """Whenever the caller leaves, the upstream call is aborted, and it counts as the caller's doing."""
    behaviour, stream, named = PHASES[phase]
    simulator.always(dialect, behaviour)
    reader, writer = await connect(sidecar)
    writer.write(request(MODELS[dialect], stream=stream))
    await simulator.report.wait_for(reached(named))
    if named == "stream":
        await reader.readuntil(b"data: ")
    if abrupt:
        writer.transport.abort()
    else:
        writer.close()
    await simulator.report.wait_for(lambda report: report.aborted == 1 and report.open_calls == 0)
    (line,) = await sidecar.lines.wait_for(1)
    assert line["outcome"] == "hangup"
    assert await sidecar.metric("octet_attempts_total", outcome="hangup", upstream=dialect) == (named != "stream")
    assert await sidecar.metric("octet_calls_total", outcome="hangup", upstream=dialect) == 1
    assert await sidecar.metric("octet_hangups_total", phase=named) == 1
    assert await sidecar.metric("octet_open_streams") == 0


async def test_a_hang_up_while_connecting(start: Start, mute_server: MuteServer) -> None:
    """A caller that leaves during the TLS handshake takes the connection with them."""
    sidecar = await start(upstreams={"openai": {"base_url": f"https://{mute_server.address}/v1"}})
    _, writer = await connect(sidecar)
    writer.write(request("gpt-4o-mini", stream=True))
    await mute_server.met.wait()
    writer.close()
    await mute_server.left.wait()
    (line,) = await sidecar.lines.wait_for(1)
    assert line["outcome"] == "hangup"
    assert await sidecar.metric("octet_hangups_total", phase="connect") == 1


async def test_the_connect_clock(start: Start, mute_server: MuteServer) -> None:
    """A connection that does not come about is a 504 of its own clock."""
    timeouts = {"connect_seconds": 0.1}
    sidecar = await start(upstreams={"openai": {"base_url": f"https://{mute_server.address}/v1", "timeouts": timeouts}})
    for stream in (False, True):
        response = await sidecar.chat(stream=stream)
        assert response.status == 504
    assert [line["reason"] for line in sidecar.lines.kept] == ["TooSlow.connect"] * 2


async def test_a_hang_up_while_sending_the_body(sidecar: Sidecar, simulator: Simulator) -> None:
    """Half a body and no more: nothing goes upstream, and the call is settled."""
    _, writer = await connect(sidecar)
    writer.write(request("gpt-4o-mini", stream=False)[:-5])
    await writer.drain()
    writer.close()
    (line,) = await sidecar.lines.wait_for(1)
    assert line["outcome"] == "hangup"
    assert simulator.report.calls == 0


async def test_a_thousand_aborts(sidecar: Sidecar, simulator: Simulator) -> None:
    """1,000 callers leave at random moments: 1,000 upstream calls are closed, and nothing is left open."""
    chance = random.Random(7)
    places: list[Any] = ["before_headers", "before_first_token", *range(1, 40)]

    async def leave(stream: bool) -> None:
        reader, writer = await connect(sidecar)
        writer.write(request(MODELS[chance.choice(DIALECTS)], stream=stream))
        await simulator.report.wait_for(lambda report: report.calls >= begun)
        for _ in range(chance.randrange(200)):
            await asyncio.sleep(0)
        if stream and chance.random() < 0.3:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.01):
                    await reader.read(chance.randrange(1, 4000))
        writer.transport.abort()

    for batch in range(20):
        streams = [chance.random() < 0.7 for _ in range(50)]
        begun = (batch + 1) * 50
        simulator.clear()
        simulator.always("*", Behaviour(text=LONG, stall=chance.choice(places)))
        await asyncio.gather(*(leave(stream) for stream in streams))
        await simulator.report.wait_for(lambda report: report.open_calls == 0)
    assert (simulator.report.calls, simulator.report.aborted) == (1000, 1000)
    lines = await sidecar.lines.wait_for(1000)
    assert {line["outcome"] for line in lines} == {"hangup"}
    assert await sidecar.metric("octet_open_streams") == 0
    assert await sidecar.metric("octet_caller_connections") == 0


@pytest.mark.parametrize("phase", PHASES)
async def test_a_hang_up_reaches_every_branch(sidecar: Sidecar, simulator: Simulator, phase: str) -> None:
    """A caller who asked for three choices where they are asked one by one leaves: all three calls are aborted."""
    behaviour, stream, named = PHASES[phase]
    simulator.always("anthropic", behaviour)
    reader, writer = await connect(sidecar)
    writer.write(request(MODELS["anthropic"], stream=stream, n=3))
    frames = 9 if named == "stream" else 0
    await simulator.report.wait_for(lambda report: report.open_calls == 3 and report.frames >= frames)
    if named == "stream":
        await reader.readuntil(b"data: ")
    writer.transport.abort()
    await simulator.report.wait_for(lambda report: report.aborted == 3 and report.open_connections == 0)
    (line,) = await sidecar.lines.wait_for(1)
    assert (line["outcome"], line["attempts"]) == ("hangup", 1)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_clock_ends_every_branch(start: Start, simulator: Simulator, stream: bool) -> None:
    """One of three branches stands still: the call is too slow, and none of the others goes on."""
    sidecar = await start(
        upstreams={"anthropic": {"timeouts": {"total_seconds": 0.3, "first_token_seconds": 0.3}}},
        routes=[{"match": {"model": "*"}, "targets": [{"upstream": "anthropic"}]}],
    )
    simulator.script("anthropic", *[Behaviour(stall="before_headers")] * 3)
    response = await sidecar.chat("claude-haiku-4-5", n=3, stream=stream)
    assert response.status == 504
    await simulator.report.wait_for(lambda report: report.open_calls == 0 and report.open_connections == 0)
