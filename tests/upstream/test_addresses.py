"""The names of upstreams, and the addresses behind them: asked for when needed, and tried until one answers."""

import asyncio
import socket
from typing import Any

import pytest

from proxy.errors import TooSlow, Unreachable
from proxy.upstream import dial
from tests.upstream.conftest import Connect, Listen, Peer, ask

DEAD = "127.0.0.99"  # of loopback too, where nobody listens
BLACK_HOLE = "192.0.2.1"
METADATA = "169.254.169.254"
ANSWERED = b'{"id"'


class Names:
    """A resolver, and a network in which connections to BLACK_HOLE never come about."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers: list[list[str] | OSError] = []  # one per question; the last for all that follow
        self.asked: list[tuple[str, int]] = []
        self.tried: list[str] = []  # addresses
        self.knows = asyncio.Event()
        self.knows.set()
        loop = asyncio.get_running_loop()
        self._connect, self._look_up = loop.sock_connect, loop.getaddrinfo
        monkeypatch.setattr(loop, "getaddrinfo", self._resolve)
        monkeypatch.setattr(loop, "sock_connect", self._try)

    async def _resolve(self, host: str, port: int, **more: Any) -> Any:
        if host[0].isdigit():  # uvloop asks before it connects
            return await self._look_up(host, port, **more)
        self.asked.append((host, port))
        await self.knows.wait()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, OSError):
            raise answer
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (each, port)) for each in answer]

    async def _try(self, sock: socket.socket, address: Any) -> None:
        self.tried.append(address[0])
        if address[0] in (BLACK_HOLE, METADATA):
            await asyncio.Event().wait()
        await self._connect(sock, address)


@pytest.fixture
async def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """What the names mean."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return Names(monkeypatch)


async def once(peer: Peer) -> None:
    """Answer one request per connection."""
    await peer.request()
    peer.answer()


def named(address: str) -> str:
    return f"upstream.example:{address.rpartition(':')[2]}"


@pytest.mark.parametrize("dead", [DEAD, BLACK_HOLE], ids=["refused", "silent"])
async def test_a_dead_address_first(listen: Listen, connect: Connect, names: Names, dead: str) -> None:
    """One dead address of several, refused or without an answer, keeps nobody from the others."""
    upstream = await listen()
    names.answers = [[dead, "127.0.0.1"]]
    assert (await ask(connect(named(upstream.address)))).startswith(ANSWERED)
    assert names.tried == [dead, "127.0.0.1"]
    assert len(upstream.peers) == 1


async def test_a_name_is_asked_once(listen: Listen, connect: Connect, names: Names) -> None:
    """Calls that begin together ask for their upstream's name once, and later ones not while the answer is fresh."""
    upstream = await listen(once)
    names.answers = [["127.0.0.1"]]
    names.knows.clear()
    transport = connect(named(upstream.address))
    calls = [asyncio.create_task(ask(transport)) for _ in range(20)]
    await asyncio.sleep(0)  # all of them wait
    calls[0].cancel()  # who asked first does not take the answer with it
    names.knows.set()
    done = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 5)
    assert [isinstance(body, bytes) for body in done] == [False] + [True] * 19
    await ask(transport)
    host, _, port = named(upstream.address).partition(":")
    assert names.asked == [(host, int(port))]
    assert len(upstream.peers) == 20


async def test_a_name_is_asked_again_in_time(
    listen: Listen, connect: Connect, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that is no longer fresh is not used."""
    monkeypatch.setattr(dial, "ADDRESSES_FRESH_SECONDS", 0.0)
    upstream = await listen(once)
    names.answers = [["127.0.0.1"]]
    transport = connect(named(upstream.address))
    for count in (1, 2, 3):
        await ask(transport)
        assert len(names.asked) == count


FAILURES: dict[str, tuple[list[str] | OSError, type[Exception]]] = {
    "nobody listens": ([DEAD], Unreachable),
    "nobody answers": ([BLACK_HOLE], TooSlow),
    "no such name": (socket.gaierror(socket.EAI_NONAME, "upstream.example is unknown"), Unreachable),
}


@pytest.mark.parametrize(("first", "kind"), FAILURES.values(), ids=FAILURES.keys())
async def test_a_name_is_asked_again_after_a_failure(
    listen: Listen, connect: Connect, names: Names, first: list[str] | OSError, kind: type[Exception]
) -> None:
    """When no connection came about, the next call asks where the upstream is now: pods move."""
    upstream = await listen()
    names.answers = [first, ["127.0.0.1"]]
    transport = connect(named(upstream.address), timeouts={"connect_seconds": 0.2})
    with pytest.raises(kind) as caught:
        await ask(transport)
    assert "example" not in str(caught.value)
    assert (await ask(transport)).startswith(ANSWERED)
    assert len(names.asked) == 2
    assert (transport.idle, transport.active) == (1, 0)


async def test_all_addresses_are_dead(connect: Connect, names: Names) -> None:
    """All are tried; then there is no connection, and the failure quotes none of them."""
    names.answers = [[DEAD, "127.0.0.98", "127.0.0.97"]]
    with pytest.raises(Unreachable) as caught:
        await ask(connect("upstream.example:9"))
    assert "127" not in str(caught.value)
    assert sorted(names.tried) == ["127.0.0.97", "127.0.0.98", DEAD]


async def test_names_that_lead_to_a_clouds_credentials(listen: Listen, connect: Connect, names: Names) -> None:
    """Of a name's addresses those where clouds hand out credentials are not tried, unless that is allowed."""
    upstream = await listen()
    names.answers = [[METADATA, "127.0.0.1"]]
    assert (await ask(connect(named(upstream.address)))).startswith(ANSWERED)
    assert names.tried == ["127.0.0.1"]
    allowed = connect(named(upstream.address), allow_metadata_addresses=True)
    assert (await ask(allowed)).startswith(ANSWERED)
    assert names.tried == ["127.0.0.1", METADATA, "127.0.0.1"]


@pytest.mark.parametrize("host", ["upstream.example", "2852039166", "0xa9fea9fe", "169.254.43518"])
async def test_no_address_but_a_clouds(connect: Connect, names: Names, host: str) -> None:
    """Where there is no other address nothing is tried, however it is spelt; and what allows it is named."""
    names.answers = [[METADATA]]
    with pytest.raises(Unreachable, match="allow_metadata_addresses"):
        await ask(connect(f"{host}:80"))
    assert names.tried == []


async def test_a_proxy_there(connect: Connect, names: Names) -> None:
    """The same holds for a proxy on the way."""
    names.answers = [[METADATA]]
    with pytest.raises(Unreachable, match="allow_metadata_addresses"):
        await ask(connect("upstream.example:80", proxy="http://proxy.example:3128"))
    assert names.tried == []
