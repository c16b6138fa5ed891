"""Calls that began before a reload end as if there had been none; connections live as long as somebody needs them."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from proxy.simulator import Behaviour, Simulator
from tests.conftest import last_call
from tests.reload.conftest import Live, StartLive, Tree, one, route, upstream
from tests.waiting import until

SLOW = Behaviour(tokens=20, token_seconds=0.02)
CHANGES = ("the key", "the address's query", "the upstream is gone", "the route is gone", "the upstream's name")


def changed(simulator: Simulator, change: str) -> Tree:
    """The configuration after a change."""
    if change == "the key":
        return one(simulator, settings={"api_key": "sk-new"})
    if change == "the address's query":
        return one(simulator, settings={"query": {"v": "2"}})
    if change == "the route is gone":
        return one(simulator, name="two")
    tree = one(simulator, upstreams={"b": upstream(simulator, "ollama" if "gone" in change else "openai")})
    tree["routes"] = [route("two" if "gone" in change else "one", "b")]
    return tree


@asynccontextmanager
async def streaming(sidecar: Live, simulator: Simulator, model: str = "one") -> AsyncIterator[aiohttp.ClientResponse]:
    """A stream whose first bytes have come."""
    simulator.script("openai", SLOW)
    async with await sidecar.chat(model, stream=True) as response:
        assert response.status == 200
        assert await response.content.readline()
        yield response


async def rest(response: aiohttp.ClientResponse) -> int:
    """Contents until the end of a stream that ends well."""
    body = (await response.content.read()).decode()
    assert body.endswith("data: [DONE]\n\n")
    events = [json.loads(line[6:]) for line in body.splitlines() if line.startswith("data: {")]
    assert not any("error" in event for event in events)
    return sum(bool(event["choices"] and event["choices"][0]["delta"].get("content")) for event in events)


@pytest.mark.parametrize("change", CHANGES)
async def test_an_open_stream_ends_well(live: StartLive, simulator: Simulator, change: str) -> None:
    """A stream goes on to its end while its upstream, key, address or route changes or goes."""
    sidecar = await live(one(simulator))
    async with streaming(sidecar, simulator) as response:
        await sidecar.take(changed(simulator, change))
        assert simulator.report.open_calls == 1
        assert await rest(response) >= 15
    (line,) = await sidecar.lines.wait_for(1)
    assert (line["outcome"], line["route"], line["upstream"]) == ("ok", "one", "a")
    assert simulator.report.aborted == 0


@pytest.mark.parametrize("change", CHANGES)
async def test_retries_go_by_the_old_one(live: StartLive, simulator: Simulator, change: str) -> None:
    """A call that fails after the reload is repeated and fails over as it was configured when it began."""
    tree = one(simulator)
    tree["upstreams"] |= {"spare": upstream(simulator, "vllm", api_key="sk-spare")}
    tree["routes"][0] |= {"fallback": [{"upstream": "spare", "model": "old-model"}], "retry": {"attempts": 3}}
    sidecar = await live(tree)
    stuck = Behaviour(delay_seconds=0.2, status=503)
    simulator.script("openai", stuck)
    call = asyncio.create_task(sidecar.told())
    await simulator.report.wait_for(lambda report: report.open_calls == 1)
    await sidecar.take(changed(simulator, change))
    status, _, headers = await call
    assert (status, headers["x-octet-upstream"], headers["x-octet-attempts"]) == (200, "spare", "2")
    seen = last_call(simulator)
    assert (seen.headers["authorization"], json.loads(seen.body)["model"]) == ("Bearer sk-spare", "old-model")
    await simulator.report.wait_for(lambda report: report.dialects["vllm"].open_connections == 0)  # it is of nobody


async def test_a_repeat_uses_the_old_key(live: StartLive, simulator: Simulator) -> None:
    """An attempt made after the reload by a call from before it goes with the call's own key and address."""
    sidecar = await live(one(simulator, settings={"query": {"v": "1"}}))
    tree = one(simulator, settings={"query": {"v": "1"}})
    tree["routes"][0]["retry"] = {"attempts": 2, "first_wait_seconds": 0.001}
    await sidecar.take(tree)
    simulator.script("openai", Behaviour(delay_seconds=0.2, cut="before_headers"))
    call = asyncio.create_task(sidecar.told())
    await simulator.report.wait_for(lambda report: report.open_calls == 1)
    await sidecar.take(one(simulator, settings={"query": {"v": "2"}, "api_key": "sk-new"}))
    assert (await call)[0] == 200
    old = last_call(simulator)
    assert (await sidecar.told())[0] == 200
    new = last_call(simulator)
    assert (old.query, old.headers["authorization"]) == ("v=1", "Bearer sk-ours")
    assert (new.query, new.headers["authorization"]) == ("v=2", "Bearer sk-new")
    await simulator.report.wait_for(lambda report: report.open_connections == 1)  # the retired one's are closed


async def test_the_new_one_holds_at_once(live: StartLive, simulator: Simulator) -> None:
    """While old streams go on, the next call goes by the new configuration, also on a kept-alive connection."""
    sidecar = await live(one(simulator))
    async with streaming(sidecar, simulator) as response:
        await sidecar.take(one(simulator, settings={"headers": {"x-team": "new"}}))
        assert (await sidecar.told())[0] == 200
        assert last_call(simulator).headers["x-team"] == "new"
        assert await rest(response) >= 15
    calls = (await sidecar.ask("GET", "/admin/calls"))[1]["calls"]
    assert sorted(call["generation"] for call in calls) == [1, 2]


async def test_connections_of_the_unchanged_are_reused(live: StartLive, simulator: Simulator) -> None:
    """Changes that a connection does not depend on (keys, headers, limits, routes) leave it open."""
    sidecar = await live(one(simulator))
    opened: list[int] = []
    for number in range(10):
        settings = {"api_key": f"sk-{number}", "headers": {"x-n": str(number)}, "limits": {"concurrent": 5 + number}}
        await sidecar.take(one(simulator, settings=settings, name=f"route-{number}"))
        assert (await sidecar.told(f"route-{number}"))[0] == 200
        opened.append(simulator.report.open_connections)
    assert opened == [1] * 10


async def test_idle_connections_of_the_changed_are_closed(live: StartLive, simulator: Simulator) -> None:
    """Those that wait for a call that will not come are closed at once; those in use when their call has ended."""
    sidecar = await live(one(simulator))
    await asyncio.gather(*(sidecar.told() for _ in range(4)))
    async with streaming(sidecar, simulator) as response:
        assert simulator.report.open_connections >= 1
        await sidecar.take(one(simulator, settings={"query": {"v": "2"}}))
        await simulator.report.wait_for(lambda report: report.open_connections == 1)
        assert await sidecar.metric("octet_connections", upstream="a", state="active") == 0
        assert await rest(response) >= 15
    await simulator.report.wait_for(lambda report: report.open_connections == 0)


async def test_a_hangup_after_the_reload(live: StartLive, simulator: Simulator) -> None:
    """A caller who leaves a stream of an upstream that is gone frees its connection there."""
    sidecar = await live(one(simulator))
    async with streaming(sidecar, simulator) as response:
        await sidecar.take(changed(simulator, "the upstream is gone"))
        response.close()
    await simulator.report.wait_for(lambda report: report.aborted == 1 and report.open_connections == 0)
    (line,) = await sidecar.lines.wait_for(1)
    assert line["outcome"] == "hangup"


async def test_a_queue_is_served_on(live: StartLive, simulator: Simulator) -> None:
    """Calls that wait for a place of a limit that did not change get it, in the old and in the new generation."""
    sidecar = await live(one(simulator, settings={"limits": {"concurrent": 1}}))
    async with streaming(sidecar, simulator) as response:
        old = asyncio.create_task(sidecar.told())
        await queued(sidecar, 1)
        await sidecar.take(one(simulator, settings={"limits": {"concurrent": 1}, "api_key": "sk-new"}))
        new = asyncio.create_task(sidecar.told())
        await queued(sidecar, 2)
        assert simulator.report.calls == 1
        await rest(response)
    assert [(await each)[0] for each in (old, new)] == [200, 200]
    keys = [seen.headers["authorization"] for seen in simulator.report.requests if seen.method == "POST"]
    assert keys == ["Bearer sk-ours", "Bearer sk-ours", "Bearer sk-new"]


async def queued(sidecar: Live, count: int) -> None:
    """Until so many wait for a place at `a`."""

    def waiting() -> bool:
        slots = sidecar.app.upstreams.now.limiters["upstream", "a"].slots
        return slots is not None and slots.waiting == count

    await until(waiting)
