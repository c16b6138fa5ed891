"""Outages, times and fleets on real processes and a real Redis: `make prove`."""

import asyncio
import re
import signal
import statistics
import time
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
import yaml

from proxy.config import Circuit as Policy
from proxy.resilience.circuit import Circuit
from proxy.simulator import Behaviour, Simulator
from tests.prove.prove_figures import octet
from tests.redis_server import RedisServer

MESSAGES: list[Any] = [{"role": "user", "content": "hi"}]
Serve = Callable[..., Awaitable[tuple[Process, str]]]


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(record=False) as running:
        yield running


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[RedisServer]:
    server = RedisServer(tmp_path)
    await server.start()
    yield server
    await server.kill()


@pytest.fixture
async def serve(tmp_path: Path, simulator: Simulator) -> AsyncIterator[Serve]:
    """Starts `octet serve` with upstreams a (openai) and b (vllm) before the simulator; gives its base URL too."""
    running: list[Process] = []

    async def started(upstream: Any = None, **tree: Any) -> tuple[Process, str]:
        whole: dict[str, Any] = {
            "server": {"listen": "127.0.0.1:0", "admin": "127.0.0.1:0"},
            "upstreams": {
                "a": {"provider": "openai", "base_url": simulator.base_url("openai"), **(upstream or {})},
                "b": {"provider": "vllm", "base_url": simulator.base_url("vllm")},
            },
            "routes": [{"name": "ab", "targets": [{"upstream": "a"}, {"upstream": "b"}]}],
            **tree,
        }
        path = tmp_path / f"octet{len(running)}.yaml"
        path.write_text(yaml.safe_dump(whole))
        process, told, _ = await octet("serve", str(path))
        running.append(process)
        url = re.search(r"base URL +(\S+)", told)
        assert url is not None
        return process, url[1]

    yield started
    for process in running:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.communicate()


async def call(session: aiohttp.ClientSession, url: str, **fields: Any) -> tuple[int, str, float]:
    """Status, upstream and seconds of a call."""
    began = time.perf_counter()
    async with session.post(f"{url}/chat/completions", json={"model": "m", "messages": MESSAGES, **fields}) as response:
        await response.read()
        return response.status, response.headers.get("x-octet-upstream", ""), time.perf_counter() - began


async def load(urls: list[str], rate: float, seconds: float) -> list[tuple[float, int, str, float]]:
    """So many calls a second, whatever becomes of them: when each began, status, upstream and seconds."""
    done: list[tuple[float, int, str, float]] = []

    async def one(session: aiohttp.ClientSession, url: str) -> None:
        began = time.perf_counter()
        done.append((began, *await call(session, url)))

    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
        began = time.perf_counter()
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
            group.create_task(one(session, urls[number % len(urls)]))
    return done


def p99(done: list[tuple[float, int, str, float]]) -> float:
    """In milliseconds."""
    return 1000 * statistics.quantiles([seconds for *_, seconds in done], n=100)[98]


async def test_five_sidecars_and_one_dead_upstream(serve: Serve, simulator: Simulator, redis: RedisServer) -> None:
    """A dies under load: what it is still sent, its trials, and what a frozen Redis costs."""
    circuit = {"circuit": {"open_seconds": 1.0}}
    shared = {"redis": {"url": redis.url}}
    urls = [(await serve(circuit, **shared))[1] for _ in range(5)]
    await load(urls, 100, 1)
    simulator.always("openai", Behaviour(status=500))
    before = simulator.report.dialects["openai"].calls
    done = await load(urls, 200, 0.5)
    first = simulator.report.dialects["openai"].calls - before
    print(f"\nA dead, 200 calls/s over five sidecars: {first} calls reach it until its circuit is open everywhere")
    assert {status for _, status, _, _ in done} == {200}
    assert first <= 5 + 200 * 0.05 + 5  # those that open it, 50 ms of calls, and one in flight at each
    before = simulator.report.dialects["openai"].calls
    done = await load(urls, 200, 4)
    trials = simulator.report.dialects["openai"].calls - before
    print(f"the next 4 s: {trials} calls reach it (open for 1 s at a time, the first failed trial ends each try)")
    assert {status for _, status, _, _ in done} == {200}
    assert 3 <= trials <= 4 * 3
    normal = await load(urls, 100, 4)
    redis.freeze()
    await asyncio.sleep(0.5)
    frozen = await load(urls, 100, 4)
    redis.thaw()
    print(f"p99 of calls: {p99(normal):.2f} ms; Redis frozen: {p99(frozen):.2f} ms")
    assert p99(frozen) - p99(normal) < 2.0
    simulator.always("openai", None)
    await asyncio.sleep(2.5)
    await load(urls, 100, 2)
    done = await load(urls, 100, 1)
    print(f"Redis back and A alive: {Counter(name for _, _, name, _ in done)}")
    assert {name for _, _, name, _ in done} == {"a"}
    assert await redis.client.hget("octet:circuit:a", "state") == b"0"


async def test_no_upstream_call_outlives_its_caller(serve: Serve, simulator: Simulator) -> None:
    """The official client gives up after 2 s on an upstream that stalls; so does the sidecar."""
    _, url = await serve()
    for stream, behaviour in (
        (False, Behaviour(stall="before_headers")),
        (True, Behaviour(stall="before_first_token")),
    ):
        simulator.always("*", behaviour)
        client = openai.AsyncOpenAI(base_url=url, api_key="any", timeout=2.0, max_retries=0)
        began = time.perf_counter()
        with pytest.raises(openai.APIError):
            await client.chat.completions.create(model="m", messages=MESSAGES, stream=stream)
        await simulator.report.wait_for(lambda report: report.open_calls == 0)
        seconds = time.perf_counter() - began
        print(f"\n{'stream' if stream else 'json'}: the last upstream call ended after {seconds:.3f} s")
        assert seconds < 2.1
        await client.close()


async def test_hedging_cuts_the_tail(serve: Serve, simulator: Simulator) -> None:
    """One first token in twenty takes 10 s: p99 with and without a second attempt."""
    tails, calls = {}, {}
    for hedge in (None, {"after_seconds": 0.2, "budget": 0.1}):
        route: dict[str, Any] = {"name": "ab", "targets": [{"upstream": "a"}, {"upstream": "b"}]}
        _, url = await serve(routes=[{**route, "hedge": hedge} if hedge else route])
        simulator.report.reset()
        for _ in range(20):
            slow, quick = Behaviour(first_token_seconds=10.0), Behaviour(first_token_seconds=0.02)
            simulator.script("openai", *(slow if number == 7 else quick for number in range(20)))
        seconds: list[float] = []
        async with aiohttp.ClientSession() as session:
            gate = asyncio.Semaphore(20)

            async def one(session: aiohttp.ClientSession, url: str, gate: asyncio.Semaphore, into: list[float]) -> None:
                async with gate:
                    into.append((await call(session, url, stream=True))[2])

            await asyncio.gather(*(one(session, url, gate, seconds) for _ in range(400)))
        tails[bool(hedge)] = statistics.quantiles(seconds, n=100)[98]
        calls[bool(hedge)] = simulator.report.calls
        simulator.clear()
    print(f"\np99 {tails[False]:.2f} s, hedged {tails[True]:.2f} s; {calls[True] - calls[False]} more calls of 400")
    assert tails[True] * 5 < tails[False]
    assert calls[True] - calls[False] <= 0.1 * 400


async def test_one_limit_for_four_sidecars(serve: Serve, simulator: Simulator, redis: RedisServer) -> None:
    """100 calls at once against 10,000 tokens a minute; then one process is killed, and its share comes back."""
    limits = {"limits": {"tokens_per_minute": 10_000}}
    tree: dict[str, Any] = {"redis": {"url": redis.url}, "routes": [{"name": "a", "targets": [{"upstream": "a"}]}]}
    started = [await serve(limits, **tree) for _ in range(4)]
    simulator.always("openai", Behaviour(tokens=475, delay_seconds=0.2))  # with its prompt 500 or so, as is estimated
    async with aiohttp.ClientSession() as session:
        began = time.perf_counter()
        done = await asyncio.gather(*(call(session, started[n % 4][1], max_tokens=480) for n in range(100)))
        served = sum(status == 200 for status, _, _ in done)
        refilled = 10_000 / 60 * (time.perf_counter() - began)
        print(f"\n{served} of 100 calls served ({served * 500} tokens, {refilled:.0f} came back meanwhile)")
        assert 10_000 - 2 * 500 <= served * 500 <= 10_000 + refilled + 500
    await asyncio.sleep(30)  # half a minute's tokens
    simulator.always("openai", Behaviour(stall="before_headers"))
    killed, url = started[0]
    async with aiohttp.ClientSession() as session:
        holding = [asyncio.create_task(call(session, url, max_tokens=980)) for _ in range(5)]
        await simulator.report.wait_for(lambda report: report.open_calls == 5)
        killed.kill()
        await killed.wait()
        at = time.perf_counter()
        for task in holding:
            task.cancel()
        simulator.always("openai", None)
        while (await call(session, started[1][1], max_tokens=4_500))[0] != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        print(f"the share of a killed process was there again after {time.perf_counter() - at:.2f} s")
        assert time.perf_counter() - at < 4.0


def test_a_circuit_costs_little() -> None:
    """Microseconds of CPU for one call through a closed circuit: the best of five."""
    circuit = Circuit("a", Policy(), time.monotonic)
    best = float("inf")
    for _ in range(5):
        began = time.process_time()
        for _ in range(100_000):
            if not circuit.wait():
                circuit.enter().judge(None)
        best = min(best, (time.process_time() - began) / 100_000)
    print(f"\na call through a circuit: {best * 1e6:.2f} us")
    assert best < 5e-6
