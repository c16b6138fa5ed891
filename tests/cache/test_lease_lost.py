"""The right to ask upstream when processes, callers or Redis go away: nobody waits for it in vain for long."""

import asyncio
from typing import Any

import pytest

from proxy.cache.redis_bytes import AT_ONCE
from proxy.cache.redis_tier import MOST_WRITING
from tests.cache.conftest import LAST, Fleet, body_of
from tests.cache.in_redis import (
    LEASES,
    asking,
    at_rest,
    counted,
    forget,
    is_released,
    names,
    tier,
    waits,
    written,
)
from tests.cache.stage import Stage, whole
from tests.conftest import Sidecar
from tests.redis_server import RedisServer
from tests.waiting import until


async def test_a_caller_who_leaves_while_redis_thinks(askers: Fleet, stage: Stage, redis: RedisServer) -> None:
    """The right to ask that Redis gives it later is given back: nobody waits for a call that is not made."""
    (sidecar,) = await askers(1)
    await key_of(sidecar, stage, redis)
    call = asking(sidecar)
    await until(lambda: counted(sidecar, "lookups")["miss"] == 2)
    redis.freeze()
    await until(lambda: tier(sidecar)._lanes._value < AT_ONCE)
    call.cancel()
    await sidecar.lines.wait_for(2)
    redis.thaw()
    await redis.client.ping()
    await at_rest(sidecar)
    await is_released(redis)
    assert len(stage.calls) == 1


async def test_when_it_has_died_others_wait_no_longer_than_they_should(
    askers: Fleet, stage: Stage, redis: RedisServer
) -> None:
    """The right of a process that is gone ends with `join_seconds`, and a call that waits asks then."""
    (sidecar,) = await askers(1, join_seconds=0.2)
    key = await key_of(sidecar, stage, redis)
    await redis.client.set(f"octet:asking:{key}", "somebody", px=200)
    second = asking(sidecar)
    (await stage.call(1)).say(whole(50))
    await body_of(await second)
    await is_released(redis)


async def test_join_seconds_are_the_most(askers: Fleet, stage: Stage, redis: RedisServer) -> None:
    """A call asks itself after that although another has the right still, which it leaves to the other."""
    (sidecar,) = await askers(1, join_seconds=0.2)
    key = await key_of(sidecar, stage, redis)
    await redis.client.set(f"octet:asking:{key}", "somebody")
    second = asking(sidecar)
    (await stage.call(1)).say(whole(50))
    await body_of(await second)
    await at_rest(sidecar)
    assert await redis.client.get(f"octet:asking:{key}") == b"somebody"
    assert counted(sidecar, "lookups")["miss"] >= 3


async def key_of(sidecar: Sidecar, stage: Stage, redis: RedisServer) -> str:
    """The key of a call, without the namespace; the call was the stage's first, and is forgotten."""
    first = asking(sidecar)
    (await stage.call()).say(LAST)
    answer = await first
    await body_of(answer)
    await written(sidecar)
    await at_rest(sidecar)
    forget(sidecar)
    await redis.client.flushall()
    return f"staged:-:{answer.headers['x-octet-cache-key']}"


async def test_redis_dies_while_one_waits(askers: Fleet, stage: Stage, redis: RedisServer) -> None:
    """The one that waited asks itself."""
    one, other = await askers()
    first = asking(one)
    call = await stage.call()
    second = asking(other)
    await waits(other)
    await redis.kill()
    (await stage.call(1)).say(whole(50))
    call.say(whole(50))
    assert {(await each).status for each in (first, second)} == {200}


async def test_many_rights_are_given_back_at_once(askers: Fleet, stage: Stage, redis: RedisServer) -> None:
    """As many answers as may be on their way together are all written, and leave no right behind."""
    (sidecar,) = await askers(1)
    calls = [asking(sidecar, seed=number) for number in range(MOST_WRITING)]
    await stage.call(MOST_WRITING - 1)
    for call in stage.calls:
        call.say(whole(50))
    assert {(await each).status for each in calls} == {200}
    await at_rest(sidecar)
    await is_released(redis)
    assert tier(sidecar).up
    assert counted(sidecar, "writes") == {"ok": MOST_WRITING}


async def test_nobody_gives_back_what_is_anothers(askers: Fleet, stage: Stage, redis: RedisServer) -> None:
    """A call that took longer than its right lasted leaves the right of the next process alone."""
    (sidecar,) = await askers(1)
    call = asking(sidecar)
    upstream = await stage.call()
    (name,) = await names(redis, LEASES)
    await redis.client.set(name, "somebody")
    upstream.say(whole(50))
    await body_of(await call)
    await at_rest(sidecar)
    assert await redis.client.get(name) == b"somebody"


async def test_a_right_that_comes_too_late(
    askers: Fleet, stage: Stage, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Redis that stands still keeps no call: it asks upstream, and what it is given afterwards it gives back."""
    patience = {"cache": {"redis": {"url": redis.url, "timeout_seconds": 0.05}}}
    (sidecar,) = await askers(1, **patience)
    monkeypatch.setattr(tier(sidecar), "get", _nothing)  # or the look itself would find out
    redis.freeze()
    call = asking(sidecar)
    (await stage.call()).say(whole(50))
    assert (await call).status == 200
    redis.thaw()
    await until(lambda: tier(sidecar).up)
    await is_released(redis)


async def test_a_client_that_stumbles_is_looked_after(askers: Fleet, redis: RedisServer) -> None:
    """Whatever redis-py raises while Redis is looked for, it is looked for again."""
    (sidecar,) = await askers(1)
    shared: Any = tier(sidecar)
    await until(lambda: shared._looking.done())  # the look at the start
    client = shared._bytes.client
    ping, stumbled = client.ping, asyncio.Event()

    async def stumble() -> None:
        client.ping = ping
        stumbled.set()
        raise AttributeError("writelines")

    client.ping = stumble
    shared._trouble(TimeoutError())
    await stumbled.wait()
    await until(lambda: shared.up)


async def _nothing(*_: Any) -> None:
    """Redis is not even asked."""
