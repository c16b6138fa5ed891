"""Sidecars that keep answers."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from proxy.simulator import Simulator
from tests.cache.stage import Stage, staged
from tests.conftest import MODELS, Sidecar, Start

StartCached = Callable[..., Awaitable[Sidecar]]


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
