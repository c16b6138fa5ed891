"""Identical calls in flight: one call upstream, whoever comes late, and whoever leaves."""

import asyncio
from typing import Any

import aiohttp
import pytest

from proxy.simulator import Behaviour, Simulator
from tests.cache.conftest import StartCached, body_of, calls, waiting
from tests.cache.stage import END, STREAM_HEAD, Stage, event, whole
from tests.conftest import DIALECTS, MODELS, Sidecar
from tests.waiting import until

TEXT = "one two three four five six seven eight nine ten"


async def read_frames(response: aiohttp.ClientResponse, count: int) -> bytes:
    """The first events of a stream."""
    text = b""
    while text.count(b"\n\n") < count:
        text += await response.content.readany()
    return text


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_two_hundred_streams_are_one(cached: Sidecar, simulator: Simulator, dialect: str) -> None:
    """All get the same events, those who come late too; the upstream is called once."""
    simulator.always(dialect, Behaviour(text=TEXT, token_seconds=0.02))
    fields = {"stream": True}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        body = {"model": MODELS[dialect], "messages": [{"role": "user", "content": "Hello"}], **fields}

        async def one() -> tuple[str, bytes]:
            async with session.post(f"{cached.url}/v1/chat/completions", json=body) as response:
                assert response.status == 200
                return response.headers["x-octet-cache"], await response.read()

        answers = await asyncio.gather(*(one() for _ in range(200)))
    assert calls(simulator) == 1
    assert len({text for _, text in answers}) == 1
    assert answers[0][1].endswith(b"data: [DONE]\n\n")
    told = [cache for cache, _ in answers]
    assert told.count("miss") == 1
    assert set(told) <= {"miss", "joined", "memory"}
    assert await cached.metric("octet_flights_joined_total", route=dialect) == told.count("joined")


async def test_whole_answers_are_shared(cached: Sidecar, simulator: Simulator) -> None:
    """Fifty calls that wait for the same answer get it."""
    simulator.always("openai", Behaviour(first_token_seconds=0.3))
    answers = await asyncio.gather(*(cached.chat() for _ in range(50)))
    bodies = {await body_of(answer) for answer in answers}
    assert calls(simulator) == 1
    assert len(bodies) == 1


async def stream(sidecar: Sidecar, **fields: Any) -> aiohttp.ClientResponse:
    """A stream on a connection of its own, as far as its head has come."""
    session = aiohttp.ClientSession()
    sidecar.sessions.append(session)
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}], "stream": True, **fields}
    return await session.post(f"{sidecar.url}/v1/chat/completions", json=body)


async def test_the_starter_may_leave(on_stage: StartCached, stage: Stage) -> None:
    """Its connection is cut in the middle of the stream; the others get it all, from the same call."""
    sidecar = await on_stage()
    starting = asyncio.create_task(stream(sidecar))
    call = await stage.call()
    call.say(STREAM_HEAD + b"".join(event(f"{n} ") for n in range(5)))
    first = await starting
    await read_frames(first, 5)
    others = [await stream(sidecar) for _ in range(199)]
    await until(lambda: waiting(sidecar) == 199)
    first.close()
    await until(lambda: not start_of(sidecar).flight._present)
    call.say(event("five ") + END)
    wanted = b"".join(event(f"{n} ") for n in range(5)) + event("five ") + END
    assert {await body_of(response) for response in others} == {wanted}
    assert len(stage.calls) == 1
    lines = await sidecar.lines.wait_for(200)
    assert sorted({(line["outcome"], line["cache"]) for line in lines}) == [("hangup", "miss"), ("ok", "joined")]


async def test_with_the_last_reader_the_call_ends(on_stage: StartCached, stage: Stage) -> None:
    """When all have hung up the upstream is let go of, whoever was first."""
    sidecar = await on_stage()
    starting = asyncio.create_task(stream(sidecar))
    call = await stage.call()
    call.say(STREAM_HEAD + event("a"))
    readers = [await starting, *[await stream(sidecar) for _ in range(20)]]
    await until(lambda: waiting(sidecar) == 20)
    for reader in readers:
        reader.close()
    await asyncio.wait_for(call.left.wait(), 5)
    lines = await sidecar.lines.wait_for(21)
    assert {line["outcome"] for line in lines} == {"hangup"}
    assert not sidecar.app.upstreams.starts


async def test_a_starter_of_a_whole_answer_may_leave(on_stage: StartCached, stage: Stage) -> None:
    """Before the answer has come, it goes on for the one who joined."""
    sidecar = await on_stage()
    starting = asyncio.create_task(sidecar.chat())
    call = await stage.call()
    joining = asyncio.create_task(sidecar.chat())
    await until(lambda: waiting(sidecar) == 1)
    starting.cancel()
    await until(lambda: not start_of(sidecar).flight._present)
    call.say(whole(10))
    assert b"xxxxxxxxxx" in await body_of(await joining)
    assert len(stage.calls) == 1


def start_of(sidecar: Sidecar) -> Any:
    """The only call in flight."""
    (start,) = sidecar.app.upstreams.starts.values()
    return start
