"""Access lines of all workers, through one pipe."""

import asyncio
import json
import os
import signal
from asyncio.subprocess import PIPE
from collections import Counter

from proxy.simulator import Simulator
from proxy.telemetry import LineWriter
from tests.workers.conftest import Begin, Octet, one, wait_until


async def test_every_call_has_one_whole_line(begin: Begin) -> None:
    """Hundreds of calls, short and long, to all workers: each has exactly one line, and every line is whole."""
    fleet = await begin(stdout=PIPE)
    session, wanted = fleet.session(), Counter[str]()
    bare = asyncio.Semaphore(30)

    async def call(number: int) -> None:
        request_id, model = f"call-{number}-{'i' * (number % 80)}", "one" if number % 3 else "m" * (number % 200 + 1)
        wanted[request_id] += 1
        async with (
            bare,
            session.post(*fleet.asks(), json=fleet.body(model), headers={"x-request-id": request_id}) as response,
        ):
            assert response.status == (200 if number % 3 else 404)

    await asyncio.gather(*(call(number) for number in range(600)))
    fleet.process.send_signal(signal.SIGTERM)
    assert await fleet.ended() == 0
    lines = [json.loads(line) for line in fleet.written]
    assert Counter(line["request_id"] for line in lines) == wanted
    assert {line["status"] for line in lines} == {200, 404}


async def test_a_log_that_nobody_reads(octet: Octet, simulator: Simulator) -> None:
    """With a full pipe behind all workers calls go on, and SIGTERM ends all of them."""
    reader, writer = os.pipe()
    fleet = await octet(one(simulator, server={"drain_seconds": 1.0}), stdout=writer)
    os.close(writer)
    await wait_until(lambda: fleet.heard("  routes "))
    session = fleet.session()
    for _ in range(300):
        async with session.post(*fleet.asks(), json=fleet.body("m" * 200)) as response:
            assert response.status == 404
    fleet.process.send_signal(signal.SIGTERM)
    assert await fleet.ended() == 0
    os.close(reader)


async def test_a_log_whose_reader_has_gone(octet: Octet, simulator: Simulator) -> None:
    """A broken pipe ends no worker."""
    reader, writer = os.pipe()
    fleet = await octet(one(simulator), stdout=writer)
    os.close(writer)
    os.close(reader)
    await wait_until(lambda: fleet.heard("  routes "))
    pids = await fleet.pids()
    assert [await fleet.call() for _ in range(20)] == [200] * 20
    assert await fleet.pids() == pids
    fleet.process.send_signal(signal.SIGTERM)
    assert await fleet.ended() == 0


def test_batches_of_shared_writers_are_what_a_pipe_takes_whole() -> None:
    """No write is longer than what a pipe takes in one piece, none splits a line, and all lines come in order."""
    reader, descriptor = os.pipe()
    os.set_blocking(descriptor, False)
    written = list[bytes]()

    class Watching(LineWriter):
        """Notes what is written at once."""

        def _write(self, batch: bytes) -> None:
            if batch:
                written.append(batch)
            super()._write(batch)

    writer = Watching(descriptor, shared=True)
    lines = [b"%d:" % number + b"x" * (number * 37 % 3000) + b"\n" for number in range(20)]
    for line in lines:
        writer.write(line)
    writer.flush()
    assert all(len(batch) <= 4096 and batch.endswith(b"\n") for batch in written)
    assert len(written) < len(lines)
    assert b"".join(written) == b"".join(lines)
    os.close(descriptor)
    os.close(reader)
