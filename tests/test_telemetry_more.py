"""What the numbers mean: gaps between tokens, pools, lag, buckets, and how tallies are told to Prometheus."""

import asyncio
import math
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from proxy.simulator import Behaviour, Simulator
from proxy.telemetry import Telemetry
from proxy.telemetry.tallies import Counter, Histogram, Series
from tests.conftest import Sidecar, Start
from tests.edge.wire import STREAM_HEAD, asking, event, pouring, read_chunk, read_head, request

ROUTE = {"match": {"model": "m"}, "targets": [{"upstream": "vllm"}]}
DONE = b"data: [DONE]\n\n"
FINISH = event("", delta={}, finish_reason="stop")
CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


async def until(sidecar: Sidecar, holds: Callable[[float], bool], name: str) -> float:
    """Scrape until a metric is as it should be."""
    async with asyncio.timeout(10):
        while not holds(value := await sidecar.metric(name)):
            pass
    return value


async def count_gaps(start: Start, tokens: int, *ends: bytes) -> float:
    """How many gaps are counted in a stream whose contents come one by one; the last with the first of `ends`."""
    async with pouring() as upstream:
        sidecar = await start(upstreams={"vllm": {"base_url": upstream.url, "list_models": False}}, routes=[ROUTE])
        async with asking(sidecar, request(model="m", stream=True)) as (reader, _):
            await upstream.asked.wait()
            upstream.say(STREAM_HEAD + event("", delta={"role": "assistant", "content": ""}))
            for number in range(tokens):
                upstream.say(event(f"<{number}>") + (ends[0] if number == tokens - 1 else b""))
                if number == 0:
                    assert (await read_head(reader)).status == 200
                assert f"<{number}>".encode() in await read_chunk(reader)
            for end in ends[1:]:
                upstream.say(end)
                assert await read_chunk(reader) == end
            assert await read_chunk(reader) == b""
    await sidecar.lines.wait_for(1)
    labels = {"upstream": "vllm", "mode": "stream"}
    total = await sidecar.metric("octet_inter_token_seconds_sum", **labels)
    assert 0 <= total <= await sidecar.metric("octet_call_duration_seconds_sum", **labels)
    return await sidecar.metric("octet_inter_token_seconds_count", **labels)


@pytest.mark.parametrize("tokens", [1, 2, 40, 256, 257, 258, 350, 600])
async def test_a_gap_for_each_content_but_the_first(start: Start, tokens: int) -> None:
    """However long a stream is, there is one gap less than there are contents."""
    assert await count_gaps(start, tokens, FINISH + DONE) == tokens - 1


@pytest.mark.parametrize("ends", [(b"", FINISH + DONE), (b"", FINISH, DONE), (FINISH, DONE)], ids=len)
async def test_what_is_no_content_has_no_gap(start: Start, ends: tuple[bytes, ...]) -> None:
    """A finish reason and [DONE] that come by themselves are no contents, and behind no gap."""
    assert await count_gaps(start, 10, *ends) == 9


async def test_a_stream_at_a_pace(sidecar: Sidecar, simulator: Simulator) -> None:
    """An upstream that sends a token now and then is seen to do so."""
    simulator.always("openai", Behaviour(text=" ".join(["word"] * 5), token_seconds=0.05))
    assert (await (await sidecar.chat(stream=True)).text()).count("word") == 5
    labels = {"upstream": "openai", "mode": "stream"}
    total = await sidecar.metric("octet_inter_token_seconds_sum", **labels)
    assert await sidecar.metric("octet_inter_token_seconds_count", **labels) == 4
    assert 0 < total < await sidecar.metric("octet_call_duration_seconds_sum", **labels)


async def test_connections_in_use_and_idle(start: Start) -> None:
    """An upstream's connection is active while a stream is open on it, and idle afterwards."""

    async def pool(sidecar: Sidecar) -> tuple[float, float]:
        active, idle = [
            await sidecar.metric("octet_connections", upstream="vllm", state=state) for state in ("active", "idle")
        ]
        return active, idle

    async with pouring() as upstream:
        sidecar = await start(upstreams={"vllm": {"base_url": upstream.url, "list_models": False}}, routes=[ROUTE])
        assert await pool(sidecar) == (0, 0)
        async with asking(sidecar, request(model="m", stream=True)) as (reader, _):
            await upstream.asked.wait()
            assert await pool(sidecar) == (1, 0)
            first, rest = event("one"), FINISH + DONE
            upstream.say(CHUNKED + b"%x\r\n%b\r\n" % (len(first), first))
            assert (await read_head(reader)).status == 200
            assert await read_chunk(reader) == first
            assert await pool(sidecar) == (1, 0)
            assert await sidecar.metric("octet_open_streams") == 1
            upstream.say(b"%x\r\n%b\r\n0\r\n\r\n" % (len(rest), rest))
            assert await read_chunk(reader) == rest
            assert await read_chunk(reader) == b""
        await sidecar.lines.wait_for(1)
        assert await pool(sidecar) == (0, 1)
        assert await sidecar.metric("octet_open_streams") == 0


async def test_the_loop_is_watched(sidecar: Sidecar) -> None:
    """The loop's lag is looked at again and again, also when there are no calls."""
    name = "octet_loop_lag_seconds_count"
    seen = await until(sidecar, lambda count: count > 0, name)
    assert await until(sidecar, lambda count: count > seen, name) > seen
    assert await sidecar.metric("octet_loop_lag_seconds_sum") >= 0


def assert_buckets(families: Iterable[Metric]) -> int:
    """Each histogram's buckets grow and end with its count; how many histograms there are."""
    found = 0
    for family in families:
        series: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = {}
        counts: dict[tuple[tuple[str, str], ...], float] = {}
        for sample in family.samples if family.type == "histogram" else ():
            labels = tuple(sorted((name, value) for name, value in sample.labels.items() if name != "le"))
            if sample.name.endswith("_bucket"):
                series.setdefault(labels, []).append((float(sample.labels["le"]), sample.value))
            elif sample.name.endswith("_count"):
                counts[labels] = sample.value
        assert series.keys() == counts.keys()
        for labels, buckets in series.items():
            found += 1
            assert buckets == sorted(buckets)
            assert [value for _, value in buckets] == sorted(value for _, value in buckets)
            assert len({bound for bound, _ in buckets}) == len(buckets)
            assert buckets[-1] == (math.inf, counts[labels])
    return found


async def test_buckets_add_up(sidecar: Sidecar) -> None:
    """After calls of each kind, every histogram's buckets are cumulative, and +Inf is the count, in both formats."""
    for stream in (False, True):
        await (await sidecar.chat(stream=stream)).read()
        await (await sidecar.chat("nowhere", stream=stream)).read()
    for accept, parse in (("text/plain", parse_text), ("application/openmetrics-text", parse_openmetrics)):
        async with sidecar.http.get(f"{sidecar.admin_url}/metrics", headers={"accept": accept}) as response:
            assert response.headers["content-type"].startswith(accept)
            families = list(parse(await response.text()))
        assert assert_buckets(families) > 8
        told = {family.name for family in families if family.name.startswith("octet_")}
        assert len(told) == len([family for family in families if family.name.startswith("octet_")])
    assert await sidecar.metric("octet_call_duration_seconds_count", upstream="openai", mode="json") == 1


ODD = 'a "quoted\\" back\\slash\nand a line, {x="y"} é'


def both_ways(registry: CollectorRegistry) -> list[dict[str, Metric]]:
    """The metrics by name, as two readers read two formats."""
    formats: list[tuple[Any, Any]] = [(generate_latest, parse_text), (generate_openmetrics, parse_openmetrics)]
    return [{family.name: family for family in parse(write(registry).decode())} for write, parse in formats]


def test_a_counter_is_told_as_it_was_counted() -> None:
    """Series begin at 0, add up, keep their labels whatever is in them, and are named and typed as counters are."""
    registry = CollectorRegistry()
    counter = Counter(registry, "tries", 'Tries, "all" of\nthem.', ("who", "what"))
    counter.bind(("nobody", "none"))
    cell = counter.bind(("one", ODD))
    cell[0] += 2
    counter.add(("one", ODD))
    counter.add(("one", "other"), 0.25)
    assert counter.bind(("one", ODD)) is cell
    for families in both_ways(registry):
        family = families["tries"]
        assert (family.type, family.documentation) == ("counter", 'Tries, "all" of\nthem.')
        assert {sample.name for sample in family.samples} == {"tries_total"}
        told = {(sample.labels["who"], sample.labels["what"]): sample.value for sample in family.samples}
        assert told == {("nobody", "none"): 0, ("one", ODD): 3, ("one", "other"): 0.25}


def test_a_histogram_is_told_as_it_was_observed() -> None:
    """A value is in the first bucket that is not below it; buckets are cumulative, and sum and count are there."""
    registry = CollectorRegistry()
    histogram = Histogram(registry, "waits_seconds", "Waits.", ("who",), (50e-6, 0.1, 1, 10))
    histogram.bind(("nobody",))
    for value in (0.0, 50e-6, 51e-6, 0.1, 0.5, 1, 1.5, 1000.0):
        histogram.observe((ODD,), value)
    for families in both_ways(registry):
        family = families["waits_seconds"]
        assert family.type == "histogram"
        assert assert_buckets([family]) == 2
        told = {(s.name, s.labels["who"], s.labels.get("le")): s.value for s in family.samples}
        bounds = [bound for name, who, bound in told if name == "waits_seconds_bucket" and who == ODD]
        assert [float(bound or "") for bound in bounds] == [50e-6, 0.1, 1, 10, math.inf]
        assert [told["waits_seconds_bucket", ODD, bound] for bound in bounds] == [2, 4, 6, 7, 8]
        assert told["waits_seconds_count", ODD, None] == 8
        assert told["waits_seconds_sum", ODD, None] == pytest.approx(1003.100101)
        assert told["waits_seconds_count", "nobody", None] == told["waits_seconds_sum", "nobody", None] == 0


def test_tallies_without_labels() -> None:
    """One series, of which nothing is told before it is begun, and a zero afterwards."""
    registry = CollectorRegistry()
    counter, histogram = Counter(registry, "all", "All.", ()), Histogram(registry, "lag", "Lag.", (), (1,))
    for families in both_ways(registry):
        assert not families["all"].samples
        assert not families["lag"].samples
    counter.bind(())
    histogram.bind(())
    for families in both_ways(registry):
        assert [sample.value for sample in families["all"].samples] == [0]
        assert {sample.value for sample in families["lag"].samples} == {0}


def test_a_series_of_its_own() -> None:
    """A series that belongs to no histogram takes values and is told to nobody."""
    series = Series((1, 2))
    for value in (1, 1.5, 3):
        series.observe(value)
    assert (series.counts, series.total) == ([1, 1, 1], 5.5)


def test_redis_is_configured_before_it_has_answered() -> None:
    """That there is one is known from the start; it is up when all who use it say so."""
    telemetry = Telemetry(lambda _: None)
    value = telemetry.registry.get_sample_value
    assert (value("octet_redis_configured"), value("octet_redis_up")) == (0, 0)
    state, cache = telemetry.watched.redis("state"), telemetry.watched.redis("cache")
    assert (value("octet_redis_configured"), value("octet_redis_up")) == (1, 0)
    state(True)
    assert value("octet_redis_up") == 0
    cache(True)
    assert value("octet_redis_up") == 1
    state(False)
    assert value("octet_redis_up") == 0
