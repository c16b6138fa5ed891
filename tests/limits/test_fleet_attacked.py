"""Limits of a fleet, as a hostile user found them broken: each of these was a fault once."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from proxy.simulator import Behaviour, Simulator
from tests.conftest import Sidecar, Start
from tests.redis_server import RedisServer
from tests.waiting import until

KEY = "octet:limits:upstream:openai"
Begin = Callable[..., Awaitable[Sidecar]]


@pytest.fixture
def begin(start: Start, redis: RedisServer) -> Begin:
    """Starts a sidecar that shares state; its links have heard of Redis when it returns."""

    async def started(**tree: Any) -> Sidecar:
        sidecar = await start(**tree, redis={"url": redis.url, "timeout_seconds": 5.0})
        await until(lambda: all(getattr(link, "_leasing", True) for link in sidecar.app.upstreams._shares.values()))
        return sidecar

    return started


async def test_without_a_queue_calls_are_served(begin: Begin) -> None:
    """An idle process has no place leased: that is asked for, and is no full house."""
    limits = {"concurrent": 5, "queue": 0}
    sidecar = await begin(upstreams={"openai": {"limits": limits}})
    for _ in range(3):
        assert (await sidecar.chat()).status == 200


async def test_who_got_a_place_gets_the_rest(begin: Begin, simulator: Simulator) -> None:
    """While calls wait for a place their request and tokens are wanted too, and not given back."""
    limits = {"concurrent": 1, "requests_per_minute": 600, "tokens_per_minute": 100_000, "queue_seconds": 60}
    sidecar = await begin(server={"callers": [{"name": "app", "key": "k", "limits": limits}]})
    simulator.always("openai", Behaviour(delay_seconds=0.6))  # longer than a share is kept that nobody wants
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "x"}]}

    async def ask() -> int:
        headers = {"authorization": "Bearer k"}
        async with sidecar.http.post(f"{sidecar.url}/v1/chat/completions", json=body, headers=headers) as response:
            return response.status

    assert await asyncio.gather(*(ask() for _ in range(3))) == [200, 200, 200]


async def test_a_backup_with_limits_is_asked_for_its_share(begin: Begin, simulator: Simulator) -> None:
    """A second attempt goes to an upstream whose share is empty since nobody has used it."""
    targets = [{"upstream": "openai"}, {"upstream": "vllm"}]
    routes = [{"name": "r", "targets": targets, "hedge": {"after_seconds": 0.01, "budget": 1.0}}]
    sidecar = await begin(routes=routes, upstreams={"vllm": {"limits": {"requests_per_minute": 1000}}})
    simulator.always("openai", Behaviour(stall="before_headers"))
    assert (await sidecar.chat("any")).headers["x-octet-upstream"] == "vllm"


async def test_an_emptied_redis_is_no_new_minute(begin: Begin, redis: RedisServer, simulator: Simulator) -> None:
    """What is left is what the process believes, when Redis does not know."""
    routes = [{"targets": [{"upstream": "openai"}], "retry": {"attempts": 1, "longest_wait_seconds": 0.001}}]
    sidecar = await begin(routes=routes, upstreams={"openai": {"limits": {"requests_per_minute": 20}}})
    limiter: Any = sidecar.app.upstreams.now.standings["openai"].limiter
    for _ in range(3):
        await asyncio.gather(*(sidecar.chat("any") for _ in range(25)))
        await redis.client.flushall()
        await limiter.share._errand.ask()
        limiter.requests.ready_at = 0.0
    assert 20 <= simulator.report.calls <= 24  # one comes back every 3 s


async def test_a_share_is_asked_for_again(begin: Begin, redis: RedisServer) -> None:
    """Nobody is refused for ever: when more was expected by now, the next call asks."""
    routes = [{"targets": [{"upstream": "openai"}], "retry": {"attempts": 1, "longest_wait_seconds": 0.001}}]
    sidecar = await begin(routes=routes, upstreams={"openai": {"limits": {"requests_per_minute": 5}}})
    answers = await asyncio.gather(*(sidecar.chat("any") for _ in range(10)))
    assert sorted(answer.status for answer in answers) == [200] * 5 + [429] * 5
    limiter: Any = sidecar.app.upstreams.now.standings["openai"].limiter
    clock = limiter._clock
    limiter._clock = lambda: clock() + 13.0  # one more every 12 s
    await redis.client.hset(KEY, "level1", "1")
    assert (await sidecar.chat("any")).status == 200


@pytest.mark.parametrize(
    ("fields", "least"),
    [
        ({"level1": "-1e300"}, -60_000), ({"level1": "-inf"}, -60_000), ({"level1": "nan"}, 0), ({"level1": "x"}, 0),
        ({"at": "1e300"}, 0), ({"share:x": "99999999999999 -1e300 -5 -5"}, 0), ({"share:x": "SOON -1e300 -5 -5"}, 0),
        ({"share:x": "garbage"}, 0), ({"unmet": "x"}, 0), ({"at": "x"}, 0),
    ],
)  # fmt: skip
async def test_garbage_under_our_key(begin: Begin, redis: RedisServer, fields: dict[str, str], least: int) -> None:
    """A minute's debt is the most there can be, nobody gets more than all places, and then calls are served."""
    sidecar = await begin(upstreams={"openai": {"limits": {"requests_per_minute": 60_000, "concurrent": 5}}})
    soon = str(int((await redis.client.time())[0]) * 1000 + 4_000)
    await redis.client.hset(KEY, mapping={name: text.replace("SOON", soon) for name, text in fields.items()})
    limiter: Any = sidecar.app.upstreams.now.standings["openai"].limiter
    limiter.calls_asking += 20
    await limiter.share._errand.ask()
    limiter.calls_asking -= 20
    assert limiter.slots.limit == 5
    assert not sidecar.app.upstreams._shared._unwilling  # type: ignore[union-attr]  # the script has not failed
    shown: Any = await redis.client.hgetall(KEY)
    level = float(shown[b"level1"])
    assert least <= level <= 60_000
    limiter.requests.ready_at = 0.0
    await redis.client.hset(KEY, "level1", level + 60_000)
    assert (await sidecar.chat()).status == 200


async def test_an_absurd_usage_is_no_debt_for_ever(begin: Begin, simulator: Simulator) -> None:
    """One answer that says it used all tokens of the world costs a minute, and no more."""
    sidecar = await begin(upstreams={"openai": {"limits": {"tokens_per_minute": 6000}}})
    limiter: Any = sidecar.app.upstreams.now.standings["openai"].limiter
    held = limiter.tokens
    held.give(-(2.0**52), asyncio.get_running_loop().time())
    assert held.level == -6000
