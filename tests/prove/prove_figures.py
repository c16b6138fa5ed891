"""Times and scale, measured on a real process: `make prove`. Nothing here is in `make test`."""

import asyncio
import json
import os
import random
import re
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from functools import partial
from pathlib import Path

import aiohttp

from proxy.app import App
from proxy.config.load import build
from proxy.config.source import Document
from proxy.providers import traits
from proxy.simulator import Behaviour, Report, Simulator
from proxy.telemetry import LineWriter

ROOT = Path(__file__).parent.parent.parent
MODELS = ("gpt-4o-mini", "claude-haiku-4-5", "ollama/qwen3")


async def octet(*arguments: str) -> tuple[Process, str, float]:
    """Start a command; the process, what it said first, and the seconds until it said it."""
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy", *arguments), stdout=PIPE, stderr=PIPE, cwd=ROOT
    )
    assert process.stderr is not None
    told = ""
    while "routes" not in told and "ollama  " not in told:
        line = await process.stderr.readline()
        assert line, f"it has ended: {told}"
        told += line.decode()
    return process, told, time.perf_counter() - began


def memory(process: Process) -> float:
    """Resident set, in MiB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else 0.0


def descriptors(process: Process) -> int:
    return len(list(Path(f"/proc/{process.pid}/fd").iterdir()))


async def test_aborts_and_memory(tmp_path: Path) -> None:
    """1,000 callers leave at random moments; afterwards calls, sockets and memory are where they were."""
    simulator, told, _ = await octet("simulate", "--listen", "127.0.0.1:0", "--pace", "0.005")
    url = re.search(r"(http://127.0.0.1:\d+)/ollama", told)
    assert url is not None
    config = tmp_path / "octet.yaml"
    config.write_text(
        ROOT.joinpath("config/demo.yaml").read_text().replace("${SIMULATOR_URL}", url[1])
        + "server: {listen: '127.0.0.1:0', admin: '127.0.0.1:0'}\n"
    )
    sidecar, told, seconds = await octet("serve", str(config))
    base = re.search(r"base URL +http://127.0.0.1:(\d+)", told)
    assert base is not None
    print(f"\nready after {seconds:.2f} s, {memory(sidecar):.1f} MiB at rest")
    async with aiohttp.ClientSession() as session:
        slow = {"dialect": "*", "delay_seconds": 0.3, "tokens": 400}
        await session.put(f"{url[1]}/_simulator/behaviour", json=slow)
        await session.post(f"{url[1]}/_simulator/reset")
        await asyncio.sleep(6)  # the idle connections of the start are gone
        before = descriptors(sidecar)
        began = time.perf_counter()
        chance = random.Random(1)
        for _ in range(20):
            await asyncio.gather(*(leave(int(base[1]), chance.choice(MODELS), chance) for _ in range(50)))
        report: dict[str, int] = {}
        for _ in range(100):
            async with session.get(f"{url[1]}/_simulator/report") as response:
                report = await response.json()
            if report["open_calls"] == 0:
                break
            await asyncio.sleep(0.1)
        print(f"1000 callers in {time.perf_counter() - began:.1f} s; the simulator saw {report}")
        assert report["open_calls"] == 0
        assert report["calls"] == report["aborted"] == 1000
        await asyncio.sleep(6)
        print(f"descriptors {before} -> {descriptors(sidecar)}, {memory(sidecar):.1f} MiB afterwards")
        assert descriptors(sidecar) <= before
    for process in (sidecar, simulator):
        process.send_signal(signal.SIGTERM)
        await process.communicate()
        assert process.returncode == 0


async def leave(port: int, model: str, chance: random.Random) -> None:
    """Send a call, and leave at a random moment."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": True}).encode()
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    await asyncio.sleep(chance.uniform(0.1, 0.9))  # the head comes after 0.3 s, the end after 2 s
    if chance.random() < 0.3:
        await reader.read(chance.randrange(1, 2000))
    writer.transport.abort()


def has_aborted(number: int, report: Report) -> bool:
    return report.aborted == number


async def test_the_hang_up_reaches_the_upstream_in_time() -> None:
    """From the caller's hang-up to the upstream's closed socket: the slowest of 50, in milliseconds."""
    async with Simulator() as simulator:
        simulator.always("*", Behaviour(text="one two three four", stall=2))
        tree = {
            "server": {"listen": "127.0.0.1:0", "admin": "127.0.0.1:0"},
            "upstreams": {"openai": {"provider": "openai", "base_url": simulator.base_url("openai")}},
        }
        app = App(build(Document("prove", tree), traits()), LineWriter(os.open(os.devnull, os.O_WRONLY)))
        await app.start()
        slowest = 0.0
        for number in range(1, 51):
            reader, writer = await asyncio.open_connection("127.0.0.1", app.addresses[0].port)
            body = b'{"model":"openai/x","messages":[{"role":"user","content":"hi"}],"stream":true}'
            writer.write(b"POST /v1/chat/completions HTTP/1.0\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            await reader.readuntil(b"two")
            began = time.perf_counter()
            writer.transport.abort()
            await simulator.report.wait_for(partial(has_aborted, number))
            slowest = max(slowest, time.perf_counter() - began)
        await app.stop()
    print(f"\nhang-up to closed upstream: at most {slowest * 1000:.1f} ms")
    assert slowest < 0.1
