"""A rolling restart under open streams, and what more workers bring on this machine: `make prove`."""

import asyncio
import itertools
import os
import re
import signal
import time
from asyncio.subprocess import Process
from collections import Counter
from pathlib import Path

import aiohttp
import pytest

from tests.bench.__main__ import Case, wrk_for
from tests.bench.subjects import KEY, OCTET, Subject, Workshop, free_port
from tests.prove.prove_figures import ROOT, octet

STREAMS = 100  # open at any moment
SETTINGS = "drain_delay_seconds: 2, drain_seconds: 20"
UNNOTICED_SECONDS = 1.0  # until a Service sends a pod that ends no new connections


class Pod:
    """One sidecar of several behind a Service, which keeps its address over restarts."""

    def __init__(self, folder: Path, simulator: str) -> None:
        self.port, self._file = free_port(), folder / f"{free_port()}.yaml"
        self._file.write_text(
            ROOT.joinpath("config/demo.yaml").read_text().replace("${SIMULATOR_URL}", simulator)
            + f"server: {{listen: '127.0.0.1:{self.port}', admin: '127.0.0.1:0', direct_models: true, {SETTINGS}}}\n"
        )
        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async def start(self) -> None:
        self.process, _, _ = await octet("serve", str(self._file))
        self._reading = [asyncio.create_task(emptied(self.process, name)) for name in ("stdout", "stderr")]

    async def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert await self.process.wait() == 0
        await asyncio.gather(*self._reading)


async def emptied(process: Process, name: str) -> None:
    """A pipe that nobody reads would hold the process up."""
    while await getattr(process, name).read(1 << 16):
        pass


async def one_stream(pod: Pod, model: str) -> str:
    """What became of one stream."""
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "Count."}]}
    try:
        async with pod.session.post(f"http://127.0.0.1:{pod.port}/v1/chat/completions", json=body) as response:
            text = await response.read()
    except aiohttp.ClientError as error:
        return type(error).__name__
    if response.status != 200:
        return str(response.status)
    return "whole" if text.endswith(b"data: [DONE]\n\n") else "cut"


async def test_a_rolling_restart_cuts_no_stream(tmp_path: Path) -> None:
    """Three sidecars are restarted one after the other, twice, with 100 streams open all the time: none is cut."""
    simulator, told, _ = await octet("simulate", "--listen", "127.0.0.1:0")
    url = re.search(r"(http://127.0.0.1:\d+)/ollama", told)
    assert url is not None
    pods = [Pod(tmp_path, url[1]) for _ in range(3)]
    for pod in pods:
        await pod.start()
    async with pods[0].session.put(
        f"{url[1]}/_simulator/behaviour", json={"dialect": "*", "tokens": 60, "token_seconds": 0.1}
    ) as answer:
        assert answer.status < 300
    ready, turns, over, became = list(pods), itertools.count(), asyncio.Event(), Counter[str]()
    open_streams, at_stop = 0, list[int]()

    async def caller(number: int) -> None:
        nonlocal open_streams
        model = ("gpt-4o-mini", "claude-haiku-4-5", "ollama/demo")[number % 3]
        while not over.is_set():
            open_streams += 1
            became[await one_stream(ready[next(turns) % len(ready)], model)] += 1
            open_streams -= 1

    callers = [asyncio.create_task(caller(number)) for number in range(STREAMS)]
    await asyncio.sleep(2)
    began = time.perf_counter()
    for pod in pods * 2:
        at_stop.append(open_streams)
        ending = asyncio.create_task(pod.stop())
        await asyncio.sleep(UNNOTICED_SECONDS)
        ready.remove(pod)
        await ending
        await pod.start()
        ready.append(pod)
    seconds = time.perf_counter() - began
    over.set()
    await asyncio.gather(*callers)
    print(f"\n6 restarts in {seconds:.0f} s, {min(at_stop)} streams open or more at each: {dict(became)}")
    for pod in pods:
        await pod.stop()
        await pod.session.close()
    simulator.send_signal(signal.SIGTERM)
    await simulator.communicate()
    assert min(at_stop) == STREAMS
    assert set(became) == {"whole"}


@pytest.mark.parametrize(
    "case", [Case("kept", "kept"), Case("json", "bench-600")], ids=["kept answers", "JSON calls upstream"]
)
async def test_more_workers(tmp_path: Path, case: Case) -> None:
    """Calls a second of 1, 2 and 4 workers; load and upstream take from the same two cores, so it is no scaling law."""
    rates: dict[int, float] = {}
    with Workshop(tmp_path) as shop:
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
        for workers in (1, 2, 4):
            subject = served(shop, tmp_path, workers)
            await wrk_for(subject, case, tmp_path)
            calls = [await wrk_for(subject, case, tmp_path, seconds=3) / 3 for _ in range(3)]
            rates[workers] = max(calls)
            subject.stop()
    told = ", ".join(f"{workers}: {rate:,.0f}/s ({rate / rates[1]:.2f}x)" for workers, rate in rates.items())
    print(f"\n{case.name} by workers, {os.cpu_count()} cores with load and upstream: {told}")
    assert rates[4] > 0.8 * rates[1], "more workers than cores must not cost much"


def served(shop: Workshop, folder: Path, workers: int) -> Subject:
    """The bench's sidecar with so many workers, on every core."""
    port, file = free_port(), folder / f"workers-{workers}.yaml"
    text = OCTET.format(port=port, admin=free_port(), upstream=shop.upstream_port, key=KEY)
    file.write_text(text.replace("server:\n", f"server:\n  workers: {workers}\n", 1))
    return shop.serve(f"octet-{workers}", port, file)
