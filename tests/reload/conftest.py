"""Sidecars that are configured by a file, which changes under them."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy.app import App
from proxy.simulator import Simulator
from proxy.sources import FileSource
from tests.conftest import STEADY, Lines, Sidecar

Tree = dict[str, Any]


def upstream(simulator: Simulator, dialect: str = "openai", **more: Any) -> Tree:
    """An upstream that the simulator plays."""
    base = {"provider": dialect, "base_url": simulator.base_url(dialect), "api_key": "sk-ours", "circuit": STEADY}
    return {**base, **more}


def route(name: str, *targets: str | Tree, **more: Any) -> Tree:
    """A route that takes calls for a model of its own name."""
    listed = [{"upstream": target, "model": "gpt-4o-mini"} if isinstance(target, str) else target for target in targets]
    return {"name": name, "match": {"model": name}, "targets": listed, "retry": {"attempts": 1}, **more}


def one(simulator: Simulator, *, name: str = "one", settings: Tree | None = None, **sections: Any) -> Tree:
    """A configuration with one upstream, `a`, and one route to it."""
    listening = {"listen": "127.0.0.1:0", "admin": "127.0.0.1:0", "drain_seconds": 2.0}
    return {
        "server": {**listening, **sections.pop("server", {})},
        "upstreams": {"a": upstream(simulator, **(settings or {}))},
        "routes": [route(name, "a")],
        **sections,
    }


def written(content: str | bytes | Mapping[str, Any]) -> bytes:
    """A file's bytes."""
    if isinstance(content, bytes):
        return content
    if isinstance(content, str):
        return content.encode()
    return yaml.safe_dump(json.loads(json.dumps(content)), sort_keys=False).encode()  # nothing twice: no aliases


@dataclass
class Live(Sidecar):
    """A sidecar and its file."""

    path: Path = field(default_factory=Path)

    @property
    def generation(self) -> int:
        return self.app.reloader.generation

    def write(self, content: str | bytes | Mapping[str, Any]) -> None:
        """Edit the file in place."""
        self.path.write_bytes(written(content))

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Status and body of a request to the admin side."""
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        data = None if body is None else io.BytesIO(text)
        async with self.http.request(method, self.admin_url + path, data=data, headers=headers) as response:
            return response.status, await response.json()

    async def reload(self, content: str | bytes | Mapping[str, Any] | None = None) -> Any:
        """What POST /admin/reload says, after an edit if there is one."""
        if content is not None:
            self.write(content)
        status, told = await self.ask("POST", "/admin/reload")
        assert status == (200 if told["ok"] else 422)
        return told

    async def take(self, content: Mapping[str, Any]) -> Any:
        """A good edit, taken over."""
        before = self.generation
        told = await self.reload(content)
        assert told["ok"], told["mistakes"]
        assert told["generation"] == self.generation == before + 1
        return told

    async def told(self, model: str = "one", **fields: Any) -> tuple[int, Any, Mapping[str, str]]:
        """Status, body and headers of a call."""
        async with await self.chat(model, **fields) as response:
            return response.status, await response.json(), response.headers

    async def series(self, pick: Callable[[str], object] = bool) -> list[str]:
        """The samples of /metrics, without their values."""
        async with self.http.get(f"{self.admin_url}/metrics") as response:
            lines = (await response.text()).splitlines()
        return [line.rpartition(" ")[0] for line in lines if not line.startswith("#") and pick(line)]

    async def counters(self) -> dict[str, float]:
        """All samples but those of the process itself."""
        async with self.http.get(f"{self.admin_url}/metrics") as response:
            lines = (await response.text()).splitlines()
        ours = [line for line in lines if line.startswith("octet_") and "lag" not in line]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in ours)}


async def _stopped() -> None:
    pass


StartLive = Callable[..., Awaitable[Live]]


@pytest.fixture
async def live(tmp_path: Path, simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StartLive]:
    """Starts sidecars on a file; they look at it all the time (`watch`), or only when they are told to.

    At the end nothing of them may be left: no task, no connection to an upstream.
    """
    before, running = asyncio.all_tasks(), list[Live]()

    async def started(content: str | Mapping[str, Any], *, watch: bool = False, path: Path | None = None) -> Live:
        monkeypatch.setattr("proxy.reload.LOOK_SECONDS", 0.01 if watch else 1e6)
        path = path or tmp_path / f"octet-{len(running)}.yaml"
        if not path.exists():
            path.write_bytes(written(content))
        source, lines = FileSource(str(path)), Lines()
        text = source.read()
        app = App(source.parse(text), lines, source, text)
        await app.start()
        running.append(Live(app, lines, path=path))
        return running[-1]

    yield started
    for sidecar in running:
        if sidecar.app.draining:  # a test has stopped it
            sidecar.app.stop = _stopped  # type: ignore[method-assign]
        await sidecar.close()
    await simulator.report.wait_for(lambda report: report.open_connections == 0)
    left = {task for task in asyncio.all_tasks() - before if task is not asyncio.current_task()}
    left = {task for task in left if "simulator" not in repr(task)}
    if left:
        _, left = await asyncio.wait(left, timeout=5)
    assert not left, "tasks are left"
