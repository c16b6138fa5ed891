"""Callers that leave while they wait for a place, or have one: no place stays taken."""

import asyncio
import random
from typing import Any

import pytest

from proxy.simulator import Behaviour, Simulator
from tests.conftest import Sidecar, Start
from tests.edge.wire import call, connect, request

KEY, OTHER = "authorization: Bearer sk-search", "authorization: Bearer sk-other"
LONG = "one two three four five six seven eight nine ten " * 4


async def limited(start: Start, caller: int | None = None, upstream: int | None = None) -> Sidecar:
    """A sidecar with so many places for one of two callers, and for the upstream."""
    patient = {"queue": 100, "queue_seconds": 30}
    callers = [
        {"name": "search", "key": "sk-search", "limits": {**patient, "concurrent": caller}},
        {"name": "other", "key": "sk-other"},
    ]
    limits = {**patient, "concurrent": upstream}
    return await start(server={"callers": callers}, upstreams={"openai": {"limits": limits}})


async def begin(sidecar: Sidecar, key: str, **fields: Any) -> asyncio.StreamWriter:
    """A call under way."""
    _, writer = await connect(sidecar)
    writer.write(request(key, **fields))
    return writer


async def metric_is(sidecar: Sidecar, name: str, wanted: float, scope: str) -> None:
    """Returns when it is; asks again and again."""
    async with asyncio.timeout(5):
        while await sidecar.metric(name, scope=scope) != wanted:
            pass


async def check_served(sidecar: Sidecar) -> None:
    """Many calls at once are answered, one after the other where there are few places."""
    for stream in (False, True):
        answers = await asyncio.gather(*(call(sidecar, request(KEY, stream=stream)) for _ in range(20)))
        assert {head.status for head, _ in answers} == {200}


@pytest.mark.parametrize("scope", ["caller", "upstream"])
@pytest.mark.parametrize("waiter_first", [True, False])
async def test_two_leave_together(start: Start, simulator: Simulator, scope: str, waiter_first: bool) -> None:
    """A call that has the only place and one that waits for it end at the same moment: the place is free again."""
    sidecar = await limited(start, **{scope: 1})
    for turn in range(1, 6):
        simulator.script("openai", Behaviour(stall="before_headers"))
        holder = await begin(sidecar, KEY)
        await simulator.report.wait_for(lambda report: report.open_calls == 1)
        waiter = await begin(sidecar, KEY)
        await metric_is(sidecar, "octet_queue_length", 1, scope)
        for writer in (waiter, holder) if waiter_first else (holder, waiter):
            writer.transport.abort()
        await sidecar.lines.wait_for(2 * turn)
        assert await sidecar.metric("octet_slots_in_use", scope=scope) == 0
        assert await sidecar.metric("octet_queue_length", scope=scope) == 0
    await check_served(sidecar)


async def test_many_hang_ups(start: Start, simulator: Simulator) -> None:
    """1,000 callers leave at random moments, queueing or served: no place, caller's or upstream's, stays taken."""
    sidecar = await limited(start, caller=7, upstream=5)
    chance = random.Random(3)
    stalls: list[Any] = ["before_headers", "before_first_token", 1, 5, 20]

    async def leave() -> None:
        writer = await begin(sidecar, chance.choice((KEY, OTHER)), stream=chance.random() < 0.7)
        for _ in range(chance.randrange(300)):
            await asyncio.sleep(0)
        writer.transport.abort()

    for batch in range(20):
        simulator.always("openai", Behaviour(text=LONG, stall=chance.choice(stalls)) if batch % 3 else Behaviour())
        await asyncio.gather(*(leave() for _ in range(50)))
        async with asyncio.timeout(5):
            while await sidecar.metric("octet_caller_connections"):
                pass
        for scope in ("caller", "upstream"):
            assert await sidecar.metric("octet_slots_in_use", scope=scope) == 0
            assert await sidecar.metric("octet_queue_length", scope=scope) == 0
    assert simulator.report.open_calls == 0
    simulator.clear()
    await check_served(sidecar)
