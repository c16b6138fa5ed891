"""Several sidecars, the same call at the same time: one asks upstream, the others wait for what it keeps."""

import asyncio

import pytest

from tests.cache.conftest import FAILED, LONG, Fleet, StartCached, body_of
from tests.cache.in_redis import (
    LEASES,
    asking,
    behind,
    is_released,
    names,
    waits,
)
from tests.cache.stage import END, STREAM_HEAD, Stage, event, whole
from tests.redis_server import RedisServer
from tests.waiting import until


@pytest.mark.parametrize("follows", [False, True])
async def test_one_asks_and_both_answer(askers: Fleet, stage: Stage, redis: RedisServer, follows: bool) -> None:
    """A JSON answer, told to the other as JSON or as a stream, is asked once; then everybody may ask again."""
    one, other = await askers()
    first = asking(one)
    call = await stage.call()
    assert len(await names(redis, LEASES)) == 1
    second = asking(other, stream=follows)
    await waits(other)
    assert len(stage.calls) == 1
    call.say(whole(50))
    answers = [await first, await second]
    bodies = [await body_of(each) for each in answers]
    assert [each.headers["x-octet-cache"] for each in answers] == ["miss", "redis"]
    assert all(b"x" * 50 in body for body in bodies)
    assert (bodies[0] == bodies[1]) is not follows
    assert len(stage.calls) == 1
    await is_released(redis)


@pytest.mark.parametrize("follows", [False, True])
async def test_one_stream_is_asked_for(askers: Fleet, stage: Stage, redis: RedisServer, follows: bool) -> None:
    """The other gets it when it has ended, as a stream or whole."""
    one, other = await askers()
    first = asking(one, stream=True)
    call = await stage.call()
    call.say(STREAM_HEAD + event("a"))
    live = await first
    second = asking(other, stream=follows)
    await waits(other)
    call.say(event("b") + END)
    assert await body_of(live) == event("a") + event("b") + END
    answer = await second
    assert answer.headers["x-octet-cache"] == "redis"
    body = await body_of(answer)
    assert body == event("a") + event("b") + END if follows else b'"content":"ab"' in body
    assert len(stage.calls) == 1
    await is_released(redis)


async def test_many_calls_at_many_sidecars(askers: Fleet, stage: Stage, redis: RedisServer) -> None:
    """Forty identical calls at four of them make one call upstream."""
    sidecars = await askers(4)
    calls = [asking(sidecars[number % 4]) for number in range(40)]
    call = await stage.call()
    for sidecar in sidecars:
        if not sidecar.app.upstreams.starts:
            await until(lambda: sidecar.app.upstreams.starts)  # noqa: B023
    call.say(whole(50))
    bodies = {await body_of(await each) for each in calls}
    assert (len(bodies), len(stage.calls)) == (1, 1)
    await is_released(redis)


async def test_those_who_joined_the_one_who_waits(askers: Fleet, stage: Stage) -> None:
    """Get the same answer from the other process, streamed too."""
    one, other = await askers()
    first = asking(one, stream=True)
    call = await stage.call()
    followers = [asking(other, stream=True) for _ in range(5)]
    await waits(other)
    call.say(STREAM_HEAD + event("a") + END)
    assert {await body_of(await each) for each in (first, *followers)} == {event("a") + END}
    assert len(stage.calls) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_when_it_fails_the_other_asks(askers: Fleet, stage: Stage, redis: RedisServer, stream: bool) -> None:
    """The failure is the first caller's alone; the second has waited no longer than that."""
    one, other = await askers()
    first = asking(one, stream=stream)
    call = await stage.call()
    second = asking(other, stream=stream)
    await waits(other)
    call.say(FAILED)
    assert (await first).status == 502
    again = await stage.call(1)
    again.say(STREAM_HEAD + event("a") + END if stream else whole(50))
    answer = await second
    await body_of(answer)
    assert answer.headers["x-octet-cache"] == "miss"
    await is_released(redis)


async def test_when_its_stream_breaks_the_other_asks(askers: Fleet, stage: Stage, redis: RedisServer) -> None:
    """Half an answer is none."""
    one, other = await askers()
    first = asking(one, stream=True)
    call = await stage.call()
    call.say(STREAM_HEAD + event("a"))
    second = asking(other, stream=True)
    await waits(other)
    call.hang_up()
    assert b'"error"' in await body_of(await first)
    (await stage.call(1)).say(STREAM_HEAD + event("b") + END)
    assert await body_of(await second) == event("b") + END
    await is_released(redis)


@pytest.mark.parametrize("stream", [False, True])
async def test_when_its_caller_leaves_the_other_asks(
    askers: Fleet, stage: Stage, redis: RedisServer, stream: bool
) -> None:
    """A call that is broken off gives the right to ask back."""
    one, other = await askers()
    first = asking(one, stream=stream)
    call = await stage.call()
    second = asking(other, stream=stream)
    await waits(other)
    first.cancel()
    await asyncio.wait_for(call.left.wait(), 5)
    (await stage.call(1)).say(STREAM_HEAD + event("b") + END if stream else whole(50))
    await body_of(await second)
    await is_released(redis)


async def test_when_the_waiting_caller_leaves(askers: Fleet, stage: Stage, redis: RedisServer) -> None:
    """It asks nothing, and takes nothing from the one who asks."""
    one, other = await askers()
    first = asking(one)
    call = await stage.call()
    second = asking(other)
    await waits(other)
    second.cancel()
    assert (await other.lines.wait_for(1))[0]["outcome"] == "hangup"
    assert len(await names(redis, LEASES)) == 1
    call.say(whole(50))
    await body_of(await first)
    assert len(stage.calls) == 1
    await is_released(redis)


async def test_nobody_waits_longer_than_its_route_allows(askers: Fleet, stage: Stage, redis: RedisServer) -> None:
    """With `total_seconds` over the call has its end, however long `join_seconds` are."""
    route = {
        "name": "staged",
        "targets": [{"upstream": "openai"}],
        "retry": {"attempts": 1},
        "total_seconds": 0.5,
        "cache": {"any_temperature": True, "join_seconds": LONG},
    }
    one, other = await askers(1), await askers(1, routes=[route])
    first = asking(one[0])
    await stage.call()
    async with asyncio.timeout(8):
        answer = await other[0].chat()
    assert answer.status == 504
    assert len(stage.calls) == 1
    first.cancel()
    await asyncio.wait([first])


async def test_who_wants_a_new_answer_waits_for_nobody(askers: Fleet, stage: Stage) -> None:
    """A call that says `no-cache` could not take what another keeps: it asks at once."""
    one, other = await askers()
    first = asking(one)
    await stage.call()

    async def anew() -> int:
        body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}
        headers = {"cache-control": "no-cache"}
        async with other.http.post(f"{other.url}/v1/chat/completions", json=body, headers=headers) as response:
            return response.status

    second = asyncio.create_task(anew())
    try:
        (await stage.call(1)).say(whole(50))
        assert await second == 200
    finally:
        for each in (first, second):
            each.cancel()
        await asyncio.wait([first, second])


async def test_without_redis_everybody_asks(askers: Fleet, stage: Stage, redis: RedisServer) -> None:
    """At once; nobody waits for what nobody could tell."""
    sidecars = await askers()
    await redis.kill()
    calls = [asking(each) for each in sidecars]
    for number in (0, 1):
        (await stage.call(number)).say(whole(50))
    assert {(await each).status for each in calls} == {200}


async def test_without_join_seconds_nobody_waits(on_stage: StartCached, stage: Stage, redis: RedisServer) -> None:
    """Each process asks for itself, and Redis is not asked for any right."""
    sidecars = [await on_stage(**behind(redis.url)) for _ in range(2)]
    calls = [asking(each) for each in sidecars]
    await stage.call(1)
    assert await names(redis, LEASES) == []
    for call in stage.calls:
        call.say(whole(50))
    assert {(await each).status for each in calls} == {200}
