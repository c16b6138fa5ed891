"""Which connection a request goes out on: kept, let go, waited for, and never one that is doubtful."""

import asyncio
import json
import socket
from collections.abc import Awaitable
from typing import Any

import pytest

import proxy.upstream.transport as transport_module
from proxy.errors import Unreachable
from proxy.upstream.connection import Connection
from proxy.upstream.transport import Transport
from tests.conftest import Start
from tests.upstream.conftest import COMPLETION, Connect, Listen, Peer, RawUpstream, answers, ask


async def begun(work: Awaitable[Any]) -> asyncio.Task[Any]:
    """The work as a task that has come to its first wait."""
    task = asyncio.ensure_future(work)
    await asyncio.sleep(0)
    return task


class Gate:
    """An upstream that answers when it is let to."""

    def __init__(self) -> None:
        self.passes = asyncio.Semaphore(0)

    async def talk(self, peer: Peer) -> None:
        while True:
            await peer.request()
            await self.passes.acquire()
            peer.answer()

    def let(self, count: int) -> None:
        for _ in range(count):
            self.passes.release()


async def three_idle(transport: Transport, upstream: RawUpstream, gate: Gate) -> None:
    """Make three connections that are idle."""
    calls = [await begun(ask(transport)) for _ in range(3)]
    await upstream.wait_for(lambda: len(upstream.requests) == 3)
    gate.let(3)
    for call in calls:
        await call
    assert (transport.idle, transport.active) == (3, 0)


async def test_the_newest_connection_is_used_first(listen: Listen, connect: Connect) -> None:
    """Calls one after another keep to the connection that was used last, so that the others can go."""
    gate = Gate()
    upstream = await listen(gate.talk)
    transport = connect(upstream.address)
    await three_idle(transport, upstream, gate)
    gate.let(5)
    for _ in range(5):
        await ask(transport)
    assert sorted(len(peer.seen) for peer in upstream.peers) == [1, 1, 6]


async def test_idle_connections_are_closed(listen: Listen, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody has used for a while is closed, before the upstream does it; the next call has a new connection."""
    monkeypatch.setattr(transport_module, "IDLE_CONNECTION_SECONDS", 0.05)
    gate = Gate()
    upstream = await listen(gate.talk)
    transport = connect(upstream.address)
    await three_idle(transport, upstream, gate)
    await upstream.wait_for(lambda: upstream.open == 0)
    assert (transport.idle, transport.active) == (0, 0)
    gate.let(1)
    await ask(transport)
    assert len(upstream.peers) == 4
    await upstream.wait_for(lambda: upstream.open == 0)  # this one too: it is looked after again


PARTING = [b"", b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"]


@pytest.mark.parametrize("last_words", PARTING, ids=["in silence", "with a word"])
async def test_a_connection_closed_while_idle_is_not_used(listen: Listen, connect: Connect, last_words: bytes) -> None:
    """No request is sent on a connection that the upstream has closed, nor on one where it spoke unasked."""
    parts = asyncio.Event()

    async def once(peer: Peer) -> None:
        await peer.request()
        peer.answer()
        await parts.wait()
        peer.writer.write(last_words)
        peer.writer.write_eof()
        await peer.left.wait()  # we have closed it in turn

    upstream = await listen(once)
    transport = connect(upstream.address)
    for _ in range(2):
        parts.clear()
        await ask(transport)
        parts.set()
        await upstream.wait_for(lambda: upstream.open == 0)
        assert transport.idle == 0
    assert [len(peer.seen) for peer in upstream.peers] == [1, 1]


PARTIAL = [b"H", b"HTTP/1.1 20", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"]


@pytest.mark.parametrize("partial", PARTIAL)
async def test_what_was_begun_to_be_answered_is_not_repeated(start: Start, listen: Listen, partial: bytes) -> None:
    """An upstream that hangs up in the head of its answer has seen the call: it is a 502, and sent once."""

    async def break_off(peer: Peer) -> None:
        await peer.request()
        peer.answer()
        await peer.request()
        peer.writer.write(partial)

    upstream = await listen(break_off)
    sidecar = await start(upstreams={"openai": {"base_url": f"http://{upstream.address}/v1"}})
    assert (await sidecar.chat()).status == 200
    assert (await sidecar.chat()).status == 502
    assert [len(peer.seen) for peer in upstream.peers] == [2]
    assert await sidecar.metric("octet_connections", upstream="openai") == 0


@pytest.mark.parametrize("setting", [{}, {"max_connections": 3}])
async def test_a_stale_connection_is_forgiven_once(listen: Listen, connect: Connect, setting: dict[str, int]) -> None:
    """A request that met a hang-up without a byte goes out once more, on a new connection, whatever else is idle."""
    gate, hangs_up = Gate(), asyncio.Event()

    async def talk(peer: Peer) -> None:
        await peer.request()
        if hangs_up.is_set():
            return
        await gate.passes.acquire()
        peer.answer()
        await peer.request()

    upstream = await listen(talk)
    transport = connect(upstream.address, **setting)
    await three_idle(transport, upstream, gate)
    gate.let(1)
    assert json.loads(await ask(transport)) == COMPLETION  # hung up on, then answered on a fourth connection
    assert sorted(len(peer.seen) for peer in upstream.peers) == [1, 1, 1, 2]
    hangs_up.set()
    with pytest.raises(Unreachable):
        await ask(transport)  # hung up on, and again
    assert sorted(len(peer.seen) for peer in upstream.peers) == [1, 1, 1, 2, 2]
    assert transport.active == 0


async def test_no_more_connections_than_there_may_be(listen: Listen, connect: Connect) -> None:
    """With max_connections, who comes too many waits until a connection is free, and then has an answer."""
    gate = Gate()
    upstream = await listen(gate.talk)
    transport = connect(upstream.address, max_connections=2)
    calls = [await begun(ask(transport)) for _ in range(5)]
    for seen in range(2, 6):
        await upstream.wait_for(lambda seen=seen: len(upstream.requests) == seen)  # type: ignore[misc]
        assert transport.active == 2 or seen > 4
        gate.let(1)
    gate.let(1)
    assert [json.loads(body) for body in await asyncio.gather(*calls)] == [COMPLETION] * 5
    assert [len(peer.seen) for peer in upstream.peers] in ([2, 3], [3, 2])
    assert (transport.idle, transport.active) == (2, 0)


async def test_a_repeat_takes_no_more_than_its_place(listen: Listen, connect: Connect) -> None:
    """There are never more than max_connections, not even when a stale one is replaced."""

    async def talk(peer: Peer) -> None:
        await peer.request()
        peer.answer()
        await peer.request()
        if peer is not upstream.peers[0]:
            peer.answer()
            await answers(peer)

    upstream = await listen(talk)
    transport = connect(upstream.address, max_connections=1)
    await ask(transport)
    calls = [await begun(ask(transport)) for _ in range(3)]  # the first of them is hung up on
    assert [json.loads(body) for body in await asyncio.gather(*calls)] == [COMPLETION] * 3
    assert upstream.most == 1


async def test_a_wait_in_vain(start: Start, listen: Listen) -> None:
    """Who gets no connection within connect_seconds has a 503 that names the setting; /metrics shows why."""
    gate = Gate()
    upstream = await listen(gate.talk)
    settings = {
        "base_url": f"http://{upstream.address}/v1",
        "max_connections": 2,
        "timeouts": {"connect_seconds": 0.2},
    }
    sidecar = await start(upstreams={"openai": settings})
    assert await sidecar.metric("octet_connections_limit", upstream="openai") == 2
    calls = [asyncio.create_task(sidecar.chat()) for _ in range(2)]
    await upstream.wait_for(lambda: len(upstream.requests) == 2)
    refused = await sidecar.chat()
    assert refused.status == 503
    error = (await refused.json())["error"]
    assert error["code"] == "overloaded"
    assert "max_connections" in error["message"]
    assert await sidecar.metric("octet_connections", upstream="openai", state="active") == 2
    gate.let(3)
    assert [(await call).status for call in calls] == [200, 200]
    assert await sidecar.metric("octet_connections", upstream="openai", state="active") == 0
    assert await sidecar.metric("octet_connections", upstream="openai", state="idle") == 2
    assert (await sidecar.chat()).status == 200
    assert upstream.most == 2
    assert await sidecar.metric("octet_connections_limit", upstream="anthropic") == 0  # absent: no limit


@pytest.mark.parametrize("count", [1, 4])
async def test_who_hangs_up_while_waiting_leaves_no_place_taken(listen: Listen, connect: Connect, count: int) -> None:
    """Neither those that wait for a connection, nor those that wait for an answer, take a place with them."""
    gate = Gate()
    upstream = await listen(gate.talk)
    transport = connect(upstream.address, max_connections=2)
    answered = [await begun(ask(transport)) for _ in range(2)]
    await upstream.wait_for(lambda: len(upstream.requests) == 2)
    waiting = [await begun(ask(transport)) for _ in range(count)]
    for call in [*waiting, answered[0]]:
        call.cancel()
    gate.let(2)
    await asyncio.wait([*waiting, *answered])
    assert [call.cancelled() for call in [*waiting, *answered]] == [True] * (count + 1) + [False]
    calls = [await begun(ask(transport)) for _ in range(2)]
    await upstream.wait_for(lambda: len(upstream.requests) == 4)  # both at once: there are two places
    gate.let(2)
    await asyncio.gather(*calls)
    assert (transport.idle, transport.active) == (2, 0)


async def test_who_is_given_a_place_and_hangs_up_gives_it_back(listen: Listen, connect: Connect) -> None:
    """A caller that leaves in the very moment when a place becomes free hands it on to the next."""
    gate = Gate()
    upstream = await listen(gate.talk)
    transport = connect(upstream.address, max_connections=1)
    first = await begun(ask(transport))
    await upstream.wait_for(lambda: len(upstream.requests) == 1)
    second, third = await begun(ask(transport)), await begun(ask(transport))
    first.cancel()  # its connection goes, and with it its place
    gone = transport.gone

    def leaves(connection: Connection) -> None:
        gone(connection)
        second.cancel()

    transport.gone = leaves  # type: ignore[method-assign]
    gate.let(2)
    assert json.loads(await third) == COMPLETION
    assert second.cancelled()
    assert (transport.idle, transport.active) == (1, 0)


@pytest.mark.parametrize("setting", [{}, {"max_connections": 1}])
async def test_an_upstream_that_resets_at_once(listen: Listen, connect: Connect, setting: dict[str, int]) -> None:
    """A connection that is gone as soon as it is there is a failure to reach the upstream, and takes no place."""

    async def reset(peer: Peer) -> None:
        peer.writer.transport.abort()

    upstream = await listen(reset)
    transport = connect(upstream.address, **setting)
    for _ in range(20):
        with pytest.raises(Unreachable):
            await asyncio.wait_for(ask(transport), 5)
        assert (transport.idle, transport.active) == (0, 0)


async def test_a_failure_to_connect_takes_no_place(connect: Connect) -> None:
    """Where nobody listens, each call is told so, with one place as without a limit."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        transport = connect(f"127.0.0.1:{nobody.getsockname()[1]}", max_connections=1)
        for _ in range(3):
            with pytest.raises(Unreachable):
                await ask(transport)


async def test_closing_closes_everything(listen: Listen, connect: Connect) -> None:
    """`close` returns when every connection is closed, used or idle; who waits for an answer is told."""
    gate = Gate()
    upstream = await listen(gate.talk)
    transport = connect(upstream.address)
    await three_idle(transport, upstream, gate)
    call = await begun(ask(transport))
    await upstream.wait_for(lambda: len(upstream.requests) == 4)
    await asyncio.wait_for(transport.close(), 5)
    assert (transport.idle, transport.active) == (0, 0)
    await asyncio.wait([call], timeout=1)
    assert call.done()
    assert isinstance(call.exception(), Unreachable)
    assert len(upstream.peers) == 3  # nobody has connected again


async def test_a_connection_that_is_gone_at_once_keeps_no_place(
    listen: Listen, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is closed between being made and being used is a failure, and its place is free again."""
    upstream = await listen(answers)
    transport = connect(upstream.address, max_connections=1)
    dial = transport._dialer.dial

    async def gone(factory: Any) -> Connection:
        return factory()  # type: ignore[no-any-return]

    monkeypatch.setattr(transport._dialer, "dial", gone)
    for _ in range(2):
        with pytest.raises(Unreachable):
            await ask(transport)
    monkeypatch.setattr(transport._dialer, "dial", dial)
    assert json.loads(await ask(transport)) == COMPLETION
    assert (transport.idle, transport.active) == (1, 0)


async def test_what_breaks_later_is_not_sent_again(
    listen: Listen, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A used connection that breaks a while after the request may have been worked for: it is a failure like any."""
    monkeypatch.setattr(transport_module, "STALE_SECONDS", -1.0)

    async def once_then_away(peer: Peer) -> None:
        await peer.request()
        peer.answer()
        await peer.request()
        peer.writer.transport.abort()

    upstream = await listen(once_then_away)
    transport = connect(upstream.address)
    assert (await ask(transport)).startswith(b'{"id"')
    with pytest.raises(Unreachable):
        await ask(transport)
    assert len(upstream.requests) == 2
    assert len(upstream.peers) == 1
