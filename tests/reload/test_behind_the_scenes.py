"""What goes on behind callers' backs, and what stands in a queue, over a reload; and files that let wait."""

import asyncio
import contextlib
import json
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from proxy.simulator import Behaviour, Simulator
from tests.reload.conftest import Live, StartLive, Tree, one, route, upstream
from tests.waiting import until

SHORT: Tree = {"any_temperature": True, "ttl_seconds": 0.05, "stale_while_revalidate_seconds": 600}


async def test_a_copy_under_way(live: StartLive, simulator: Simulator) -> None:
    """A copy goes to its end though mirror and upstream are gone."""
    tree = one(simulator)
    tree["upstreams"]["m"] = upstream(simulator, "vllm")
    tree["routes"] = [route("one", "a", mirror={"upstream": "m", "model": "copied"})]
    sidecar = await live(tree)
    simulator.script("vllm", Behaviour(delay_seconds=0.2))
    assert (await sidecar.told())[0] == 200
    await simulator.report.wait_for(lambda report: report.dialects["vllm"].open_calls == 1)
    await sidecar.take(one(simulator))
    await simulator.report.wait_for(lambda report: report.dialects["vllm"].completed == 1)
    await simulator.report.wait_for(lambda report: report.dialects["vllm"].open_connections == 0)
    assert simulator.report.aborted == 0
    assert (await sidecar.told())[0] == 200
    assert simulator.report.dialects["vllm"].calls == 1


async def test_a_second_attempt_after_the_reload(live: StartLive, simulator: Simulator) -> None:
    """A hedge that is due after a reload goes where its own generation says."""
    tree = one(simulator)
    tree["upstreams"]["spare"] = upstream(simulator, "vllm", api_key="sk-spare")
    hedge = {"after_seconds": 0.3, "budget": 1.0}
    tree["routes"] = [route("one", "a", {"upstream": "spare", "model": "old"}, hedge=hedge, retry={"attempts": 2})]
    sidecar = await live(tree)
    simulator.script("openai", Behaviour(stall="before_headers"))
    call = asyncio.create_task(sidecar.told())
    await simulator.report.wait_for(lambda report: report.open_calls == 1)
    await sidecar.take(one(simulator, settings={"query": {"v": "2"}}))
    status, _, headers = await call
    assert (status, headers["x-octet-upstream"], headers["x-octet-model"]) == (200, "spare", "old")
    await simulator.report.wait_for(lambda report: report.open_connections == 0)


async def test_a_queue_for_a_connection(live: StartLive, simulator: Simulator) -> None:
    """Those who wait for one of `max_connections` of a pool that is retired get one in their turn."""
    sidecar = await live(one(simulator, settings={"max_connections": 1}))
    simulator.script("openai", *[Behaviour(delay_seconds=0.1)] * 3)
    olds = [asyncio.create_task(sidecar.told()) for _ in range(3)]
    await simulator.report.wait_for(lambda report: report.open_calls == 1)
    await sidecar.take(one(simulator, settings={"max_connections": 2}))
    assert (await sidecar.told())[0] == 200
    assert [(await old)[0] for old in olds] == [200, 200, 200]
    assert await sidecar.metric("octet_connections_limit", upstream="a") == 2
    await simulator.report.wait_for(lambda report: report.open_connections == 1)
    await sidecar.take(one(simulator))
    assert await sidecar.metric("octet_connections_limit", upstream="a") == 0


async def test_a_renewal_of_a_caller_who_is_gone(live: StartLive, simulator: Simulator) -> None:
    """What is asked again behind a caller's back goes by the configuration of then: not for one who is gone."""
    callers = [{"name": "x", "key": "k"}, {"name": "y", "key": "l"}]
    routes = [route("one", "a", cache=SHORT)]
    sidecar = await live(one(simulator, routes=routes, server={"callers": callers}))

    async def ask() -> str:
        body = {"model": "one", "messages": [{"role": "user", "content": "Hello"}]}
        headers = {"authorization": "Bearer k"}
        async with sidecar.http.post(f"{sidecar.url}/v1/chat/completions", json=body, headers=headers) as response:
            await response.read()
            return response.headers.get("x-octet-cache", str(response.status))

    assert await ask() == "miss"
    while await ask() == "memory" and simulator.report.calls < 2:  # until it was stale, and is asked again
        pass
    await simulator.report.wait_for(lambda report: report.completed == 2)
    await sidecar.take(one(simulator, routes=routes, server={"callers": callers[1:]}))
    assert await ask() == "401"
    assert simulator.report.calls == 2


async def test_a_removed_route_is_renewed_no_more(live: StartLive, simulator: Simulator) -> None:
    """A renewal under way when its route goes ends, and leaves nothing."""
    sidecar = await live(one(simulator, routes=[route("one", "a", cache=SHORT)]))
    assert (await sidecar.told())[0] == 200
    simulator.always("openai", Behaviour(delay_seconds=0.2))
    while simulator.report.calls < 2:
        assert (await sidecar.told())[0] == 200
    await sidecar.take(one(simulator, routes=[]))
    assert (await sidecar.told())[0] == 404
    await simulator.report.wait_for(lambda report: report.completed == 2)
    assert await sidecar.metric("octet_flights") == 0


async def test_what_was_asked_is_what_was_sent(live: StartLive, simulator: Simulator) -> None:
    """A body that comes slowly is judged by the configuration under which its call began."""
    sidecar = await live(one(simulator))
    address = sidecar.app.addresses[0]
    reader, writer = await asyncio.open_connection(address.host, address.port)
    body = json.dumps({"model": "one", "messages": [{"role": "user", "content": "Hello"}]}).encode()
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body))
    writer.write(body[:10])
    await until(lambda: sidecar.app._data.answering == 1)
    await sidecar.take(one(simulator, name="two"))
    writer.write(body[10:])
    assert b" 200 " in await reader.readline()
    writer.close()


@pytest.fixture
async def pipe(tmp_path: Path) -> AsyncIterator[Path]:
    """A file whose reading lasts until the end of the test, as on a network drive that hangs."""
    made, over = tmp_path / "hanging", threading.Event()
    os.mkfifo(made)

    def let_go() -> None:
        while not over.wait(0.01):
            with contextlib.suppress(OSError):
                os.close(os.open(made, os.O_WRONLY | os.O_NONBLOCK))

    yield made
    letting = threading.Thread(target=let_go)
    letting.start()
    await asyncio.get_running_loop().shutdown_default_executor()
    over.set()
    letting.join()


async def test_a_file_that_hangs_holds_up_no_shutdown(live: StartLive, simulator: Simulator, pipe: Path) -> None:
    """A reload that waits for a drive that does not answer is given up when the process is to end."""
    sidecar = await live(one(simulator))
    sidecar.path.unlink()
    sidecar.path.symlink_to(pipe)
    asking = asyncio.create_task(sidecar.ask("POST", "/admin/reload"))
    await until(lambda: sidecar.app.reloader._lock.locked())
    assert (await sidecar.told())[0] == 200
    closing = asyncio.create_task(sidecar.app.reloader.close())
    done, _ = await asyncio.wait([closing], timeout=2)
    for task in (asking, closing):
        task.cancel()
    await asyncio.wait([asking, closing])
    assert done


async def test_no_file_is_read_where_calls_are_served(
    live: StartLive, simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow drive with keys on it lets no call wait: files are read in threads of their own."""
    file = tmp_path / "key"
    file.write_text("sk-first")
    tree = one(simulator, settings={"api_key_file": str(file)})
    del tree["upstreams"]["a"]["api_key"]
    sidecar = await live(tree)
    readers, whole = list[threading.Thread](), Path.open

    def noted(self: Path, *arguments: Any, **named: Any) -> Any:
        readers.append(threading.current_thread())
        return whole(self, *arguments, **named)

    monkeypatch.setattr(Path, "open", noted)
    file_text = os.open(file, os.O_WRONLY | os.O_TRUNC)
    os.write(file_text, b"sk-second")
    os.close(file_text)
    told = await reloaded(sidecar)
    assert told["generation"] == 2
    assert readers
    assert threading.main_thread() not in readers


async def reloaded(sidecar: Live) -> Any:
    return (await sidecar.ask("POST", "/admin/reload"))[1]
