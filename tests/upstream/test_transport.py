"""HTTP towards an upstream: TLS, connections kept and let go, and answers of odd shapes."""

import asyncio
import gzip
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web

from proxy.simulator import Simulator
from tests.conftest import MODELS, Sidecar, Start
from tests.upstream.conftest import COMPLETION

Serve = Callable[..., Awaitable[str]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Serves a handler on loopback; gives its address."""
    runners: list[web.ServerRunner] = []

    async def served(handler: Any, tls: ssl.SSLContext | None = None) -> str:
        runner = web.ServerRunner(web.Server(handler, handler_cancellation=True), shutdown_timeout=0.1)
        await runner.setup()
        runners.append(runner)
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        return f"127.0.0.1:{runner.addresses[0][1]}"

    yield served
    for runner in runners:
        await runner.cleanup()


async def answer(_: web.BaseRequest) -> web.StreamResponse:
    return web.json_response(COMPLETION)


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    """An authority that nobody else trusts; its certificate is ca.pem."""
    made = trustme.CA()
    made.cert_pem.write_to_path(tmp_path / "ca.pem")
    return made


async def error_code(sidecar: Sidecar) -> tuple[int, str]:
    response = await sidecar.chat()
    return response.status, (await response.json())["error"]["code"]


async def test_tls_is_verified(start: Start, serve: Serve, authority: trustme.CA, tmp_path: Path) -> None:
    """An upstream's certificate must come from an authority that is trusted, or named in tls.ca_file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    address = f"https://{await serve(answer, context)}/v1"
    distrusting = await start(upstreams={"openai": {"base_url": address}})
    assert await error_code(distrusting) == (502, "upstream_unreachable")
    trusting = await start(upstreams={"openai": {"base_url": address, "tls": {"ca_file": str(tmp_path / "ca.pem")}}})
    assert (await trusting.chat()).status == 200


async def test_we_show_our_certificate(start: Start, serve: Serve, authority: trustme.CA, tmp_path: Path) -> None:
    """An upstream that asks for a certificate gets tls.cert_file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    ours = authority.issue_cert("octet@example.org")
    ours.cert_chain_pems[0].write_to_path(tmp_path / "ours.pem")
    ours.private_key_pem.write_to_path(tmp_path / "ours.key")
    trust = {"ca_file": str(tmp_path / "ca.pem")}
    shown = {**trust, "cert_file": str(tmp_path / "ours.pem"), "key_file": str(tmp_path / "ours.key")}
    address = f"https://{await serve(answer, context)}/v1"
    assert (await (await start(upstreams={"openai": {"base_url": address, "tls": shown}})).chat()).status == 200
    assert (await (await start(upstreams={"openai": {"base_url": address, "tls": trust}})).chat()).status == 502


async def test_a_proxy_on_the_way(start: Start, serve: Serve) -> None:
    """`proxy` takes the call to an HTTP proxy, which is asked for the upstream's whole address."""
    asked: list[str] = []

    async def proxy(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(str(request.raw_path))
        return web.json_response(COMPLETION)

    address = await serve(proxy)
    sidecar = await start(
        upstreams={"openai": {"base_url": "http://upstream.example/v1", "proxy": f"http://{address}"}}
    )
    assert (await sidecar.chat()).status == 200
    assert asked == ["http://upstream.example/v1/chat/completions"]


async def test_connections_are_used_again(sidecar: Sidecar, simulator: Simulator) -> None:
    """Calls one after another share a connection, streams too."""
    for stream in (False, True, False):
        await (await sidecar.chat(stream=stream)).read()
    assert simulator.report.dialects["openai"].open_connections == 1


async def test_a_connection_closed_under_us(start: Start) -> None:
    """A kept-alive connection that the upstream closes as it is used again costs nothing: the request is sent anew."""
    connections = 0
    body = json.dumps(COMPLETION).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head + body)
        await reader.readuntil(b"\r\n\r\n")  # the next request is read, and hung up on
        writer.close()

    server = await asyncio.start_server(once, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    sidecar = await start(upstreams={"openai": {"base_url": f"http://127.0.0.1:{port}/v1"}})
    assert [(await sidecar.chat()).status for _ in range(4)] == [200] * 4
    assert connections == 4
    server.close()


async def test_a_compressed_answer(start: Start, serve: Serve) -> None:
    """We ask for none; one that is compressed all the same could grow without bound, and is a 502."""
    encodings: list[str] = []

    async def compressed(request: web.BaseRequest) -> web.StreamResponse:
        encodings.append(request.headers["accept-encoding"])
        headers = {"content-encoding": "gzip", "content-type": "application/json"}
        return web.Response(body=gzip.compress(json.dumps(COMPLETION).encode()), headers=headers)

    sidecar = await start(upstreams={"openai": {"base_url": f"http://{await serve(compressed)}/v1"}})
    assert await error_code(sidecar) == (502, "upstream_bad_response")
    assert encodings == ["identity"]


async def test_netrc_is_not_read(
    start: Start, simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands in .netrc goes to no upstream."""
    netrc = tmp_path / "netrc"
    netrc.write_text("default login alice password secret")
    monkeypatch.setenv("NETRC", str(netrc))
    sidecar = await start()
    for model in ("gpt-4o-mini", "claude-haiku-4-5", "qwen3"):
        assert (await sidecar.chat(model)).status == 200
    assert not [seen for seen in simulator.report.requests if "Basic" in seen.headers.get("authorization", "")]


async def test_the_environments_proxy(start: Start, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP_PROXY is used, but not for hosts that NO_PROXY names."""
    monkeypatch.setenv("http_proxy", f"http://{await serve(answer)}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    sidecar = await start(upstreams={"openai": {"base_url": "http://upstream.example/v1"}})
    assert (await (await sidecar.chat()).json())["id"] == "chatcmpl-1"
    assert (await sidecar.chat("qwen3")).status == 200


LINGERING = {
    "openai": b'data: {"choices":[{"delta":{"content":"Hi"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n',
    "anthropic": b'data: {"type":"message_start","message":{"id":"m"}}\n\n'
    b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hi"}}\n\n'
    b'data: {"type":"message_delta","delta":{"stop_reason":"end_turn"}}\n\n'
    b'data: {"type":"message_stop"}\n\n',
    "ollama": b'{"message":{"content":"Hi"},"done":false}\n{"message":{"content":""},"done":true,"eval_count":1}\n',
}


@pytest.mark.parametrize("dialect", [*LINGERING, "normalise"])
async def test_a_stream_ends_with_its_terminal_event(start: Start, serve: Serve, dialect: str) -> None:
    """An upstream that leaves the body open after the end holds nobody up, and is let go."""
    left = asyncio.Event()

    async def linger(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(LINGERING["openai" if dialect == "normalise" else dialect])
        try:
            await asyncio.Event().wait()
        finally:
            left.set()
        return response

    name = "openai" if dialect == "normalise" else dialect
    wire = {"wire": "normalise"} if dialect == "normalise" else {}
    sidecar = await start(upstreams={name: {"base_url": f"http://{await serve(linger)}", **wire}})
    response = await sidecar.chat(MODELS[name], stream=True)
    text = await response.text()
    assert '"content":"Hi"' in text
    assert text.endswith("data: [DONE]\n\n")
    await asyncio.wait_for(left.wait(), 5)


async def test_a_flood_without_content(start: Start, serve: Serve) -> None:
    """An upstream that sends comments for ever, and no content, is given up after max_frame_bytes."""

    async def flood(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        while True:
            await response.write(b": ping\n\n" * 1000)

    url = f"http://{await serve(flood)}"
    for name in ("openai", "anthropic"):
        sidecar = await start(upstreams={name: {"base_url": url, "max_frame_bytes": "1MiB"}})
        response = await sidecar.chat(MODELS[name], stream=True)
        assert response.status == 502
        assert "no content" in await response.text()


HOSTILE = {
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "a head without end": b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000,
    "a header too long": b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000 + b"\r\n\r\n",
    "a body shorter than it says": b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{}",
    "broken chunks": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n",
    "nothing": b"",
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "no type": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
}


@pytest.mark.parametrize("raw", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
async def test_hostile_answers(start: Start, raw: bytes, stream: bool) -> None:
    """Whatever comes back instead of an answer is a 502, and quotes nothing of it."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    sidecar = await start(upstreams={"openai": {"base_url": f"http://127.0.0.1:{port}/v1"}})
    response = await sidecar.chat(stream=stream)
    assert response.status == 502
    assert "yyyy" not in await response.text()
    server.close()
