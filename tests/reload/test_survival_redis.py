"""With Redis: what is shared stays shared over reloads, and what is not there any more is shared no longer."""

from typing import Any

import pytest

from proxy.simulator import Behaviour, Simulator
from tests.redis_server import RedisServer
from tests.reload.conftest import Live, StartLive, Tree, one
from tests.waiting import until

FAST = {"window": 4, "minimum_calls": 2, "open_seconds": 600}


def shared(simulator: Simulator, redis: RedisServer, **settings: Any) -> Tree:
    """One upstream, whose circuit and limits are shared."""
    return one(simulator, settings={"circuit": FAST, **settings}, redis={"url": redis.url, "timeout_seconds": 5.0})


async def joined(sidecar: Live) -> None:
    """Until it has found Redis."""
    await until(lambda: sidecar.app.upstreams._shared is not None and sidecar.app.upstreams._shared.up)


def limiter(sidecar: Live) -> Any:
    return sidecar.app.upstreams.now.limiters["upstream", "a"]


async def state(sidecar: Live) -> float:
    return await sidecar.metric("octet_circuit_state", upstream="a")


async def fail(sidecar: Live, simulator: Simulator, times: int = 2) -> None:
    simulator.script("openai", *[Behaviour(status=500)] * times)
    for _ in range(times):
        assert (await sidecar.told())[0] == 502


async def test_a_circuit_stays_shared(live: StartLive, simulator: Simulator, redis: RedisServer) -> None:
    """After a reload of one sidecar a circuit that opens there opens in the other too, and the other way round."""
    first, second = [await live(shared(simulator, redis)) for _ in range(2)]
    await joined(first)
    await joined(second)
    await first.take(shared(simulator, redis, api_key="sk-new"))
    await fail(first, simulator)
    while await state(second) != 2:
        pass
    await second.ask("POST", "/admin/upstreams/a/reset")
    while await state(first) != 0:
        pass


async def test_a_circuit_of_a_new_name_is_shared(live: StartLive, simulator: Simulator, redis: RedisServer) -> None:
    """An upstream that a reload has brought is shared like those that were there from the start."""

    def tree() -> Tree:
        made = shared(simulator, redis)
        made["upstreams"] = {"b": made["upstreams"]["a"]}
        made["routes"][0]["targets"] = [{"upstream": "b"}]
        return made

    first, second = await live(shared(simulator, redis)), await live(tree())
    await joined(first)
    await joined(second)
    await first.take(tree())
    await fail(first, simulator)
    while await second.metric("octet_circuit_state", upstream="b") != 2:
        pass


@pytest.mark.parametrize("change", ["address", "policy"])
async def test_a_changed_circuit_begins_anew(
    live: StartLive, simulator: Simulator, redis: RedisServer, change: str
) -> None:
    """An upstream at a new address, or under a new policy, is not kept out by what Redis remembers of the old one."""
    sidecar = await live(shared(simulator, redis))
    await joined(sidecar)
    await fail(sidecar, simulator)
    while await redis.client.hget("octet:circuit:a", "state") != b"2":
        pass
    address = simulator.base_url("openai").replace("127.0.0.1", "localhost")
    more: Tree = {"base_url": address} if change == "address" else {"circuit": {**FAST, "window": 5}}
    await sidecar.take(shared(simulator, redis, **more))
    assert (await sidecar.told())[0] == 200
    link: Any = sidecar.app.upstreams.now.circuits.by_upstream["a"][0].fleet
    await link._errand.ask()
    assert (await sidecar.told())[0] == 200


async def test_a_limit_stays_shared(live: StartLive, simulator: Simulator, redis: RedisServer) -> None:
    """Limits that did not change keep their share; two sidecars together give no more than one limit."""
    limits = {"requests_per_minute": 6}
    first, second = [await live(shared(simulator, redis, limits=limits)) for _ in range(2)]
    for sidecar in (first, second):
        await joined(sidecar)
        await until(lambda sidecar=sidecar: limiter(sidecar).share._leasing)  # type: ignore[misc]
    statuses = [(await first.told())[0] for _ in range(3)]
    before = limiter(first)
    await first.take(shared(simulator, redis, limits=limits, api_key="sk-new"))
    assert limiter(first) is before
    assert limiter(first).share is not None
    for _ in range(4):
        statuses += [(await each.told())[0] for each in (first, second)]
    assert sorted(statuses).count(200) == 6


async def test_a_changed_limit_is_shared_anew(live: StartLive, simulator: Simulator, redis: RedisServer) -> None:
    """A limit that is altered has a share again at once, and the old one's is given back."""
    sidecar = await live(shared(simulator, redis, limits={"requests_per_minute": 60, "concurrent": 2}))
    await joined(sidecar)
    assert (await sidecar.told())[0] == 200
    for number in range(5):
        await sidecar.take(shared(simulator, redis, limits={"requests_per_minute": 100 + number, "concurrent": 2}))
        assert (await sidecar.told())[0] == 200
    resources = sidecar.app.upstreams
    await until(lambda: not resources._leaving)
    share = limiter(sidecar).share
    await until(lambda: share._leasing)
    assert resources._shares["upstream", "a"] is share
    assert len(resources._links) + len(resources._shares) == 2


async def test_a_limit_that_is_raised(live: StartLive, simulator: Simulator, redis: RedisServer) -> None:
    """A limit that is altered begins full with Redis too: an operator who raises it need not wait for it to fill."""
    tree = shared(simulator, redis, limits={"requests_per_minute": 2})
    tree["routes"][0]["retry"] |= {"longest_wait_seconds": 0.001}
    sidecar = await live(tree)
    await joined(sidecar)
    await until(lambda: limiter(sidecar).share._leasing)
    assert [(await sidecar.told())[0] for _ in range(3)] == [200, 200, 429]
    tree["upstreams"]["a"]["limits"] = {"requests_per_minute": 30}
    await sidecar.take(tree)
    await until(lambda: not sidecar.app.upstreams._leaving)
    await limiter(sidecar).share._errand.ask()
    assert [(await sidecar.told())[0] for _ in range(12)] == [200] * 12


async def test_a_limit_that_is_gone_asks_no_more(live: StartLive, simulator: Simulator, redis: RedisServer) -> None:
    """A limit that was taken out leases no share when Redis comes back: nobody would ever give it back."""
    sidecar = await live(shared(simulator, redis, limits={"concurrent": 3, "requests_per_minute": 60}))
    await joined(sidecar)
    assert (await sidecar.told())[0] == 200
    share = limiter(sidecar).share
    await sidecar.take(shared(simulator, redis))
    await until(lambda: not sidecar.app.upstreams._leaving)
    await redis.kill()
    await until(lambda: sidecar.app.upstreams._shared is not None and not sidecar.app.upstreams._shared.up)
    await redis.start()
    await joined(sidecar)
    while not await redis.client.exists("octet:circuit:a"):
        pass
    await until(lambda: share._errand._task is None)
    assert not await redis.client.exists("octet:limits:upstream:a")


async def test_reloads_while_redis_is_frozen(live: StartLive, simulator: Simulator, redis: RedisServer) -> None:
    """Neither a reload nor a call waits for a Redis that takes everything and answers nothing."""
    limits = {"requests_per_minute": 1000, "concurrent": 10}
    tree = shared(simulator, redis, limits=limits)
    tree["redis"]["timeout_seconds"] = 0.05
    sidecar = await live(tree)
    await joined(sidecar)
    redis.freeze()
    for number in range(10):
        tree["upstreams"]["a"]["limits"] = {"requests_per_minute": 1000 + number, "concurrent": 10}
        tree["upstreams"]["a"]["circuit"] = {**FAST, "window": 5 + number}
        if number:
            await sidecar.take(tree)
        assert (await sidecar.told())[0] == 200
    redis.thaw()
    await until(lambda: not sidecar.app.upstreams._leaving)
    assert len(sidecar.app.upstreams._links) + len(sidecar.app.upstreams._shares) == 2


async def test_reloads_while_redis_is_away(live: StartLive, simulator: Simulator, redis: RedisServer) -> None:
    """What came while Redis was away is shared as soon as it is back."""
    sidecar = await live(shared(simulator, redis))
    await joined(sidecar)
    await redis.kill()
    await until(lambda: sidecar.app.upstreams._shared is not None and not sidecar.app.upstreams._shared.up)
    await sidecar.take(shared(simulator, redis, circuit={**FAST, "window": 5}))
    assert (await sidecar.told())[0] == 200
    await redis.start()
    await joined(sidecar)
    await fail(sidecar, simulator, 1)  # beside one good call
    while await redis.client.hget("octet:circuit:a", "state") != b"2":
        pass
