"""The process that workers are forked from: it begins them, tells how they end, and is missed by nobody who serves."""

import asyncio
import errno
import os
import signal
import socket
from collections.abc import AsyncIterator

import pytest

from proxy.workers import child
from proxy.workers import nursery as nursery_process
from proxy.workers.channel import Gone
from proxy.workers.child import Child, Nursery
from tests.workers.conftest import PROCESSES, Begin, Fleet, group, wait_until


@pytest.fixture
async def nursery() -> AsyncIterator[Nursery]:
    """A real one."""
    made = Nursery()
    yield made
    await made.close()


async def of(fleet: Fleet) -> int:
    """The process that a fleet's workers are forked from."""
    pids = await fleet.pids()
    (found,) = group(fleet.process.pid) - {fleet.process.pid, *pids.values()}
    return found


async def test_a_worker_ends_when_its_channel_does(nursery: Nursery) -> None:
    """It is told with which code."""
    ours, theirs = socket.socketpair()
    begun = await nursery.fork(theirs.fileno())
    theirs.close()
    ours.close()
    assert await begun.code == 0


async def test_a_worker_that_is_killed(nursery: Nursery) -> None:
    """The code is the signal's; what it might have answered is not waited for."""
    worker = await Child.spawn(nursery)
    worker.kill()
    assert await worker.ended() == -signal.SIGKILL
    with pytest.raises(Gone):
        await worker.ask("ping")
    worker.kill()  # another process may have its number by now


async def test_a_worker_that_fails_at_once(nursery: Nursery, capfd: pytest.CaptureFixture[str]) -> None:
    """Its last words are told, and others are begun."""
    reading, writing = os.pipe()
    begun = await nursery.fork(reading)
    assert await begun.code == 1
    os.close(reading)
    os.close(writing)
    assert "Traceback" in capfd.readouterr().err
    worker = await Child.spawn(nursery)
    assert await worker.ask("ping") is None
    worker.kill()
    await worker.ended()


async def test_one_that_does_not_answer_is_replaced(nursery: Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asked is told so; the next one is begun by another."""
    worker = await Child.spawn(nursery)
    assert nursery._line is not None
    stuck = nursery._line._ends.process
    os.kill(stuck.pid, signal.SIGSTOP)
    monkeypatch.setattr(child, "BEGIN_SECONDS", 0.05)
    with pytest.raises(Gone):
        await Child.spawn(nursery)
    monkeypatch.undo()
    other = await Child.spawn(nursery)
    assert stuck.returncode == -signal.SIGKILL
    assert await worker.ask("ping") is None  # it goes on
    for each, code in ((other, -signal.SIGKILL), (worker, None)):  # nobody knows of the orphan
        each.kill()
        assert await each.ended() == code


async def test_the_system_lets_no_process_begin(nursery: Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is told, and the next one may begin; what was sent is not kept open."""

    def fork() -> int:
        raise BlockingIOError(errno.EAGAIN, "no")

    (asked, requests), (told, reports), (ours, theirs) = (socket.socketpair() for _ in range(3))
    with asked, requests, told, reports, ours:
        process = nursery_process.Forker(requests, reports, lambda _: 0)
        monkeypatch.setattr(os, "fork", fork)
        process._begin(theirs.detach())
        assert told.recv(100) == f"failed {errno.EAGAIN}\n".encode()
        assert ours.recv(1) == b""
        for each in (process._awake, process._waker):
            each.close()
    worker = await Child.spawn(nursery)
    line = nursery._line
    assert line is not None
    waiting: asyncio.Future[child.Begun] = asyncio.get_running_loop().create_future()
    line._asked.append(waiting)
    reader = asyncio.StreamReader()
    reader.feed_data(f"failed {errno.EAGAIN}\n".encode())
    reader.feed_eof()
    codes, line._codes = line._codes, {}
    await line._listen(reader)
    line._codes = codes
    with pytest.raises(BlockingIOError):
        waiting.result()
    line._asked.clear()
    assert await worker.ask("ping") is None
    worker.kill()
    await worker.ended()


async def test_who_asks_may_leave(nursery: Nursery) -> None:
    """A worker that nobody waits for any more ends, and the next one is not taken for it."""
    asking = asyncio.ensure_future(Child.spawn(nursery))
    await wait_until(lambda: nursery._line is not None and nursery._line._asked)
    asking.cancel()
    worker = await Child.spawn(nursery)
    assert await worker.ask("ping") is None
    assert nursery._line is not None
    codes = nursery._line._codes
    await wait_until(lambda: set(codes) == {worker.pid})
    worker.kill()
    await worker.ended()


async def test_workers_outlive_it(begin: Begin) -> None:
    """When it is killed all workers serve on; one that dies then is replaced, by another that they are forked from."""
    fleet = await begin()
    pids, nursery = await fleet.pids(), await of(fleet)
    os.kill(nursery, signal.SIGKILL)
    await wait_until(lambda: nursery not in group(fleet.process.pid))
    for line in (await fleet.lines()).values():
        assert await fleet.call(session=line.session) == 200
    assert await fleet.pids() == pids
    fleet.kill(pids[1])
    await wait_until(lambda: fleet.replaced(pids[1]))
    assert fleet.heard("the process that workers are forked from has ended; it is replaced") == 1
    assert fleet.heard(f"worker 1 (process {pids[1]}) has ended with None; it is replaced") == 1
    assert len(group(fleet.process.pid)) == PROCESSES
    fleet.process.send_signal(signal.SIGTERM)
    assert await fleet.ended() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_signals_are_not_for_it(begin: Begin, number: int) -> None:
    """What a terminal or an operator sends to all of us is the parent's to decide."""
    fleet = await begin()
    nursery = await of(fleet)
    os.kill(nursery, number)
    pid = (await fleet.pids())[0]
    fleet.kill(pid)
    await wait_until(lambda: fleet.replaced(pid))
    assert await of(fleet) == nursery


async def test_no_two_workers_give_the_same_ids(begin: Begin) -> None:
    """Though they began as one."""
    fleet = await begin()
    given = []
    for line in (await fleet.lines()).values():
        for _ in range(3):
            async with line.session.post(*fleet.asks(), json=fleet.body()) as response:
                given.append(response.headers["x-request-id"])
    assert len(set(given)) == 9
