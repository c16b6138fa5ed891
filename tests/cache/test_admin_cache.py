"""The operator's view of the cache, and purging: what is asked to go goes, from memory and from Redis; no more."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.cache.conftest import StartCached, body_of
from tests.cache.in_redis import be_patient, behind, counted, in_memory, names, tier, until_seen, written
from tests.conftest import MODELS, Sidecar
from tests.edge.test_admin import ask
from tests.redis_server import RedisServer
from tests.waiting import until

CALLERS = [{"name": name, "key": f"key-of-{name}"} for name in ("ann", "bob", "ann.2")]
Fleet = Callable[..., Awaitable[list[Sidecar]]]


@pytest.fixture
def fleet(start_cached: StartCached, redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """Starts sidecars that keep the answers of three callers in one Redis."""
    be_patient(monkeypatch)

    async def started(count: int = 1, **more: Any) -> list[Sidecar]:
        return [await start_cached(server={"callers": CALLERS}, **behind(redis.url, **more)) for _ in range(count)]

    return started


async def call(sidecar: Sidecar, caller: str = "ann", dialect: str = "openai", **fields: Any) -> tuple[str, str]:
    """Where an answer came from, and its key."""
    body = {"model": MODELS[dialect], "messages": [{"role": "user", "content": "Hello"}], **fields}
    headers = {"authorization": f"Bearer key-of-{caller}"}
    async with sidecar.http.post(f"{sidecar.url}/v1/chat/completions", json=body, headers=headers) as response:
        await body_of(response)
        return response.headers["x-octet-cache"], response.headers["x-octet-cache-key"]


async def fill(sidecar: Sidecar) -> dict[tuple[str, str], str]:
    """Keep an answer of two routes for each caller; the keys by route and caller."""
    keys = {}
    for dialect in ("openai", "vllm"):
        for caller in ("ann", "bob", "ann.2"):
            keys[dialect, caller] = (await call(sidecar, caller, dialect))[1]
    await written(sidecar, 6)
    return keys


async def purge(sidecar: Sidecar, query: str) -> Any:
    """What is told of a purge."""
    status, told = await ask(sidecar, "POST", f"/admin/cache/purge?{query}")
    assert status == 200, told
    return told


async def left(redis: RedisServer, namespace: str = "octet") -> set[tuple[str, str]]:
    """Route and caller of what Redis has."""
    parts = [name.removeprefix(f"{namespace}:answer:").split(":") for name in await names(redis, f"{namespace}:*")]
    return {(route, tenant) for route, tenant, _ in parts}


ALL = {(route, caller) for route in ("openai", "vllm") for caller in ("ann", "bob", "ann.2")}
SOME = [
    ("all", ALL),
    ("all=", ALL),
    ("route=openai", {(route, caller) for route, caller in ALL if route == "openai"}),
    ("tenant=ann", {(route, caller) for route, caller in ALL if caller == "ann"}),
    ("tenant=ann.2", {(route, caller) for route, caller in ALL if caller == "ann.2"}),
    ("route=vllm&tenant=bob", {("vllm", "bob")}),
    ("key=KEY", {("openai", "ann")}),
    ("key=KEY&route=openai", {("openai", "ann")}),
    ("key=KEY&route=openai&tenant=ann", {("openai", "ann")}),
    ("key=KEY&route=vllm", set()),
    ("key=KEY&tenant=bob", set()),
    ("route=open", set()),
    ("tenant=an.", set()),
    ("tenant=*", set()),
    ("tenant=a*", set()),
    ("route=nobody&tenant=ann", set()),
    (f"key={'0' * 64}", set()),
]


@pytest.mark.parametrize(("query", "gone"), SOME, ids=[query for query, _ in SOME])
async def test_what_fits_goes(fleet: Fleet, redis: RedisServer, query: str, gone: set[tuple[str, str]]) -> None:
    """From memory and from Redis, and it is told how much; a call asks anew for what has gone and finds the rest."""
    one, other = await fleet(2)
    keys = await fill(one)
    told = await purge(one, query.replace("KEY", keys["openai", "ann"]))
    assert told == {"removed": {"memory": len(gone), "redis": len(gone)}}
    assert await left(redis) == ALL - gone
    assert len(in_memory(one)) == len(ALL - gone)
    for route, caller in ALL:
        assert (await call(one, caller, route))[0] == ("miss" if (route, caller) in gone else "memory")
    for route, caller in ALL - gone:
        assert (await call(other, caller, route))[0] == "redis"


async def test_answers_that_are_everybodys(start_cached: StartCached, redis: RedisServer) -> None:
    """The tenant `*` is that of shared answers, and only theirs; without callers it is `-`."""
    sidecar = await start_cached({"shared": True}, **behind(redis.url))
    other = await start_cached(**behind(redis.url))
    for each in (sidecar, other):
        await call(each)
        await written(each)
    assert await left(redis) == {("openai", "*"), ("openai", "-")}
    assert await purge(sidecar, "tenant=*") == {"removed": {"memory": 1, "redis": 1}}
    assert await left(redis) == {("openai", "-")}
    assert await purge(other, "tenant=-") == {"removed": {"memory": 1, "redis": 1}}


async def test_nothing_else_in_redis_is_touched(fleet: Fleet, redis: RedisServer) -> None:
    """Other namespaces, whatever they are called, rights to ask, other databases and strangers' keys stay."""
    (sidecar,) = await fleet(1)
    neighbours = [await fleet(1, namespace=name) for name in ("octet2", "octet:b", "xoctet", "octet.answer")]
    await fill(sidecar)
    for (neighbour,) in neighbours:
        await fill(neighbour)
    strangers = ["octet:asking:openai:ann:00", "octet:circuit:openai", "answer:openai:ann:00", "octet:answers:a:b:c"]
    for stranger in strangers:
        await redis.client.set(stranger, 1)
    await redis.client.select(1)
    await redis.client.set("octet:answer:openai:ann:00", 1)
    await redis.client.select(0)
    before = set(await names(redis))
    for query in ("tenant=ann", "route=openai", "all"):
        await purge(sidecar, query)
    assert before - set(await names(redis)) == {name for name in before if name.startswith("octet:answer:")}
    await redis.client.select(1)
    assert await names(redis) == ["octet:answer:openai:ann:00"]
    for (neighbour,) in neighbours:
        assert len(in_memory(neighbour)) == 6


async def test_a_namespace_may_begin_like_our_keys(fleet: Fleet, redis: RedisServer) -> None:
    """One sidecar's purge leaves another's answers, although `octet:answer` begins all keys of `octet`."""
    (sidecar,), (neighbour,) = await fleet(1), await fleet(1, namespace="octet:answer")
    await fill(neighbour)
    assert await purge(sidecar, "all") == {"removed": {"memory": 0, "redis": 0}}
    assert len(await names(redis, "octet:answer:answer:*")) == 6


async def test_many_are_purged(fleet: Fleet, redis: RedisServer) -> None:
    """More than Redis tells at once."""
    (sidecar,) = await fleet()
    await call(sidecar)
    await written(sidecar)
    async with redis.client.pipeline(transaction=False) as pipeline:
        for number in range(3000):
            pipeline.set(f"octet:answer:openai:ann:{number:064x}", b"x")
            pipeline.set(f"octet:answer:openai:bob:{number:064x}", b"x")
        await pipeline.execute()
    assert (await purge(sidecar, "tenant=ann"))["removed"] == {"memory": 1, "redis": 3001}
    assert await left(redis) == {("openai", "bob")}


BAD = [
    "", "route=", "key=", "tenant=", "all&route=openai", "all&key=", "everything", "route=openai&model=gpt-4o",
    "key=abc", f"key={'A' * 64}", f"key={'0' * 63}*", "route=*", "route=a:b", "route=open*", "tenant=a%5Bn%5D",
    "tenant=a%3Ab", "tenant=%3F", "route=a%5C", f"route={'a' * 65}", "route=openai&route=vllm", "route=openai&tenant=",
    "all=no",
]  # fmt: skip


@pytest.mark.parametrize("query", BAD)
async def test_what_cannot_be_meant(fleet: Fleet, redis: RedisServer, query: str) -> None:
    """Is refused, and nothing goes."""
    (sidecar,) = await fleet()
    await fill(sidecar)
    status, told = await ask(sidecar, "POST", f"/admin/cache/purge?{query}")
    assert (status, told["error"]["type"]) == (400, "invalid_request_error")
    assert (len(in_memory(sidecar)), await left(redis)) == (6, ALL)


@pytest.mark.parametrize(("method", "path"), [("GET", "/admin/cache/purge?all"), ("POST", "/admin/cache")])
async def test_looking_and_purging_are_two_things(fleet: Fleet, method: str, path: str) -> None:
    """Neither is done by the other's method."""
    (sidecar,) = await fleet()
    await fill(sidecar)
    assert (await ask(sidecar, method, path))[0] == 405
    assert len(in_memory(sidecar)) == 6


@pytest.mark.parametrize("path", ["/admin/cache", "/admin/cache/purge?all"])
async def test_only_for_operators(fleet: Fleet, path: str) -> None:
    """Web pages and other machines may neither look nor purge."""
    (sidecar,) = await fleet()
    await fill(sidecar)
    method = "POST" if "purge" in path else "GET"
    for headers in ({"origin": "http://127.0.0.1:8081"}, {"host": "evil.example"}):
        assert (await ask(sidecar, method, path, **headers))[0] == 403
    assert len(in_memory(sidecar)) == 6
    async with sidecar.http.request(method, f"{sidecar.url}{path}") as response:
        assert response.status == 404


async def test_redis_is_away(fleet: Fleet, redis: RedisServer) -> None:
    """The purge says so, and what memory had has gone all the same."""
    (sidecar,) = await fleet()
    await fill(sidecar)
    await redis.kill()
    status, told = await ask(sidecar, "POST", "/admin/cache/purge?tenant=ann")
    assert (status, told["error"]["code"]) == (503, "redis_unavailable")
    assert "2 answers have left memory" in told["error"]["message"]
    assert len(in_memory(sidecar)) == 4
    await redis.start()


@pytest.mark.parametrize("command", [("requirepass", "s3cret"), ("maxmemory", "1")])
async def test_redis_is_unwilling(fleet: Fleet, redis: RedisServer, command: tuple[str, str]) -> None:
    """Without a password it purges nothing, and it is told; one that is full can be purged."""
    (sidecar,) = await fleet()
    await fill(sidecar)
    await redis.client.config_set(*command)
    await redis.tell("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    await until(lambda: tier(sidecar).up)
    status, told = await ask(sidecar, "POST", "/admin/cache/purge?all")
    assert status == (503 if command[0] == "requirepass" else 200)
    assert "s3cret" not in str(told)
    assert len(in_memory(sidecar)) == 0
    await redis.client.config_set(command[0], "" if command[0] == "requirepass" else "0")


async def test_the_cache_as_it_stands(fleet: Fleet, redis: RedisServer) -> None:
    """Both tiers, what they hold, and how often answers were found, kept and not."""
    one, other = await fleet(2)
    await fill(one)
    await call(one)
    await call(other)
    status, told = await ask(one, "GET", "/admin/cache")
    assert status == 200
    memory = in_memory(one)
    assert told["memory"] == {"entries": 6, "bytes": memory.bytes, "max_bytes": 64 * 1024**2}
    assert memory.bytes > 6 * 100
    assert (told["redis"], told["in_flight"]) == ({"up": True}, 0)
    assert told["lookups"] == {"memory": {"hit": 1, "miss": 6}, "redis": {"miss": 6}}
    assert told["writes"] == {"memory": {"ok": 6}, "redis": {"ok": 6}}
    assert (told["joined"], told["evictions"]) == ({}, {})
    found = (await ask(other, "GET", "/admin/cache"))[1]["lookups"]
    assert (found["memory"]["miss"], found["redis"]) == (1, {"hit": 1})
    for name in ("ann", "Hello", redis.url):
        assert name not in str(told)
    await redis.kill()
    await call(one, seed=1)

    async def is_told() -> bool:
        return bool((await ask(one, "GET", "/admin/cache"))[1]["redis"] == {"up": False})

    await until_seen(is_told)
    await redis.start()


async def test_without_redis(start_cached: StartCached, sidecar: Sidecar) -> None:
    """Only memory is shown and purged; where nothing is kept there is nothing to purge."""
    cached = await start_cached()
    await call(cached)
    told = (await ask(cached, "GET", "/admin/cache"))[1]
    assert (told["memory"]["entries"], told["redis"]) == (1, None)
    assert await purge(cached, "all") == {"removed": {"memory": 1, "redis": None}}
    told = (await ask(sidecar, "GET", "/admin/cache"))[1]
    assert (told["memory"], told["redis"], told["lookups"]) == (None, None, {})
    assert await purge(sidecar, "all") == {"removed": {"memory": 0, "redis": None}}
    assert counted(sidecar, "lookups") == {}
