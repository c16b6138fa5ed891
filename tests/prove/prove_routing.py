"""Reloads under load, how soon changes are noticed, and how calls leave who is slow: `make prove`."""

import asyncio
import re
import signal
import statistics
import time
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import pytest
import yaml

from proxy.call import Call, Caller
from proxy.config.load import build
from proxy.config.source import Document
from proxy.openai_format.estimate import Estimate
from proxy.openai_format.members import find_members
from proxy.providers import traits
from proxy.routing import Router
from proxy.simulator import Behaviour, Simulator
from tests.prove.prove_figures import descriptors, memory, octet
from tests.routing.scene import World

MESSAGES: list[Any] = [{"role": "user", "content": "hi"}]
Serve = Callable[[dict[str, Any]], Awaitable["Served"]]


class Served:
    """A running `octet serve`, its file and its addresses."""

    def __init__(self, process: Process, path: Path, told: str) -> None:
        self.process, self.path = process, path
        self.url, self.admin = (re.search(rf"{name} +(http://[^/]+)", told)[1] for name in ("base URL", "admin"))  # type: ignore[index]
        self.said: list[bytes] = []
        self.reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        """A pipe that nobody reads would hold the process up."""
        assert self.process.stderr is not None
        while line := await self.process.stderr.readline():
            self.said.append(line)

    async def generation(self, session: aiohttp.ClientSession) -> int:
        async with session.get(f"{self.admin}/admin/config") as response:
            return int((await response.json())["generation"])


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(record=False) as running:
        yield running


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    running: list[Served] = []

    async def started(tree: dict[str, Any]) -> Served:
        path = tmp_path / f"octet{len(running)}.yaml"
        path.write_text(yaml.safe_dump(tree))
        process, told, _ = await octet("serve", str(path))
        running.append(Served(process, path, told))
        asyncio.get_running_loop().create_task(_drain(process))
        return running[-1]

    yield started
    for served in running:
        served.process.send_signal(signal.SIGTERM)
        await served.process.wait()
        await served.reading


async def _drain(process: Process) -> None:
    assert process.stdout is not None
    while await process.stdout.read(1 << 16):
        pass


def tree(simulator: Simulator, **more: Any) -> dict[str, Any]:
    return {
        "server": {"listen": "127.0.0.1:0", "admin": "127.0.0.1:0", "drain_seconds": 1},
        "upstreams": {
            "a": {"provider": "openai", "base_url": simulator.base_url("openai")},
            "b": {"provider": "vllm", "base_url": simulator.base_url("vllm")},
        },
        **more,
    }


def generation(simulator: Simulator, number: int) -> dict[str, Any]:
    """A configuration whose route and model say which one it is; every tenth has an upstream more."""
    whole = tree(simulator)
    if number % 10 == 0:
        whole["upstreams"][f"c{number}"] = {**whole["upstreams"]["a"]}  # no alias
    whole["routes"] = [
        {"name": f"r{number}", "match": {"model": "m"}, "targets": [{"upstream": "a", "model": f"m{number}"}]},
        {"name": "slow", "match": {"model": "slow"}, "targets": [{"upstream": "b", "model": f"s{number}"}]},
    ]
    return whole


async def one_call(session: aiohttp.ClientSession, url: str, model: str = "m") -> tuple[int, str, str]:
    """Status, route and model."""
    body = {"model": model, "messages": MESSAGES}
    async with session.post(f"{url}/v1/chat/completions", json=body) as response:
        await response.read()
        return response.status, response.headers.get("x-octet-route", ""), response.headers.get("x-octet-model", "")


async def one_stream(session: aiohttp.ClientSession, url: str) -> bytes:
    body = {"model": "slow", "messages": MESSAGES, "stream": True}
    async with session.post(f"{url}/v1/chat/completions", json=body) as response:
        return await response.read()


async def test_a_thousand_reloads_under_load(serve: Serve, simulator: Simulator) -> None:
    """300 calls/s and 200 open streams meanwhile: none fails, none is cut, each answer is of one generation."""
    simulator.always("vllm", Behaviour(tokens=600, token_seconds=0.1))
    served = await serve(generation(simulator, 0))
    done = Counter[str]()
    waits: list[float] = []
    ended = asyncio.Event()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(None)) as session:
        streams = [asyncio.create_task(one_stream(session, served.url)) for _ in range(200)]

        async def call() -> None:
            began = time.perf_counter()
            status, route, model = await one_call(session, served.url)
            waits.append(1000 * (time.perf_counter() - began))
            done["good" if status == 200 and route[1:] == model[1:] else f"{status} {route} {model}"] += 1

        async def load() -> None:
            began, number = time.perf_counter(), 0
            async with asyncio.TaskGroup() as group:
                while not ended.is_set():
                    await asyncio.sleep(max(0.0, began + number / 300 - time.perf_counter()))
                    group.create_task(call())
                    number += 1

        loading = asyncio.create_task(load())
        took: list[float] = []
        sizes: list[tuple[float, int]] = []
        for number in range(1, 1001):
            served.path.write_text(yaml.safe_dump(generation(simulator, number)))
            began = time.perf_counter()
            async with session.post(f"{served.admin}/admin/reload") as response:
                assert response.status == 200, await response.text()
            took.append(1000 * (time.perf_counter() - began))
            if number % 200 == 0:
                sizes.append((memory(served.process), descriptors(served.process)))
            await asyncio.sleep(0.02)
        ended.set()
        await loading
        whole = [
            body.count(b"data: ") == 602 and body.endswith(b"data: [DONE]\n\n")
            for body in await asyncio.gather(*streams)
        ]
        now = await served.generation(session)
    print(f"\n1,000 reloads: {statistics.median(took):.1f} ms each, p99 {statistics.quantiles(took, n=100)[98]:.1f} ms")
    p50, p99 = statistics.median(waits), statistics.quantiles(waits, n=100)[98]
    print(f"calls: {dict(done)}, p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    print(f"streams whole: {sum(whole)} of {len(whole)}; generation {now}")
    print(f"memory in MiB, and open files, every 200 reloads: {sizes}")
    assert set(done) == {"good"}
    assert all(whole)
    assert now == 1001
    assert sizes[-1][0] - sizes[1][0] < 8.0
    assert abs(sizes[-1][1] - sizes[1][1]) < 50


async def test_changes_are_noticed_in_time(serve: Serve, simulator: Simulator, tmp_path: Path) -> None:
    """A ConfigMap whose links swap, and a key file that rotates: within 2 s."""
    mount, key = tmp_path / "mount", tmp_path / "key"
    key.write_text("sk-0")
    for number in (1, 2):
        (mount / f"..{number}").mkdir(parents=True)
        whole = generation(simulator, number)
        whole["upstreams"]["a"]["api_key_file"] = str(key)
        (mount / f"..{number}" / "octet.yaml").write_text(yaml.safe_dump(whole))
    (mount / "..data").symlink_to("..1")
    (mount / "octet.yaml").symlink_to("..data/octet.yaml")
    process, told, _ = await octet("serve", str(mount / "octet.yaml"))
    served = Served(process, mount / "octet.yaml", told)
    draining = asyncio.create_task(_drain(process))
    async with aiohttp.ClientSession() as session:
        for change, wanted in (("ConfigMap", 2), ("key", 3)):
            began = time.perf_counter()
            if change == "key":
                key.write_text("sk-1")
            else:
                (mount / "..tmp").symlink_to("..2")
                (mount / "..tmp").rename(mount / "..data")
            while await served.generation(session) < wanted:
                pass
            seconds = time.perf_counter() - began
            print(f"\n{change}: taken over after {seconds:.2f} s")
            assert seconds < 2.0
        assert (await one_call(session, served.url))[1] == "r2"
    process.send_signal(signal.SIGTERM)
    await process.wait()
    await asyncio.gather(served.reading, draining)


async def test_calls_leave_who_is_slow(serve: Serve, simulator: Simulator) -> None:
    """One of two becomes ten times slower: within 5 s more than 80 % go to the other; then it is as quick again."""
    rule = {"name": "r", "strategy": "least_latency", "targets": [{"upstream": "a"}, {"upstream": "b"}]}
    served = await serve(tree(simulator, routes=[rule]))
    quick, slow = Behaviour(delay_seconds=0.05), Behaviour(delay_seconds=0.5)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        shares: list[tuple[str, list[float]]] = []
        for phase, behaviour, seconds in (("alike", quick, 5), ("a slow", slow, 10), ("a quick again", quick, 15)):
            simulator.always("openai", behaviour)
            simulator.always("vllm", quick)
            shares.append((phase, [await share(session, served.url) for _ in range(seconds)]))
    for phase, of_a in shares:
        print(f"\n{phase}: share of a, second by second: {[round(each, 2) for each in of_a]}", end="")
    print()
    slow_seconds = shares[1][1]
    assert statistics.mean(slow_seconds[:5]) < 0.2
    assert statistics.mean(slow_seconds[5:]) < 0.2
    assert statistics.mean(shares[2][1][-5:]) > 0.35


async def share(session: aiohttp.ClientSession, url: str) -> float:
    """The share of `a` among the calls of one second, 100 of them."""
    seen = Counter[str]()

    async def call() -> None:
        async with session.post(f"{url}/v1/chat/completions", json={"model": "m", "messages": MESSAGES}) as response:
            seen[response.headers["x-octet-upstream"]] += 1

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(100):
            await asyncio.sleep(max(0.0, began + number / 100 - time.perf_counter()))
            group.create_task(call())
    return seen["a"] / seen.total()


async def test_sticky_across_workers(serve: Serve, simulator: Simulator) -> None:
    """Whichever of three processes answers, a user's calls go to one target; the shares are the weights."""
    targets = [{"upstream": "a", "weight": 9}, {"upstream": "b", "weight": 1}]
    rule = {"name": "r", "strategy": "weighted", "sticky": "user", "targets": targets}
    whole = tree(simulator, routes=[rule])
    whole["server"]["workers"] = 3
    served = await serve(whole)
    seen: dict[str, set[str]] = {}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=20, force_close=True)) as session:

        async def call(user: str) -> None:
            body = {"model": "m", "messages": MESSAGES, "user": user}
            async with session.post(f"{served.url}/v1/chat/completions", json=body) as response:
                seen.setdefault(user, set()).add(response.headers["x-octet-upstream"])

        await asyncio.gather(*(call(f"u{number % 1000}") for number in range(4000)))
        async with session.get(f"{served.admin}/admin/calls?limit=1000") as response:
            workers = Counter(each["worker"] for each in (await response.json())["calls"])
    moved = sum(len(places) > 1 for places in seen.values())
    ours = sum(places == {"b"} for places in seen.values())
    print(f"\n1,000 users, 4,000 calls on workers {dict(workers)}: {moved} moved, {ours / 10:.1f} % on the 10 % target")
    assert not moved
    assert len(workers) == 3
    assert 70 < ours < 130


def test_routing_costs_little() -> None:
    """By the tenth rule of fifty, nine of which fit the model and not the headers: below 10 us."""
    rules: list[dict[str, Any]] = [
        {"match": {"model": "gpt-*", "headers": {"x-team": f"t{number}"}}, "targets": [{"upstream": "a"}]}
        for number in range(50)
    ]
    config = build(Document("x", {"upstreams": {"a": {"provider": "openai"}}, "routes": rules}), traits())
    router, world = Router(config, Random(1).random), World()
    body = b'{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}]}'
    call = Call("id", 0.0, body, find_members(body), "gpt-4o", False, False, Caller(), {"x-team": "t9"})
    best = min(_microseconds(router, call, world) for _ in range(5))
    print(f"\nrouting by the tenth rule of fifty: {best:.1f} us")
    assert best < 10


def _microseconds(router: Router, call: Call, world: World) -> float:
    began = time.perf_counter()
    for _ in range(10_000):
        assert router.choose(call, Estimate(call), world).route.name == "route-10"
    return (time.perf_counter() - began) * 100
