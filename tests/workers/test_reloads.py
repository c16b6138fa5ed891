"""A new configuration comes into force in all workers, or in none."""

import asyncio
import json
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from proxy.simulator import Behaviour, Simulator
from tests.strict import read_events
from tests.workers.conftest import Begin, Fleet, Tree, one, wait_until


async def edit(fleet: Fleet, tree: Tree, status: int = 200) -> Tree:
    """Write the file and have it read; what came of it."""
    fleet.path.write_text(json.dumps(tree))
    told: Tree = await fleet.ask("/admin/reload", "POST", status=status)
    return told


async def generations(fleet: Fleet) -> dict[int, int]:
    """The generation by which each worker serves, as a call of each has noted it."""
    found: dict[int, int] = {}
    for number, line in (await fleet.lines()).items():
        headers = {"x-request-id": f"look-{number}-{len(fleet.sessions)}"}
        async with line.session.post(*fleet.asks(), json=fleet.body(), headers=headers) as response:
            assert response.status == 200
        told = await fleet.ask(f"/admin/calls/{headers['x-request-id']}")
        found[number] = told["generation"]
    return found


def renamed(tree: Tree, key: str) -> Tree:
    """The same with another key for the upstream."""
    return {**tree, "upstreams": {"a": {**tree["upstreams"]["a"], "api_key": key}}}


@contextmanager
def without_files(pid: int) -> Iterator[None]:
    """A process that can open no file for a while."""
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (0, limits[1]))
    yield
    resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)


async def test_a_reload_reaches_every_worker(begin: Begin, simulator: Simulator) -> None:
    """After a reload every worker serves by the new generation, and sends the new key."""
    tree = one(simulator)
    fleet = await begin(tree)
    assert await generations(fleet) == {0: 1, 1: 1, 2: 1}
    told = await edit(fleet, renamed(tree, "sk-new"))
    assert (told["ok"], told["generation"], told["changes"]) == (True, 2, ["upstreams.a altered (api_key)"])
    assert await generations(fleet) == {0: 2, 1: 2, 2: 2}
    assert {request.headers["authorization"] for request in list(simulator.report.requests)[-3:]} == {"Bearer sk-new"}
    assert fleet.heard("configuration generation 2") == 1


async def test_a_signal_to_the_parent_reloads_all(begin: Begin, simulator: Simulator) -> None:
    """SIGHUP to the parent has all workers follow the file; to a worker it means nothing."""
    tree = one(simulator)
    fleet = await begin(tree)
    pids = await fleet.pids()
    fleet.kill(pids[0], signal.SIGHUP)
    fleet.path.write_text(json.dumps(renamed(tree, "sk-new")))
    fleet.process.send_signal(signal.SIGHUP)
    await wait_until(lambda: fleet.heard("configuration generation 2"))
    assert await generations(fleet) == {0: 2, 1: 2, 2: 2}
    assert await fleet.pids() == pids


async def test_an_edit_is_noticed(begin: Begin, simulator: Simulator) -> None:
    """The file alone is enough: an edit comes into force everywhere, a broken one nowhere."""
    tree = one(simulator)
    fleet = await begin(tree)
    fleet.path.write_text(json.dumps(renamed(tree, "sk-new")))
    await wait_until(lambda: fleet.heard("configuration generation 2"))
    assert await generations(fleet) == {0: 2, 1: 2, 2: 2}
    fleet.path.write_text("server: {workers: many")
    await wait_until(lambda: fleet.heard("the configuration is not taken over"))
    assert await generations(fleet) == {0: 2, 1: 2, 2: 2}
    fleet.path.write_text(json.dumps(renamed(tree, "sk-newer")))
    await wait_until(lambda: fleet.heard("configuration generation 3"))
    assert await generations(fleet) == {0: 3, 1: 3, 2: 3}


@pytest.mark.parametrize("unable", [0, 2])
async def test_one_worker_that_cannot_keeps_all_back(
    begin: Begin, simulator: Simulator, tmp_path: Path, unable: int
) -> None:
    """A key's file that one worker cannot read keeps the old configuration in force in all of them."""
    key = tmp_path / "key"
    key.write_text("sk-file")
    tree = one(simulator)
    fleet = await begin(tree)
    new = renamed(tree, "")
    new["upstreams"]["a"] |= {"api_key_file": str(key), "api_key": None}
    pids = await fleet.pids()
    with without_files(pids[unable]):
        told = await edit(fleet, new, status=422)
    assert not told["ok"]
    assert "upstreams.a.api_key_file" in told["mistakes"][0]
    assert await generations(fleet) == {0: 1, 1: 1, 2: 1}
    assert {request.headers["authorization"] for request in simulator.report.requests} == {"Bearer sk-ours"}
    assert (await edit(fleet, new))["generation"] == 2  # nothing was left behind that would be in the way
    assert await generations(fleet) == {0: 2, 1: 2, 2: 2}
    assert simulator.report.requests[-1].headers["authorization"] == "Bearer sk-file"
    assert await fleet.pids() == pids


async def test_a_rotated_key_reaches_every_worker(begin: Begin, simulator: Simulator, tmp_path: Path) -> None:
    """A key's file that changes in place is read anew by all workers."""
    key = tmp_path / "key"
    key.write_text("sk-first")
    tree = one(simulator, upstream={"api_key_file": str(key), "api_key": None})
    fleet = await begin(tree)
    key.write_text("sk-second")
    await wait_until(lambda: fleet.heard("configuration generation 2"))
    assert await generations(fleet) == {0: 2, 1: 2, 2: 2}
    assert {request.headers["authorization"] for request in simulator.report.requests} == {"Bearer sk-second"}


async def test_streams_outlive_a_reload(begin: Begin, simulator: Simulator) -> None:
    """Streams that are open on every worker end as they began while a new configuration comes into force."""
    tree = one(simulator)
    fleet = await begin(tree)
    simulator.always("openai", Behaviour(tokens=40, token_seconds=0.02))
    lines = await fleet.lines()
    streams = [await line.session.post(*fleet.asks(), json=fleet.body(stream=True)) for line in lines.values()]
    assert (await edit(fleet, renamed(tree, "sk-new")))["ok"]
    counts = {len(read_events(await response.read())) for response in streams}
    assert len(counts) == 1


async def test_a_worker_that_dies_during_a_reload_is_no_obstacle(begin: Begin, simulator: Simulator) -> None:
    """A worker is killed while the others make a new configuration ready: it comes into force, in its successor too."""
    tree = one(simulator)
    fleet = await begin(tree)
    pid = (await fleet.pids())[1]
    fleet.kill(pid, signal.SIGSTOP)  # the reload waits for it
    asked = asyncio.get_running_loop().create_task(edit(fleet, renamed(tree, "sk-new")))
    await asyncio.wait([asked], timeout=0.5)
    assert not asked.done()
    fleet.kill(pid)
    assert (await asked)["generation"] == 2
    await wait_until(lambda: fleet.replaced(pid))
    assert await generations(fleet) == {0: 2, 1: 2, 2: 2}
    assert {request.headers["authorization"] for request in simulator.report.requests} == {"Bearer sk-new"}


async def test_a_worker_that_begins_during_reloads_ends_with_the_newest(begin: Begin, simulator: Simulator) -> None:
    """Whatever comes into force while a worker is being replaced is what it serves by in the end."""
    tree = one(simulator)
    fleet = await begin(tree)
    pid = (await fleet.pids())[2]
    fleet.kill(pid)
    number = 1
    while not await fleet.replaced(pid):
        number += 1
        assert (await edit(fleet, renamed(tree, f"sk-{number}")))["generation"] == number
    assert number > 1
    assert await generations(fleet) == {0: number, 1: number, 2: number}
    assert {request.headers["authorization"] for request in simulator.report.requests} == {f"Bearer sk-{number}"}


async def test_all_workers_replaced_during_a_reload(begin: Begin, simulator: Simulator) -> None:
    """A configuration that comes while no worker is there is what all of them begin with."""
    tree = one(simulator)
    fleet = await begin(tree)
    pids = await fleet.pids()
    for pid in pids.values():
        fleet.kill(pid)
    assert (await edit(fleet, renamed(tree, "sk-new")))["ok"]
    await wait_until(lambda: fleet.replaced(*pids.values()))
    assert set((await generations(fleet)).values()) == {2}


async def test_what_needs_a_restart_is_said_and_held(begin: Begin, simulator: Simulator) -> None:
    """The number of workers and the addresses stay as they are; the rest comes into force."""
    tree = one(simulator)
    fleet = await begin(tree)
    new = renamed(tree, "sk-new")
    new["server"] = {**tree["server"], "workers": 5, "listen": "127.0.0.1:1"}
    told = await edit(fleet, new)
    assert (told["ok"], sorted(told["needs_restart"])) == (True, ["server.listen", "server.workers"])
    assert len(await fleet.pids()) == 3
    assert await generations(fleet) == {0: 2, 1: 2, 2: 2}


async def test_the_same_file_again(begin: Begin, simulator: Simulator) -> None:
    """Nothing new is no new generation."""
    tree = one(simulator)
    fleet = await begin(tree)
    told = await edit(fleet, tree)
    assert (told["ok"], told["generation"], told["changes"]) == (True, 1, [])


async def test_reloads_at_the_same_time(begin: Begin, simulator: Simulator) -> None:
    """Many reloads at once come one after another, and all workers end with the last."""
    tree = one(simulator)
    fleet = await begin(tree)
    fleet.path.write_text(json.dumps(renamed(tree, "sk-new")))
    told = await asyncio.gather(*(fleet.ask("/admin/reload", "POST") for _ in range(8)))
    assert {each["generation"] for each in told} == {2}
    assert sum(bool(each["changes"]) for each in told) == 1
    assert await generations(fleet) == {0: 2, 1: 2, 2: 2}
