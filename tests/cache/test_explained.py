"""Asked why a call goes where it goes, the admin side says whether Redis has an answer, and changes nothing by it."""

import asyncio
from typing import Any

from tests.conftest import Sidecar, Start
from tests.redis_server import RedisServer

ROUTES = [{"name": "r", "targets": [{"upstream": "openai"}], "cache": {"any_temperature": True}}]


async def cache_of(sidecar: Sidecar, text: str) -> Any:
    body = {"model": "any", "messages": [{"role": "user", "content": text}]}
    async with sidecar.http.post(f"{sidecar.admin_url}/admin/explain", json=body) as response:
        return (await response.json())["cache"]


async def test_whether_redis_has_it(start: Start, redis: RedisServer) -> None:
    """An answer that is kept there is told as such, another not; of a frozen Redis nobody can tell."""
    sidecar = await start(routes=ROUTES, cache={"redis": {"url": redis.url, "timeout_seconds": 2.0}})
    assert (await cache_of(sidecar, "Hello"))["redis"] is False
    assert (await sidecar.chat("any")).headers["x-octet-cache"] == "miss"
    async with asyncio.timeout(10):
        while not (told := await cache_of(sidecar, "Hello"))["redis"]:
            pass
    assert told["memory"] == "good"
    assert (await cache_of(sidecar, "Another"))["redis"] is False
    assert await sidecar.metric("octet_cache_lookups_total", tier="redis", result="hit") == 0
    redis.freeze()
    assert (await cache_of(sidecar, "Hello"))["redis"] is None
    redis.thaw()


async def test_without_redis_nobody_can_tell(start: Start) -> None:
    """With memory alone there is nothing to look into."""
    sidecar = await start(routes=ROUTES)
    assert (await cache_of(sidecar, "Hello"))["redis"] is None
