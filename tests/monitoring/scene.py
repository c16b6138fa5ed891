"""A sidecar to which everything happens that a dashboard shows: a configuration, and rounds of calls."""

import asyncio
from typing import Any, Self

import aiohttp

from proxy.simulator import Simulator
from tests.conftest import STEADY
from tests.reload.conftest import Live

Tree = dict[str, Any]

ANTHROPIC = {"upstream": "second", "model": "claude-haiku-4-5"}
PRICES = {"*": {"input_per_million": 1000, "output_per_million": 5000}}
FAULTS = {  # upstreams of OpenAI's dialect, and what is wrong with each
    "good": "",
    "slow": "first_token_seconds=0.3",
    "broken": "status=503",
    "flaky": "status=500",
    "throttling": "status=429; retry_after=0.01",
    "refusing": "status=401",
    "cutting": "cut=2",
    "narrow": "delay_seconds=0.05",
    "endless": "token_seconds=0.2; tokens=500",
}


def configuration(simulator: Simulator, redis_url: str) -> Tree:
    """One route for each trouble, by its upstream's name; `broken` alone has a circuit that opens."""
    upstreams: dict[str, Tree] = {
        name: {
            "provider": "openai", "base_url": simulator.base_url("openai"), "api_key": "sk-ours", "circuit": STEADY,
            "headers": {"x-simulate": fault} if fault else {}, "prices": PRICES,
        }
        for name, fault in FAULTS.items()
    }  # fmt: skip
    anthropic = {"provider": "anthropic", "base_url": simulator.base_url("anthropic"), "api_key": "sk-ours"}
    upstreams["second"] = {**anthropic, "circuit": STEADY}  # without prices
    upstreams["good"] |= {"max_connections": 20, "limits": {"requests_per_minute": 100_000, "concurrent": 50}}
    upstreams["broken"] |= {"circuit": {"window": 10, "minimum_calls": 5}}
    upstreams["narrow"] |= {"limits": {"concurrent": 1, "queue": 50}}
    routes: dict[str, Tree] = {name: {"targets": [_target(name)], "retry": {"attempts": 1}} for name in FAULTS}
    for name in ("broken", "throttling"):
        routes[f"{name}-saved"] = {"targets": [_target(name), ANTHROPIC]}
    routes["flaky"]["retry"] = {"attempts": 3, "first_wait_seconds": 0.001, "longest_wait_seconds": 0.01}
    routes["good"] |= {"cache": {"ttl_seconds": 600}, "budget": {"daily_usd": 1000, "monthly_usd": 9000}}
    routes["slow"]["cache"] = {"any_temperature": True}
    routes["hedged"] = {"targets": [_target("slow"), ANTHROPIC], "hedge": {"after_seconds": 0.02, "budget": 1}}
    routes["mirrored"] = {"targets": [_target("good")], "mirror": {**ANTHROPIC, "share": 1}}
    callers = [
        {"name": "app", "key": "key-app", "limits": {"requests_per_minute": 100_000, "tokens_per_minute": 10_000_000}},
        {"name": "tight", "key": "key-tight", "limits": {"requests_per_minute": 1}, "budget": {"daily_usd": 0.5}},
    ]
    return {
        "server": {"listen": "127.0.0.1:0", "admin": "127.0.0.1:0", "drain_seconds": 2.0, "callers": callers},
        "redis": {"url": redis_url, "timeout_seconds": 5},
        "cache": {"memory": {"max_bytes": 20_000}, "redis": {"timeout_seconds": 5}},
        "upstreams": upstreams,
        "routes": [{"name": name, "match": {"model": name}, **rules} for name, rules in routes.items()],
    }


def _target(upstream: str) -> Tree:
    return {"upstream": upstream, "model": "gpt-4o-mini"}


class Callers:
    """Applications that call the sidecar, and do not mind what they get."""

    def __init__(self, sidecar: Live) -> None:
        self._sidecar = sidecar.url
        self._url = f"{sidecar.url}/v1/chat/completions"
        self._asked = 0

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True)
        )  # a cut stream ends its own
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()

    async def ask(self, model: str, content: Any = None, *, key: str = "key-app", **fields: Any) -> int:
        """The status of a call; with a text of its own unless one is given."""
        self._asked += 1
        content = f"Question {self._asked}" if content is None else content
        body = {"model": model, "messages": [{"role": "user", "content": content}], **fields}
        async with self._http.post(self._url, json=body, headers={"authorization": f"Bearer {key}"}) as response:
            await response.read()
            return response.status

    async def hang_up(self) -> None:
        """Leave in the middle of a stream."""
        body = {"model": "endless", "stream": True, "messages": [{"role": "user", "content": "For ever"}]}
        async with self._http.post(self._url, json=body, headers={"authorization": "Bearer key-app"}) as response:
            while b'"content":"' not in (line := await response.content.readline()):
                assert line, "it has ended by itself"

    async def round(self) -> None:
        """A bit of everything."""
        ask = self.ask
        for model, count in (("broken", 6), ("broken-saved", 2), ("throttling-saved", 2), ("throttling", 2)):
            for _ in range(count):
                await ask(model)
        for model in ("good", "flaky", "refusing", "mirrored", "hedged", "cutting", "second/claude-haiku-4-5"):
            await ask(model)
            await ask(model, stream=True)
        for _ in range(3):
            await ask("good", "The same as ever", temperature=0)
            await ask("good", temperature=0)
            await ask("good", key="key-tight")
        await ask("good", 5)  # the caller's own mistake
        await ask("good", key="key-of-nobody")
        await asyncio.gather(*(ask("slow", f"Together {self._asked}", stream=True) for _ in range(3)))
        await asyncio.gather(*(ask("narrow") for _ in range(3)))
        await self.hang_up()
        await self._http.get(f"{self._sidecar}/v1/nowhere")
