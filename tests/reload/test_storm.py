"""Hundreds of reloads under load: every answer is of exactly one generation, and none fails."""

import asyncio
import json
from collections import Counter
from typing import Any

from proxy.simulator import Behaviour, Simulator
from tests.reload.conftest import Live, StartLive, Tree, one, route, upstream
from tests.waiting import until

RELOADS = 200


def numbered(simulator: Simulator, number: int) -> Tree:
    """A configuration whose every part says its number: upstream, key, header, route, model and a parameter.

    Every third time an upstream changes its address too.
    """
    settings: Tree = {"api_key": f"sk-{number}", "headers": {"x-number": str(number)}, "query": {"v": str(number // 3)}}
    upstreams = {f"up-{number % 2}": upstream(simulator, **settings), "still": upstream(simulator, "vllm")}
    target = {"upstream": f"up-{number % 2}", "model": f"model-{number}", "set": {"seed": number}}
    routes = [
        {"name": f"r-{number}", "match": {"model": "any"}, "targets": [target], "retry": {"attempts": 1}},
        route("still", "still"),
    ]
    return one(simulator, upstreams=upstreams, routes=routes)


async def call(sidecar: Live, seen: Counter[int], *, stream: bool) -> None:
    """A call, whose answer names its generation by its route, its upstream and its model."""
    async with await sidecar.chat("any", stream=stream) as response:
        text = await response.text()
        assert response.status == 200, text
        route, model = response.headers["x-octet-route"], response.headers["x-octet-model"]
        number = int(route.removeprefix("r-"))
        assert (model, response.headers["x-octet-upstream"]) == (f"model-{number}", f"up-{number % 2}")
        assert not stream or text.endswith("data: [DONE]\n\n")
        assert "error" not in text
        seen[number] += 1


def check_sent(simulator: Simulator) -> int:
    """Every request that went upstream is whole: all of its parts are of one generation."""
    checked = 0
    for request in simulator.report.requests:
        if request.method == "POST" and request.dialect == "openai":
            body: Any = json.loads(request.body)
            number = body["seed"]
            assert (body["model"], request.headers["x-number"]) == (f"model-{number}", str(number))
            assert (request.headers["authorization"], request.query) == (f"Bearer sk-{number}", f"v={number // 3}")
            checked += 1
    return checked


async def test_two_hundred_reloads_under_load(live: StartLive, simulator: Simulator) -> None:
    """Calls, streams and reloads all at once: no call fails, none is of two generations, and connections are reused."""
    sidecar = await live(numbered(simulator, 1))
    simulator.always("openai", Behaviour(tokens=4, token_seconds=0.002))
    simulator.always("vllm", Behaviour(tokens=4, token_seconds=0.002))
    seen, over = Counter[int](), asyncio.Event()

    async def caller(stream: bool) -> int:
        made = 0
        while not over.is_set():
            await call(sidecar, seen, stream=stream)
            made += 1
        return made

    async def other() -> None:
        while not over.is_set():
            async with await sidecar.chat("still") as response:
                assert response.status == 200

    callers = [asyncio.create_task(caller(stream)) for stream in (True, True, False, False)]
    others = asyncio.create_task(other())
    for number in range(2, RELOADS + 2):
        told = await sidecar.reload(numbered(simulator, number))
        assert (told["ok"], told["generation"]) == (True, number)
        assert not others.done()
    over.set()
    made = sum(await asyncio.gather(*callers))
    await others
    assert made == seen.total() > RELOADS
    assert len(seen) > RELOADS // 2
    assert check_sent(simulator) > 100
    assert max(seen) <= RELOADS + 1
    assert (simulator.report.aborted, simulator.report.failed) == (0, 0)
    assert simulator.report.dialects["vllm"].open_connections <= 2  # with one that asks for its models
    assert all(line["outcome"] == "ok" for line in sidecar.lines.kept)
    await simulator.report.wait_for(lambda report: report.dialects["openai"].open_connections <= 4)


async def test_long_streams_through_many_reloads(live: StartLive, simulator: Simulator) -> None:
    """Streams that are open all the while end well, each as it was begun."""
    sidecar = await live(numbered(simulator, 1))
    simulator.always("openai", Behaviour(tokens=60, token_seconds=0.05))
    seen = Counter[int]()
    streams: list[asyncio.Task[None]] = []
    for number in range(2, 32):
        streams.append(asyncio.create_task(call(sidecar, seen, stream=True)))
        await until(lambda number=number: simulator.report.calls == number - 1)  # type: ignore[misc]
        await sidecar.take(numbered(simulator, number))
    assert simulator.report.open_calls > 10
    await asyncio.gather(*streams)
    assert seen == Counter(range(1, 31))
    assert check_sent(simulator) == 30


async def test_reloads_at_once(live: StartLive, simulator: Simulator) -> None:
    """Those who ask at the same time get one reload, and the others hear that it is in force already."""
    sidecar = await live(one(simulator))
    sidecar.write(one(simulator, name="two"))
    told = await asyncio.gather(*(sidecar.reload() for _ in range(20)))
    assert all(each["ok"] and each["generation"] == 2 for each in told)
    assert sum(bool(each["changes"]) for each in told) == 1
    assert await sidecar.metric("octet_config_reloads_total", result="loaded") == 2
    assert await sidecar.metric("octet_config_reloads_total", result="unchanged") == 19


async def test_a_file_that_flips(live: StartLive, simulator: Simulator) -> None:
    """Two versions in turn, as two who edit at once make them, and a broken one in between: nothing piles up."""
    sidecar = await live(one(simulator), watch=True)
    versions = [one(simulator, settings={"query": {"v": v}}) for v in "ab"]
    for number in range(60):
        sidecar.write(versions[number % 2] if number % 3 else "upstreams: [\n")
        assert (await sidecar.told())[0] == 200
    sidecar.write(one(simulator, name="last"))
    before = sidecar.generation
    await until(lambda: sidecar.generation > before or sidecar.app.reloader.config.routes[0].name == "last")
    assert (await sidecar.told("last"))[0] == 200
    assert len((await sidecar.ask("GET", "/admin/config"))[1]["reloads"]) <= 20
    assert simulator.report.open_connections <= 2
