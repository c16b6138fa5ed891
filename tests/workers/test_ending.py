"""How several processes end: all of them, in order, and with nothing left."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import aiohttp
import pytest

from proxy.simulator import Behaviour, Simulator
from tests.workers.conftest import PROCESSES, Begin, Fleet, Octet, group, one, wait_until

SLOW = Behaviour(tokens=60, token_seconds=0.02)


async def streams(fleet: Fleet, behaviour: Behaviour, simulator: Simulator) -> list[aiohttp.ClientResponse]:
    """One open stream on every worker."""
    simulator.always("openai", behaviour)
    lines = (await fleet.lines()).values()
    opened = [await line.session.post(*fleet.asks(), json=fleet.body(stream=True)) for line in lines]
    for response in opened:
        assert await response.content.readline()
    return opened


@pytest.mark.parametrize("how", ["SIGTERM to the parent", "SIGINT to the group", "SIGTERM to the group"])
async def test_open_streams_of_every_worker_end(begin: Begin, simulator: Simulator, how: str) -> None:
    """Told to end, all workers let their streams end; then the exit code is 0 and no process is left."""
    fleet = await begin()
    opened = await streams(fleet, SLOW, simulator)
    if how == "SIGTERM to the parent":
        fleet.process.send_signal(signal.SIGTERM)
    else:
        os.killpg(fleet.process.pid, signal.SIGINT if "SIGINT" in how else signal.SIGTERM)
    for response in opened:
        assert (await response.read()).endswith(b"data: [DONE]\n\n")
    assert await fleet.ended() == 0
    assert not fleet.heard("Traceback")
    assert simulator.report.completed == 3


async def test_no_new_calls_while_it_drains(begin: Begin, simulator: Simulator) -> None:
    """While streams end, new connections are refused, and the admin side says that it is not ready."""
    fleet = await begin(server={"drain_seconds": 30.0})
    opened = await streams(fleet, Behaviour(text="one two three", stall=2), simulator)
    fleet.process.send_signal(signal.SIGTERM)

    async def refused() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", fleet.port)
        except ConnectionRefusedError:
            return True
        writer.close()
        return False

    await wait_until(refused)
    await fleet.ask("/readyz", status=503)
    assert "octet_open_streams 3.0" in await fleet.ask("/metrics")
    for response in opened:
        response.close()
    assert await fleet.ended() == 0


async def test_what_outlives_the_drain_is_cut_off(begin: Begin, simulator: Simulator) -> None:
    """When drain_seconds are over, streams of every worker end with an error event; exit code 0."""
    fleet = await begin(server={"drain_seconds": 0.2})
    opened = await streams(fleet, Behaviour(text="one two three", stall=2), simulator)
    fleet.process.send_signal(signal.SIGTERM)
    for response in opened:
        rest = await response.read()
        assert b"shutting_down" in rest
        assert b"[DONE]" not in rest
    assert await fleet.ended() == 0


@pytest.mark.parametrize("whole", [False, True])
async def test_a_second_signal_ends_all_at_once(begin: Begin, simulator: Simulator, *, whole: bool) -> None:
    """Who does not want to wait sends another signal, to the parent or from a terminal: nothing is left."""
    fleet = await begin(server={"drain_seconds": 600.0})
    await streams(fleet, Behaviour(text="one two three", stall=2), simulator)
    number = signal.SIGINT if whole else signal.SIGTERM
    send = os.killpg if whole else os.kill
    send(fleet.process.pid, number)
    await wait_until(lambda: fleet.heard("stopping: no new calls"))
    send(fleet.process.pid, number)
    assert await fleet.ended() == 128 + number
    assert not fleet.heard("Traceback")


async def test_without_their_parent_workers_let_calls_end(begin: Begin, simulator: Simulator) -> None:
    """When the parent is killed, workers take no new calls, their streams come whole, and then they end."""
    fleet = await begin()
    opened = await streams(fleet, SLOW, simulator)
    fleet.process.kill()
    await wait_until(lambda: len(group(fleet.process.pid)) == 3)
    for response in opened:
        assert (await response.read()).endswith(b"data: [DONE]\n\n")
    await wait_until(lambda: not group(fleet.process.pid))
    assert not fleet.heard("Traceback")


async def test_idle_workers_without_their_parent_end(begin: Begin) -> None:
    """No orphan is left when the parent is killed, and the port is free for the next one."""
    fleet = await begin()
    tree_port = fleet.port
    fleet.process.kill()
    await wait_until(lambda: not group(fleet.process.pid))
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", tree_port)
    server.close()


async def test_a_worker_that_dies_during_the_drain(begin: Begin, simulator: Simulator) -> None:
    """A worker that dies while all drain is not replaced, and holds nobody up."""
    fleet = await begin()
    pid = (await fleet.pids())[0]
    opened = await streams(fleet, SLOW, simulator)
    fleet.process.send_signal(signal.SIGTERM)
    await wait_until(lambda: fleet.heard("stopping: no new calls"))
    fleet.kill(pid)
    whole = 0
    for response in opened:
        try:
            whole += (await response.read()).endswith(b"data: [DONE]\n\n")
        except aiohttp.ClientPayloadError:
            continue
    assert whole == 2
    assert await fleet.ended() == 0


async def test_an_end_while_a_worker_is_being_replaced(begin: Begin) -> None:
    """A signal that comes while a worker is only beginning ends that one too."""
    fleet = await begin()
    pid = (await fleet.pids())[1]
    fleet.kill(pid)
    await wait_until(lambda: fleet.heard("it is replaced") and len(group(fleet.process.pid)) == PROCESSES)
    fleet.process.send_signal(signal.SIGTERM)
    assert await fleet.ended() == 0
    assert not fleet.heard("Traceback")


async def test_an_end_before_it_has_begun(octet: Octet, simulator: Simulator) -> None:
    """SIGTERM to the parent while workers begin is heard: it ends with nothing left."""
    fleet = await octet(one(simulator))
    await wait_until(lambda: len(group(fleet.process.pid)) > 2)
    fleet.process.send_signal(signal.SIGTERM)
    assert await fleet.ended() == 0
    assert not fleet.heard("Traceback")


async def test_a_parent_that_is_killed_before_it_has_begun(octet: Octet, simulator: Simulator) -> None:
    """Workers that are only beginning when their parent is killed end too."""
    fleet = await octet(one(simulator))
    await wait_until(lambda: len(group(fleet.process.pid)) == PROCESSES)
    fleet.process.kill()
    await wait_until(lambda: not group(fleet.process.pid))


@pytest.mark.parametrize("how", ["SIGINT to the group", "SIGKILL to a worker"])
async def test_a_worker_that_dies_before_it_has_begun(octet: Octet, simulator: Simulator, how: str) -> None:
    """Ctrl-C while workers begin, or the death of one, ends all of them without a traceback."""
    fleet = await octet(one(simulator))
    await wait_until(lambda: len(group(fleet.process.pid)) == PROCESSES)
    if how.startswith("SIGINT"):
        os.killpg(fleet.process.pid, signal.SIGINT)
    else:
        fleet.kill(max(group(fleet.process.pid) - {fleet.process.pid}))
        await wait_until(lambda: fleet.heard("  routes ") or fleet.process.returncode is not None)
        if fleet.process.returncode is None:
            fleet.process.send_signal(signal.SIGTERM)
    await fleet.ended()
    assert not fleet.heard("Traceback")


async def test_a_frozen_worker_does_not_keep_it_from_ending(begin: Begin) -> None:
    """A worker that hangs is ended when the time to drain is over."""
    fleet = await begin(server={"drain_seconds": 0.5})
    fleet.kill((await fleet.pids())[0], signal.SIGSTOP)
    fleet.process.send_signal(signal.SIGTERM)
    await wait_until(lambda: fleet.process.returncode == 0, patience=8.0)


async def test_a_frozen_worker_does_not_keep_a_reload(begin: Begin) -> None:
    """A worker that hangs does not hold up a reload for ever, nor all reloads after it."""
    fleet = await begin()
    fleet.kill((await fleet.pids())[0], signal.SIGSTOP)
    fleet.path.write_text(fleet.path.read_text().replace("sk-ours", "sk-new"))
    async with asyncio.timeout(8.0):
        assert (await fleet.ask("/admin/reload", "POST"))["generation"] == 2


async def test_nothing_of_the_working_directory_is_run(octet: Octet, simulator: Simulator, tmp_path: Path) -> None:
    """Files of the directory where somebody starts `octet` are not taken for the program's own."""
    command = Path(sys.executable).parent / "octet"
    (tmp_path / "proxy.py").write_text("raise SystemExit(77)\n")
    fleet = await octet(one(simulator), command=(str(command),))
    await wait_until(lambda: fleet.heard("  routes ") or fleet.process.returncode is not None)
    assert fleet.process.returncode is None, "\n".join(fleet.told)
