"""One scrape tells of all workers as of one process."""

import asyncio
import signal
import time
from collections.abc import Iterator
from typing import Any

from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from proxy.simulator import Behaviour, Simulator
from tests.workers.conftest import Begin, Fleet, wait_until

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


async def scrape(fleet: Fleet) -> dict[str, Metric]:
    """The families by their names."""
    return {family.name: family for family in parse_text(await fleet.ask("/metrics"))}


def values(family: Metric, sample_name: str, /, **labels: str) -> Iterator[float]:
    """Samples that have these labels."""
    for sample in family.samples:
        if sample.name == sample_name and labels.items() <= sample.labels.items():
            yield sample.value


async def total(fleet: Fleet, name: str, **labels: str) -> float:
    """The sum of a counter's samples."""
    family = (await scrape(fleet)).get(name)
    return sum(values(family, f"{name}_total", **labels)) if family is not None else 0.0


async def test_counters_are_exact(begin: Begin, simulator: Simulator) -> None:
    """Every call of every worker is counted once, by its outcome, with its tokens and its attempts."""
    fleet = await begin()
    for line in (await fleet.lines()).values():
        for _ in range(3):
            assert await fleet.call(session=line.session) == 200
        assert await fleet.call("nobody", session=line.session) == 404
    simulator.script("openai", *[Behaviour(status=500)] * 4)
    line = await fleet.line()
    assert [await fleet.call(session=line.session) for _ in range(4)] == [502] * 4
    families = await scrape(fleet)
    calls = families["octet_calls"]
    assert sum(values(calls, "octet_calls_total", outcome="ok")) == 9
    assert sum(values(calls, "octet_calls_total")) == 16
    assert sum(values(families["octet_attempts"], "octet_attempts_total")) == 13
    assert sum(values(families["octet_attempts"], "octet_attempts_total", outcome="ok")) == 9
    told = [call for call in (await fleet.ask("/admin/calls"))["calls"] if call["status"] == 200]
    assert {call["worker"] for call in told} == {0, 1, 2}


async def test_histograms_are_added_up_bucket_by_bucket(begin: Begin) -> None:
    """Counts, sums and buckets are those of all calls; buckets only grow towards the last, which is the count."""
    fleet = await begin()
    for line in (await fleet.lines()).values():
        for stream in (True, False):
            assert await fleet.call(session=line.session, stream=stream) == 200
    families = await scrape(fleet)
    for name in ("octet_call_duration_seconds", "octet_overhead_seconds"):
        family = families[name]
        assert sum(values(family, f"{name}_count")) == 6
        assert sum(values(family, f"{name}_sum")) > 0
        series: dict[tuple[tuple[str, str], ...], list[float]] = {}
        for sample in family.samples:
            if sample.name == f"{name}_bucket":
                labels = tuple(pair for pair in sample.labels.items() if pair[0] != "le")
                series.setdefault(labels, []).append(sample.value)
        assert all(counts == sorted(counts) for counts in series.values())
        assert sum(counts[-1] for counts in series.values()) == 6


async def test_gauges_by_their_kind(begin: Begin, simulator: Simulator) -> None:
    """What is in use is added up; a state, a generation and a beginning are those of one."""
    began = time.time()
    fleet = await begin(upstream={"limits": {"concurrent": 9, "requests_per_minute": 100}, "max_connections": 7})
    simulator.always("openai", Behaviour(text="one two three", stall=2))
    lines = await fleet.lines()
    open_ones = [await line.session.post(*fleet.asks(), json=fleet.body(stream=True)) for line in lines.values()]
    await simulator.report.wait_for(lambda report: report.open_calls == 3)
    await fleet.ask("/admin/upstreams/a/open", "POST")
    families = await scrape(fleet)

    def gauge(family: str, **labels: str) -> float:
        (value,) = values(families[family], family, **labels)
        return value

    assert gauge("octet_open_streams") == 3
    assert gauge("octet_caller_connections") >= 3
    assert gauge("octet_slots_in_use", scope="upstream", name="a") == 3
    assert gauge("octet_connections_limit", upstream="a") == 7
    assert gauge("octet_connections", upstream="a", state="active") == 3
    assert 90 < gauge("octet_limit_remaining", scope="upstream", name="a", limit="requests") <= 100
    assert gauge("octet_circuit_state", upstream="a") == 2
    assert gauge("octet_config_generation") == 1
    assert gauge("octet_config_last_reload_successful") == 1
    assert gauge("octet_redis_up") == 0
    assert gauge("octet_workers") == 3
    assert began - 10 < gauge("process_start_time_seconds") <= time.time()
    for response in open_ones:
        response.close()


async def test_one_worker_with_an_open_circuit_shows(begin: Begin, simulator: Simulator) -> None:
    """The state that is shown is the worst of all workers."""
    fleet = await begin(upstream={"circuit": {"window": 2, "minimum_calls": 2, "open_seconds": 600}})
    simulator.script("openai", *[Behaviour(status=500)] * 2)
    line = await fleet.line()
    assert [await fleet.call(session=line.session) for _ in range(3)] == [502, 502, 503]
    (state,) = values((await scrape(fleet))["octet_circuit_state"], "octet_circuit_state", upstream="a")
    assert state == 2


async def test_what_is_negotiated_is_what_comes(begin: Begin) -> None:
    """Prometheus' own text and OpenMetrics are both told, as asked for, and both can be read strictly."""
    fleet = await begin()
    for line in (await fleet.lines()).values():
        assert await fleet.call(session=line.session) == 200
    async with fleet.session().get(f"{fleet.admin}/metrics") as response:
        assert response.headers["content-type"].startswith("text/plain; version=")
        plain = {family.name for family in parse_text(await response.text())}
    async with fleet.session().get(f"{fleet.admin}/metrics", headers={"accept": OPENMETRICS}) as response:
        assert response.headers["content-type"].startswith("application/openmetrics-text")
        text = await response.text()
    assert text.endswith("# EOF\n")
    strict = {family.name for family in parse_openmetrics(text)}  # type: ignore[no-untyped-call]
    assert {"octet_calls", "octet_call_duration_seconds", "octet_circuit_state", "octet_worker_restarts"} <= strict
    assert {name for name in plain if not name.endswith("_created")} == strict


async def test_every_family_and_series_stands_there_once(begin: Begin) -> None:
    """No family is told twice, and no series of it: a scraper would take neither."""
    fleet = await begin()
    assert await fleet.call() == 200
    text = await fleet.ask("/metrics")
    types = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(types) == len(set(types))
    keys = [line.rpartition(" ")[0] for line in text.splitlines() if line and not line.startswith("#")]
    assert len(keys) == len(set(keys))


async def test_reloads_are_counted_once_for_all(begin: Begin) -> None:
    """A reload is one, however many workers follow it; a bad one is bad for all."""
    fleet = await begin()
    fleet.path.write_text(fleet.path.read_text().replace("sk-ours", "sk-new"))
    assert (await fleet.ask("/admin/reload", "POST"))["generation"] == 2
    assert await total(fleet, "octet_config_reloads", result="loaded") == 2
    fleet.path.write_text("server: {")
    await fleet.ask("/admin/reload", "POST", status=422)
    assert await total(fleet, "octet_config_reloads", result="failed") >= 1
    families = await scrape(fleet)
    assert list(values(families["octet_config_last_reload_successful"], "octet_config_last_reload_successful")) == [0]
    assert list(values(families["octet_config_generation"], "octet_config_generation")) == [2]


async def test_a_frozen_worker_does_not_hold_up_a_scrape(begin: Begin) -> None:
    """Of a worker that does not answer nothing is told; the scrape comes all the same."""
    fleet = await begin()
    pid = (await fleet.pids())[0]
    fleet.kill(pid, signal.SIGSTOP)
    try:
        assert next(values((await scrape(fleet))["octet_config_generation"], "octet_config_generation")) == 1
    finally:
        fleet.kill(pid, signal.SIGCONT)


async def test_counters_never_fall_when_a_worker_is_replaced(begin: Begin) -> None:
    """What a worker had counted when it was last asked stays in the sum: a fall is a reset, and doubles every rate."""
    fleet = await begin()
    lines = await fleet.lines()
    for line in lines.values():
        assert await fleet.call(session=line.session) == 200
    assert await total(fleet, "octet_calls") == 3
    fleet.kill(lines[0].pid)
    await wait_until(lambda: fleet.replaced(lines[0].pid))
    assert await total(fleet, "octet_calls") == 3


async def test_many_scrapes_at_once(begin: Begin) -> None:
    """Scrapes at the same time, among calls, are all whole."""
    fleet = await begin()
    calls: list[Any] = [fleet.call() for _ in range(10)]
    texts = await asyncio.gather(*(fleet.ask("/metrics") for _ in range(10)), *calls)
    assert all("octet_workers 3.0" in text for text in texts[:10])
