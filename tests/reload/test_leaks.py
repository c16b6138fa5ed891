"""After many reloads there is no more of anything than after one."""

import asyncio
import gc
import weakref
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from proxy.limits.limiter import Limiter
from proxy.resilience.circuit import Circuit
from proxy.resilience.standing import Standing
from proxy.simulator import Behaviour, Simulator
from proxy.upstream.endpoint import Endpoint
from proxy.upstream.transport import Transport
from tests.conftest import MuteServer
from tests.redis_server import RedisServer
from tests.reload.conftest import Live, StartLive, Tree, one, route, upstream
from tests.waiting import until

MANY = 60
OURS = (Transport, Circuit, Standing, Limiter, Endpoint)


def renamed(simulator: Simulator, number: int) -> Tree:
    """Everything has another name than before."""
    limits = {"concurrent": 3, "requests_per_minute": 60_000}
    name = f"up-{number}"
    tree = one(simulator, upstreams={name: upstream(simulator, limits=limits)}, routes=[route(f"r-{number}", name)])
    tree["server"]["callers"] = [
        {"name": f"caller-{number}", "key": "sk-caller", "limits": {"concurrent": 2, "tokens_per_minute": 1_000_000}}
    ]
    return tree


async def call(sidecar: Live, model: str, stream: bool = False) -> int:
    body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": "Hello"}]}
    headers = {"authorization": "Bearer sk-caller"}
    async with sidecar.http.post(f"{sidecar.url}/v1/chat/completions", json=body, headers=headers) as response:
        await response.read()
        return response.status


def alive() -> Counter[str]:
    gc.collect()
    return Counter(type(each).__name__ for each in gc.get_objects() if isinstance(each, OURS))


def open_files() -> int:
    return sum(1 for _ in Path("/dev/fd").iterdir())


async def test_nothing_of_what_is_gone_is_left(
    live: StartLive, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Transports, circuits, limiters, sockets and tasks of names that are gone are gone with their calls."""
    monkeypatch.setattr("proxy.upstream.transport.IDLE_CONNECTION_SECONDS", 0.2)  # a timer holds them as long
    sidecar = await live(renamed(simulator, 0))
    assert await call(sidecar, "r-0") == 200
    objects, files, tasks = alive(), open_files(), len(asyncio.all_tasks())
    for number in range(1, MANY):
        slow = asyncio.create_task(call(sidecar, f"r-{number - 1}", stream=True))
        await sidecar.take(renamed(simulator, number))
        assert await slow in (200, 404)  # it began before or after
        assert await call(sidecar, f"r-{number}") == 200
    await simulator.report.wait_for(lambda report: report.open_connections <= 1)
    await until(lambda: len(asyncio.all_tasks()) <= tasks + 1)
    await until(lambda: alive() == objects, 20)
    assert open_files() <= files + 2


async def test_failed_reloads_leave_nothing(live: StartLive, simulator: Simulator) -> None:
    """What was made ready for a configuration that then was refused is gone."""
    sidecar = await live(one(simulator))
    assert (await sidecar.told())[0] == 200
    objects = alive()
    bad = one(simulator)
    key = sidecar.path.with_suffix(".key")
    key.write_text("")
    bad["upstreams"] |= {"new": upstream(simulator, "vllm"), "z": upstream(simulator, api_key_file=str(key))}
    del bad["upstreams"]["z"]["api_key"]
    for _ in range(MANY):
        assert not (await sidecar.reload(bad))["ok"]
    assert alive() == objects
    assert simulator.report.open_connections <= 1  # it is let go after four idle seconds


async def test_a_call_keeps_what_it_needs_and_no_longer(live: StartLive, simulator: Simulator) -> None:
    """A removed upstream's transport lives while a stream of it does, and is collected afterwards."""
    sidecar = await live(one(simulator))
    transport = weakref.ref(sidecar.app.upstreams.now.transports["a"])
    simulator.script("openai", Behaviour(tokens=10, token_seconds=0.02))
    async with await sidecar.chat("one", stream=True) as response:
        await response.content.readline()
        await sidecar.take(renamed(simulator, 1))
        gc.collect()
        assert transport() is not None
        await response.read()
    await sidecar.lines.wait_for(1)
    await until(lambda: gc.collect() is not None and transport() is None, 20)


async def test_gauges_of_what_is_gone(live: StartLive, simulator: Simulator) -> None:
    """Gauges show what there is now: no circuit, pool, place or level of a name, or a limit, that is gone."""
    sidecar = await live(renamed(simulator, 0))
    gauges = ("octet_connections", "octet_circuit_state", "octet_slots", "octet_queue_length", "octet_limit_remaining")

    async def names(number: int) -> tuple[list[str], set[str]]:
        series = await sidecar.series(lambda line: line.startswith(gauges))
        parts = {part for line in series for part in line.split('"')[1::2]}
        return [line.replace(f"-{number}", "-N") for line in series], {part for part in parts if "-" in part}

    first, _ = await names(0)
    for number in (1, 2):
        await sidecar.take(renamed(simulator, number))
        assert await names(number) == (first, {f"up-{number}", f"caller-{number}"})
    await sidecar.take(one(simulator))
    assert not await sidecar.series(lambda line: line.startswith(gauges[2:]))


async def test_series_of_names_are_bounded(live: StartLive, simulator: Simulator) -> None:
    """Counters outlive their names for a while, but not for ever: the tenth rename is the last that is told."""
    sidecar = await live(renamed(simulator, 0))

    async def told() -> int:
        series = await sidecar.series(lambda line: line.startswith(("octet_calls_total", "octet_attempts_total")))
        return len({part for line in series for part in line.split('"')[1::2] if part.startswith(("r-", "up-"))})

    for number in range(1, 40):
        await sidecar.take(renamed(simulator, number))
        if number % 10 == 0:
            assert await call(sidecar, f"r-{number}") == 200
    assert await told() == 2 * (10 + 1)


async def test_series_of_models_are_bounded(live: StartLive, simulator: Simulator) -> None:
    """A route whose target's model changes with each reload leaves no more series behind than one that is renamed."""
    sidecar = await live(one(simulator))
    for number in range(40):
        await sidecar.take(one(simulator, routes=[route("one", {"upstream": "a", "model": f"model-{number}"})]))
    series = await sidecar.series(lambda line: line.startswith("octet_calls_total"))
    assert len(series) <= 11


async def test_series_of_callers_are_bounded(live: StartLive, simulator: Simulator) -> None:
    """Callers that come and go leave no more series behind than routes do."""
    sidecar = await live(renamed(simulator, 0))
    for number in range(40):
        tree = renamed(simulator, number)
        tree["server"]["callers"][0]["limits"] = {"requests_per_minute": 1}
        await sidecar.take(tree)
        assert [await call(sidecar, f"r-{number}") for _ in range(2)] == [200, 429]
    series = await sidecar.series(lambda line: line.startswith("octet_limited_total"))
    assert len(series) <= 11


def shared(simulator: Simulator, redis: RedisServer, number: int) -> Tree:
    return {**renamed(simulator, number), "redis": {"url": redis.url, "timeout_seconds": 1.0}}


async def test_links_to_redis_are_let_go(live: StartLive, simulator: Simulator, redis: RedisServer) -> None:
    """Circuits and limits that are gone are linked no longer: there are as many links as things to share."""
    sidecar = await live(shared(simulator, redis, 0))
    resources = sidecar.app.upstreams
    await until(lambda: resources._shared is not None and resources._shared.up)
    for number in range(1, 10):
        await sidecar.take(shared(simulator, redis, number))
        assert await call(sidecar, f"r-{number}") == 200
    assert len(resources._links) + len(resources._shares) == 3  # a circuit, an upstream's limits, a caller's
    await until(lambda: not resources._leaving)


async def test_nobody_listens_for_what_is_gone(live: StartLive, simulator: Simulator, redis: RedisServer) -> None:
    """Of a name that is gone nothing is listened for in Redis."""
    sidecar = await live(shared(simulator, redis, 0))
    resources = sidecar.app.upstreams
    for number in range(1, 10):
        await sidecar.take(shared(simulator, redis, number))
    heard: Any = resources._shared
    await until(lambda: not resources._leaving)
    assert len(heard._heard) == 3


async def test_reloads_while_nobody_answers(live: StartLive, simulator: Simulator, mute_server: MuteServer) -> None:
    """A call stuck in a TLS handshake with an upstream that was taken out ends when its caller goes."""
    settings = {"base_url": f"https://{mute_server.address}/v1", "timeouts": {"connect_seconds": 60}}
    sidecar = await live(one(simulator, settings=settings))
    stuck = asyncio.create_task(sidecar.told())
    await mute_server.met.wait()
    await sidecar.take(one(simulator))
    assert (await sidecar.told())[0] == 200
    stuck.cancel()
    await asyncio.wait([stuck])
    await mute_server.left.wait()
