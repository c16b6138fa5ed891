"""Workers that die, or are ended one by one: others take their calls, and new ones their place."""

import asyncio
import resource
import signal

import aiohttp
import pytest

from proxy.simulator import Behaviour, Simulator
from tests.strict import read_events
from tests.workers.conftest import PROCESSES, Begin, Fleet, group, one, wait_until


async def restarts(fleet: Fleet) -> int:
    """How often a worker was replaced, as metrics tell it."""
    lines = (await fleet.ask("/metrics")).splitlines()
    return int(float(next(line for line in lines if line.startswith("octet_worker_restarts_total ")).split()[1]))


async def persist(fleet: Fleet) -> None:
    """A call over a new connection, repeated where that breaks: who it waited for has just gone."""
    while True:
        try:
            assert await fleet.call() == 200
        except (aiohttp.ClientConnectionError, ConnectionError):
            continue
        return


async def test_a_dead_worker_is_replaced_and_counted(begin: Begin) -> None:
    """A worker that is killed is replaced by another process, which serves; the log and a metric say so."""
    fleet = await begin()
    before = await fleet.pids()
    assert await restarts(fleet) == 0
    fleet.kill(before[1])
    await wait_until(lambda: fleet.replaced(before[1]))
    after = await fleet.pids()
    assert {number for number in after if after[number] != before[number]} == {1}
    assert await restarts(fleet) == 1
    assert fleet.heard(f"worker 1 (process {before[1]}) has ended with -9; it is replaced") == 1
    for line in (await fleet.lines()).values():
        assert await fleet.call(session=line.session) == 200
    assert len(group(fleet.process.pid)) == PROCESSES


async def test_calls_to_the_others_go_on(begin: Begin, simulator: Simulator) -> None:
    """Streams of other workers come whole when one dies; that of the dead one breaks, and its upstream is let go."""
    fleet = await begin()
    simulator.always("openai", Behaviour(tokens=60, token_seconds=0.02))
    lines = await fleet.lines()
    streams = {
        number: await line.session.post(*fleet.asks(), json=fleet.body(stream=True)) for number, line in lines.items()
    }
    for response in streams.values():
        assert await response.content.readline()
    fleet.kill(lines[0].pid)
    with pytest.raises(aiohttp.ClientPayloadError):
        await streams[0].read()
    for number in (1, 2):
        assert (await streams[number].read()).endswith(b"data: [DONE]\n\n")
    await simulator.report.wait_for(lambda report: (report.completed, report.aborted) == (2, 1))


async def test_new_connections_never_fail_for_long(begin: Begin) -> None:
    """While one worker after another is killed, a new connection is answered at the first or a later try."""
    fleet = await begin()
    for number in (0, 1, 2):
        pid = (await fleet.pids())[number]
        fleet.kill(pid)
        while not await fleet.replaced(pid):
            await persist(fleet)
    assert await restarts(fleet) == 3


async def test_once_a_dead_worker_is_gone_no_connection_is_lost(begin: Begin) -> None:
    """When the parent knows of a death, every new connection reaches one of the others."""
    fleet = await begin()
    pid = (await fleet.pids())[0]
    fleet.kill(pid)
    await wait_until(lambda: fleet.heard("has ended"))
    assert await asyncio.gather(*(fleet.call() for _ in range(60))) == [200] * 60


async def test_all_workers_die_at_once(begin: Begin) -> None:
    """When all but the parent are killed the port stays ours, and calls are served again; meanwhile it is not ready."""
    fleet = await begin()
    pids = await fleet.pids()
    for pid in group(fleet.process.pid) - {fleet.process.pid}:  # without what they are forked from it takes a moment
        fleet.kill(pid)

    async def is_not_ready() -> bool:
        async with fleet.session().get(f"{fleet.admin}/readyz") as response:
            return response.status == 503

    await wait_until(is_not_ready)
    assert (await fleet.ask("/healthz")) is not None
    await fleet.ask("/admin/upstreams", status=503)
    await wait_until(lambda: fleet.replaced(*pids.values()))
    assert await fleet.call() == 200
    await fleet.ask("/readyz")


async def test_metrics_while_no_worker_is_there(begin: Begin) -> None:
    """That no worker is there can be seen in the metrics: it is what an alert waits for."""
    fleet = await begin()
    for pid in group(fleet.process.pid) - {fleet.process.pid}:
        fleet.kill(pid)

    async def none_is_there() -> bool:
        return "octet_workers 0.0" in await fleet.ask("/metrics")

    await wait_until(none_is_there)


async def test_a_worker_told_to_end_lets_its_calls_end(begin: Begin, simulator: Simulator) -> None:
    """SIGTERM to one worker: it takes no new connections, its stream comes whole, and then it is replaced."""
    fleet = await begin()
    simulator.always("openai", Behaviour(tokens=60, token_seconds=0.02))
    lines = await fleet.lines()
    response = await lines[2].session.post(*fleet.asks(), json=fleet.body(stream=True))
    assert await response.content.readline()
    fleet.kill(lines[2].pid, signal.SIGTERM)
    for _ in range(20):
        await persist(fleet)
    assert (await response.read()).endswith(b"data: [DONE]\n\n")
    await wait_until(lambda: fleet.replaced(lines[2].pid))
    assert fleet.heard(f"worker 2 (process {lines[2].pid}) has ended with 0") == 1
    assert not fleet.heard("Traceback")
    simulator.always("openai", Behaviour())
    assert await fleet.call() == 200


async def test_an_interrupt_to_one_worker_means_nothing(begin: Begin) -> None:
    """SIGINT, which a terminal sends to all processes, is the parent's to act upon."""
    fleet = await begin()
    pids = await fleet.pids()
    for pid in pids.values():
        fleet.kill(pid, signal.SIGINT)
    for line in (await fleet.lines()).values():
        assert await fleet.call(session=line.session) == 200
    assert await fleet.pids() == pids


async def test_a_worker_that_can_never_begin(begin: Begin, simulator: Simulator) -> None:
    """What cannot begin is tried again and again, the others serve; once it can it does, and the end is orderly."""
    fleet = await begin(one(simulator))
    parent, pids = fleet.process.pid, await fleet.pids()
    files = resource.prlimit(parent, resource.RLIMIT_NOFILE)
    resource.prlimit(parent, resource.RLIMIT_NOFILE, (12, files[1]))  # too few for another socket pair
    fleet.kill(pids[0])
    await wait_until(lambda: fleet.heard("worker 0 cannot begin") >= 2)
    assert [await fleet.call() for _ in range(6)] == [200] * 6
    resource.prlimit(parent, resource.RLIMIT_NOFILE, files)
    await wait_until(lambda: fleet.replaced(pids[0]))
    fleet.process.send_signal(signal.SIGTERM)
    assert await fleet.ended() == 0


async def test_streams_read_whole_while_workers_are_restarted_in_turn(begin: Begin, simulator: Simulator) -> None:
    """Ending every worker in turn with SIGTERM breaks no stream: a rolling restart."""
    fleet = await begin()
    simulator.always("openai", Behaviour(tokens=30, token_seconds=0.01))
    lines = await fleet.lines()
    streams = [await line.session.post(*fleet.asks(), json=fleet.body(stream=True)) for line in lines.values()]
    for line in lines.values():
        fleet.kill(line.pid, signal.SIGTERM)
        await wait_until(lambda gone=line.pid: fleet.replaced(gone))  # type: ignore[misc]
    for response in streams:
        assert read_events(await response.read())
    assert await restarts(fleet) == 3
