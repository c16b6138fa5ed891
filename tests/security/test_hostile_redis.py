"""Whoever can write to Redis, or stands in its place, runs nothing here and stops no call."""

import asyncio
import os
import pickle
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.simulator import Simulator
from tests.cache.in_redis import be_patient
from tests.conftest import Sidecar, Start
from tests.redis_server import RedisServer
from tests.security.test_exhaustion import MIB, resident
from tests.waiting import until

LIMITS = {"requests_per_minute": 1_000_000, "tokens_per_minute": 100_000_000, "concurrent": 1000}
ROUTE = {
    "name": "r", "targets": [{"upstream": "openai"}], "retry": {"attempts": 1}, "cache": {"any_temperature": True},
    "budget": {"daily_usd": 1000.0},
}  # fmt: skip


async def shared(start: Start, url: str, seconds: float = 0.05) -> Sidecar:
    """A sidecar with everything that may stand in Redis, which waits so long for it."""
    circuit = {"window": 10, "minimum_calls": 10}
    prices = {"*": {"input_per_million": 1.0, "output_per_million": 1.0}}
    callers = [{"name": "c", "key": "k", "limits": LIMITS, "budget": {"daily_usd": 1000.0}}]
    return await start(
        server={"callers": callers},
        upstreams={"openai": {"limits": LIMITS, "circuit": circuit, "prices": prices}},
        routes=[ROUTE],
        redis={"url": url, "timeout_seconds": seconds},
        cache={"redis": {"url": url, "timeout_seconds": seconds}},
    )


async def ask(sidecar: Sidecar, seed: int = 0) -> int:
    """One call."""
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}], "seed": seed}
    headers = {"authorization": "Bearer k"}
    async with sidecar.http.post(f"{sidecar.url}/v1/chat/completions", json=body, headers=headers) as response:
        await response.read()
        return response.status


class Trap:
    """What makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self._file),)


async def keys(redis: RedisServer) -> list[bytes]:
    """All that there are, once those of every kind are."""

    async def told() -> set[bytes]:
        return {name.split(b":")[1] for name in await names()}

    async def names() -> list[bytes]:
        found: Any = await redis.client.keys("octet:*")
        return list(found)

    async with asyncio.timeout(10):
        while not {b"answer", b"budget", b"limits"} <= await told():
            pass  # each look is a word with Redis
    return await names()


async def poison(redis: RedisServer, name: bytes, value: bytes) -> None:
    """Put a value in the place of each that stands under a key, and of its every field."""
    kind = await redis.client.type(name)
    if kind == b"hash":
        for field in await redis.client.hkeys(name):
            await redis.client.hset(name, field, value)
    else:
        await redis.client.set(name, value)


@pytest.mark.parametrize("kind", ["pickle", "code", "huge number", "large"])
async def test_poison_under_every_key(
    start: Start, redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Calls go on, at a process that knows better and at one that has just begun; nothing is run, or kept whole."""
    be_patient(monkeypatch)
    file = tmp_path / "run"
    value = {
        "pickle": pickle.dumps(Trap(file)),
        "code": f"__import__('os').mkdir({str(file)!r})".encode(),
        "huge number": b"9" * 400,
        "large": b"x" * MIB,
    }[kind]
    if kind == "pickle":
        pickle.loads(value)  # noqa: S301  # the trap works
        file.rmdir()
    first = await shared(start, redis.url, 5.0)
    assert await ask(first) == 200
    for name in await keys(redis):
        await poison(redis, name, value)
    before = resident()
    second = await shared(start, redis.url, 5.0)
    for sidecar in (first, second):
        told = {await ask(sidecar, seed) for seed in range(10)}
        assert told == {200} or (kind == "huge number" and told == {200, 429})  # a limit that is used up, as it says
    assert not file.exists()
    assert resident() - before < 128 * MIB


SAID = {
    "HTTP": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "nothing that is RESP": b"\x00\xff\r\n" * 100,
    "a length that is none": b"$x\r\n",
    "a length below zero": b"$-7\r\n",
    "more than there is memory": b"$9999999999999\r\n" + b"x" * 65536,
    "arrays in arrays": b"*1\r\n" * 1000,
    "another kind than asked for": b":1\r\n",
    "an error with line ends": b"-ERR a\rb\x1b[31m\r\n",
    "moved elsewhere": b"-MOVED 1 127.0.0.1:1\r\n",
    "RESP 3": b"%1\r\n+a\r\n+b\r\n",
    "a push": b">2\r\n+message\r\n+x\r\n",
}


@asynccontextmanager
async def saying(said: bytes) -> AsyncIterator[tuple[str, list[int]]]:
    """What answers every command so, without end while it is asked; its address, and how often it was asked."""
    asked = [0]

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.read(65536):
                asked[0] += 1
                writer.write(said)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0", asked
    finally:
        server.close()


@pytest.mark.parametrize("case", SAID)
async def test_no_redis_at_all(start: Start, simulator: Simulator, case: str) -> None:
    """What answers nonsense in Redis' place costs what is shared, and no call."""
    before = resident()
    async with saying(SAID[case]) as (url, asked):
        sidecar = await shared(start, url)
        await until(lambda: asked[0] > 0)
        assert {await ask(sidecar, seed) for seed in range(5)} == {200}, sidecar.lines.kept
        assert simulator.report.dialects["openai"].calls == 5
        await sidecar.close()
        sidecar.app.stop = _stopped  # type: ignore[method-assign]
    assert resident() - before < 64 * MIB


async def _stopped() -> None:
    pass
