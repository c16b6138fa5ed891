"""Flights among people who read at very different paces, and what is left of them."""

import asyncio
import gc

import pytest

from tests.cache.conftest import StartCached
from tests.cache.crowd import STREAM, crowd, flight_of
from tests.cache.stage import END, Stage, event
from tests.cache.test_flights_attacked import CHUNKED_HEAD, chunk, pour
from tests.conftest import Sidecar
from tests.edge.test_streams import OURS
from tests.waiting import until


@pytest.mark.parametrize("starts", [True, False], ids=["the starter", "a joiner"])
async def test_who_reads_too_slowly_is_told(on_stage: StartCached, stage: Stage, starts: bool) -> None:
    """Others are not held up; who is too far behind gets an honest end, and holds no more of the answer in memory."""
    sidecar = await on_stage(cache={"max_entry_bytes": "64MiB"})
    async with crowd(sidecar) as people:
        first, call = await people.start(stage, receive_bytes=4096 if starts else None, **STREAM)
        second = await people.join(receive_bytes=None if starts else 4096, **STREAM)
        slow, quick = (first, second) if starts else (second, first)
        call.say(CHUNKED_HEAD + chunk(event("first")))
        await until(lambda: flight_of(sidecar)._live)
        flight, heard = flight_of(sidecar), asyncio.create_task(quick.hear())
        said = await pour(sidecar, call, lambda: len(flight._audience.readers) == 1)
        assert not flight._slowed
        call.say(chunk(END) + chunk(b""))
        assert (await heard).body == event("first") + said + END
        *told, error, end = (await slow.hear()).body.split(b"\n\n")
        assert told == (event("first") + said).split(b"\n\n")[: len(told)]
        assert b'"slow_reader"' in error
        assert end == b""
        lines = await sidecar.lines.wait_for(2)
        assert sorted(line["outcome"] for line in lines) == (["cut", "ok"] if starts else ["caller_error", "ok"])


async def test_when_nobody_reads_the_upstream_waits(on_stage: StartCached, stage: Stage) -> None:
    """Two who take nothing pause it; as soon as one of them reads it goes on, and both get it all."""
    sidecar = await on_stage(cache={"max_entry_bytes": "64MiB"})
    async with crowd(sidecar) as people:
        first, call = await people.start(stage, receive_bytes=4096, **STREAM)
        second = await people.join(receive_bytes=4096, **STREAM)
        call.say(CHUNKED_HEAD + chunk(event("first")))
        await until(lambda: flight_of(sidecar)._live)
        flight = flight_of(sidecar)
        said = await pour(sidecar, call, lambda: flight._slowed)
        call.say(chunk(END) + chunk(b""))
        heard = asyncio.create_task(first.hear())
        await until(lambda: not flight._slowed)
        wanted = event("first") + said + END
        assert (await heard).body == wanted
        assert (await second.hear()).body == wanted


async def test_a_kept_stream_leaves_no_garbage(cached: Sidecar) -> None:
    """What a flight was made of goes when it ends, as that of any stream does."""

    async def stream(number: int) -> None:
        await (await cached.chat(stream=True, seed=number)).read()

    await stream(0)
    gc.collect()
    gc.disable()
    try:
        for number in range(1, 20):
            await stream(number)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        ours = {type(each).__name__ for each in gc.garbage if type(each).__module__.startswith((*OURS, "proxy.cache"))}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert not ours
