"""What callers see of several workers: nothing but one sidecar."""

import asyncio
import json

from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam

from proxy.simulator import Behaviour, Simulator
from tests.strict import check_chunks, read_events
from tests.workers.conftest import Begin, one, wait_until


async def test_every_worker_serves_calls_and_streams(begin: Begin, simulator: Simulator) -> None:
    """Whichever worker a connection reaches, a call is answered and a stream comes whole."""
    fleet = await begin()
    for line in (await fleet.lines()).values():
        assert await fleet.call(session=line.session) == 200
        async with line.session.post(*fleet.asks(), json=fleet.body(stream=True)) as response:
            assert response.status == 200
            check_chunks(read_events(await response.read()), usage=False)
    assert simulator.report.completed == 6


async def test_the_official_client_sees_one_sidecar(begin: Begin) -> None:
    """The official client lists models, calls and streams over many connections."""
    fleet = await begin()
    async with AsyncOpenAI(base_url=f"{fleet.url}/v1", api_key="any", max_retries=0) as client:
        assert [model.id async for model in client.models.list()] == ["one"]
        messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hi"}]
        asked = [client.chat.completions.create(model="one", messages=messages) for _ in range(12)]
        assert all(answer.choices[0].message.content for answer in await asyncio.gather(*asked))
        stream = await client.chat.completions.create(model="one", messages=messages, stream=True)
        assert [chunk async for chunk in stream][-1].choices[0].finish_reason == "stop"


async def test_connections_are_dealt_out_among_the_workers(begin: Begin) -> None:
    """New connections reach all workers, and each of them notes its own calls."""
    fleet = await begin()
    for line in (await fleet.lines()).values():
        assert await fleet.call(session=line.session) == 200
    calls = (await fleet.ask("/admin/calls"))["calls"]
    assert sorted(call["worker"] for call in calls) == [0, 1, 2]


async def test_sticky_calls_go_to_the_same_target_from_every_worker(begin: Begin, simulator: Simulator) -> None:
    """The same user has the same target, whichever worker answers, and so has the same canary side."""
    tree = one(simulator)
    targets = [{"upstream": "a", "model": model, "weight": 1} for model in ("m0", "m1", "m2", "m3")]
    canary = {"upstream": "a", "model": "canary", "share": 0.3}
    tree["routes"] = [
        {"name": "one", "match": {"model": "one"}, "strategy": "weighted", "sticky": "user", "targets": targets,
         "canary": canary}
    ]  # fmt: skip
    fleet = await begin(tree)
    seen: dict[str, set[str]] = {}
    for line in (await fleet.lines()).values():
        for number in range(12):
            body = fleet.body(user=f"user-{number}")
            async with line.session.post(*fleet.asks(), json=body) as response:
                assert response.status == 200
                seen.setdefault(body["user"], set()).add(response.headers["x-octet-model"])
    assert all(len(models) == 1 for models in seen.values())
    assert len(set.union(*seen.values())) > 2


async def test_a_call_that_comes_back_through_another_worker_is_a_loop(begin: Begin, simulator: Simulator) -> None:
    """A call that some upstream sends back to us is refused by any worker, with 508."""
    tree = one(simulator)
    fleet = await begin(tree)
    tree["upstreams"]["self"] = {"provider": "openai", "base_url": f"{fleet.url}/v1", "api_key": "x"}
    tree["routes"].append({"name": "loop", "match": {"model": "loop"}, "targets": [{"upstream": "self"}]})
    fleet.path.write_text(json.dumps(tree))
    assert (await fleet.ask("/admin/reload", "POST"))["ok"]
    lines = await fleet.lines()
    for _ in range(4):  # each comes back over a new connection, to some worker
        for line in lines.values():
            async with line.session.post(*fleet.asks(), json=fleet.body("loop")) as response:
                assert (await response.json())["error"]["code"] == "loop_detected"
                assert response.status == 508
    calls = (await fleet.ask("/admin/calls?limit=1000"))["calls"]
    assert len({call["worker"] for call in calls}) == 3


async def test_a_call_whose_worker_was_replaced_is_a_loop_too(begin: Begin, simulator: Simulator) -> None:
    """A worker that took another's place knows the calls of the others as ours."""
    tree = one(simulator)
    fleet = await begin(tree)
    before = await fleet.pids()
    vias = set()
    for line in (await fleet.lines()).values():
        assert await fleet.call(session=line.session) == 200
        vias.add(simulator.report.requests[-1].headers["via"])
    assert len(vias) == 1
    fleet.kill(before[1])
    await wait_until(lambda: fleet.replaced(before[1]))
    line = (await fleet.lines())[1]
    headers = {"via": next(iter(vias))}
    async with line.session.post(*fleet.asks(), json=fleet.body(), headers=headers) as response:
        assert response.status == 508


async def test_long_streams_of_all_workers_at_once(begin: Begin, simulator: Simulator) -> None:
    """Many streams at once on all workers come whole, each with all of its chunks."""
    fleet = await begin()
    simulator.always("openai", Behaviour(tokens=40, token_seconds=0.005))
    session = fleet.session()

    async def stream() -> int:
        async with session.post(*fleet.asks(), json=fleet.body(stream=True)) as response:
            return len(read_events(await response.read()))

    counts = await asyncio.gather(*(stream() for _ in range(30)))
    assert set(counts) == {counts[0]}
    assert counts[0] >= 40
