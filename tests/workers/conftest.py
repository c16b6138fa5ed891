"""Sidecars of several processes, in front of the simulated upstreams."""

import asyncio
import json
import os
import re
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from proxy.simulator import Simulator
from tests.conftest import STEADY

Tree = dict[str, Any]
ROOT = Path(__file__).parent.parent.parent
PATIENCE = 30.0
PROCESSES = 5  # of three workers: those, the one that they are forked from, and the parent


def one(simulator: Simulator, *, server: Tree | None = None, upstream: Tree | None = None, **sections: Any) -> Tree:
    """Three workers, one upstream, `a`, and one route to it, `one`."""
    listening = {"listen": "127.0.0.1:0", "admin": "127.0.0.1:0", "workers": 3, "drain_seconds": 5.0}
    openai = {"provider": "openai", "base_url": simulator.base_url("openai"), "api_key": "sk-ours", "circuit": STEADY}
    target = {"upstream": "a", "model": "gpt-4o-mini"}
    return {
        "server": {**listening, **(server or {})},
        "upstreams": {"a": {**openai, **(upstream or {})}},
        "routes": [{"name": "one", "match": {"model": "one"}, "targets": [target], "retry": {"attempts": 1}}],
        **sections,
    }


async def wait_until(holds: Callable[[], Any], patience: float = PATIENCE) -> None:
    """Return as soon as it holds, whether it says so itself or has to ask; raises TimeoutError."""
    async with asyncio.timeout(patience):
        while True:
            held = holds()
            if await held if asyncio.iscoroutine(held) else held:
                return
            await asyncio.sleep(0.01)  # other processes need the processor


def group(leader: int) -> set[int]:
    """The processes of a group that have not ended."""
    found = set[int]()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, pgrp = path.read_text().rpartition(")")[2].split()[:3]
            if int(pgrp) == leader and state not in "ZX":
                found.add(int(path.parent.name))
    return found


@dataclass
class Line:
    """A caller's only connection, and the worker at its other end."""

    session: aiohttp.ClientSession
    pid: int


@dataclass
class Fleet:
    """`octet serve` and its processes."""

    process: Process
    path: Path
    told: list[str] = field(default_factory=list)  # on stderr
    written: list[bytes] = field(default_factory=list)  # on stdout: whole lines
    sessions: list[aiohttp.ClientSession] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tasks = [asyncio.get_running_loop().create_task(each) for each in (self._hear(), self._read())]

    async def _hear(self) -> None:
        assert self.process.stderr is not None
        while line := await self.process.stderr.readline():
            self.told.append(line.decode().rstrip("\n"))

    async def _read(self) -> None:
        if self.process.stdout is not None:
            while line := await self.process.stdout.readline():
                self.written.append(line)

    def _said(self, pattern: str) -> str:
        return next(found[1] for line in self.told if (found := re.search(pattern, line)))

    @property
    def url(self) -> str:
        return self._said(r"base URL +(http://\S+)/v1")

    @property
    def admin(self) -> str:
        return self._said(r"admin +(http://\S+)/metrics")

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def heard(self, text: str) -> int:
        """How many lines of stderr hold a text."""
        return sum(text in line for line in self.told)

    def session(self, **settings: Any) -> aiohttp.ClientSession:
        """A caller; its connections are new ones, unless the settings say otherwise."""
        settings.setdefault("connector", aiohttp.TCPConnector(force_close=True, limit=0))
        self.sessions.append(aiohttp.ClientSession(**settings))
        return self.sessions[-1]

    async def call(self, model: str = "one", session: aiohttp.ClientSession | None = None, **fields: Any) -> int:
        """A call, over a new connection unless there is one; its status, once all of the answer is here."""
        async with (session or self.session()).post(*self.asks(model), json=self.body(model, **fields)) as response:
            await response.read()
            return response.status

    def asks(self, _: str = "one") -> tuple[str]:
        return (f"{self.url}/v1/chat/completions",)

    def body(self, model: str = "one", **fields: Any) -> Tree:
        return {"model": model, "messages": [{"role": "user", "content": "Hello"}], **fields}

    async def ask(self, path: str, method: str = "GET", status: int = 200, **settings: Any) -> Any:
        """What the admin side answers."""
        async with self.session().request(method, self.admin + path, **settings) as response:
            text = await response.text()
            assert response.status == status, text
            return json.loads(text) if response.content_type == "application/json" else text

    async def pids(self) -> dict[int, int]:
        """The processes of the workers, by number."""
        return {int(number): pid for number, pid in (await self.ask("/admin/config"))["workers"].items()}

    def kill(self, pid: int, number: int = signal.SIGKILL) -> None:
        """Send a signal to one of its processes."""
        assert pid in group(self.process.pid)
        os.kill(pid, number)

    async def replaced(self, *gone: int) -> bool:
        """Whether all workers are there, and these no more."""
        pids = await self.pids()
        return len(pids) == 3 and not set(gone) & set(pids.values())

    async def line(self) -> Line:
        """A connection to some worker."""
        made = socket.socket()
        session = self.session(connector=aiohttp.TCPConnector(limit=1, socket_factory=lambda _: made))
        async with session.get(f"{self.url}/healthz") as response:
            assert response.status == 200
        return Line(session, _owner(self.port, made.getsockname()[1], group(self.process.pid)))

    async def lines(self) -> dict[int, Line]:
        """A connection to every worker, by number."""
        pids = {pid: number for number, pid in (await self.pids()).items()}
        found: dict[int, Line] = {}
        while len(found) < len(pids):
            line = await self.line()
            found.setdefault(pids[line.pid], line)
        return found

    async def ended(self) -> int:
        """Its exit code, once all of its processes are gone."""
        async with asyncio.timeout(PATIENCE):
            code = await self.process.wait()
            await asyncio.wait(self.tasks)  # nobody holds its outputs any more
        await wait_until(lambda: not group(self.process.pid))
        return code

    async def close(self) -> None:
        """End whatever still runs of it."""
        for session in self.sessions:
            await session.close()
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        await self.process.wait()
        await asyncio.wait(self.tasks)


def _owner(port: int, remote: int, pids: set[int]) -> int:
    """Which process has the server's side of a connection on 127.0.0.1."""
    ends = f":{port:04X}", f":{remote:04X}"
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    inode = next(row[9] for row in rows if (row[1][-5:], row[2][-5:]) == ends)
    for pid in pids:
        with suppress(OSError):
            if any(str(each.readlink()) == f"socket:[{inode}]" for each in Path(f"/proc/{pid}/fd").iterdir()):
                return pid
    raise LookupError(f"nobody has {ends}")


Octet = Callable[..., Awaitable[Fleet]]
Begin = Callable[..., Awaitable[Fleet]]


@pytest.fixture
async def octet(tmp_path: Path) -> AsyncIterator[Octet]:
    """Starts `octet serve` with a tree as its file, in a group of its own; ends what still runs."""
    running: list[Fleet] = []

    async def started(tree: Tree, *flags: str, stdout: int = DEVNULL, command: tuple[str, ...] = ()) -> Fleet:
        path = tmp_path / f"octet-{len(running)}.yaml"
        path.write_text(json.dumps(tree))
        clean = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
        process = await asyncio.create_subprocess_exec(
            *(command or (sys.executable, "-m", "proxy")), "serve", str(path), *flags,
            stdout=stdout, stderr=PIPE, env=clean, cwd=tmp_path, start_new_session=True, limit=1 << 20,
        )  # fmt: skip
        running.append(Fleet(process, path))
        return running[-1]

    yield started
    for fleet in running:
        await fleet.close()


@pytest.fixture
def begin(octet: Octet, simulator: Simulator) -> Begin:
    """Starts one that serves; a tree, or more of the usual one."""

    async def begun(tree: Tree | None = None, *flags: str, stdout: int = DEVNULL, **more: Any) -> Fleet:
        fleet = await octet(tree or one(simulator, **more), *flags, stdout=stdout)
        await wait_until(lambda: fleet.heard("  routes ") or fleet.process.returncode is not None)
        assert fleet.process.returncode is None, "\n".join(fleet.told)
        return fleet

    return begun
