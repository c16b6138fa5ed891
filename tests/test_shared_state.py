"""The one Redis connection: what is shared, what is not waited for, and how it ends."""

import asyncio
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from pydantic import SecretStr

from proxy.config import Redis
from proxy.shared_state import Errand, SharedState, connect
from tests.redis_server import RedisServer
from tests.waiting import until

ECHO = "return {ARGV[1], ARGV[2], KEYS[1], ARGV[3]}"


def shared_state(redis: RedisServer, on_up: Callable[[bool], object] = id, **settings: Any) -> SharedState:
    return SharedState(Redis.model_validate({"url": redis.url, **settings}), on_up)


async def test_a_script_gets_what_it_needs(redis: RedisServer) -> None:
    """The channel, this process's name, its key and its arguments; also after Redis has forgotten the script."""
    shared = shared_state(redis, namespace="ns")
    key = shared.key("circuit", "a")
    for _ in range(2):
        assert await shared.run(ECHO, key, 5) == [b"ns:changes", shared.me.encode(), b"ns:circuit:a", b"5"]
        await redis.client.script_flush()
    await shared.close()


async def test_changes_are_heard(redis: RedisServer) -> None:
    """Those of others under keys that somebody follows; not one's own, and no other's keys."""
    shared, heard = shared_state(redis), list[str]()
    for name in ("a", "b"):
        shared.follow(f"octet:circuit:{name}", partial(heard.append, name))
    shared.start()
    await until(lambda: len(heard) >= 4)  # when Redis came, and when we began to listen
    heard.clear()
    await redis.client.publish("octet:changes", f"{shared.me} octet:circuit:a")
    await redis.client.publish("octet:changes", "other octet:circuit:c")
    await redis.client.publish("octet:changes", b"\xff")
    await redis.client.publish("octet:changes", "other octet:circuit:b")
    await until(lambda: heard)
    assert heard == ["b"]
    await shared.close()


async def test_it_says_when_redis_comes_and_goes(redis: RedisServer) -> None:
    """Once each time, also to those who follow keys."""
    told = list[bool]()
    shared = shared_state(redis, told.append)
    shared.start()
    await until(lambda: shared.up)
    await redis.kill()
    assert await shared.run(ECHO, "k", 1) is None
    assert not shared.up
    await redis.start()
    await until(lambda: shared.up)
    assert told == [True, False, True]
    await shared.close()


@pytest.mark.parametrize("seed", range(8))
async def test_it_ends_whenever_it_is_closed(redis: RedisServer, seed: int) -> None:
    """Also while it connects, when the client library swallows a cancellation."""
    chance = random.Random(seed)
    for _ in range(20):
        shared = shared_state(redis)
        shared.start()
        for _ in range(chance.randrange(60)):
            await asyncio.sleep(0)
        async with asyncio.timeout(5):
            await shared.close()


async def test_an_errand_is_done_once_more_when_asked_meanwhile() -> None:
    """Whoever asks waits for one that begins after that; many who ask at once share it."""
    begun, gate = list[int](), asyncio.Event()

    async def work() -> None:
        begun.append(len(begun))
        await gate.wait()

    errand = Errand(work)
    first = errand.ask()
    await until(lambda: begun)
    second, third = errand.ask(), errand.ask()
    assert second is third
    assert second is not first
    gate.set()
    await second
    assert (first.done(), begun) == (True, [0, 1])
    await errand.ask()
    assert begun == [0, 1, 2]


async def test_an_errand_that_fails_is_told_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody waits for ever, and the next one is done."""
    calls = list[int]()

    async def work() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("a bug")

    errand = Errand(work)
    await errand.ask()
    await errand.ask()
    await until(lambda: len(calls) == 2 and "sharing state failed" in caplog.text)
    await errand.close()


async def test_many_at_once_wait_for_one_another(redis: RedisServer) -> None:
    """Two hundred slow scripts all get their answers: that our own connections are busy is no absent Redis."""
    slow = "local sum = 0 for i = 1, 500000 do sum = sum + i end return {1}"  # some 3 ms
    told = list[bool]()
    shared = shared_state(redis, told.append)
    answers = await asyncio.gather(*(shared.run(slow, f"k{number}") for number in range(200)))
    assert answers == [[1]] * 200
    assert told == [True]
    await shared.close()


@pytest.mark.parametrize(("timeout", "patience"), [(0.05, 0.25), (1.5, 1.5)])
@pytest.mark.parametrize("address", ["redis://127.0.0.1:1/0", "redis+sentinel://127.0.0.1:1/service"])
def test_how_long_redis_may_take(address: str, timeout: float, patience: float) -> None:
    """As long as calls may wait for it, and never less than a quarter of a second."""
    client: Any = connect(SecretStr(address), 4, timeout)
    habits = client.connection_pool.connection_kwargs
    assert (habits["socket_timeout"], habits["socket_connect_timeout"]) == (patience, patience)
