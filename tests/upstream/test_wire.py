"""What goes over the wire to an upstream, and answers that come at a pace of their own."""

import asyncio
import io
import json
import re

import aiohttp
import pytest

from proxy.errors import ProxyFault
from proxy.providers.seam import UpstreamRequest
from tests.conftest import DIALECTS, MODELS, Sidecar, Start
from tests.upstream.conftest import COMPLETION, Connect, Listen, Peer, answers

EVENT = b'data: {"choices":[{"delta":{"content":"Hi"},"finish_reason":"stop"}]}\n\n'
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
LIMIT = 1024 * 1024


async def long_chat(sidecar: Sidecar, text: str, *, stream: bool = False) -> aiohttp.ClientResponse:
    """A call whose body is sent bit by bit."""
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], "stream": stream}
    headers = {"content-type": "application/json"}
    url = f"{sidecar.url}/v1/chat/completions"
    return await sidecar.http.post(url, data=io.BytesIO(json.dumps(body).encode()), headers=headers)


def header_lines(request: bytes) -> list[tuple[str, str]]:
    """Names and values as they were sent, the names in lower case."""
    head, _, _ = request.decode("latin-1").partition("\r\n\r\n")
    pairs = [line.split(":", 1) for line in head.split("\r\n")[1:]]
    return [(name.lower(), value.strip()) for name, value in pairs]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
async def test_the_headers_of_a_request(start: Start, listen: Listen, dialect: str, stream: bool) -> None:
    """Each header is sent once: whose host it is, how long the body is, and that it must not be compressed."""
    upstream = await listen()
    sidecar = await start(upstreams={dialect: {"base_url": f"http://{upstream.address}/base"}})
    given = {"accept-encoding": "gzip, br", "te": "trailers", "x-own": "1", "connection": "x-own"}
    body = {"model": MODELS[dialect], "messages": [{"role": "user", "content": "héllo"}], "stream": stream}
    url = f"{sidecar.url}/v1/chat/completions"
    async with sidecar.http.post(url, json=body, headers=given) as response:
        await response.read()
    for request in upstream.requests:  # some upstreams are asked for their models too
        names = [name for name, _ in header_lines(request)]
        assert len(names) == len(set(names)), names
        assert not {"te", "x-own", "connection", "transfer-encoding", "proxy-authorization"} & set(names)
    (request,) = [request for request in upstream.requests if request.startswith(b"POST")]
    headers, sent = dict(header_lines(request)), request.partition(b"\r\n\r\n")[2]
    assert re.match(rb"POST /base/\S+ HTTP/1.1\r\n", request)
    assert headers["host"] == upstream.address
    assert headers["content-length"] == str(len(sent))
    assert headers["accept-encoding"] == "identity"
    assert headers["content-type"] == "application/json"


INJECTIONS = {
    "a header's value": ("/v1/x", {"x": "a\r\nevil: 1"}),
    "a header's name": ("/v1/x", {"x: a\nevil": "1"}),
    "a lone CR": ("/v1/x", {"x": "a\rb"}),
    "the address": ("/v1/x HTTP/1.1\r\nevil: 1\r\n\r\n", {}),
    "a space in the address": ("/v1/x y", {}),
}


@pytest.mark.parametrize(("path", "headers"), INJECTIONS.values(), ids=INJECTIONS.keys())
async def test_nothing_is_smuggled(listen: Listen, connect: Connect, path: str, headers: dict[str, str]) -> None:
    """What would make a line of its own in the request's head is never sent."""
    upstream = await listen()
    transport = connect(upstream.address)
    with pytest.raises(ProxyFault):
        await transport.open(UpstreamRequest(f"http://{upstream.address}{path}", headers, b""), 5.0, "total")
    with pytest.raises(ProxyFault):
        await transport.open(UpstreamRequest("http://evil.example/v1", {}, b""), 5.0, "total")
    assert upstream.peers == []
    assert transport.active == 0


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
async def test_a_slow_drip(start: Start, listen: Listen, stream: bool) -> None:
    """An answer that comes byte by byte is whole, and its connection is used again."""
    body = json.dumps(COMPLETION).encode()
    whole = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    parts = [EVENT, b"data: [DONE]\n\n"]
    chunked = STREAM + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"

    dripped = asyncio.Event()

    async def drip(peer: Peer) -> None:
        while True:
            await peer.request()
            for byte in chunked if stream else whole:
                peer.writer.write(bytes([byte]))
                await asyncio.sleep(0)  # not in one packet
            dripped.set()

    upstream = await listen(drip)
    sidecar = await start(upstreams={"openai": {"base_url": f"http://{upstream.address}/v1"}})
    for _ in range(3):
        response = await sidecar.chat(stream=stream)
        assert response.status == 200
        if stream:
            assert (await response.read()).endswith(b"data: [DONE]\n\n")
        else:
            assert (await response.json())["choices"] == COMPLETION["choices"]
        await asyncio.wait_for(dripped.wait(), 5)
        dripped.clear()
    assert [len(peer.seen) for peer in upstream.peers] == [3]


async def test_the_last_chunk_may_come_later(start: Start, listen: Listen) -> None:
    """A stream whose body ends a moment after [DONE] holds nobody up, and its connection serves the next call."""
    ended, may_end = asyncio.Event(), asyncio.Event()

    async def talk(peer: Peer) -> None:
        while True:
            await peer.request()
            peer.begin_stream()
            peer.chunk(EVENT + b"data: [DONE]\n\n")
            await may_end.wait()
            peer.writer.write(b"0\r\n\r\n")
            ended.set()

    upstream = await listen(talk)
    sidecar = await start(upstreams={"openai": {"base_url": f"http://{upstream.address}/v1"}})
    for _ in range(3):
        response = await sidecar.chat(stream=True)
        assert (await response.read()).endswith(b"data: [DONE]\n\n")
        may_end.set()
        await asyncio.wait_for(ended.wait(), 5)
        may_end.clear()
        ended.clear()
    assert [len(peer.seen) for peer in upstream.peers] == [3]
    assert await sidecar.metric("octet_connections", upstream="openai", state="active") == 0


@pytest.mark.parametrize("stays", [True, False], ids=["and stays", "and hangs up"])
@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
async def test_an_early_answer(start: Start, listen: Listen, stream: bool, stays: bool) -> None:
    """An upstream that answers before it has read the call is heard, and the connection is not used again."""
    heard = asyncio.Event()

    async def refuse(peer: Peer) -> None:
        await peer.head()
        peer.answer(b'{"error":{"message":"too much for me"}}', b"413 Content Too Large")
        if not stays:
            peer.writer.write_eof()
        await heard.wait()
        while await peer.reader.read(LIMIT):
            pass

    upstream = await listen(refuse)
    sidecar = await start(upstreams={"openai": {"base_url": f"http://{upstream.address}/v1"}})
    for count in range(1, 3):
        heard.clear()
        response = await long_chat(sidecar, "x" * 5 * 1024 * 1024, stream=stream)
        assert response.status == 413
        error = (await response.json())["error"]
        assert (error["code"], error["message"]) == ("request_too_large", "too much for me")
        assert await sidecar.metric("octet_connections", upstream="openai", state="active") == 0
        heard.set()
        await upstream.wait_for(lambda: upstream.open == 0)
        assert len(upstream.peers) == count
    upstream.talk = answers
    assert (await sidecar.chat()).status == 200


async def test_a_long_request_arrives_whole(start: Start, listen: Listen) -> None:
    """A body of some MiB reaches an upstream that reads slowly, whole and once; then the connection is used again."""
    upstream = await listen()
    sidecar = await start(upstreams={"openai": {"base_url": f"http://{upstream.address}/v1"}})
    text = "0123456789" * 500_000
    for _ in range(2):
        assert (await long_chat(sidecar, text)).status == 200
    for request in upstream.requests:
        assert json.loads(request.partition(b"\r\n\r\n")[2])["messages"][0]["content"] == text
    assert [len(peer.seen) for peer in upstream.peers] == [2]
