"""Redis behind a cache when it is slow, when many ask at once, and when callers or the sidecar leave."""

import asyncio
import random
from typing import Any

import pytest

from proxy.cache.entry import Entry
from proxy.cache.key import Key
from proxy.cache.redis_bytes import AT_ONCE
from proxy.cache.redis_tier import MOST_ASKED, RedisTier
from proxy.config import RedisTier as RedisTierSettings
from proxy.openai_format.transcript import Transcript
from proxy.simulator import Behaviour, Simulator
from tests.cache.conftest import StartCached, body_of, calls
from tests.cache.in_redis import (
    PLENTY,
    at_rest,
    be_patient,
    behind,
    connections,
    counted,
    forget,
    in_memory,
    names,
    no_connections,
    tier,
    written,
)
from tests.conftest import Sidecar
from tests.redis_server import RedisServer
from tests.waiting import until


@pytest.fixture
def sharing(start_cached: StartCached, redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> StartCached:
    """Starts a sidecar that keeps answers in Redis; the rest is the tier's."""
    be_patient(monkeypatch)

    async def started(rules: dict[str, Any] | None = None, **more: Any) -> Sidecar:
        return await start_cached(rules, **behind(redis.url, **more))

    return started


async def test_a_late_answer_fills_memory(sharing: StartCached, simulator: Simulator, redis: RedisServer) -> None:
    """The call goes upstream when Redis is slow; what Redis says at last serves the next one."""
    one, other = await sharing(), await sharing(timeout_seconds=0.05)
    await body_of(await one.chat())
    await written(one)
    simulator.always("openai", Behaviour(stall="before_headers"))
    await until(lambda: other.app.upstreams.shelf is not None and tier(other)._looking)
    redis.freeze()
    slow = asyncio.create_task(other.chat())
    await until(lambda: calls(simulator) == 2)
    assert not in_memory(other)
    redis.thaw()
    await until(lambda: len(in_memory(other)) == 1)
    answer = await other.chat()
    await body_of(answer)
    assert answer.headers["x-octet-cache"] == "memory"
    slow.cancel()
    await asyncio.wait([slow])


@pytest.mark.parametrize("kept", [False, True])
async def test_each_look_is_counted_once(sharing: StartCached, redis: RedisServer, kept: bool) -> None:
    """Also one whose answer comes late: it is a time-out, and no miss on top of that."""
    one, other = await sharing(), await sharing(timeout_seconds=0.05)
    if kept:
        await body_of(await one.chat())
        await written(one)
    redis.freeze()
    await body_of(await other.chat())
    redis.thaw()
    await at_rest(other)
    assert counted(other, "lookups") == {"timeout": 1}


async def test_a_caller_who_leaves_costs_no_connection(
    sharing: StartCached, simulator: Simulator, redis: RedisServer
) -> None:
    """The look goes on without it, and what it brings is kept in memory or not, but harms nobody."""
    sidecar = await sharing()
    await body_of(await sidecar.chat())
    await written(sidecar)
    forget(sidecar)
    before = {each["id"] for each in await connections(redis)}
    redis.freeze()
    gone = [asyncio.create_task(sidecar.chat()) for _ in range(5)]
    await until(lambda: len(tier(sidecar)._asking) == 5)
    for call in gone:
        call.cancel()
    await asyncio.wait(gone)
    assert {line["outcome"] for line in (await sidecar.lines.wait_for(6))[1:]} == {"hangup"}
    redis.thaw()
    await at_rest(sidecar)
    assert before <= {each["id"] for each in await connections(redis)}
    assert await sidecar.metric("octet_redis_up") == 1
    assert calls(simulator) == 1


async def test_more_at_once_than_there_are_connections(
    sharing: StartCached, simulator: Simulator, redis: RedisServer
) -> None:
    """Many cold keys at the same time: each is looked up once and written, over a few connections, and Redis is up."""
    one, other = await sharing(), await sharing()
    count = 3 * AT_ONCE
    for sidecar in (one, other):
        answers = await asyncio.gather(*(sidecar.chat(seed=number) for number in range(count)))
        told = {answer.headers["x-octet-cache"] for answer in answers}
        assert told == ({"miss"} if sidecar is one else {"redis"})
        if sidecar is one:
            await written(one, count)
    assert counted(one, "lookups") == {"miss": count}
    assert counted(other, "lookups") == {"hit": count}
    assert calls(simulator) == count
    assert len(await connections(redis)) <= 2 * (AT_ONCE + 4)


async def test_looks_are_bounded(sharing: StartCached, redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """With so many waiting for Redis, further calls do without, and all are answered when it speaks again."""
    most = 10
    assert most < MOST_ASKED
    monkeypatch.setattr("proxy.cache.redis_tier.MOST_ASKED", most)
    sidecar = await sharing()
    redis.freeze()
    asking = [asyncio.create_task(sidecar.chat(seed=number)) for number in range(2 * most)]
    await until(lambda: counted(sidecar, "lookups").get("skipped") == most)
    redis.thaw()
    assert {(await each).status for each in asking} == {200}
    assert counted(sidecar, "lookups") == {"skipped": most, "miss": most}


@pytest.mark.parametrize("seed", range(6))
async def test_it_ends_whenever_it_is_closed(sharing: StartCached, redis: RedisServer, seed: int) -> None:
    """While it connects, looks up and writes; no task, and no connection, is left."""
    chance = random.Random(seed)
    for _ in range(5):
        sidecar = await sharing()
        for number in range(chance.randrange(5)):
            await body_of(await sidecar.chat(seed=number))
        for _ in range(chance.randrange(60)):
            await asyncio.sleep(0)
        async with asyncio.timeout(5):
            await sidecar.close()
    await no_connections(redis)
    assert all(name.startswith("octet:answer:") for name in await names(redis))


async def test_what_is_being_written_gets_a_moment(redis: RedisServer) -> None:
    """Answers that were given to Redis right before the end are there after it."""
    kept = list[str]()
    settings = RedisTierSettings.model_validate({"url": redis.url})
    closing = RedisTier(settings, PLENTY, lambda *_: None, lambda _, result: kept.append(result))
    for number in range(20):
        key = Key(bytes([number]) * 32, "route", "-")
        made = Entry(key.digest, key.route, key.tenant, "openai", "m", True, 1.0, 60.0, Transcript(b"{}"))
        closing.put(key, made, 60.0)
    await closing.close()
    assert kept == ["ok"] * 20
    assert len(await names(redis, "octet:answer:route:-:*")) == 20
    await no_connections(redis)
