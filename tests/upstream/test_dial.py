"""The way to an upstream: unix sockets, proxies and their tunnels, names and the addresses behind them."""

import asyncio
import base64
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.conftest import Start
from tests.upstream.conftest import Listen, Peer, RawUpstream

NAME = "upstream.example"
USER = "user:p%40ss@"


def credentials(word: bytes = b"user:p@ss") -> bytes:
    return b"proxy-authorization: Basic " + base64.b64encode(word) + b"\r\n"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of the machine that runs the tests is none of theirs."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


async def test_a_unix_socket(start: Start, listen: Listen, tmp_path: Path) -> None:
    """`unix_socket` says where to connect; `base_url` still says whose host that is, and the path."""
    path = str(tmp_path / "s")
    upstream = await listen(path=path)
    settings = {"base_url": f"http://{NAME}:8000/base/v1", "unix_socket": path}
    sidecar = await start(upstreams={"openai": settings})
    for _ in range(2):
        assert (await sidecar.chat()).status == 200
    assert len(upstream.peers) == 1
    for request in upstream.requests:
        assert request.startswith(b"POST /base/v1/chat/completions HTTP/1.1\r\n")
        assert request.count(b"\r\nhost: upstream.example:8000\r\n") == 1


async def test_a_unix_socket_that_is_not_there(start: Start, tmp_path: Path) -> None:
    """No socket, no connection: a 502 that names no path."""
    settings = {"base_url": f"http://{NAME}/v1", "unix_socket": str(tmp_path / "nobody")}
    response = await (await start(upstreams={"openai": settings})).chat()
    assert response.status == 502
    assert "nobody" not in await response.text()


class Tunnel:
    """A proxy that connects to one upstream, whatever it is asked for, and passes bytes both ways."""

    def __init__(self, there: str, refusal: bytes = b"") -> None:
        self.there, self.refusal = there, refusal
        self.tunnelled = b""  # from the client, after the CONNECT

    async def talk(self, peer: Peer) -> None:
        head = await peer.head()
        if self.refusal or not head.startswith(b"CONNECT "):
            peer.writer.write(self.refusal or b"HTTP/1.1 405 No\r\n\r\n")
            await peer.left.wait()
            return
        host, _, port = self.there.partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        peer.writer.write(b"HTTP/1.1 200 Connection established\r\nvia: x\r\n\r\n")
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(peer.reader, writer))
                group.create_task(self._pass(reader, peer.writer))
        except* OSError:
            pass  # one of them hung up
        finally:
            writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            self.tunnelled += data
        raise ConnectionError  # ends the other direction too


async def answers_or_streams(peer: Peer) -> None:
    """Answer every request; streams come in two pieces."""
    while True:
        if b"accept: text/event-stream" not in await peer.request():
            peer.answer()
            continue
        peer.begin_stream()
        for event in (b'{"choices":[{"delta":{"content":"Hi"},"finish_reason":"stop"}]}', b"[DONE]"):
            peer.chunk(b"data: %b\n\n" % event)
            await asyncio.sleep(0)  # not in one packet
        peer.writer.write(b"0\r\n\r\n")


Secure = Callable[..., Awaitable[RawUpstream]]


@pytest.fixture
async def secure(listen: Listen, tmp_path: Path) -> Secure:
    """Opens an upstream that speaks TLS by the name of NAME; its authority is ca.pem."""
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")

    async def opened(name: str = NAME) -> RawUpstream:
        authority.issue_cert(name).configure_cert(context)
        return await listen(answers_or_streams, tls=context)

    return opened


def through_proxy(tmp_path: Path) -> dict[str, Any]:
    return {"openai": {"base_url": f"https://{NAME}/v1", "tls": {"ca_file": str(tmp_path / "ca.pem")}}}


async def test_a_tunnel(
    start: Start, listen: Listen, secure: Secure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An https upstream is reached by CONNECT; the proxy gets its password, and sees nothing of the call."""
    upstream = await secure()
    tunnel = Tunnel(upstream.address)
    proxy = await listen(tunnel.talk)
    monkeypatch.setenv("https_proxy", f"http://{USER}{proxy.address}")
    sidecar = await start(upstreams=through_proxy(tmp_path))
    for stream in (False, True, False):
        response = await sidecar.chat(stream=stream)
        assert response.status == 200
        assert b"Hi" in await response.read()
    (connect,) = proxy.requests
    assert connect == b"CONNECT upstream.example:443 HTTP/1.1\r\nhost: upstream.example:443\r\n%b\r\n" % credentials()
    assert len(upstream.requests) == 3
    for request in upstream.requests:
        assert request.startswith(b"POST /v1/chat/completions HTTP/1.1\r\nhost: upstream.example\r\n")
        assert b"proxy-" not in request.lower()
    assert b"POST" not in tunnel.tunnelled
    assert b"sk-ours" not in tunnel.tunnelled


async def test_a_tunnel_to_somebody_else(
    start: Start, listen: Listen, secure: Secure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is behind the tunnel must show a certificate of the upstream's name, or nothing is sent to it."""
    upstream = await secure("other.example")
    proxy = await listen(Tunnel(upstream.address).talk)
    monkeypatch.setenv("https_proxy", f"http://{proxy.address}")
    sidecar = await start(upstreams=through_proxy(tmp_path))
    response = await sidecar.chat()
    assert response.status == 502
    assert "certificate" in (await response.json())["error"]["message"]
    assert upstream.requests == []
    await proxy.wait_for(lambda: proxy.open == 0)


REFUSALS = {
    "407": b'HTTP/1.1 407 Proxy Authentication Required\r\nproxy-authenticate: Basic realm="sesame"\r\n'
    b"content-length: 6\r\n\r\nsesame",
    "403 without an end": b"HTTP/1.1 403 Forbidden\r\n\r\nsesame",
    "no HTTP": b"sesame\r\n\r\n",
    "a redirect": b"HTTP/1.1 302 Found\r\nlocation: http://sesame/\r\ncontent-length: 0\r\n\r\n",
}


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS.keys())
async def test_a_proxy_that_refuses(
    start: Start, listen: Listen, monkeypatch: pytest.MonkeyPatch, refusal: bytes
) -> None:
    """A proxy that lets nobody through is a 502 that quotes nothing; its connection is closed."""
    proxy = await listen(Tunnel("", refusal).talk)
    monkeypatch.setenv("https_proxy", f"http://{USER}{proxy.address}")
    sidecar = await start(upstreams={"openai": {"base_url": f"https://{NAME}/v1"}})
    for count in (1, 2):
        response = await sidecar.chat()
        text = await response.text()
        assert response.status == 502
        assert not [word for word in ("sesame", "pass", "p@ss", proxy.address) if word in text]
        await proxy.wait_for(lambda: proxy.open == 0)
        assert len(proxy.peers) == count
    assert await sidecar.metric("octet_connections", upstream="openai") == 0


@pytest.mark.parametrize("words", [b"", b"HTTP/1.1 200 Connection established\r\n\r\n"], ids=["ever", "after CONNECT"])
async def test_a_proxy_that_says_nothing(
    start: Start, listen: Listen, monkeypatch: pytest.MonkeyPatch, words: bytes
) -> None:
    """A tunnel that does not come about is the connect clock's, and leaves nothing behind."""

    async def silent(peer: Peer) -> None:
        await peer.head()
        peer.writer.write(words)
        await peer.reader.read()  # until we hang up

    proxy = await listen(silent)
    monkeypatch.setenv("https_proxy", f"http://{proxy.address}")
    settings = {"base_url": f"https://{NAME}/v1", "timeouts": {"connect_seconds": 0.1}, "max_connections": 1}
    sidecar = await start(upstreams={"openai": settings})
    for _ in range(2):
        response = await sidecar.chat()
        assert response.status == 504
    await proxy.wait_for(lambda: proxy.open == 0)
    assert len(proxy.requests) == 2


USERS = {
    USER: b"user:p@ss",
    "us%20er:a%3Ab@": b"us er:a:b",
    "user:%2541@": b"user:%41",
    "user@": b"user:",
    "%C3%BCser:p@": "üser:p".encode(),
}


@pytest.mark.parametrize(("user", "word"), USERS.items())
async def test_a_proxy_for_plain_http(
    start: Start, listen: Listen, monkeypatch: pytest.MonkeyPatch, user: str, word: bytes
) -> None:
    """An http upstream's requests go to the proxy itself, whole address and password with them."""
    proxy = await listen()
    monkeypatch.setenv("http_proxy", f"http://{user}{proxy.address}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    sidecar = await start(upstreams={"openai": {"base_url": f"http://{NAME}:81/v1"}})
    for _ in range(2):
        assert (await sidecar.chat()).status == 200
    for request in proxy.requests:
        assert request.startswith(b"POST http://upstream.example:81/v1/chat/completions HTTP/1.1\r\n")
        assert request.count(b"\r\nhost: upstream.example:81\r\n") == 1
        assert request.count(b"\r\n" + credentials(word)) == 1
    assert [len(peer.seen) for peer in proxy.peers] == [2]
