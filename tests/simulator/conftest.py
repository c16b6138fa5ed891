"""A running simulator, and a client that sends valid calls unless told otherwise."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import aiohttp
import pytest

from proxy.simulator import Simulator

CHAT_PATHS = {
    "openai": "/v1/chat/completions",
    "anthropic": "/v1/messages",
    "huggingface": "/v1/chat/completions",
    "ollama": "/api/chat",
    "vllm": "/v1/chat/completions",
    "rayserve": "/v1/chat/completions",
}
BODIES: dict[str, dict[str, Any]] = {
    "openai": {"model": "gpt-4o-mini"},
    "anthropic": {"model": "claude-haiku-4-5", "max_tokens": 1000},
    "huggingface": {"model": "openai/gpt-oss-120b"},
    "ollama": {"model": "qwen3:latest", "stream": False},
    "vllm": {"model": "Qwen/Qwen3-8B"},
    "rayserve": {"model": "meta-llama/Llama-3.1-8B-Instruct"},
}
HEADERS: dict[str, dict[str, str]] = {"anthropic": {"anthropic-version": "2023-06-01"}}


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
        asked = {"messages": [{"role": "user", "content": "How is the weather in Paris?"}]}
        body = BODIES[dialect] | asked | dict(fields or {})
        sent = HEADERS.get(dialect, {}) | dict(headers or {})
        if behaviour is not None:
            sent["x-simulate"] = behaviour
        for name in without:
            body.pop(name, None)
            sent.pop(name, None)
        url = f"{simulator.url}/{dialect}{CHAT_PATHS[dialect]}"
        return await client.post(url, json=body, headers=sent, allow_redirects=False)

    return send


@pytest.fixture
def post_to(simulator: Simulator, client: aiohttp.ClientSession) -> Callable[..., Awaitable[aiohttp.ClientResponse]]:
    """Post a body to a path below the simulator, `behaviour` is the header's text."""

    async def send(path: str, body: Any, *, behaviour: str | None = None) -> aiohttp.ClientResponse:
        headers = {} if behaviour is None else {"x-simulate": behaviour}
        return await client.post(f"{simulator.url}{path}", json=body, headers=headers)

    return send
