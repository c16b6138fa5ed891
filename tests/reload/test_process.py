"""`octet serve` and its file, as an operator has them."""

import asyncio
import json
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from proxy.simulator import Behaviour, Simulator
from tests.reload.conftest import one, written

ROOT = Path(__file__).parent.parent.parent
Serve = Callable[..., Awaitable["Served"]]


class Served:
    """A running process, and what it has said so far."""

    def __init__(self, process: Process, admin: str) -> None:
        self.process, self.admin = process, admin
        self.url, self.told = "", ""

    async def until(self, text: str) -> str:
        """What it says from now on, up to and with a line that holds the text."""
        assert self.process.stderr is not None
        told = ""
        async with asyncio.timeout(30):
            while text not in told:
                line = await self.process.stderr.readline()
                assert line, f"it ended, saying: {told}"
                told += line.decode()
        self.told += told
        return told

    async def end(self) -> tuple[int, str]:
        """Its exit code after SIGTERM, and the last that it said."""
        self.process.send_signal(signal.SIGTERM)
        _, err = await asyncio.wait_for(self.process.communicate(), 30)
        return self.process.returncode or 0, err.decode()

    async def call(self, model: str, **fields: Any) -> int:
        body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], **fields}
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self.url}/chat/completions", json=body) as response,
        ):
            await response.read()
            return response.status

    async def metric(self, name: str) -> float:
        async with aiohttp.ClientSession() as session, session.get(f"{self.admin}/metrics") as response:
            (value,) = re.findall(rf"^{name} (\S+)$", await response.text(), re.MULTILINE)
            return float(value)


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    """Starts `octet serve`; ends what still runs."""
    running: list[Process] = []

    async def started(argument: str, given: bytes = b"", **environ: str) -> Served:
        clean = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), **environ}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "proxy", "serve", argument), stdin=PIPE, stdout=PIPE, stderr=PIPE, env=clean,
            cwd=tmp_path,
        )  # fmt: skip
        running.append(process)
        assert process.stdin is not None
        process.stdin.write(given)
        process.stdin.close()
        served = Served(process, "")
        told = await served.until("metrics")
        urls = re.findall(r"http://127\.0\.0\.1:\d+", told)
        served.url, served.admin = f"{urls[0]}/v1", urls[-1]
        return served

    yield started
    for process in running:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_a_hangup_signal(serve: Serve, simulator: Simulator, tmp_path: Path) -> None:
    """SIGHUP reloads at once, good or bad, and ends nothing; streams go on, and so does the process."""
    file = tmp_path / "octet.yaml"
    file.write_bytes(written(one(simulator)))
    served = await serve("octet.yaml")
    simulator.script("openai", Behaviour(tokens=30, token_seconds=0.02))
    stream = asyncio.create_task(served.call("one", stream=True))
    await simulator.report.wait_for(lambda report: report.open_calls == 1)
    file.write_bytes(written(one(simulator, name="two")))
    served.process.send_signal(signal.SIGHUP)
    assert "configuration generation 2 (SIGHUP): routes.one removed, routes.two added" in await served.until("gen")
    assert [await served.call("two"), await served.call("one")] == [200, 404]
    file.write_text("upstreams: [")
    served.process.send_signal(signal.SIGHUP)
    told = await served.until("not YAML")
    assert "is not taken over, generation 2 stays" in told
    assert await served.metric("octet_config_last_reload_successful") == 0
    assert await served.call("two") == 200
    assert await stream == 200
    code, err = await served.end()
    assert (code, "Traceback" in err) == (0, False)


async def test_a_file_that_is_edited(serve: Serve, simulator: Simulator, tmp_path: Path) -> None:
    """Without a word to it the process notices an edit, in a file that it was given by a relative name."""
    file = tmp_path / "octet.yaml"
    file.write_bytes(written(one(simulator)))
    served = await serve("octet.yaml")
    file.write_bytes(written(one(simulator, name="two")))
    assert "generation 2 (the file has changed)" in await served.until("configuration generation")
    assert await served.call("two") == 200
    async with aiohttp.ClientSession() as session, session.get(f"{served.admin}/admin/config") as response:
        shown = json.loads(await response.read())
    assert (shown["source"], shown["generation"]) == ("octet.yaml", 2)
    assert (await served.end())[0] == 0


async def test_signals_while_it_drains(serve: Serve, simulator: Simulator, tmp_path: Path) -> None:
    """SIGHUP and edits during the drain neither end nor hang the process; the stream comes to its end."""
    file = tmp_path / "octet.yaml"
    file.write_bytes(written(one(simulator)))
    served = await serve("octet.yaml")
    simulator.script("openai", Behaviour(tokens=40, token_seconds=0.02))
    stream = asyncio.create_task(served.call("one", stream=True))
    await simulator.report.wait_for(lambda report: report.frames > 0)
    served.process.send_signal(signal.SIGTERM)
    await served.until("stopping")
    for number in range(5):
        file.write_bytes(written(one(simulator, name=f"n-{number}", settings={"query": {"v": str(number)}})))
        served.process.send_signal(signal.SIGHUP)
        await simulator.report.wait_for(lambda report, number=number: report.frames > 2 + number)  # type: ignore[misc]
    assert await stream == 200
    _, err = await asyncio.wait_for(served.process.communicate(), 30)
    assert (served.process.returncode, b"Traceback" in err, b"never retrieved" in err) == (0, False, False)
