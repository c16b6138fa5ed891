"""Whatever happens to connections to Redis, a process goes on looking for it, and listening."""

from typing import Any

import pytest
from redis.asyncio.connection import Connection

from proxy.config import Redis
from proxy.shared_state import SharedState
from tests.redis_server import RedisServer
from tests.waiting import until


async def test_a_reset_ends_neither_the_look_nor_the_listening(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that is reset while it is made is a trouble like any other, also as uvloop says it."""
    send, met = Connection.send_packed_command, list[None]()

    async def broken(self: Connection, *arguments: Any, **more: Any) -> None:
        met.append(None)
        raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")

    shared, heard = SharedState(Redis.model_validate({"url": redis.url})), list[None]()
    shared.follow("octet:circuit:a", lambda: heard.append(None))
    monkeypatch.setattr(Connection, "send_packed_command", broken)
    shared.start()
    await until(lambda: len(met) >= 2)  # who looks, and who listens
    monkeypatch.setattr(Connection, "send_packed_command", send)
    await until(lambda: (shared.up and len(heard) >= 2) or any(task.done() for task in shared._tasks))
    assert not any(task.done() for task in shared._tasks)
    await shared.close()
