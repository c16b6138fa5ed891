"""What an operator does at three in the morning, and what happens at the same time."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from proxy.simulator import Behaviour, Simulator
from tests.conftest import last_call
from tests.reload.conftest import Live, StartLive, Tree, one, route, upstream, written
from tests.waiting import until

FAST = {"window": 4, "minimum_calls": 2, "open_seconds": 600}


async def looked(sidecar: Live, times: int = 10) -> None:
    """Until it has looked at its file so often."""
    looks, source = 0, sidecar.app.reloader._source
    read = source.read

    def counted() -> bytes | None:
        nonlocal looks
        looks += 1
        return read()

    source.read = counted  # type: ignore[method-assign]  # counted, not changed
    await until(lambda: looks >= times)


async def test_an_upstream_renamed_twice(live: StartLive, simulator: Simulator) -> None:
    """There and back again, with streams of every name open: all end well, and the first name begins anew."""

    def tree(name: str) -> Tree:
        return one(simulator, upstreams={name: upstream(simulator, circuit=FAST)}, routes=[route("one", name)])

    sidecar = await live(tree("a"))
    simulator.script("openai", *[Behaviour(status=500)] * 2)
    assert [(await sidecar.told())[0] for _ in range(3)] == [502, 502, 503]
    simulator.always("openai", Behaviour(tokens=20, token_seconds=0.02))
    streams: list[Any] = []
    for number, name in enumerate(("b", "c", "a")):
        await sidecar.take(tree(name))
        streams.append(await sidecar.chat("one", stream=True))
        await simulator.report.wait_for(lambda report, number=number: report.open_calls == number + 1)  # type: ignore[misc]
    bodies = [await response.text() for response in streams]
    assert [response.headers["x-octet-upstream"] for response in streams] == ["b", "c", "a"]
    assert all(body.endswith("data: [DONE]\n\n") for body in bodies)
    assert await sidecar.metric("octet_circuit_state", upstream="a") == 0


async def test_no_routes_any_more(live: StartLive, simulator: Simulator) -> None:
    """A file without routes is good: calls by upstream's name go on, others are told that there is no route."""
    sidecar = await live(one(simulator))
    told = await sidecar.take(one(simulator, routes=[]))
    assert told["changes"] == ["routes.one removed"]
    assert [(await sidecar.told(model))[0] for model in ("one", "a/gpt-4o-mini")] == [404, 200]
    tree = one(simulator)
    del tree["routes"]
    assert (await sidecar.reload(tree))["ok"]
    await sidecar.take(one(simulator))
    assert (await sidecar.told())[0] == 200


async def test_reload_during_the_drain(live: StartLive, simulator: Simulator) -> None:
    """While it drains a reload hangs nothing and takes nothing from the calls that are ending."""
    sidecar = await live(one(simulator))
    simulator.script("openai", Behaviour(tokens=20, token_seconds=0.02))
    response = await sidecar.chat("one", stream=True)
    await response.content.readline()
    stopping = asyncio.create_task(sidecar.app.stop())
    await until(lambda: sidecar.app.draining)
    sidecar.write(one(simulator, settings={"query": {"v": "2"}}))
    status, told = await sidecar.ask("POST", "/admin/reload")
    assert status in (200, 422, 503), told
    assert (await response.text()).endswith("data: [DONE]\n\n")
    await stopping


async def test_a_fault_of_ours_ends_no_watch(
    live: StartLive, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first https upstream meets a broken HTTPS_PROXY: the reload fails, and the next good file is taken."""
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:port")
    sidecar = await live(one(simulator), watch=True)
    sidecar.write(one(simulator, settings={"base_url": "https://127.0.0.1:1/v1"}))
    watching: Any = sidecar.app.reloader._watching
    await until(lambda: sidecar.app.reloader._attempts or watching.done())
    sidecar.write(one(simulator, name="two"))
    await until(lambda: sidecar.generation == 2, 2)


async def test_a_configuration_from_a_pipe(live: StartLive, simulator: Simulator) -> None:
    """`octet serve <(envsubst < octet.yaml)`: what can be read only once is not taken for an empty file."""
    reading, writing = os.pipe()
    os.write(writing, written(one(simulator)))
    os.close(writing)
    try:
        sidecar = await live("", watch=True, path=Path(f"/dev/fd/{reading}"))
        await looked(sidecar)
        assert sidecar.app.reloader.describe()["reloads"] == []
    finally:
        os.close(reading)


async def test_an_edit_that_is_taken_back(live: StartLive, simulator: Simulator) -> None:
    """Broken and mended within one look, or broken and mended as it was, leaves everything well."""
    sidecar = await live(one(simulator), watch=True)
    sidecar.write("upstreams: [\n")
    await until(lambda: len(sidecar.app.reloader._attempts) == 1)
    sidecar.write(one(simulator))
    while await sidecar.metric("octet_config_last_reload_successful") != 1:
        pass
    assert sidecar.generation == 1
    await looked(sidecar)
    assert await sidecar.metric("octet_config_reloads_total", result="failed") == 1


async def test_who_asks_and_goes(live: StartLive, simulator: Simulator) -> None:
    """An operator who interrupts curl in the middle of a reload leaves the next one possible."""
    sidecar = await live(one(simulator))
    for number in range(20):
        sidecar.write(one(simulator, settings={"query": {"v": str(number)}}))
        asking = asyncio.create_task(sidecar.ask("POST", "/admin/reload"))
        for _ in range(number):
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait([asking])
    assert (await sidecar.reload(one(simulator, name="two")))["ok"]
    assert (await sidecar.told("two"))[0] == 200


class Listing:
    """An upstream that lists models when it is told to, and refuses keys but one."""

    def __init__(self) -> None:
        self.may_answer, self.asked = asyncio.Event(), asyncio.Event()
        self.keys: list[str] = []
        self.good = ""
        self.url = ""

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.keys.append(request.headers.get("authorization", ""))
        self.asked.set()
        await self.may_answer.wait()
        if self.keys[-1] != self.good and self.good:
            return web.json_response({"error": {"message": "no"}}, status=401)
        return web.json_response({"object": "list", "data": [{"id": "ghost", "object": "model", "created": 1}]})


@pytest.fixture
async def listing() -> AsyncIterator[Listing]:
    """Such an upstream."""
    made = Listing()
    runner = web.ServerRunner(web.Server(made.answer), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    yield made
    made.may_answer.set()
    await runner.cleanup()


async def test_models_of_an_upstream_that_is_gone(live: StartLive, simulator: Simulator, listing: Listing) -> None:
    """A list that comes after its upstream was taken out is not shown."""
    sidecar = await live(one(simulator, settings={"base_url": listing.url, "list_models": True}))
    await listing.asked.wait()
    tree = one(simulator, upstreams={"b": upstream(simulator)}, routes=[route("one", "b")])
    await sidecar.take(tree)
    listing.may_answer.set()
    lists: Any = sidecar.app._generations.model_lists
    await until(lambda: lists._asking is None)
    async with sidecar.http.get(f"{sidecar.url}/v1/models") as response:
        assert "ghost" not in await response.text()


async def test_the_health_of_an_upstream_with_a_new_key(
    live: StartLive, simulator: Simulator, listing: Listing
) -> None:
    """An upstream that was left alone for its bad key is asked with the new one, and is back."""
    check = {"kind": "models", "interval_seconds": 0.02}
    settings = {"base_url": listing.url, "circuit": FAST, "health_check": check, "list_models": False}
    listing.good = "Bearer sk-new"
    listing.may_answer.set()
    sidecar = await live(one(simulator, settings=settings))
    assert [(await sidecar.told())[0] for _ in range(3)] == [502, 502, 503]
    await sidecar.take(one(simulator, settings={**settings, "api_key": "sk-new"}))
    circuit = sidecar.app.upstreams.now.circuits.by_upstream["a"][0]
    await until(lambda: circuit.peek() == 0, 2)


async def test_a_key_mended_at_night(live: StartLive, simulator: Simulator) -> None:
    """A bad key opens the circuit; the good one goes upstream as soon as the operator has reset it."""
    sidecar = await live(one(simulator, settings={"circuit": FAST}))
    simulator.script("openai", *[Behaviour(status=401)] * 2)
    assert [(await sidecar.told())[0] for _ in range(3)] == [502, 502, 503]
    await sidecar.take(one(simulator, settings={"circuit": FAST, "api_key": "sk-good"}))
    await sidecar.ask("POST", "/admin/upstreams/a/reset")
    assert (await sidecar.told())[0] == 200
    assert last_call(simulator).headers["authorization"] == "Bearer sk-good"


async def test_reloads_that_nobody_may_ask_for(live: StartLive, simulator: Simulator) -> None:
    """A web page, or somebody by a foreign name, reloads, reads and explains nothing."""
    sidecar = await live(one(simulator))
    sidecar.write(one(simulator, name="two"))
    for headers in ({"origin": "https://evil.example"}, {"host": "evil.example"}):
        for method, path in (
            ("POST", "/admin/reload"), ("GET", "/admin/config"), ("POST", "/admin/explain"), ("GET", "/admin/calls"),
            ("GET", "/admin/calls/x"),
        ):  # fmt: skip
            assert (await sidecar.ask(method, path, **headers))[0] == 403
    assert sidecar.generation == 1
    async with sidecar.http.post(f"{sidecar.url}/admin/reload") as response:
        assert response.status == 404
