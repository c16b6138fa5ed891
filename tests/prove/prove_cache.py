"""What the cache costs and saves, on real processes and a real Redis: `make prove`."""

import asyncio
import json
import random
import statistics
import time
from collections import Counter
from itertools import accumulate
from typing import Any

import aiohttp

from proxy.simulator import Behaviour, Simulator
from tests.bench import load
from tests.bench.subjects import free_port
from tests.prove.prove_figures import memory
from tests.prove.prove_resilience import Serve, redis, serve, simulator
from tests.redis_server import RedisServer

__all__ = ["redis", "serve", "simulator"]  # fixtures

KEPT = {"any_temperature": True}
PRICES = {"prices": {"*": {"input_per_million": 0.15, "output_per_million": 0.6}}}


def route(**rules: Any) -> list[dict[str, Any]]:
    return [{"name": "kept", "targets": [{"upstream": "a"}], "cache": KEPT | rules}]


async def ask(session: aiohttp.ClientSession, url: str, prompt: str, **fields: Any) -> tuple[str, float]:
    """Where the answer came from, and its seconds."""
    body = {"model": "m", "messages": [{"role": "user", "content": prompt}], **fields}
    began = time.perf_counter()
    async with session.post(f"{url}/chat/completions", json=body) as response:
        await response.read()
        assert response.status == 200
        return response.headers["x-octet-cache"], time.perf_counter() - began


async def test_a_hit_in_redis(serve: Serve, redis: RedisServer) -> None:
    """It adds less than a millisecond to a hit in memory."""
    _, near = await serve(routes=route(), cache={"redis": {"url": redis.url}})
    _, far = await serve(routes=route(), cache={"redis": {"url": redis.url}, "memory": {"max_bytes": 1}})
    async with aiohttp.ClientSession() as session:
        await ask(session, near, "hi")
        while (await ask(session, far, "hi"))[0] != "redis":
            pass
        times: dict[str, list[float]] = {"memory": [], "redis": []}
        for _ in range(1000):
            for url in (near, far):
                tier, seconds = await ask(session, url, "hi")
                times[tier].append(seconds)
    p50 = {tier: 1000 * statistics.median(seconds) for tier, seconds in times.items()}
    print(f"\nhits, p50: memory {p50['memory']:.2f} ms, Redis {p50['redis']:.2f} ms")
    assert p50["redis"] - p50["memory"] < 1.0


async def test_all_hang_up(serve: Serve, simulator: Simulator) -> None:
    """When the last of 200 readers of one stream leaves, the upstream sees it within 100 ms."""
    simulator.always("openai", Behaviour(text="word " * 20, stall=5))
    _, url = await serve(routes=route())
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        readers = [await session.post(f"{url}/chat/completions", json=body) for _ in range(200)]
        assert Counter(each.headers["x-octet-cache"] for each in readers) == {"miss": 1, "joined": 199}
        assert simulator.report.calls == 1
        for each in readers:
            each.close()
        began = time.perf_counter()
        await simulator.report.wait_for(lambda report: report.aborted == 1)
    took = time.perf_counter() - began
    print(f"\n200 readers hung up: the upstream saw it after {1000 * took:.0f} ms")
    assert took < 0.1


async def test_redis_fails_under_load(serve: Serve, redis: RedisServer) -> None:
    """Killed, restarted, frozen, flushed, full: no call fails, p99 stays bounded, and hits come back."""
    admin, port = f"127.0.0.1:{free_port()}", free_port()
    server = {"listen": f"127.0.0.1:{port}", "admin": admin}
    cache = {"redis": {"url": redis.url}, "memory": {"max_bytes": 1}}
    await serve(server=server, routes=route(), cache=cache)
    print()

    async def phase(name: str, seconds: float) -> float:
        """Some calls over and over; their share that Redis answered."""
        before = await lookups(admin)
        waits: list[float] = []
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            runs = (load.run(port, request(f"prompt {each}"), connections=2, rounds=20) for each in range(4))
            waits += [wait for seen in await asyncio.gather(*runs) for wait in seen.waits]
        after = await lookups(admin)
        p99, rate = 1000 * statistics.quantiles(waits, n=100)[98], len(waits) / (time.perf_counter() - began)
        hits = (after.get("hit", 0) - before.get("hit", 0)) / len(waits)
        print(
            f"{name}: {rate:.0f} calls/s, p99 {p99:.1f} ms, slowest {1000 * max(waits):.0f} ms, {hits:.0%} from Redis"
        )
        assert p99 < 100
        return hits

    await phase("warm", 1)
    assert await phase("well", 2) > 0.8
    redis.freeze()
    assert await phase("frozen", 3) == 0
    redis.thaw()
    await phase("thawed", 2)
    assert await phase("after it", 2) > 0.8
    await redis.client.flushall()
    await phase("flushed", 1)
    assert await phase("after it", 2) > 0.8
    await redis.client.config_set("maxmemory", "1")
    assert await phase("full", 2) > 0.8  # what is there can be read
    await redis.client.config_set("maxmemory", "0")
    await redis.kill()
    assert await phase("killed", 2) == 0
    await redis.start()
    await phase("restarted", 2)
    assert await phase("after it", 2) > 0.8


def request(prompt: str) -> bytes:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": prompt}]}).encode()
    return load.request("/v1/chat/completions", body)


async def lookups(admin: str) -> dict[str, float]:
    """Looks into Redis, by their results."""
    async with aiohttp.ClientSession() as session, session.get(f"http://{admin}/admin/cache") as response:
        told: dict[str, Any] = await response.json()
    found: dict[str, float] = told["lookups"].get("redis", {})
    return found


async def test_a_day_of_prompts(serve: Serve, simulator: Simulator) -> None:
    """Zipf-distributed prompts: hit rate and cost saved as the dashboard shows them, and memory within its bound."""
    simulator.always("openai", Behaviour(text="word " * 300))
    bound = 8 * 1024**2
    admin = f"127.0.0.1:{free_port()}"
    server = {"listen": "127.0.0.1:0", "admin": admin}
    process, url = await serve(PRICES, server=server, routes=route(), cache={"memory": {"max_bytes": bound}})
    weights = list(accumulate(1 / rank for rank in range(1, 20_001)))
    chance, kinds = random.Random(24), 20_000
    count = 40_000
    async with aiohttp.ClientSession() as session:
        before = memory(process)

        async def some(prompts: list[int]) -> Counter[str]:
            return Counter([(await ask(session, url, f"prompt {prompt} " * 20))[0] for prompt in prompts])

        drawn = chance.choices(range(kinds), cum_weights=weights, k=count)
        parts = await asyncio.gather(*(some(drawn[part::16]) for part in range(16)))
        async with session.get(f"http://{admin}/admin/cache") as response:
            told = await response.json()
    grown = memory(process) - before
    tiers: Counter[str] = sum(parts, Counter())
    saved, lookups = told["cost_saved_usd"]["kept"]["a"], told["lookups"]["memory"]
    free = tiers["memory"] + tiers["joined"]
    print(
        f"\n{count} calls, {len(set(drawn))} different prompts: {free / count:.1%} cost nothing "
        f"({tiers['joined']} joined), ${saved:.4f} saved; {told['memory']}; resident grew by {grown:.1f} MiB"
    )
    assert lookups["hit"] + told["joined"]["kept"] == free
    assert simulator.report.calls == tiers["miss"]
    assert free / count > 0.4
    assert 0.9 * bound < told["memory"]["bytes"] <= bound
