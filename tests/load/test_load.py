"""The load suite, really run: a good server is found good, a bad one bad, and what was wrong has its name."""

import asyncio
import os
import re
import signal
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from proxy.simulator import Behaviour, Simulator
from tests.conftest import Sidecar
from tests.load import programs
from tests.load.locusts import CALLS, EACH, begin, locust, run
from tests.load.verdict import FIRST_TOKEN, GAP, LONGEST_GAP, TOKENS_PER_SECOND
from tests.monitoring.servers import until
from tests.redis_server import free_port

READER = """
import sys
from locust import events
from locust.contrib.fasthttp import FastHttpSession
from tests.load.locustfile import lines

with FastHttpSession(sys.argv[1], events.request, None).get("/", stream=True, catch_response=True) as response:
    for line in lines(response):
        sys.stdout.buffer.write(line)
        sys.stdout.flush()
"""


async def test_the_demo_is_good(tmp_path: Path) -> None:
    """Without a host the demo is started and ended; the report has its charts, and every figure is there."""
    ran = await run(tmp_path, WEIGHTS=EACH)
    assert (ran.code, ran.broken) == (0, ""), ran.told
    assert "held      incomplete streams: 0" in ran.told
    page = (tmp_path / "report.html").read_text()
    assert f"report: {tmp_path / 'report.html'}" in ran.told
    assert '"history": [' in page  # what its charts are drawn from
    figures = ran.figures()
    streams = figures["streaming"]
    assert figures["generation"] > 0
    assert figures["health"] > 0
    assert [figures[name] for name in (FIRST_TOKEN, LONGEST_GAP, TOKENS_PER_SECOND)] == [streams] * 3
    assert figures[GAP] > streams > 0
    assert figures["Aggregated"] == figures["generation"] + streams + figures["health"]
    assert CALLS <= figures["Aggregated"] < 20 * CALLS  # it ended by their number


async def test_an_upstream_that_cuts_a_stream(simulator: Simulator, sidecar: Sidecar, tmp_path: Path) -> None:
    """One is too many, although the others are good; the code of its error event is the message."""
    simulator.script("openai", Behaviour(cut=3))
    ran = await run(tmp_path, "--host", sidecar.url, WEIGHTS="streaming=1", MODELS="gpt-4o-mini", SUCCESS="0.5")
    assert (ran.code, ran.broken) == (1, "NOT HELD  incomplete streams: 1"), ran.told
    assert "1  streaming: incomplete: error event upstream_disconnected" in ran.told


async def test_an_upstream_that_refuses(simulator: Simulator, sidecar: Sidecar, tmp_path: Path) -> None:
    """The error's status and code are the message."""
    simulator.always("openai", Behaviour(status=503))
    ran = await run(tmp_path, "--host", sidecar.url, WEIGHTS="generation=1,streaming=1", MODELS="gpt-4o-mini")
    assert ran.code == 1
    assert "generation: HTTP 503 " in ran.told
    assert "streaming: HTTP 503 " in ran.told
    assert "NOT HELD  nothing was answered" in ran.broken


async def test_nobody_listens(tmp_path: Path) -> None:
    """Nothing finished is no success."""
    ran = await run(tmp_path, "--host", f"http://127.0.0.1:{await free_port()}", WEIGHTS=EACH)
    assert ran.code == 1
    for name in ("generation", "streaming", "health"):
        assert f"{name}: no answer: [Errno 111] Connection refused" in ran.told
    assert "NOT HELD  nothing was answered: no call ended well" in ran.broken


async def test_a_wrong_server(simulator: Simulator, tmp_path: Path) -> None:
    """An OpenAI server with good answers is not measured in Octet's place."""
    ran = await run(tmp_path, "--host", f"{simulator.url}/openai/v1", WEIGHTS=EACH)
    assert ran.code == 1
    for name in ("generation", "streaming"):
        assert f"{name}: no header x-octet-upstream: this is not Octet" in ran.told
    assert "health: no header server: octet: this is not Octet" in ran.told
    assert "NOT HELD  nothing was answered" in ran.broken


async def test_a_server_that_is_too_slow(sidecar: Sidecar, tmp_path: Path) -> None:
    """Every threshold can be missed; all answers are good."""
    ran = await run(tmp_path, "--host", sidecar.url, WEIGHTS=EACH, MAX_SECONDS="0", FIRST_TOKEN_SECONDS="0")
    assert ran.code == 1
    for name in ("generation", "streaming", "health"):
        assert f"NOT HELD  {name}: the slowest took" in ran.broken
        assert f"held      {name}: 100.00% of " in ran.told
    assert "NOT HELD  first token, 95th percentile" in ran.broken


async def test_a_server_that_never_answers(simulator: Simulator, sidecar: Sidecar, tmp_path: Path) -> None:
    """Nobody waits for ever."""
    simulator.always("*", Behaviour(stall="before_headers"))
    ran = await run(
        tmp_path, "--host", sidecar.url, WEIGHTS="generation=1,streaming=1", CALLS="3", TIMEOUT_SECONDS="0.3"
    )
    assert ran.code == 1
    assert "no answer: timed out" in ran.told


async def test_a_stream_that_does_not_end(simulator: Simulator, sidecar: Sidecar, tmp_path: Path) -> None:
    """It is left, and it is incomplete."""
    simulator.always("openai", Behaviour(token_seconds=0.02, tokens=100_000))
    settings = {"WEIGHTS": "streaming=1", "MODELS": "gpt-4o-mini", "CALLS": "3", "TIMEOUT_SECONDS": "3"}
    ran = await run(tmp_path, "--host", sidecar.url, MAX_TOKENS="100000", **settings)
    assert ran.code == 1
    assert "  streaming: incomplete: longer than 3 s" in ran.told


async def test_users_who_hang_up(simulator: Simulator, sidecar: Sidecar, tmp_path: Path) -> None:
    """They leave in the middle of their streams, which the upstream notices; that is what they came for."""
    simulator.always("openai", Behaviour(token_seconds=0.05, tokens=10_000))
    ran = await run(tmp_path, "--host", sidecar.url, WEIGHTS="hangup=1", MODELS="gpt-4o-mini", MAX_TOKENS="10000")
    assert (ran.code, ran.broken) == (0, ""), ran.told
    await simulator.report.wait_for(lambda report: report.open_calls == 0)
    assert simulator.report.aborted == ran.figures()["hangup"] >= CALLS


async def test_who_is_ended_ends_what_it_has_started(tmp_path: Path) -> None:
    """The demo and Locust are gone with it."""
    process = await begin(tmp_path, CALLS="0")
    log = tmp_path / "octet.log"

    async def address() -> tuple[str, str] | None:
        found = re.search(r"base URL +http://(.+):(\d+)/v1", log.read_text() if log.exists() else "")
        return (found[1], found[2]) if found else None

    found = await until(address)
    assert found is not None
    process.terminate()
    told, _ = await process.communicate()  # Locust has the same standard output: it has ended, too
    assert process.returncode == 128 + signal.SIGTERM, told.decode()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(found[0], int(found[1]))


async def test_a_mistake_in_the_settings(tmp_path: Path) -> None:
    """Is told before anything is asked."""
    ran = await run(tmp_path, WEIGHTS="dreaming=1")
    assert ran.code == 2
    assert ran.told.startswith("octet load: OCTET_LOAD_WEIGHTS: expected name=number")


async def test_lines_are_read_as_they_come() -> None:
    """The server sends a line when the one before has been read: whoever waits for more would wait for ever."""
    read = asyncio.Queue[bytes]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for number in range(5):
            writer.write(b"8\r\ndata: %d\n\r\n" % number)
            assert await read.get() == b"data: %d\n" % number
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        writer.close()
        read.put_nowait(b"the end")

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    python = locust().with_name("python")
    client = await asyncio.create_subprocess_exec(
        python,
        "-c",
        READER,
        f"http://127.0.0.1:{port}",
        stdout=PIPE,
        env={**os.environ, "PYTHONPATH": str(programs.ROOT)},
    )
    assert client.stdout is not None
    try:
        async with asyncio.timeout(20):
            async for line in client.stdout:
                read.put_nowait(line)
            assert await read.get() == b"the end"
            assert await client.wait() == 0
    finally:
        if client.returncode is None:
            client.kill()
            await client.wait()
        server.close()


@pytest.mark.parametrize("arguments", [("soak", "--host", "http://a"), ("soak", "--admin", "http://a"), ("sleep",)])
async def test_arguments_that_do_not_fit(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """A soak needs both sides of a sidecar, or none."""
    ran = await run(tmp_path, *arguments)
    assert ran.code == 2
    assert "usage: python -m tests.load" in ran.told
