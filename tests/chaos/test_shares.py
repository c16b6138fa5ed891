"""A share of a limit that is used up, or was given back, is asked for; it is no reason to pass a target by."""

import pytest

from tests.conftest import Start
from tests.redis_server import RedisServer


@pytest.mark.parametrize("limits", [{"concurrent": 10}, {"requests_per_minute": 6000}, {"tokens_per_minute": 600_000}])
async def test_the_first_target_is_used_again_after_a_rest(
    start: Start, redis: RedisServer, limits: dict[str, int]
) -> None:
    """With Redis, and far below the first target's limits, calls go there, one after another."""
    targets = [{"upstream": "openai"}, {"upstream": "vllm"}]
    sidecar = await start(
        upstreams={"openai": {"limits": limits}},
        routes=[{"name": "all", "match": {"model": "*"}, "targets": targets}],
        redis={"url": redis.url, "timeout_seconds": 5.0},
    )
    while not await sidecar.metric("octet_redis_up"):
        pass
    while (await sidecar.chat(model="m")).headers["x-octet-upstream"] != "openai":
        pass
    seen = [(await sidecar.chat(model="m")).headers["x-octet-upstream"] for _ in range(5)]
    assert seen == ["openai"] * 5
