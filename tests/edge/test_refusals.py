"""What the edge refuses: every answer is OpenAI's error object, and the process keeps serving."""

import asyncio
import json
import socket
from typing import Any

import pytest

from proxy.simulator import Simulator
from tests.conftest import Sidecar, Start

GOOD = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hi"}]}'


async def raw(sidecar: Sidecar, request: bytes) -> tuple[int, dict[str, str], Any]:
    """Send bytes as they are; the status, the headers and the body of the answer."""
    address = sidecar.app.addresses[0]
    reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = head.split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:] if line)}
        body = await reader.readexactly(int(headers["content-length"]))
        return int(lines[0].split()[1]), headers, json.loads(body)
    finally:
        writer.close()


def post(body: bytes, *headers: str, path: str = "/v1/chat/completions") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: octet", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + body


def assert_openai_error(body: Any) -> None:
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["message"]
    assert body["error"]["type"]


BAD_BODIES = [
    (b"", None),
    (b"{", None),
    (b"[]", None),
    (b"null", None),
    (b'{"model":"gpt-4o-mini"}', "messages"),
    (b'{"messages":[{"role":"user","content":"x"}]}', "model"),
    (b'{"model":7,"messages":[{}]}', "model"),
    (b'{"model":"gpt-4o-mini","messages":[]}', "messages"),
    (b'{"model":"gpt-4o-mini","messages":{}}', "messages"),
    (b'{"model":"gpt-4o-mini","messages":["x"]}', "messages"),
    (b'{"model":"gpt-4o-mini","messages":[{}],"stream":"yes"}', "stream"),
    (b'{"model":"gpt-4o-mini","messages":[{}],"n":"two"}', "n"),
    (b'{"model":"gpt-4o-mini","messages":[{}],"stream_options":[]}', "stream_options"),
    (b'{"model":"gpt-4o-mini","model":"x","messages":[{}]}', "model"),
    (b'{"model":"gpt-4o-mini","messages":[{"content":NaN}]}', None),
    (b'{"model":"gpt-4o-mini","messages":[{"content":"\xff\xfe"}]}', None),
    (b'{"model":"gpt-4o-mini","messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}", None),
    (b'\xef\xbb\xbf{"model":"gpt-4o-mini","messages":[{}]}', None),
]


@pytest.mark.parametrize(("body", "param"), BAD_BODIES, ids=lambda value: str(value)[:48])
async def test_bad_bodies(sidecar: Sidecar, simulator: Simulator, body: bytes, param: str | None) -> None:
    """A body that is no call is a 400 that names the field, and reaches no upstream."""
    status, headers, answer = await raw(sidecar, post(body))
    assert status == 400
    assert_openai_error(answer)
    assert answer["error"]["param"] == param
    assert headers["x-request-id"] in answer["error"]["message"]
    assert simulator.report.dialects["openai"].calls == 0


MALFORMED = [
    b"GET / HTTP/1.1\r\nHost: octet\r\nX-Big: " + b"a" * 100_000 + b"\r\n\r\n",
    b"NONSENSE\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: octet\r\nX-Secret-Thing\r\n\r\n",
    b"POST /v1/models HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    b"GET /%zz HTTP/9.9\r\n\r\n",
]


@pytest.mark.parametrize("request_bytes", MALFORMED, ids=lambda value: value[:40].decode())
async def test_malformed_http(sidecar: Sidecar, request_bytes: bytes) -> None:
    """What aiohttp's parser refuses is told in OpenAI's shape, quoting nothing, and the sidecar serves on."""
    status, headers, answer = await raw(sidecar, request_bytes)
    assert status in (400, 404)
    assert_openai_error(answer)
    assert "Secret" not in json.dumps(answer)
    assert "aaaa" not in json.dumps(answer)
    assert headers["x-request-id"]
    assert (await raw(sidecar, post(GOOD)))[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/chat/completions", 405),
        ("PUT", "/chat/completions", 405),
        ("POST", "/v1/models", 405),
        ("OPTIONS", "/v1/chat/completions", 405),
        ("POST", "/v1/responses", 404),
        ("GET", "/", 404),
        ("GET", "/v1", 404),
        ("GET", "/metrics", 404),
        ("GET", "/v1/models/nowhere", 404),
    ],
)
async def test_wrong_paths_and_methods(sidecar: Sidecar, method: str, path: str, status: int) -> None:
    """404 and 405 are OpenAI errors that say what there is."""
    async with sidecar.http.request(method, sidecar.url + path) as response:
        assert response.status == status
        assert_openai_error(await response.json())
        if status == 405:
            assert response.headers["allow"] in ("GET", "POST")


async def test_paths_with_and_without_v1(sidecar: Sidecar) -> None:
    """Each path is served with and without /v1."""
    for path in ("/v1/chat/completions", "/chat/completions"):
        assert (await raw(sidecar, post(GOOD, path=path)))[0] == 200
    for path in ("/v1/models", "/models", "/v1/models/gpt-4o-mini", "/models/ollama%2Fx%2Fy", "/v1/models/ollama/x/y"):
        async with sidecar.http.get(sidecar.url + path) as response:
            assert response.status == 200


async def test_too_large(start: Start) -> None:
    """A body above the limit is a 413, whether its length is announced or not, and the connection ends."""
    sidecar = await start(server={"max_body_bytes": 1000})
    status, headers, answer = await raw(sidecar, post(b"{" + b" " * 2000 + b"}"))
    assert status == 413
    assert_openai_error(answer)
    assert headers["connection"] == "close"
    chunk = b"7d0\r\n" + b" " * 2000 + b"\r\n0\r\n\r\n"
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: octet\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert (await raw(sidecar, head + chunk))[0] == 413


async def test_bodies_of_all_calls_together(start: Start) -> None:
    """Above the bound on all of them a call is a 503 that says when to come again; room comes back as calls end."""
    sidecar = await start(server={"max_body_bytes": 1000, "max_buffered_bytes": 1500})
    address = sidecar.app.addresses[0]
    whole = post(json.dumps({**json.loads(GOOD), "user": "u" * 700}).encode())
    reader, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(whole[:-1])
    held = len(whole.partition(b"\r\n\r\n")[2]) - 1
    async with asyncio.timeout(10):
        while await sidecar.metric("octet_buffered_bytes") != held:
            pass
    status, headers, answer = await raw(sidecar, whole)
    assert (status, headers["retry-after"], answer["error"]["code"]) == (503, "1", "overloaded")
    assert_openai_error(answer)
    assert (await raw(sidecar, post(GOOD)))[0] == 200
    writer.write(whole[-1:])
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
    writer.close()
    assert await sidecar.metric("octet_buffered_bytes") == 0
    assert (await raw(sidecar, whole))[0] == 200


async def test_a_body_that_does_not_come(start: Start) -> None:
    """A body that stands still is a 408."""
    sidecar = await start(server={"body_timeout_seconds": 0.1})
    status, _, answer = await raw(sidecar, post(GOOD)[:-10])
    assert status == 408
    assert_openai_error(answer)


@pytest.mark.parametrize(
    "header",
    ["Content-Type: text/plain", "Content-Type: application/x-www-form-urlencoded", "Content-Encoding: gzip"],
)
async def test_not_json(sidecar: Sidecar, header: str) -> None:
    """Another media type, or a compressed body, is a 415."""
    request = post(GOOD, header)
    if "Type" in header:
        request = request.replace(b"Content-Type: application/json\r\n", b"")
    status, _, answer = await raw(sidecar, request)
    assert status == 415
    assert_openai_error(answer)


async def test_expect_continue(sidecar: Sidecar) -> None:
    """A client that waits for 100 Continue gets it."""
    address = sidecar.app.addresses[0]
    reader, writer = await asyncio.open_connection(address.host, address.port)
    head, body = post(GOOD, "Expect: 100-continue").split(b"\r\n\r\n", 1)
    writer.write(head + b"\r\n\r\n")
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(body)
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()


async def test_a_crash_of_ours_tells_nothing(sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug of ours is a 500 without details, the call is settled, and the next call works."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError("secret detail")

    with monkeypatch.context() as patched:
        patched.setattr(sidecar.app.pipeline.snapshot.router, "choose", broken)
        status, _, answer = await raw(sidecar, post(GOOD))
    assert status == 500
    assert_openai_error(answer)
    assert "secret" not in json.dumps(answer)
    (line,) = await sidecar.lines.wait_for(1)
    assert (line["outcome"], line["reason"]) == ("proxy_error", "ZeroDivisionError")
    assert (await raw(sidecar, post(GOOD)))[0] == 200


async def test_request_ids(sidecar: Sidecar) -> None:
    """A sane id of the caller's is kept, another is replaced."""
    for given, kept in (("my-id:7", True), ("bad id", False), ("x" * 200, False), ("ü", False)):
        _, headers, _ = await raw(sidecar, post(GOOD, f"x-request-id: {given}"))
        assert (headers["x-request-id"] == given) is kept
        assert headers["x-request-id"]


async def test_a_loop_is_seen(start: Start) -> None:
    """An upstream that is ourselves is a 508, once, and not an endless loop."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    itself = {"provider": "openai", "base_url": f"http://127.0.0.1:{port}/v1"}
    routes = [{"match": {"model": "loop"}, "targets": [{"upstream": "itself"}]}]
    sidecar = await start(server={"listen": f"127.0.0.1:{port}"}, upstreams={"itself": itself}, routes=routes)
    response = await sidecar.chat("loop")
    assert response.status == 508
    assert (await response.json())["error"]["code"] == "loop_detected"
    assert response.headers["x-should-retry"] == "false"
    assert len(await sidecar.lines.wait_for(2)) == 2


async def test_cors_is_off_by_default(start: Start) -> None:
    """Web pages may call only from origins that the configuration names."""
    closed, open_ = await start(), await start(server={"cors_origins": ["https://app.example"]})
    preflight = {"origin": "https://app.example", "access-control-request-method": "POST"}
    async with closed.http.options(f"{closed.url}/v1/chat/completions", headers=preflight) as response:
        assert response.status == 405
        assert "access-control-allow-origin" not in response.headers
    async with open_.http.options(f"{open_.url}/v1/chat/completions", headers=preflight) as response:
        assert response.status == 204
        assert response.headers["access-control-allow-origin"] == "https://app.example"
    other = preflight | {"origin": "https://evil.example"}
    async with open_.http.options(f"{open_.url}/v1/chat/completions", headers=other) as response:
        assert response.status == 405
    async with open_.http.get(f"{open_.url}/v1/models", headers={"origin": "https://app.example"}) as response:
        assert response.headers["access-control-allow-origin"] == "https://app.example"


async def test_host_names(start: Start) -> None:
    """With allowed_hosts, a call to another name is refused: no web page rebinds its name to us."""
    sidecar = await start(server={"allowed_hosts": ["127.0.0.1", "octet"]})
    assert (await raw(sidecar, post(GOOD)))[0] == 200
    status, _, answer = await raw(sidecar, post(GOOD).replace(b"Host: octet", b"Host: evil.example"))
    assert status == 403
    assert_openai_error(answer)


async def test_too_many_connections(start: Start) -> None:
    """A connection above the limit is answered 503 and closed; the others are served."""
    sidecar = await start(server={"max_connections": 1})
    address = sidecar.app.addresses[0]
    reader, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(post(GOOD))
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    status, headers, answer = await raw(sidecar, post(GOOD))
    assert status == 503
    assert_openai_error(answer)
    assert headers["retry-after"] == "1"
    writer.close()


async def test_via_in_several_lines(sidecar: Sidecar) -> None:
    """Our own via is found behind those that others have put before it."""
    via = sidecar.app.pipeline.snapshot.via
    status, _, answer = await raw(sidecar, post(GOOD, "via: 1.1 other", f"via: {via}"))
    assert status == 508
    assert answer["error"]["code"] == "loop_detected"


@pytest.mark.parametrize(
    "body",
    [
        b'{"error":{"message":"bad key sk-ours!","type":"x"}}',
        b'{"error":{"message":"sk-ours"}}',
        b'{"error":{"message":"no","param":"sk-ours","code":"sk-ours"}}',
        b'{"error":{"message":"team-secret-7 and query-secret-8"}}',
    ],
)
async def test_our_key_is_never_quoted(start: Start, body: bytes) -> None:
    """An upstream that quotes our key in its error does not give it to the caller; its odd ids go nowhere."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nx-request-id: \xff\xfe\r\n"
        writer.write(head + b"content-length: %d\r\n\r\n%b" % (len(body), body))
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    beside = {"headers": {"x-team": "team-secret-7"}, "query": {"sig": "query-secret-8"}}
    sidecar = await start(upstreams={"openai": {"base_url": f"http://127.0.0.1:{port}/v1", **beside}})
    response = await sidecar.chat()
    assert response.status == 400
    text = await response.text()
    assert not [secret for secret in ("sk-ours", "team-secret-7", "query-secret-8") if secret in text]
    (line,) = await sidecar.lines.wait_for(1)
    assert line["upstream_request_id"] is None
    server.close()
