"""Sidecars that keep answers."""

from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from proxy.simulator import Simulator
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
