"""Budgets of several workers: divided among them, or one for all through Redis; money and traces are told as one."""

from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from proxy.simulator import Simulator
from tests.redis_server import RedisServer
from tests.workers.conftest import Begin, Fleet, one, wait_until

OPENMETRICS = {"accept": "application/openmetrics-text; version=1.0.0"}
SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PRICE = {"*": {"input_per_million": 0, "output_per_million": 1000}}


def priced(simulator: Simulator, daily_usd: float, **sections: Any) -> dict[str, Any]:
    """The usual file, with a price and a budget of its route."""
    tree = one(simulator, upstream={"prices": PRICE}, **sections)
    tree["routes"][0]["budget"] = {"daily_usd": daily_usd}
    return tree


async def families(fleet: Fleet) -> dict[str, Any]:
    """What a Prometheus scrapes."""
    text = await fleet.ask("/metrics", headers=OPENMETRICS)
    return {family.name: family for family in text_string_to_metric_families(text)}  # type: ignore[no-untyped-call]


async def value(fleet: Fleet, name: str) -> float:
    """The sum of a metric's series."""
    return float(sum(sample.value for sample in (await families(fleet))[name].samples))


async def test_each_has_its_part(begin: Begin, simulator: Simulator) -> None:
    """Without Redis: a worker's part is a third; together they tell the whole, and refuse above it."""
    fleet = await begin(priced(simulator, 0.3))
    lines = (await fleet.lines()).values()
    for line in lines:
        while await fleet.call(session=line.session) == 200:
            pass
    assert await value(fleet, "octet_budget_limit_usd") == pytest.approx(0.3)
    spent = await value(fleet, "octet_budget_spent_usd")
    assert spent == pytest.approx(await value(fleet, "octet_cost_usd"))
    assert 0.3 <= spent < 0.3 + 3 * 0.06  # each by its last call


async def test_redis_keeps_one_for_all(begin: Begin, simulator: Simulator, redis: RedisServer) -> None:
    """What one has spent bounds the others."""
    fleet = await begin(priced(simulator, 0.1, redis={"url": redis.url, "timeout_seconds": 5.0}))
    first, *others = (await fleet.lines()).values()
    while await fleet.call(session=first.session) == 200:
        pass
    spent = await value(fleet, "octet_cost_usd")
    for line in others:

        async def refused(line: Any = line) -> bool:
            return await fleet.call(session=line.session) == 429

        await wait_until(refused)

    async def known() -> bool:
        return await value(fleet, "octet_budget_spent_usd") == pytest.approx(await value(fleet, "octet_cost_usd"))

    await wait_until(known)
    assert await value(fleet, "octet_budget_limit_usd") == pytest.approx(0.1)
    assert spent <= await value(fleet, "octet_cost_usd")


async def test_exemplars_come_through(begin: Begin, simulator: Simulator) -> None:
    """A traced call is told of by whichever worker served it."""
    fleet = await begin(priced(simulator, 1000))
    async with fleet.session(headers={"traceparent": SAMPLED}) as session:
        assert await fleet.call(session=session) == 200
    found = [
        sample.exemplar.labels["trace_id"]
        for sample in (await families(fleet))["octet_call_duration_seconds"].samples
        if sample.exemplar is not None
    ]
    assert found == [SAMPLED.split("-")[1]]
