"""Many at once, for long, and what that costs: `make prove`. A real process on one core, the load on another."""

import asyncio
import json
import re
import resource
import statistics
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench import load
from tests.bench.__main__ import JSON, PATH, Case, wrk_for
from tests.bench.subjects import Subject, Workshop

SETTLE_SECONDS = 6  # idle connections are gone, garbage has been collected


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Workshop]:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with Workshop(tmp_path) as running:
        yield running


def slow(pace: int, chunks: int) -> bytes:
    return Case("slow", f"bench-{chunks}x{pace}", chunks=chunks).request


async def streams(subject: Subject, count: int, paces: tuple[int, ...], chunks: int) -> tuple[float, int]:
    """Run `count` streams at once, begun over some seconds; what each took of the resident set, and its size."""
    before = largest = subject.resident_bytes()
    each = count // len(paces) // 50
    running: list[asyncio.Task[load.Seen]] = []
    for _ in range(50):
        for pace in paces:
            sent = slow(pace, chunks)
            running.append(asyncio.create_task(load.run(subject.port, sent, connections=each, rounds=1, chunks=chunks)))
        await asyncio.sleep(0.1)
    while not all(task.done() for task in running):
        largest = max(largest, subject.resident_bytes())
        await asyncio.wait(running, timeout=1, return_when=asyncio.FIRST_EXCEPTION)
        for task in running:
            if task.done():
                task.result()  # raises BadAnswer for a stream that is cut or out of order
    return (largest - before) / count, largest


async def test_five_thousand_slow_streams(shop: Workshop) -> None:
    """5,000 streams with 1 to 2 s between chunks, for a minute: none cut, none out of order, less than 40 KiB each."""
    octet = shop.octet()
    began, cpu = time.perf_counter(), octet.cpu_seconds()
    each, largest = await streams(octet, 5000, (1000, 1250, 1500, 1750, 2000), 32)
    seconds = time.perf_counter() - began
    share = (octet.cpu_seconds() - cpu) / seconds
    print(
        f"\n5,000 streams in {seconds:.0f} s: {each / 1024:.1f} KiB each, {largest / 2**20:.0f} MiB in all, "
        f"{share:.0%} of a core"
    )
    assert each < 40 * 1024


async def test_ten_thousand_open_streams(shop: Workshop) -> None:
    """10,000 streams at once, or as many as the system lets a process have: less than 40 KiB each, none cut."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    count = min(10_000, (files - 500) // 2 // 50 * 50)  # each takes two of the sidecar's
    each, largest = await streams(shop.octet(), count, (10_000,), 3)
    print(f"\n{count} streams (files: {files}): {each / 1024:.1f} KiB each, {largest / 2**20:.0f} MiB")
    assert each < 40 * 1024


async def test_a_million_calls(shop: Workshop) -> None:
    """The resident set after 1,000,000 calls is within 5 % of that after 100,000."""
    octet = shop.octet()
    at_rest = octet.resident_bytes()
    sizes = []
    for calls in (100_000, 900_000):
        left = calls
        while left > 0:
            left -= await wrk_for(octet, JSON, shop.folder, seconds=10)
        sizes.append(octet.resident_bytes())
    print(f"\nresident set: {at_rest / 2**20:.1f} MiB at rest, {[round(size / 2**20, 1) for size in sizes]} after")
    assert octet.ready_seconds < 0.5
    assert at_rest < 64 * 2**20
    assert sizes[1] < sizes[0] * 1.05


async def test_idle_and_sudden_connections(shop: Workshop) -> None:
    """10,000 idle connections, then 2,000 connects at once: other callers keep their latency, all are served."""
    octet = shop.octet()
    quiet = await load.run(octet.port, JSON.request, connections=1, rounds=500)
    idle = [await asyncio.open_connection("127.0.0.1", octet.port) for _ in range(10_000)]
    beside = await load.run(octet.port, JSON.request, connections=1, rounds=500)
    began = time.perf_counter()
    burst = asyncio.gather(*(load.run(octet.port, JSON.request, connections=1, rounds=1) for _ in range(2000)))
    during = await load.run(octet.port, JSON.request, connections=1, rounds=20)
    answered = sum(len(seen.waits) for seen in await burst)
    seconds = time.perf_counter() - began
    for _, writer in idle:
        writer.close()
    medians = [statistics.median(seen.waits) * 1000 for seen in (quiet, beside)]
    print(
        f"\nmedian alone {medians[0]:.2f} ms, beside 10,000 idle {medians[1]:.2f} ms; burst of 2,000 in {seconds:.2f} s"
    )
    print(f"during the burst at most {max(during.waits) * 1000:.0f} ms")
    assert answered == 2000
    assert medians[1] < medians[0] * 2


async def test_callers_who_do_not_read(shop: Workshop) -> None:
    """200 callers who never read a stream of 20 MB each: memory stays bounded, others keep their latency."""
    octet = shop.octet()
    quiet = await load.run(octet.port, JSON.request, connections=1, rounds=500)
    before = octet.resident_bytes()
    sent = Case("flood", "bench-60000x0", chunks=60_000).request
    deaf = []
    for _ in range(200):
        _, writer = await asyncio.open_connection("127.0.0.1", octet.port, limit=1024)
        writer.write(sent)
        deaf.append(writer)
    await asyncio.sleep(3)
    beside = await load.run(octet.port, JSON.request, connections=1, rounds=500)
    each = (octet.resident_bytes() - before) / len(deaf)
    for writer in deaf:
        writer.transport.abort()
    medians = [statistics.median(seen.waits) * 1000 for seen in (quiet, beside)]
    print(f"\nmedian alone {medians[0]:.2f} ms, beside 200 deaf {medians[1]:.2f} ms; {each / 1024:.0f} KiB for each")
    assert each < 1024 * 1024
    assert medians[1] < medians[0] * 2
    await asyncio.sleep(SETTLE_SECONDS)
    assert metric(octet, "octet_open_streams") == 0


def metric(octet: Subject, name: str) -> float:
    """A sample of the subject's own metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{octet.admin_port}/metrics", timeout=10) as answer:
        found = re.search(rf"^{name} (\S+)$", answer.read().decode(), re.MULTILINE)
    return float(found[1]) if found else float("nan")


def test_the_request_is_what_it_says() -> None:
    """The load's requests are the JSON calls that the figures speak of."""
    head, _, body = JSON.request.partition(b"\r\n\r\n")
    assert PATH.encode() in head
    assert len(body) > 1000
    assert json.loads(body)["model"] == "bench-600"
