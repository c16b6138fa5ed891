"""A sidecar in front of a simulator, both real servers on loopback."""

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import hypothesis
import pytest
from openai import AsyncOpenAI

from proxy.app import App
from proxy.config import Config
from proxy.config.load import build
from proxy.config.source import Document
from proxy.providers import traits
from proxy.simulator import Simulator
from proxy.simulator.report import SeenRequest
from proxy.telemetry import LineWriter
from tests.redis_server import RedisServer

MODELS = {
    "openai": "gpt-4o-mini",
    "anthropic": "claude-haiku-4-5",
    "huggingface": "meta-llama/Llama-3.3-70B-Instruct",
    "ollama": "qwen3",
    "vllm": "meta-llama/Llama-3.1-8B-Instruct",
    "tgi": "tgi",
    "rayserve": "qwen2.5-7b",
    "bentoml": "mistralai/Mistral-7B-Instruct-v0.3",
}
DIALECTS = tuple(MODELS)
STEADY = {"window": 10_000, "minimum_calls": 10_000}  # a circuit that stays closed: most tests are about one call


hypothesis.settings.register_profile("unhurried", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("unhurried")
gc.disable()  # while tests are collected: all of that stays


def pytest_collection_finish() -> None:
    """From now on there is garbage."""
    gc.collect()
    gc.freeze()
    gc.enable()


class Lines(LineWriter):
    """Access lines, kept instead of written."""

    def __init__(self) -> None:
        super().__init__(descriptor=-1)
        self.kept: list[dict[str, Any]] = []
        self._changed = asyncio.Event()

    def write(self, line: bytes) -> None:
        self.kept.append(json.loads(line))
        self._changed.set()

    async def wait_for(self, count: int) -> list[dict[str, Any]]:
        """The lines, once there are `count` of them."""
        async with asyncio.timeout(5):
            while len(self.kept) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.kept


@dataclass
class Sidecar:
    """A running sidecar and how to reach it."""

    app: App
    lines: Lines
    sessions: list[aiohttp.ClientSession] = field(default_factory=list)
    clients: list[AsyncOpenAI] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://{self.app.addresses[0]}"

    @property
    def admin_url(self) -> str:
        return f"http://{self.app.admin}"

    def openai(self, **settings: Any) -> AsyncOpenAI:
        """The official client, without retries of its own unless asked."""
        whole: dict[str, Any] = {"base_url": f"{self.url}/v1", "api_key": "any", "max_retries": 0} | settings
        client = AsyncOpenAI(**whole)
        self.clients.append(client)
        return client

    @property
    def http(self) -> aiohttp.ClientSession:
        """A plain client."""
        if not self.sessions:
            self.sessions.append(aiohttp.ClientSession())
        return self.sessions[0]

    async def chat(self, model: str = "gpt-4o-mini", **fields: Any) -> aiohttp.ClientResponse:
        """A call with a plain client."""
        body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], **fields}
        return await self.http.post(f"{self.url}/v1/chat/completions", json=body)

    async def metric(self, name: str, **labels: str) -> float:
        """A sample of /metrics; 0 when it is not there."""
        async with self.http.get(f"{self.admin_url}/metrics") as response:
            text = await response.text()
        wanted = {f'{label}="{value}"' for label, value in labels.items()}
        for line in text.splitlines():
            sample, _, value = line.rpartition(" ")
            if sample.partition("{")[0] == name and wanted <= set(sample.partition("{")[2].rstrip("}").split(",")):
                return float(value)
        return 0.0

    async def close(self) -> None:
        for session in self.sessions:
            await session.close()
        for client in self.clients:
            await client.close()
        await self.app.stop()


Start = Callable[..., Awaitable[Sidecar]]


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    """Simulated upstreams, nothing scripted."""
    async with Simulator() as running:
        yield running


def last_call(simulator: Simulator) -> SeenRequest:
    """The last call that arrived; not a look at the models, which comes whenever it comes."""
    return next(request for request in reversed(simulator.report.requests) if request.method == "POST")


def config_for(simulator: Simulator, tree: Mapping[str, Any]) -> Config:
    """A configuration in front of the simulator; `tree` adds to it, upstreams by their names."""
    upstreams: dict[str, Any] = {
        name: {"provider": name, "base_url": simulator.base_url(name), "api_key": "sk-ours", "circuit": STEADY}
        for name in DIALECTS
    }
    for name, settings in tree.get("upstreams", {}).items():
        upstreams[name] = {**upstreams.get(name, {}), **settings}
    routes = [
        {"name": name, "match": {"model": model}, "targets": [{"upstream": name}], "retry": {"attempts": 1}}
        for name, model in MODELS.items()
    ]
    server = {"listen": "127.0.0.1:0", "admin": "127.0.0.1:0", "drain_seconds": 2.0, **tree.get("server", {})}
    whole = {"server": server, "upstreams": upstreams, "routes": tree.get("routes", routes)}
    whole |= {name: tree[name] for name in ("redis", "cache", "tracing") if name in tree}
    return build(Document("test", whole), traits())


@pytest.fixture
async def start(simulator: Simulator) -> AsyncIterator[Start]:
    """Starts sidecars; at the end nothing of them may be left: no task, no connection to an upstream."""
    before = asyncio.all_tasks()
    running: list[Sidecar] = []

    async def started(**tree: Any) -> Sidecar:
        lines = Lines()
        app = App(config_for(simulator, tree), lines)
        await app.start()
        running.append(Sidecar(app, lines))
        return running[-1]

    yield started
    for sidecar in running:
        await sidecar.close()
    await simulator.report.wait_for(lambda report: report.open_connections == 0)
    left = {task for task in asyncio.all_tasks() - before if task is not asyncio.current_task()}
    left = {task for task in left if "simulator" not in repr(task)}
    if left:
        _, left = await asyncio.wait(left, timeout=5)  # those that are just ending
    assert not left, "tasks are left"


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[RedisServer]:
    """A Redis that is there."""
    server = RedisServer(tmp_path)
    await server.start()
    yield server
    await server.kill()


@pytest.fixture
async def sidecar(start: Start) -> Sidecar:
    """A sidecar with one route per dialect."""
    return await start()


class MuteServer(asyncio.Protocol):
    """A server that takes connections and never says a word."""

    def __init__(self) -> None:
        self.address = ""
        self.met, self.left = asyncio.Event(), asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.met.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.left.set()


@pytest.fixture
async def mute_server() -> AsyncIterator[MuteServer]:
    """An upstream with which no TLS handshake ends."""
    protocol = MuteServer()
    server = await asyncio.get_running_loop().create_server(lambda: protocol, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    protocol.address = f"{host}:{port}"
    yield protocol
    server.close()
