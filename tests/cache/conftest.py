"""Sidecars that keep answers."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from proxy.simulator import Simulator
from tests.cache.in_redis import be_patient, behind
from tests.cache.stage import Stage, staged, whole
from tests.conftest import MODELS, Sidecar, Start
from tests.redis_server import RedisServer

StartCached = Callable[..., Awaitable[Sidecar]]
Fleet = Callable[..., Awaitable[list[Sidecar]]]

FAILED = b"HTTP/1.1 500 Oh\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}"
LAST = whole(50).replace(b"\r\n", b"\r\nconnection: close\r\n", 1)  # on its connection
LONG = 30  # seconds that nobody waits in these tests


def cached_routes(**rules: Any) -> list[dict[str, Any]]:
    """A route for each dialect, all under the same rules of the cache."""
    return [
        {
            "name": name,
            "match": {"model": model},
            "targets": [{"upstream": name}],
            "retry": {"attempts": 1},
            "cache": rules,
        }
        for name, model in MODELS.items()
    ]


@pytest.fixture
async def start_cached(start: Start) -> StartCached:
    """Starts a sidecar whose routes keep answers; `rules` are the routes', the rest is the configuration's."""

    async def started(rules: dict[str, Any] | None = None, **tree: Any) -> Sidecar:
        return await start(**({"routes": cached_routes(**({"any_temperature": True} | (rules or {})))} | tree))

    return started


@pytest.fixture
async def cached(start_cached: StartCached) -> Sidecar:
    """One that keeps answers at any temperature."""
    return await start_cached()


def calls(simulator: Simulator) -> int:
    """Calls that have come to the simulator; looks at its models are none."""
    return sum(request.method == "POST" for request in simulator.report.requests)


async def body_of(response: aiohttp.ClientResponse) -> bytes:
    """A good answer's body."""
    body = await response.read()
    assert response.status == 200, body
    return body


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    """An upstream that says what it is told to."""
    async with staged() as running:
        yield running


@pytest.fixture
async def on_stage(start: Start, stage: Stage) -> StartCached:
    """Starts a sidecar in front of the stage, for any model."""

    async def started(rules: dict[str, Any] | None = None, **tree: Any) -> Sidecar:
        route = {
            "name": "staged",
            "targets": [{"upstream": "openai"}],
            "retry": {"attempts": 1},
            "cache": {"any_temperature": True} | (rules or {}),
        }
        return await start(**({"routes": [route], "upstreams": {"openai": {"base_url": stage.url}}} | tree))

    return started


def waiting(sidecar: Sidecar) -> int:
    """How many wait for a call in flight, beside those who started one."""
    return sum(len(start.flight._others) for start in sidecar.app.upstreams.starts.values())


@pytest.fixture
def fleet(start_cached: StartCached, redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """Starts sidecars that keep answers in one Redis; `rules` are the routes', the rest is the tier's."""
    be_patient(monkeypatch)

    async def started(count: int = 2, rules: dict[str, Any] | None = None, **more: Any) -> list[Sidecar]:
        return [await start_cached(rules, **behind(redis.url, **more)) for _ in range(count)]

    return started


@pytest.fixture
def askers(on_stage: StartCached, redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """Starts sidecars of which only one is to ask the stage."""
    be_patient(monkeypatch)

    async def started(count: int = 2, join_seconds: float = LONG, **tree: Any) -> list[Sidecar]:
        return [await on_stage({"join_seconds": join_seconds}, **(behind(redis.url) | tree)) for _ in range(count)]

    return started
