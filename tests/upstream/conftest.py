"""Upstreams that talk raw, and transports to them."""

import asyncio
import json
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import pytest
import uvloop

from proxy.config import Upstream
from proxy.providers.seam import UpstreamRequest
from proxy.upstream.transport import Transport
from tests.conftest import Start

ON_BOTH_LOOPS = {"test_pool.py", "test_dial.py", "test_wire.py", "test_addresses.py"}


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """What opens sockets of its own is judged on both loops: asyncio's own, and uvloop, which is used where it is."""
    own: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    return {**own, "uvloop": uvloop.new_event_loop} if item.path.name in ON_BOTH_LOOPS else own


COMPLETION = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4o-mini",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
}


class Peer(asyncio.StreamReaderProtocol):
    """One of our connections, as the upstream has it."""

    def __init__(self, upstream: "RawUpstream") -> None:
        self.reader = asyncio.StreamReader()
        super().__init__(self.reader, self._meet)
        self.left = asyncio.Event()
        self.writer: asyncio.StreamWriter
        self.seen: list[bytes] = []  # requests, heads and bodies
        self._upstream = upstream
        self.talking: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._upstream.met(self)
        super().connection_made(transport)

    def eof_received(self) -> bool:
        super().eof_received()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.left.set()
        self._upstream.lost()

    def _meet(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.talking = asyncio.get_running_loop().create_task(self._talk())

    async def _talk(self) -> None:
        try:
            await self._upstream.talk(self)
        except (OSError, asyncio.IncompleteReadError):  # we hung up, which the test may look at
            pass
        finally:
            self.writer.close()

    async def head(self) -> bytes:
        """Read the head of the next request."""
        self.seen.append(await self.reader.readuntil(b"\r\n\r\n"))
        self._upstream.tell()
        return self.seen[-1]

    async def request(self) -> bytes:
        """Read the next request."""
        head = await self.head()
        length = re.search(rb"\r\ncontent-length: (\d+)\r\n", head)
        self.seen[-1] += await self.reader.readexactly(int(length[1])) if length else b""
        return self.seen[-1]

    def answer(self, body: bytes = json.dumps(COMPLETION).encode(), status: bytes = b"200 OK") -> None:
        """Send a whole answer."""
        head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        self.writer.write(head % (status, len(body)) + body)

    def begin_stream(self) -> None:
        """Send the head of a stream."""
        self.writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")

    def chunk(self, data: bytes) -> None:
        self.writer.write(b"%x\r\n%b\r\n" % (len(data), data))


Talk = Callable[[Peer], Awaitable[None]]


async def answers(peer: Peer) -> None:
    """Answer every request."""
    while True:
        await peer.request()
        peer.answer()


class RawUpstream:
    """An upstream that says on each connection what `talk` says."""

    def __init__(self, talk: Talk) -> None:
        self.talk = talk
        self.peers: list[Peer] = []
        self.open = self.most = 0  # connections: now, and at most at once
        self.address = ""
        self._changed = asyncio.Event()

    @property
    def requests(self) -> list[bytes]:
        return [request for peer in self.peers for request in peer.seen]

    def met(self, peer: Peer) -> None:
        self.peers.append(peer)
        self.open += 1
        self.most = max(self.most, self.open)
        self.tell()

    def lost(self) -> None:
        self.open -= 1
        self.tell()

    def tell(self) -> None:
        self._changed.set()

    async def wait_for(self, holds: Callable[[], bool]) -> None:
        """Return as soon as it holds; looked at again whenever something came or went."""
        async with asyncio.timeout(5):
            while not holds():
                self._changed.clear()
                await self._changed.wait()


Listen = Callable[..., Awaitable[RawUpstream]]


@pytest.fixture
async def listen(start: Start) -> AsyncIterator[Listen]:  # after `start`, which looks for tasks that are left
    """Opens raw upstreams, on loopback or at a path."""
    servers: list[asyncio.Server] = []
    upstreams: list[RawUpstream] = []

    async def listening(
        talk: Talk = answers, *, tls: ssl.SSLContext | None = None, path: str | None = None
    ) -> RawUpstream:
        upstream, loop = RawUpstream(talk), asyncio.get_running_loop()
        upstreams.append(upstream)
        if path is not None:
            servers.append(await loop.create_unix_server(lambda: Peer(upstream), path, ssl=tls))
        else:
            servers.append(await loop.create_server(lambda: Peer(upstream), "127.0.0.1", 0, ssl=tls))
            upstream.address = f"127.0.0.1:{servers[-1].sockets[0].getsockname()[1]}"
        return upstream

    yield listening
    for server in servers:
        server.close()
    peers = [peer for upstream in upstreams for peer in upstream.peers]
    talks = [peer.talking for peer in peers if peer.talking is not None]
    for peer, talk in zip(peers, talks, strict=True):
        talk.cancel()
        peer.writer.close()
    outcomes = await asyncio.gather(*talks, return_exceptions=True)
    async with asyncio.timeout(5):
        await asyncio.gather(*[peer.left.wait() for peer in peers])
    assert not [each for each in outcomes if isinstance(each, Exception)]


async def ask(transport: Transport) -> bytes:
    """One request, and the body of its answer."""
    request = UpstreamRequest(f"{transport._prefix}/v1/chat/completions", {}, b"{}")
    exchange = await transport.open(request, 5.0, "total")
    try:
        return await exchange.read(1024 * 1024)
    finally:
        exchange.close()


Connect = Callable[..., Transport]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Makes transports to an upstream's address; the rest are the upstream's settings."""
    made: list[Transport] = []

    def connected(address: str, **settings: Any) -> Transport:
        whole = {"provider": "openai", "base_url": f"http://{address}/v1", **settings}
        made.append(Transport(Upstream.model_validate(whole)))
        return made[-1]

    yield connected
    for transport in made:
        async with asyncio.timeout(5):
            await transport.close()
