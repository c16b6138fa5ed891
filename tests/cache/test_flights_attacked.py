"""Flights among people who leave, do not read, and come at bad moments."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.cache.conftest import StartCached
from tests.cache.crowd import STREAM, crowd, flight_of
from tests.cache.stage import END, STREAM_HEAD, Stage, StagedCall, event, whole
from tests.conftest import Sidecar
from tests.edge.wire import request
from tests.waiting import until

CHUNKED_HEAD = STREAM_HEAD.replace(b"connection: close", b"transfer-encoding: chunked\r\nconnection: close")

CLOSING = whole(3).replace(b"\r\n", b"\r\nconnection: close\r\n", 1)


def chunk(data: bytes) -> bytes:
    """A chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


async def pour(sidecar: Sidecar, call: StagedCall, enough: Callable[[], bool]) -> bytes:
    """Have an upstream say events until it is enough, each in a chunk of its own; what it has said."""
    said: list[bytes] = []
    while not enough():
        said.append(event(f"{len(said):05} {'y' * 2000}"))
        call.say(chunk(said[-1]))
        size = sum(map(len, said))
        await until(lambda size=size: enough() or flight_of(sidecar)._size >= size)  # type: ignore[misc]
    return b"".join(said)


async def test_a_slow_reader_gets_each_event_once(on_stage: StartCached, stage: Stage) -> None:
    """However full its connection was, and in whichever way the events went."""
    sidecar = await on_stage(cache={"max_entry_bytes": "64MiB"})
    async with crowd(sidecar) as people:
        slow, call = await people.start(stage, receive_bytes=4096, **STREAM)
        call.say(CHUNKED_HEAD + chunk(event("first")))
        await until(lambda: flight_of(sidecar)._live)
        said = await pour(sidecar, call, lambda: flight_of(sidecar)._slowed)
        heard = asyncio.create_task(slow.hear())
        call.say(chunk(END) + chunk(b""))
        assert (await heard).body.split(b"\n\n") == (event("first") + said + END).split(b"\n\n")


async def test_whoever_joins_the_last_of_a_flight_joins_nothing(on_stage: StartCached, stage: Stage) -> None:
    """The stream is over, its starter has not yet read it all, and nothing is kept: the call is made again."""
    sidecar = await on_stage({"ttl_seconds": 0}, cache={"max_entry_bytes": "64MiB"})
    async with crowd(sidecar) as people:
        _, call = await people.start(stage, receive_bytes=4096, **STREAM)
        call.say(CHUNKED_HEAD + chunk(event("first")))
        await until(lambda: flight_of(sidecar)._live)
        quick = asyncio.create_task((await people.join(**STREAM)).hear())
        await pour(sidecar, call, lambda: flight_of(sidecar)._own.paused)
        call.say(chunk(END) + chunk(b""))
        await quick
        late = await people.ask(**STREAM)
        again = await stage.call(1)
        again.say(STREAM_HEAD + event("anew") + END)
        assert (await late.hear()).body == event("anew") + END


async def test_a_stream_that_is_too_long_is_joined_no_more(on_stage: StartCached, stage: Stage) -> None:
    """Its beginning is no longer there; whoever comes then gets a whole stream of its own."""
    sidecar = await on_stage(cache={"max_entry_bytes": 1000})
    async with crowd(sidecar) as people:
        first, call = await people.start(stage, **STREAM)
        call.say(STREAM_HEAD + event("a" * 2000))
        head = await first.hear_head()
        await until(lambda: not flight_of(sidecar).joinable)
        late = await people.ask(**STREAM)
        again = await stage.call(1)
        again.say(STREAM_HEAD + event("b" * 2000) + END)
        assert (await late.hear()).body == event("b" * 2000) + END
        call.say(END)
        assert await first.hear_body(head) == event("a" * 2000) + END


@pytest.mark.parametrize("turns", range(-4, 5))
@pytest.mark.parametrize("others", [0, 1])
@pytest.mark.parametrize("fields", [{}, STREAM])
async def test_nobody_joins_a_call_that_is_being_given_up(
    on_stage: StartCached, stage: Stage, fields: dict[str, Any], others: int, turns: int
) -> None:
    """A caller comes in the very moment in which the last one goes: it is served all the same."""
    sidecar = await on_stage()
    async with crowd(sidecar) as people:
        last, _ = await people.start(stage, **fields)
        for _ in range(others):
            gone, last = last, await people.join(**fields)
            gone.hang_up()
            await until(lambda: not flight_of(sidecar)._present)
        late = await people.call(b"")
        acts: list[Callable[[], object]] = [partial(late.say, request(**fields)), last.finish]
        for act in acts if turns >= 0 else acts[::-1]:
            act()
            for _ in range(abs(turns)):
                await asyncio.sleep(0)
        answer = STREAM_HEAD + event("anew") + END if fields else CLOSING
        said = 0
        heard = asyncio.create_task(late.hear())
        while not heard.done():
            if len(stage.calls) > said:
                stage.calls[said].say(answer)
                said += 1
            await asyncio.sleep(0)
        assert heard.result().head.status == 200, heard.result()
