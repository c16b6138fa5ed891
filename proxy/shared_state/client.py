"""How a Redis is talked to, whoever does: short waits, one try, a bounded number of connections.

Source: redis-py 8.1 (`asyncio/client.py`, `asyncio/cluster.py`, `asyncio/sentinel.py`); its defaults would try eleven
times.
"""

from typing import Any

from pydantic import SecretStr
from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster, SSLConnection
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError

from proxy.config import RedisPlace, parse_redis_url

PATIENCE_SECONDS = 0.25  # for one answer, and for a connection, at least

Client = Redis | RedisCluster
# What a client raises when Redis does not answer; RuntimeError is uvloop's, of a connection reset while it is made.
TROUBLE = (RedisError, RedisClusterException, OSError, RuntimeError)


def connect(url: SecretStr, most_connections: int, timeout_seconds: float = 0.0) -> Client:
    """A client; nothing is connected before it is used.

    Args:
        most_connections: whoever needs one more waits for it, not longer than for an answer.
        timeout_seconds: how long calls may wait; so long it may take to connect, or to answer, too.
    """
    place = parse_redis_url(url.get_secret_value())
    patience = max(PATIENCE_SECONDS, timeout_seconds)
    times: dict[str, Any] = {"socket_timeout": patience, "socket_connect_timeout": patience}
    habits: dict[str, Any] = {
        **times,
        "username": place.username,
        "password": place.password,
        "protocol": 2,
        "client_name": "octet",
    }
    if place.kind == "cluster":
        nodes = [ClusterNode(host, port) for host, port in place.hosts]
        return RedisCluster(
            startup_nodes=nodes, ssl=place.tls, retry=_no_retry(), max_connections=most_connections, **habits
        )
    if place.kind == "sentinel":
        security: dict[str, Any] = {"ssl": True} if place.tls else {}
        watchers: Any = Sentinel(place.hosts, sentinel_kwargs={**times, **security})  # type: ignore[no-untyped-call]
        master: Redis = watchers.master_for(
            place.service,
            db=place.db,
            retry=_no_retry(),
            max_connections=most_connections,
            **security,
            **habits,
        )
        return master
    pool = BlockingConnectionPool(
        max_connections=most_connections, timeout=patience, db=place.db, retry=_no_retry(), **_server(place),
        **habits,
    )  # fmt: skip
    return Redis.from_pool(pool)


async def close(client: Client) -> None:
    """Close a client's connections, those to sentinels too."""
    await client.aclose()
    watchers = getattr(getattr(client, "connection_pool", None), "sentinel_manager", None)
    for watcher in watchers.sentinels if watchers is not None else ():
        await watcher.aclose()


def _server(place: RedisPlace) -> dict[str, Any]:
    if place.path:
        return {"connection_class": UnixDomainSocketConnection, "path": place.path}
    host, port = place.hosts[0]
    return {"host": host, "port": port, **({"connection_class": SSLConnection} if place.tls else {})}


def _no_retry() -> Retry:
    return Retry(NoBackoff(), 0)
