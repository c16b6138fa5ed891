"""Kept answers outlive a reload where what decides them did not change; the rules they are kept by follow the file."""

import asyncio
from typing import Any

import pytest

from proxy.simulator import Behaviour, Simulator
from tests.cache.in_redis import be_patient
from tests.redis_server import RedisServer
from tests.reload.conftest import Live, StartLive, Tree, one, route, upstream
from tests.waiting import until

KEEP: Tree = {"any_temperature": True}


def cached(simulator: Simulator, rules: Tree | None = None, settings: Tree | None = None, **sections: Any) -> Tree:
    """One route that keeps answers."""
    rules = KEEP if rules is None else {**KEEP, **rules}
    return one(simulator, settings=settings, routes=[route("one", "a", cache=rules)], **sections)


async def ask(sidecar: Live, **fields: Any) -> str:
    """What a good answer had to do with the cache."""
    status, body, headers = await sidecar.told(**fields)
    assert status == 200, body
    return headers["x-octet-cache"]


@pytest.mark.parametrize(
    "settings",
    [{"api_key": "sk-new"}, {"limits": {"concurrent": 7}}, {"labels": {"region": "eu"}}, {"circuit": {"window": 9}}],
    ids=lambda settings: next(iter(settings)),
)
async def test_answers_are_kept(live: StartLive, simulator: Simulator, settings: Tree) -> None:
    """An answer is found again, by its bytes and by its key, whatever else is altered."""
    sidecar = await live(cached(simulator))
    assert [await ask(sidecar) for _ in range(3)] == ["miss", "memory", "memory"]
    await sidecar.take(cached(simulator, settings=settings))
    assert [await ask(sidecar), await ask(sidecar), await ask(sidecar, user="x")] == ["memory"] * 3
    assert simulator.report.calls == 1


@pytest.mark.parametrize("what", ["base_url", "model", "provider", "set", "query", "name"])
async def test_answers_of_another_place_are_none(live: StartLive, simulator: Simulator, what: str) -> None:
    """With another target, or another question to it, nothing of before is given; with the old one it is again."""
    sidecar = await live(cached(simulator))
    assert [await ask(sidecar), await ask(sidecar)] == ["miss", "memory"]
    tree = cached(simulator)
    if what in ("base_url", "provider", "query"):
        other: Tree = {"base_url": simulator.base_url("vllm"), "provider": "vllm"}
        tree["upstreams"]["a"] |= {"query": {"v": "2"}} if what == "query" else other
        if what == "base_url":
            tree["upstreams"]["a"]["provider"] = "openai"
    elif what == "name":
        tree["routes"][0]["name"] = "renamed"
    else:
        tree["routes"][0]["targets"][0][what] = "gpt-4.1" if what == "model" else {"temperature": 1}
    await sidecar.take(tree)
    assert [await ask(sidecar), await ask(sidecar)] == ["miss", "memory"]
    await sidecar.take(cached(simulator))
    assert await ask(sidecar) == "memory"


async def test_the_cache_comes_and_goes(live: StartLive, simulator: Simulator) -> None:
    """A route that keeps nothing gives nothing; one that is to keep begins to."""
    sidecar = await live(one(simulator))
    assert await ask(sidecar) == "bypass"
    await sidecar.take(cached(simulator))
    assert [await ask(sidecar), await ask(sidecar)] == ["miss", "memory"]
    await sidecar.take(one(simulator))
    assert await ask(sidecar) == "bypass"
    await sidecar.take(cached(simulator))
    assert await ask(sidecar) == "memory"


async def test_its_settings_follow(live: StartLive, simulator: Simulator) -> None:
    """Less memory holds less at once; another ttl, and a smaller entry, hold from now on."""
    sidecar = await live(cached(simulator))
    for number in range(20):
        simulator.script("openai", Behaviour(text="x" * 2000))
        await ask(sidecar, seed=number)
    assert await sidecar.metric("octet_cache_entries") == 20
    await sidecar.take(cached(simulator, cache={"memory": {"max_bytes": 20_000}}))
    assert 0 < await sidecar.metric("octet_cache_entries") < 10
    assert await sidecar.metric("octet_cache_bytes") <= 20_000
    await sidecar.take(cached(simulator, cache={"max_entry_bytes": 10}))
    assert [await ask(sidecar, seed=99), await ask(sidecar, seed=99)] == ["miss", "miss"]
    shown = (await sidecar.ask("GET", "/admin/cache"))[1]
    assert shown["memory"]["max_bytes"] == 64 * 1024**2


async def test_stale_windows_follow(live: StartLive, simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a route says of stale answers after a reload holds for answers made after it."""
    monkeypatch.setattr("proxy.cache.shelf.JITTER", 0.0)
    short = {"ttl_seconds": 0.05}
    sidecar = await live(cached(simulator, short))
    await sidecar.take(cached(simulator, {**short, "stale_if_error_seconds": 600}))
    assert await ask(sidecar) == "miss"
    shelf = sidecar.app.upstreams.shelf
    assert shelf is not None
    kept = shelf.memory.peek(bytes.fromhex((await sidecar.told())[2]["x-octet-cache-key"]))
    assert kept is not None
    await until(lambda: kept.good_until <= shelf.clock())
    simulator.always("openai", Behaviour(status=500))
    assert await ask(sidecar) == "memory"
    await sidecar.take(cached(simulator, short))
    assert (await sidecar.told())[0] == 502


async def test_callers_keep_their_own(live: StartLive, simulator: Simulator) -> None:
    """A caller's answers follow its name: a rotated key finds them, another caller with the old key does not."""

    def tree(*callers: tuple[str, str]) -> Tree:
        listed = [{"name": name, "key": key} for name, key in callers]
        return cached(simulator, server={"callers": listed})

    async def tier(key: str) -> str:
        body = {"model": "one", "messages": [{"role": "user", "content": "Hello"}]}
        headers = {"authorization": f"Bearer {key}"}
        async with sidecar.http.post(f"{sidecar.url}/v1/chat/completions", json=body, headers=headers) as response:
            return response.headers["x-octet-cache"]

    sidecar = await live(tree(("one", "k1")))
    assert [await tier("k1"), await tier("k1")] == ["miss", "memory"]
    await sidecar.take(tree(("one", "k2"), ("two", "k1")))
    assert [await tier("k2"), await tier("k1")] == ["memory", "miss"]


async def test_those_who_join_over_a_reload(live: StartLive, simulator: Simulator) -> None:
    """A call of the new generation joins the same one of the old, where nothing that decides it has changed."""
    sidecar = await live(cached(simulator))
    simulator.script("openai", Behaviour(delay_seconds=0.3))
    old = asyncio.create_task(ask(sidecar))
    await simulator.report.wait_for(lambda report: report.open_calls == 1)
    tree = cached(simulator)
    tree["upstreams"]["b"] = upstream(simulator, "vllm")
    await sidecar.take(tree)
    new = asyncio.create_task(ask(sidecar))
    assert [await old, await new] == ["miss", "joined"]
    assert simulator.report.calls == 1


async def test_answers_in_redis(
    live: StartLive, simulator: Simulator, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tier in Redis is there as soon as the first route keeps answers, and outlives routes that do."""
    be_patient(monkeypatch)
    where: Tree = {"cache": {"redis": {"url": redis.url, "timeout_seconds": 5}, "memory": {"max_bytes": 1}}}
    sidecar = await live(one(simulator, **where))
    await sidecar.take(cached(simulator, **where))
    shelf = sidecar.app.upstreams.shelf
    assert shelf is not None
    await until(lambda: shelf.redis is not None and shelf.redis.up)
    assert await ask(sidecar) == "miss"
    while not await redis.client.dbsize():
        pass
    assert await ask(sidecar) == "redis"
    await sidecar.take(cached(simulator, settings={"api_key": "sk-new"}, **where))
    assert sidecar.app.upstreams.shelf is shelf
    assert await ask(sidecar) == "redis"
    assert simulator.report.calls == 1
