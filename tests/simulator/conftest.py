"""A running simulator, and a client that sends valid calls unless told otherwise."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import aiohttp
import pytest

from proxy.simulator import Simulator

CHAT_PATHS = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages", "ollama": "/api/chat"}
BODIES: dict[str, dict[str, Any]] = {
    "openai": {"model": "gpt-4o-mini"},
    "anthropic": {"model": "claude-haiku-4-5", "max_tokens": 1000},
    "ollama": {"model": "qwen3:latest", "stream": False},
}
HEADERS: dict[str, dict[str, str]] = {"openai": {}, "anthropic": {"anthropic-version": "2023-06-01"}, "ollama": {}}


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    """A simulator with nothing scripted."""
    async with Simulator() as running:
        yield running


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    """A plain HTTP client; tests need not read every body, since all are closed at the end."""
    kept: list[aiohttp.ClientResponse] = []

    class KeptResponse(aiohttp.ClientResponse):
        def __init__(self, *positional: Any, **named: Any) -> None:
            super().__init__(*positional, **named)
            kept.append(self)

    async with aiohttp.ClientSession(response_class=KeptResponse) as session:
        yield session
        for response in kept:
            response.close()


@pytest.fixture
def post(simulator: Simulator, client: aiohttp.ClientSession) -> Callable[..., Awaitable[aiohttp.ClientResponse]]:
    """Post a call: fields are added to a minimal valid body, `behaviour` is the header's text."""

    async def send(
        dialect: str,
        fields: Mapping[str, Any] | None = None,
        *,
        behaviour: str | None = None,
        headers: Mapping[str, str] | None = None,
        without: tuple[str, ...] = (),
    ) -> aiohttp.ClientResponse:
        body = {"messages": [{"role": "user", "content": "How is the weather in Paris?"}]}
        body |= BODIES[dialect] | dict(fields or {})
        sent = HEADERS[dialect] | dict(headers or {})
        if behaviour is not None:
            sent["x-simulate"] = behaviour
        for name in without:
            body.pop(name, None)
            sent.pop(name, None)
        url = f"{simulator.url}/{dialect}{CHAT_PATHS[dialect]}"
        return await client.post(url, json=body, headers=sent, allow_redirects=False)

    return send
