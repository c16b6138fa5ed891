"""Redis dies, hangs, is emptied, full, read-only or closed to us: no call fails, and hits come back with it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from proxy.simulator import Simulator
from tests.cache.conftest import StartCached, body_of, calls
from tests.cache.in_redis import (
    at_rest,
    be_patient,
    behind,
    counted,
    forget,
    in_memory,
    names,
    no_connections,
    tier,
    until_seen,
    written,
)
from tests.cache.stage import END, STREAM_HEAD, Stage, event
from tests.conftest import Sidecar
from tests.redis_server import RedisServer
from tests.waiting import until

SHORT: dict[str, Any] = {"timeout_seconds": 0.05}  # what a call waits for, where a test is about waiting in vain


@pytest.fixture
def sharing(start_cached: StartCached, redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> StartCached:
    """Starts a sidecar that keeps answers in Redis; the rest is the tier's."""
    be_patient(monkeypatch)

    async def started(rules: dict[str, Any] | None = None, **more: Any) -> Sidecar:
        sidecar = await start_cached(rules, **behind(redis.url, **more))
        await until(lambda: has_looked(sidecar))
        return sidecar

    return started


@pytest.fixture
async def replica(redis: RedisServer, tmp_path: Path) -> AsyncIterator[RedisServer]:
    """A copy of it, that takes nothing from anybody else."""
    (tmp_path / "replica").mkdir()
    server = RedisServer(tmp_path / "replica", "--replicaof", "127.0.0.1", str(redis.port))
    await server.start()
    yield server
    await server.kill()


def has_looked(sidecar: Sidecar) -> bool:
    """Whether it has seen by itself whether Redis is there."""
    looking = tier(sidecar)._looking
    return looking is not None and looking.done()


async def ask(sidecar: Sidecar, number: int, **fields: Any) -> str:
    """Where the answer to a call came from; each number is a call of its own."""
    answer = await sidecar.chat(seed=number, **fields)
    await body_of(answer)
    return answer.headers["x-octet-cache"]


async def run(sidecar: Sidecar, first: int, count: int) -> list[str]:
    """So many new calls, ten at a time, JSON and streams."""
    told = []
    for start in range(first, first + count, 10):
        batch = range(start, min(start + 10, first + count))
        told += await asyncio.gather(*(ask(sidecar, number, stream=number % 2 == 0) for number in batch))
    return told


async def is_up(sidecar: Sidecar) -> bool:
    """Whether it tells that Redis is there."""
    return await sidecar.metric("octet_redis_up") == 1


async def test_it_is_killed_and_comes_back(sharing: StartCached, redis: RedisServer) -> None:
    """All calls are answered, and none but those that find it out ask it; then it is used again."""
    one, other = await sharing(), await sharing()
    await run(one, 0, 40)
    await written(one, 40)
    assert await run(other, 0, 20) == ["redis"] * 20
    await redis.kill()
    assert set(await run(other, 20, 60)) == {"miss"}
    told = counted(other, "lookups")
    assert told["hit"] == 20
    assert 0 < told.get("error", 0) + told.get("timeout", 0) <= 10  # those that were on their way together
    assert sum(told.values()) == 80
    assert not await is_up(other)
    await redis.start()
    await until(lambda: tier(other).up and tier(one).up)
    assert await is_up(other)
    assert await run(other, 100, 10) == ["miss"] * 10
    await until(lambda: counted(other, "writes")["ok"] == 10)
    assert await run(one, 100, 10) == ["redis"] * 10


async def test_it_hangs_and_goes_on(sharing: StartCached, redis: RedisServer) -> None:
    """The calls that are on their way wait for it once, no other does, and what it knew is found again."""
    one, other = await sharing(), await sharing(**SHORT)
    await run(one, 0, 40)
    await written(one, 40)
    redis.freeze()
    assert set(await run(other, 0, 40)) == {"miss"}
    told = counted(other, "lookups")
    assert 1 <= told["timeout"] <= 10
    assert told["timeout"] + told["skipped"] == 40
    assert not await is_up(other)
    redis.thaw()
    await until(lambda: tier(other).up)
    assert await is_up(other)
    await at_rest(other)
    forget(other)
    found = [await ask_when_up(other, number) for number in range(40)]
    assert found.count("redis") >= 30  # a busy machine may keep Redis from answering a few in its 50 ms


async def ask_when_up(sidecar: Sidecar, number: int) -> str:
    """As `ask`, once Redis is there."""
    await until(lambda: tier(sidecar).up)
    return await ask(sidecar, number)


async def test_writes_to_one_that_hangs_are_bounded(
    sharing: StartCached, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers that cannot be written any more are only kept in memory; all that were begun are written at last."""
    monkeypatch.setattr("proxy.cache.redis_tier.MOST_WRITING", 5)
    sidecar = await sharing()
    await redis.tell("CLIENT PAUSE", 60_000, "WRITE")
    assert await run(sidecar, 0, 20) == ["miss"] * 20
    await until(lambda: counted(sidecar, "writes").get("skipped") == 15)
    assert await run(sidecar, 0, 20) == ["memory"] * 20
    await redis.tell("CLIENT UNPAUSE")
    await written(sidecar, 5)
    await at_rest(sidecar)
    assert counted(sidecar, "writes") == {"ok": 5, "skipped": 15}
    assert len(await names(redis, "octet:answer:*")) == 5


async def test_it_is_emptied(sharing: StartCached, simulator: Simulator, redis: RedisServer) -> None:
    """What was there is asked again, and kept again."""
    one, other = await sharing(), await sharing()
    await run(one, 0, 10)
    await written(one, 10)
    await redis.client.flushall()
    assert await run(other, 0, 10) == ["miss"] * 10
    await written(other, 10)
    forget(one)
    assert await run(one, 0, 10) == ["redis"] * 10
    assert await is_up(other)
    assert calls(simulator) == 20


@pytest.mark.parametrize("join_seconds", [0, 5])
async def test_it_is_full(sharing: StartCached, redis: RedisServer, join_seconds: int) -> None:
    """What it has is found; what is new is kept in memory only, until there is room again."""
    one, other = await sharing({"join_seconds": join_seconds}), await sharing({"join_seconds": join_seconds})
    await run(one, 0, 10)
    await written(one, 10)
    await at_rest(one)
    await redis.client.config_set("maxmemory", "1")
    assert await run(other, 100, 10) == ["miss"] * 10
    await until(lambda: counted(other, "writes").get("error") == 10)
    assert await run(other, 0, 10) == ["redis"] * 10
    assert await run(other, 100, 10) == ["memory"] * 10
    assert await is_up(other)
    assert counted(other, "lookups") == {"miss": 10, "hit": 10}
    await redis.client.config_set("maxmemory", "0")
    assert await run(other, 200, 10) == ["miss"] * 10
    await written(other, 10)


@pytest.mark.parametrize("join_seconds", [0, 5])
async def test_it_only_reads(
    sharing: StartCached, start_cached: StartCached, replica: RedisServer, join_seconds: int
) -> None:
    """A replica gives what it has, and that it takes nothing harms no call."""
    one = await sharing()
    other = await start_cached({"join_seconds": join_seconds}, **behind(replica.url))
    await run(one, 0, 10)
    await written(one, 10)

    async def copied() -> bool:
        return len(await names(replica, "octet:answer:*")) == 10

    await until_seen(copied, patience=10)
    assert await run(other, 100, 10) == ["miss"] * 10
    await until(lambda: counted(other, "writes").get("error") == 10)
    assert await run(other, 0, 10) == ["redis"] * 10
    assert await is_up(other)
    assert counted(other, "lookups") == {"miss": 10, "hit": 10}
    await other.close()
    await no_connections(replica)


async def test_it_wants_a_password(sharing: StartCached, redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """One that we do not have: it is as if it were away, the log says why once, and nothing more is asked."""
    sidecar = await sharing()
    await run(sidecar, 0, 10)
    await written(sidecar, 10)
    await redis.client.config_set("requirepass", "s3cret-word")
    await redis.tell("CLIENT KILL", "TYPE", "normal", "SKIPME", "yes")
    assert await run(sidecar, 20, 40) == ["miss"] * 40
    told = counted(sidecar, "lookups")
    assert told["error"] <= 10
    assert told["error"] + told["skipped"] + told["miss"] == 50
    assert not await is_up(sidecar)
    assert caplog.text.count("Redis does not serve the cache") == 1
    assert "password" in caplog.text
    assert "s3cret-word" not in caplog.text
    await redis.client.config_set("requirepass", "")
    await until(lambda: tier(sidecar).up)
    forget(sidecar)
    assert await run(sidecar, 0, 10) == ["redis"] * 10


@pytest.mark.parametrize("url", ["redis://:s3cret@127.0.0.1:{}/0", "redis://default:s3cret@127.0.0.1:{}/3"])
async def test_with_the_password_it_is_used(
    start_cached: StartCached, redis: RedisServer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name, a password and a database in the address are heeded."""
    be_patient(monkeypatch)
    await redis.client.config_set("requirepass", "s3cret")
    one, other = [await start_cached(**behind(url.format(redis.port))) for _ in range(2)]
    await run(one, 0, 2)
    await written(one, 2)
    assert await run(other, 0, 2) == ["redis"] * 2
    await redis.client.config_set("requirepass", "")


async def test_it_is_not_there_from_the_start(
    start_cached: StartCached, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sidecar starts and serves all the same; when Redis appears it is used."""
    be_patient(monkeypatch)
    await redis.kill()
    sidecar = await start_cached(**behind(redis.url))
    await until(lambda: not tier(sidecar).up)
    assert await run(sidecar, 0, 10) == ["miss"] * 10
    assert await run(sidecar, 0, 10) == ["memory"] * 10
    assert counted(sidecar, "lookups") == {"skipped": 10}
    assert not await is_up(sidecar)
    await redis.start()
    await until(lambda: tier(sidecar).up)
    await run(sidecar, 10, 10)
    await written(sidecar, 10)
    assert await is_up(sidecar)


async def test_an_outage_while_an_answer_is_streamed(
    on_stage: StartCached, stage: Stage, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream that began with Redis ends without it, whole, and is kept in memory."""
    be_patient(monkeypatch)
    sidecar = await on_stage(**behind(redis.url))
    asking = asyncio.create_task(sidecar.chat(stream=True))
    upstream = await stage.call()
    upstream.say(STREAM_HEAD + event("a"))
    answer = await asking
    await redis.kill()
    upstream.say(event("b") + END)
    assert await body_of(answer) == event("a") + event("b") + END
    await until(lambda: in_memory(sidecar))
    assert (await sidecar.chat(stream=True)).headers["x-octet-cache"] == "memory"
    await until(lambda: not tier(sidecar).up)


async def test_it_ends_while_redis_hangs(sharing: StartCached, redis: RedisServer) -> None:
    """With looks and writes on their way, and no task is left; afterwards Redis sees all connections closed."""
    sidecar = await sharing(**SHORT)
    await run(sidecar, 0, 10)
    redis.freeze()
    await run(sidecar, 10, 10)
    async with asyncio.timeout(10):
        await sidecar.close()
    redis.thaw()
    await no_connections(redis)


@pytest.mark.parametrize("moment", range(0, 60, 4))
async def test_it_ends_while_redis_dies(sharing: StartCached, redis: RedisServer, moment: int) -> None:
    """Whatever had just begun: no task outlives the sidecar."""
    sidecar = await sharing()
    await run(sidecar, 0, 2)
    asking = [asyncio.create_task(sidecar.chat(seed=number)) for number in range(10, 16)]
    await redis.kill()
    for _ in range(moment):
        await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await asyncio.gather(*asking)
        await sidecar.close()
    assert {answer.result().status for answer in asking} == {200}
