"""A request's first line leads to what is offered, and nowhere else."""

import asyncio
from pathlib import Path

import pytest

from proxy.simulator import Simulator
from tests.conftest import Sidecar, Start
from tests.edge.wire import asking, read_answer
from tests.security.far_side import far_side
from tests.security.wire import BODY, CHAT, CHUNKED, LENGTH, MARKER, chunked, head, read_answers, talk


def where(sidecar: Sidecar) -> tuple[str, int]:
    return sidecar.app.addresses[0].host, sidecar.app.addresses[0].port


async def test_no_forward_proxy(sidecar: Sidecar, simulator: Simulator) -> None:
    """Another server's whole address, or CONNECT, makes no connection to it: the path alone counts, here."""
    async with far_side() as trap:
        there = trap.address
        for target, status in (
            (f"http://{there}{CHAT}", 200),
            (f"https://{there}{CHAT}", 200),
            (f"http://user:password@{there}{CHAT}", 200),
            (f"http://{there}/latest/meta-data", 404),
            (f"//{there}{CHAT}", 404),
            (f"/{there}", 404),
            (f"/v1/models/http://{there}/", 405),
        ):
            answers = read_answers(await talk(where(sidecar), head(LENGTH, target=target) + BODY + MARKER))
            assert [answer.status for answer in answers] == [status, 200], target
        for target in (there, f"http://{there}", "[::1", ":"):
            first = read_answers(await talk(where(sidecar), head(method="CONNECT", target=target) + MARKER))[0]
            assert first.status in (400, 404), target
        assert trap.met == 0
    assert simulator.report.dialects["openai"].calls == 3


async def test_trace_echoes_nothing(sidecar: Sidecar) -> None:
    """TRACE, by which pages once read headers that they must not see, is no method of ours."""
    secret = b"X-Secret: canary"
    first, _ = read_answers(await talk(where(sidecar), head(secret, method="TRACE", target="/v1/models") + MARKER))
    assert first.status == 405
    assert b"canary" not in first.body
    assert not [value for _, value in first.headers if "canary" in value]


PATHS = {
    "/admin/../v1/models": 404,
    "/v1/models/../../metrics": 404,
    "/v1/../metrics": 404,
    "/./metrics": 404,
    "//metrics": 404,
    "/metrics": 404,
    "/%6detrics": 404,
    "/v1/models/..%2f..%2fmetrics": 404,
    "/V1/MODELS": 404,
    "/v1/chat/completions%00": 404,
    "/v1/chat/completions;x": 404,
    "/v1/v1/models": 404,
    "/v1/models/x%0d%0aset-cookie:%20a": 404,
    "/v1/models/%ff%fe": 404,
    "*": 400,
    "\\v1\\models": 400,
    "?": 400,
    "javascript:alert(1)": 400,
    "http://[::1/v1/models": 400,
    "http://a:99999/v1/models": 400,
    "http:///v1/models": 400,
}


async def test_paths(sidecar: Sidecar) -> None:
    """Dots, slashes, letters' case and escapes lead nowhere; an answer quotes no path that was none."""
    for path, status in PATHS.items():
        first = read_answers(await talk(where(sidecar), head(method="GET", target=path) + MARKER))[0]
        assert first.status == status, path
        assert b"set-cookie" not in first.body
        assert "set-cookie" not in first.names


@pytest.mark.parametrize("line", [("GET", "http://xn--/v1/models"), ("CONNECT", "xn--a:80")])
async def test_a_host_that_is_none(sidecar: Sidecar, line: tuple[str, str]) -> None:
    """An address that cannot be read is answered, and its connection is not left standing."""
    method, target = line
    first = read_answers(await talk(where(sidecar), head(method=method, target=target) + MARKER, patience=1))[0]
    assert first.status in (200, 400, 404)


UPGRADES = [
    (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"),
    (
        b"Connection: upgrade",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZQ==",
        b"Sec-WebSocket-Version: 13",
    ),
    (b"Connection: Upgrade", b"Upgrade: TLS/1.0"),
    (b"Upgrade: h2c",),
]


async def test_no_other_protocol(sidecar: Sidecar, simulator: Simulator) -> None:
    """Whoever asks for another protocol is served in this one, and so is the next request."""
    for asked in UPGRADES:
        for request in (head(*asked, LENGTH) + BODY, head(*asked, CHUNKED) + chunked(BODY)):
            async with asking(sidecar, request) as (reader, writer):
                answer, _ = await read_answer(reader)
                assert answer.status == 200
                assert "upgrade" not in answer
                writer.write(request)
                assert (await read_answer(reader))[0].status == 200
    assert simulator.report.dialects["openai"].calls == 4 * len(UPGRADES)


@pytest.mark.xfail(strict=True, reason="what is sent right behind a request with `upgrade` is never answered")
async def test_behind_a_request_for_another_protocol(sidecar: Sidecar) -> None:
    """What was sent without waiting for the answer is a request like any other: we have changed no protocol."""
    request = head(*UPGRADES[0], LENGTH) + BODY
    answers = read_answers(await talk(where(sidecar), request + MARKER, patience=1))
    assert [answer.status for answer in answers] == [200, 200]


async def test_a_model_leads_out_of_no_path(start: Start) -> None:
    """A model's name that stands in an upstream's path stays a name there."""
    async with far_side() as side:
        settings = {"mode": "hf-inference"}
        upstream = {"provider": "huggingface", "base_url": side.url, "settings": settings, "api_key": "sk-ours"}
        sidecar = await start(upstreams={"huggingface": upstream}, routes=[{"targets": [{"upstream": "huggingface"}]}])
        for model in ("../../x", "a/../../b", "..", ".", "/x", "a//b", "%2e%2e/x", "a?b=c", "a#b", "a b", "a\\..\\b"):
            response = await sidecar.chat(model)
            assert response.status in (200, 400), model
        for seen in side.seen:
            method, target, version = seen.split(b"\r\n", 1)[0].split(b" ")
            assert (method, version) == (b"POST", b"HTTP/1.1")
            assert target.startswith(b"/models/")
            assert target.endswith(b"/v1/chat/completions")
            assert not {b"?", b"#", b"/../", b"//"} & {mark for mark in (b"?", b"#", b"/../", b"//") if mark in target}
        assert len(side.seen) == 5


async def test_a_unix_socket_is_its_owners(start: Start, tmp_path: Path) -> None:
    """Nobody but the process's own user, and its group at most, may write to the socket's file."""
    path = tmp_path / "s"
    sidecar = await start(server={"listen": f"unix:{path}"})
    assert sidecar.app.addresses[0].path == str(path)
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(MARKER)
    assert read_answers(await reader.read())[0].status == 200
    writer.close()
    assert not path.stat().st_mode & 0o002
