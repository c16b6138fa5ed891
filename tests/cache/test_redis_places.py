"""Where a Redis can be: a cluster, a service that sentinels watch, a unix socket."""

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cache.conftest import StartCached, body_of
from tests.cache.in_redis import (
    be_patient,
    behind,
    connections,
    counted,
    forget,
    names,
    no_connections,
    tier,
    until_seen,
    written,
)
from tests.conftest import Sidecar, Start
from tests.redis_server import RedisServer, SentinelServer, start_cluster
from tests.waiting import until

SERVICE = "the.cache"
# redis-py lets sockets of nodes that die, or of connections that it was making, go without closing them
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No answer of Redis comes too late."""
    be_patient(monkeypatch)
    yield
    gc.collect()


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[list[RedisServer]]:
    """Three nodes."""
    nodes = await start_cluster(tmp_path, 3)
    yield nodes
    for node in nodes:
        await node.kill()


@dataclass
class Watched:
    """A server, its copy, and who watches them."""

    primary: RedisServer
    replica: RedisServer
    sentinel: SentinelServer

    @property
    def url(self) -> str:
        return f"redis+sentinel://127.0.0.1:{self.sentinel.port}/{SERVICE}"


@pytest.fixture
async def watched(redis: RedisServer, tmp_path: Path) -> AsyncIterator[Watched]:
    """A service whose sentinel knows both servers."""
    own = tmp_path / "replica"
    own.mkdir()
    replica = RedisServer(own, "--replicaof", "127.0.0.1", str(redis.port), "--repl-diskless-sync-delay", "0")
    await replica.start()
    sentinel = SentinelServer(tmp_path, SERVICE, redis)
    await sentinel.start()
    yield Watched(redis, replica, sentinel)
    await sentinel.kill()
    await replica.kill()


def cluster_url(nodes: list[RedisServer]) -> str:
    return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes)


async def ask(sidecar: Sidecar, number: int = 0) -> str:
    """Where the answer to a call came from; each number is a call of its own."""
    answer = await sidecar.chat(seed=number)
    await body_of(answer)
    return answer.headers["x-octet-cache"]


async def ask_all(sidecar: Sidecar, count: int) -> set[str]:
    return set(await asyncio.gather(*(ask(sidecar, number) for number in range(count))))


async def purge(sidecar: Sidecar) -> Any:
    """What the purge of everything tells."""
    async with sidecar.http.post(f"{sidecar.admin_url}/admin/cache/purge?all") as response:
        assert response.status == 200, await response.text()
        return (await response.json())["removed"]


@pytest.mark.parametrize("join_seconds", [0, 5])
async def test_a_cluster(start_cached: StartCached, cluster: list[RedisServer], join_seconds: int) -> None:
    """Answers spread over its nodes, are found by others, and are purged; one node's address is enough."""
    rules = {"join_seconds": join_seconds}
    one, other = [await start_cached(rules, **behind(cluster_url(nodes))) for nodes in (cluster, cluster[2:])]
    assert await ask_all(one, 30) == {"miss"}
    await written(one, 30)
    kept = [await names(node, "octet:answer:*") for node in cluster]
    assert (all(kept), sum(map(len, kept))) == (True, 30)
    assert await ask_all(other, 30) == {"redis"}
    assert await other.metric("octet_redis_up") == 1
    assert await purge(other) == {"memory": 30, "redis": 30}
    assert [await names(node, "octet:answer:*") for node in cluster] == [[], [], []]
    forget(one)
    assert await ask_all(one, 30) == {"miss"}
    for sidecar in (one, other):
        await sidecar.close()
    for node in cluster:
        await no_connections(node)


async def test_the_first_calls_to_a_cluster(start_cached: StartCached, cluster: list[RedisServer]) -> None:
    """Many that come before anything is known of its nodes are all told, and their answers kept."""
    for _ in range(3):
        for node in cluster:
            await node.client.flushall()
        sidecar = await start_cached(**behind(cluster_url(cluster)))
        assert await ask_all(sidecar, 40) == {"miss"}
        await written(sidecar, 40)
        assert counted(sidecar, "lookups") == {"miss": 40}


async def test_a_cluster_that_is_not_there(start_cached: StartCached, cluster: list[RedisServer]) -> None:
    """From the start: calls are answered all the same."""
    for node in cluster:
        await node.kill()
    sidecar = await start_cached(**behind(cluster_url(cluster)))
    assert await ask_all(sidecar, 20) == {"miss"}
    assert await ask_all(sidecar, 20) == {"memory"}
    assert await sidecar.metric("octet_redis_up") == 0


async def test_a_cluster_that_loses_a_node(start_cached: StartCached, cluster: list[RedisServer]) -> None:
    """No call fails, whatever the rest of the cluster says of its keys."""
    sidecar = await start_cached(**behind(cluster_url(cluster)))
    await ask_all(sidecar, 20)
    await written(sidecar, 20)
    await cluster[1].kill()
    forget(sidecar)
    for start in range(0, 60, 10):
        answers = await asyncio.gather(*(ask(sidecar, number) for number in range(start, start + 10)))
        assert set(answers) <= {"miss", "redis"}
    assert "error" in counted(sidecar, "lookups")


async def test_a_cluster_that_dies(start_cached: StartCached, cluster: list[RedisServer]) -> None:
    """Calls go on without it."""
    sidecar = await start_cached(**behind(cluster_url(cluster)))
    await ask_all(sidecar, 20)
    await written(sidecar, 20)
    for node in cluster:
        await node.kill()
    forget(sidecar)
    assert await ask_all(sidecar, 40) == {"miss"}
    assert await ask_all(sidecar, 40) == {"memory"}
    assert await sidecar.metric("octet_redis_up") == 0


@pytest.mark.parametrize("join_seconds", [0, 5])
async def test_a_service_that_sentinels_watch(start_cached: StartCached, watched: Watched, join_seconds: int) -> None:
    """Answers are kept at its primary, found and purged there; nobody is connected to anything afterwards."""
    rules = {"join_seconds": join_seconds}
    one, other = [await start_cached(rules, **behind(watched.url)) for _ in range(2)]
    assert await ask_all(one, 30) == {"miss"}
    await written(one, 30)
    assert await one.metric("octet_redis_up") == 1
    assert await ask_all(other, 30) == {"redis"}
    assert len(await names(watched.primary, "octet:answer:*")) == 30
    assert await purge(other) == {"memory": 30, "redis": 30}
    assert await names(watched.primary, "octet:answer:*") == []
    before = await foreign_clients(watched.sentinel)
    for sidecar in (one, other):
        await sidecar.close()
    await no_connections(watched.primary)
    assert before

    async def left() -> bool:
        return not await foreign_clients(watched.sentinel)

    await until_seen(left)


async def foreign_clients(sentinel: SentinelServer) -> list[dict[str, str]]:
    """Connections to a sentinel that are neither the test's own nor other servers'."""
    own = str(await sentinel.client.client_id())
    return [
        each for each in await sentinel.client.client_list() if each["id"] != own and "sentinel" not in each["name"]
    ]


async def test_a_service_changes_its_primary(start_cached: StartCached, watched: Watched) -> None:
    """When the primary dies no call fails, and what its copy has is found once that has taken its place."""
    one, other = [await start_cached(**behind(watched.url)) for _ in range(2)]
    await ask_all(one, 10)
    await written(one, 10)

    async def copied() -> bool:
        return len(await names(watched.replica, "octet:answer:*")) == 10

    async def known() -> bool:
        return bool(await watched.sentinel.client.sentinel_slaves(SERVICE))

    async def moved() -> bool:
        address = await watched.sentinel.tell("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        return bool(address[1] == str(watched.replica.port).encode())

    await until_seen(copied, patience=10)
    await until_seen(known, patience=10)
    await watched.primary.kill()
    assert await ask_all(one, 20) <= {"memory", "miss"}
    assert await ask_all(other, 3) == {"miss"}
    await until_seen(moved, patience=20)
    for sidecar in (one, other):
        await until(lambda: tier(sidecar).up, patience=10)  # noqa: B023

    async def found() -> bool:
        forget(other)
        return await ask_all(other, 10) == {"redis"}

    await until_seen(found, patience=10)  # a sentinel may still have doubts of a primary that it has just named
    assert await other.metric("octet_redis_up") == 1


async def test_no_sentinel_is_there(start_cached: StartCached, watched: Watched) -> None:
    """Calls go on without it."""
    await watched.sentinel.kill()
    sidecar = await start_cached(**behind(watched.url))
    assert await ask_all(sidecar, 20) == {"miss"}
    assert await ask_all(sidecar, 20) == {"memory"}
    assert await sidecar.metric("octet_redis_up") == 0


async def test_circuits_are_shared_through_sentinels(start: Start, watched: Watched) -> None:
    """What one sidecar learns of an upstream the other knows; nobody is connected to anything afterwards."""
    shared = {"redis": {"url": watched.url, "timeout_seconds": 5.0}}
    one, other = [await start(**shared) for _ in range(2)]
    links = [each.app.upstreams.now.circuits.by_upstream["openai"][0].fleet for each in (one, other)]
    await until(lambda: not any(link._away for link in links))  # type: ignore[union-attr]
    one.app.upstreams.now.circuits.by_upstream["openai"][0].open()
    await until(lambda: other.app.upstreams.now.circuits.state("openai") == "open")
    assert (await other.chat()).status == 503
    assert await other.metric("octet_redis_up") == 1
    for sidecar in (one, other):
        await sidecar.close()
    await no_connections(watched.primary)

    async def left() -> bool:
        return not await foreign_clients(watched.sentinel)

    await until_seen(left)


async def test_a_unix_socket(start_cached: StartCached, tmp_path: Path) -> None:
    """With a database of its own."""
    path = tmp_path / "redis.sock"
    redis = RedisServer(tmp_path, "--unixsocket", str(path))
    await redis.start()
    try:
        one, other = [await start_cached(**behind(f"unix://{path}?db=2")) for _ in range(2)]
        assert await ask(one) == "miss"
        await written(one)
        assert await ask(other) == "redis"
        assert {each["db"] for each in await connections(redis)} == {"2"}
        assert await names(redis) == []
        assert await purge(other) == {"memory": 1, "redis": 1}
        for sidecar in (one, other):
            await sidecar.close()
        await no_connections(redis)
    finally:
        await redis.kill()
