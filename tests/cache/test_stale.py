"""Answers past their time: given when all else fails, or while a new one is fetched."""

import asyncio
from typing import Any

import pytest

from proxy.simulator import Behaviour, Simulator
from tests.cache.conftest import StartCached, body_of, calls
from tests.cache.crowd import grow_older
from tests.cache.stage import Stage, whole
from tests.conftest import Sidecar
from tests.waiting import until

ON_ERROR = {"ttl_seconds": 10, "stale_if_error_seconds": 100}
MEANWHILE = {"ttl_seconds": 10, "stale_while_revalidate_seconds": 100}
BOTH = pytest.mark.parametrize("fields", [{}, {"stream": True}])


async def cache_of(sidecar: Sidecar, **fields: Any) -> str:
    """Where a good answer came from."""
    response = await sidecar.chat(**fields)
    await body_of(response)
    return response.headers["x-octet-cache"]


def renewing(sidecar: Sidecar) -> int:
    """How many calls are made again behind callers' backs."""
    return len(sidecar.app.pipeline._renewals._tasks)


@BOTH
async def test_a_failure_is_met_with_what_was(
    start_cached: StartCached, simulator: Simulator, fields: dict[str, Any]
) -> None:
    """When every target fails, the old answer serves, and says how old it is; then a new one takes its place."""
    sidecar = await start_cached(ON_ERROR)
    first = await body_of(await sidecar.chat(**fields))
    grow_older(sidecar, 50)
    simulator.script("openai", Behaviour(status=500))
    response = await sidecar.chat(**fields)
    assert await body_of(response) == first
    assert (response.headers["x-octet-cache"], response.headers["age"]) == ("memory", "50")
    assert await cache_of(sidecar, **fields) == "miss"
    assert await cache_of(sidecar, **fields) == "memory"
    assert calls(simulator) == 3


@pytest.mark.parametrize(
    ("seconds", "behaviour", "status"),
    [
        (50, Behaviour(status=400), 400),
        (50, Behaviour(error="model_not_found"), 404),
        (500, Behaviour(status=500), 502),
    ],
)
async def test_not_every_failure(
    start_cached: StartCached, simulator: Simulator, seconds: float, behaviour: Behaviour, status: int
) -> None:
    """What is the caller's own fault, and what is older than the route allows, is told."""
    sidecar = await start_cached(ON_ERROR)
    await cache_of(sidecar)
    grow_older(sidecar, seconds)
    simulator.script("openai", behaviour)
    assert (await sidecar.chat()).status == status


@pytest.mark.parametrize("control", ["no-cache", "no-store", "max-age=20"])
async def test_who_wants_none_gets_none(start_cached: StartCached, simulator: Simulator, control: str) -> None:
    """A caller who asks for a new answer, or a younger one, is told of the failure."""
    sidecar = await start_cached(ON_ERROR)
    await cache_of(sidecar)
    grow_older(sidecar, 50)
    simulator.script("openai", Behaviour(status=500))
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}
    url, headers = f"{sidecar.url}/v1/chat/completions", {"cache-control": control}
    assert (await sidecar.http.post(url, json=body, headers=headers)).status == 502


async def test_whoever_joined_gets_it_too(on_stage: StartCached, stage: Stage) -> None:
    """All who waited for the call that failed get what was."""
    sidecar = await on_stage(ON_ERROR)
    first = asyncio.create_task(sidecar.chat())
    (await stage.call(0)).say(whole(3))
    wanted = await body_of(await first)
    stage.calls[0].hang_up()
    grow_older(sidecar, 50)
    several = [asyncio.create_task(sidecar.chat()) for _ in range(5)]
    call = await stage.call(1)
    await until(lambda: sidecar.app._data.answering == 5)
    call.say(b"HTTP/1.1 500 no\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}")
    assert {await body_of(await each) for each in several} == {wanted}
    assert len(stage.calls) == 2


@BOTH
async def test_one_renewal_for_many(start_cached: StartCached, simulator: Simulator, fields: dict[str, Any]) -> None:
    """All get the old answer at once; behind their backs the call is made once, and its answer kept."""
    sidecar = await start_cached(MEANWHILE)
    old = await body_of(await sidecar.chat(**fields))
    grow_older(sidecar, 50)
    simulator.script("openai", Behaviour(text="new", first_token_seconds=0.2))
    answers = await asyncio.gather(*(sidecar.chat(**fields) for _ in range(30)))
    assert {await body_of(answer) for answer in answers} == {old}
    assert {answer.headers["x-octet-cache"] for answer in answers} == {"memory"}
    await until(lambda: not renewing(sidecar))
    assert b"new" in await body_of(await sidecar.chat(**fields))
    assert calls(simulator) == 2


async def test_a_renewal_that_fails(start_cached: StartCached, simulator: Simulator) -> None:
    """Nobody notices; the next call tries again."""
    sidecar = await start_cached(MEANWHILE)
    await cache_of(sidecar)
    grow_older(sidecar, 50)
    simulator.script("openai", Behaviour(status=500), Behaviour(text="new"))
    for _ in range(2):
        assert await cache_of(sidecar) == "memory"
        await until(lambda: not renewing(sidecar))
    assert b"new" in await body_of(await sidecar.chat())
    assert calls(simulator) == 3
    lines = await sidecar.lines.wait_for(6)
    told = [(line["outcome"], line["cache"]) for line in lines if line["request_id"].endswith("-renewal")]
    assert told == [("upstream_error", "miss"), ("ok", "miss")]


async def test_the_end_comes_during_a_renewal(on_stage: StartCached, stage: Stage) -> None:
    """It is broken off, and nothing is left of it."""
    sidecar = await on_stage(MEANWHILE)
    first = asyncio.create_task(sidecar.chat())
    (await stage.call(0)).say(whole(3))
    await body_of(await first)
    stage.calls[0].hang_up()
    grow_older(sidecar, 50)
    assert await cache_of(sidecar) == "memory"
    call = await stage.call(1)
    await sidecar.close()
    await until(call.left.is_set)
    assert not renewing(sidecar)
    assert not sidecar.app.upstreams.starts


async def test_who_comes_late_joins_the_renewal(on_stage: StartCached, stage: Stage) -> None:
    """A caller for whom the old answer is too old waits for the new one that is being fetched."""
    sidecar = await on_stage(MEANWHILE)
    first = asyncio.create_task(sidecar.chat())
    (await stage.call(0)).say(whole(3))
    await body_of(await first)
    stage.calls[0].hang_up()
    grow_older(sidecar, 50)
    await cache_of(sidecar)
    call = await stage.call(1)
    grow_older(sidecar, 100)
    late = asyncio.create_task(sidecar.chat())
    await until(lambda: sidecar.app._data.answering == 1)
    call.say(whole(5))
    response = await late
    assert b"xxxxx" in await body_of(response)
    assert response.headers["x-octet-cache"] in ("joined", "memory")
    assert len(stage.calls) == 2


async def test_a_renewal_is_paid_by_who_caused_it(start_cached: StartCached, simulator: Simulator) -> None:
    """Its line names the caller, and its tokens are counted once."""
    callers = [{"name": "search", "key": "sk-search-sk-search"}]
    sidecar = await start_cached(MEANWHILE, server={"callers": callers})
    headers = {"authorization": "Bearer sk-search-sk-search"}
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}
    url = f"{sidecar.url}/v1/chat/completions"
    await body_of(await sidecar.http.post(url, json=body, headers=headers))
    grow_older(sidecar, 50)
    for _ in range(3):
        await body_of(await sidecar.http.post(url, json=body, headers=headers))
    await until(lambda: not renewing(sidecar))
    lines = await sidecar.lines.wait_for(5)
    assert {line["caller"] for line in lines} == {"search"}
    assert [line["usage_source"] for line in lines].count("provider") == 2
