"""What a web page in a browser on this machine can make the browser send, and what it gets to see."""

from typing import Any

import aiohttp
import pytest

from proxy.simulator import Simulator
from tests.conftest import Sidecar, Start
from tests.security.wire import BODY, CHAT

PAGE = {"origin": "http://evil.example", "sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}
# Types that a page may send to any address without asking before (Fetch, "CORS-safelisted request-header").
UNASKED = [
    "text/plain",
    "text/plain;charset=UTF-8",
    "text/plain; application/json",
    'text/plain; x="+json"',
    "TEXT/PLAIN",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
]
READING = ("/admin/config", "/admin/calls", "/admin/calls/x", "/admin/upstreams", "/admin/cache", "/admin/live", "/")
STEERING = (
    "/admin/reload", "/admin/explain", "/admin/cache/purge?all", "/admin/upstreams/openai/open",
    "/admin/upstreams/openai/reset",
)  # fmt: skip


async def post(sidecar: Sidecar, headers: dict[str, str], url: str = "") -> aiohttp.ClientResponse:
    """A POST with these headers and no more; without a type of its own."""
    response = await sidecar.http.post(
        url or sidecar.url + CHAT, data=BODY, headers=headers, skip_auto_headers=("content-type",)
    )
    await response.read()
    return response


@pytest.mark.parametrize("kind", UNASKED)
async def test_a_form_is_no_call(sidecar: Sidecar, simulator: Simulator, kind: str) -> None:
    """What browsers send across origins without asking us is refused, and costs nothing."""
    response = await post(sidecar, {**PAGE, "content-type": kind})
    assert response.status == 415
    assert simulator.report.calls == 0


async def test_bytes_are_no_call(sidecar: Sidecar, simulator: Simulator) -> None:
    """Nor does a page spend money by sending bytes, which browsers give no type and do not ask us about."""
    response = await post(sidecar, PAGE)
    assert response.status in (403, 415)
    assert simulator.report.calls == 0


async def test_a_program_needs_no_type(sidecar: Sidecar, simulator: Simulator) -> None:
    """What is no page may leave its body's type out."""
    assert (await post(sidecar, {})).status == 200
    assert simulator.report.dialects["openai"].calls == 1


@pytest.mark.parametrize("origins", [[], ["https://app.example"]])
async def test_a_page_is_not_allowed_in(start: Start, origins: list[str]) -> None:
    """A browser that asks for a page of another origin is not told that it may, nor may it show answers."""
    sidecar = await start(server={"cors_origins": origins})
    for origin in ("http://evil.example", "null", "https://app.example.evil.example", "https://xapp.example", "*"):
        asked = {"origin": origin, "access-control-request-method": "POST"}
        for path in (CHAT, "/v1/models", "/healthz", "/v1/nothing"):
            async with sidecar.http.options(sidecar.url + path, headers=asked) as response:
                assert response.status in (404, 405)
                assert not [name for name in response.headers if name.lower().startswith("access-control-")]
        async with sidecar.http.get(f"{sidecar.url}/v1/models", headers={"origin": origin}) as response:
            assert "access-control-allow-origin" not in response.headers


async def test_no_page_with_credentials(start: Start) -> None:
    """Where pages may call, browsers send no cookies along, and a header name cannot forge a line."""
    sidecar = await start(server={"cors_origins": ["*"]})
    asked = {"origin": "https://a.example", "access-control-request-headers": "x-a, authorization"}
    async with sidecar.http.options(sidecar.url + CHAT, headers=asked) as response:
        assert response.status == 204
        assert "access-control-allow-credentials" not in response.headers
        assert response.headers["access-control-allow-headers"] == "x-a, authorization"
        assert "origin" in response.headers["vary"]


async def test_a_name_that_is_pointed_here(start: Start, simulator: Simulator) -> None:
    """With allowed_hosts no page of another name sees anything of the data port: calls, models or probes."""
    sidecar = await start(server={"allowed_hosts": ["127.0.0.1", "octet"]})
    for host in ("evil.example", "127.0.0.1.evil.example", "octet.evil.example:8080", "evil.example:80", "[::1]", ""):
        for method, path in (("POST", CHAT), ("GET", "/v1/models"), ("GET", "/healthz"), ("OPTIONS", CHAT)):
            async with sidecar.http.request(method, sidecar.url + path, data=BODY, headers={"host": host}) as response:
                assert response.status == 403, (host, path)
                assert "gpt-4o-mini" not in await response.text()
    assert simulator.report.calls == 0


async def steer(sidecar: Sidecar, headers: dict[str, str]) -> set[int]:
    """What every page of the admin side answers to such a request."""
    told: set[int] = set()
    for method, paths in (("GET", READING), ("HEAD", READING), ("POST", STEERING), ("OPTIONS", (*READING, *STEERING))):
        for path in paths:
            async with sidecar.http.request(method, sidecar.admin_url + path, headers=headers) as response:
                told.add(response.status)
                assert not [name for name in response.headers if name.lower().startswith("access-control-")]
    return told


FOREIGN: list[dict[str, Any]] = [
    {"origin": "http://evil.example"},
    {"origin": "null"},
    {"origin": "http://127.0.0.1:8081"},
    {"origin": ""},
    {"host": "evil.example"},
    {"host": "evil.example:8081"},
    {"host": "localhost.evil.example"},
    {"host": "127.0.0.1.evil.example"},
    {"host": "localhost@evil.example"},
    {"host": "evil.example, localhost"},
    {"host": "localhost."},
    {"host": ""},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
async def test_no_page_sees_or_steers(sidecar: Sidecar, headers: dict[str, str]) -> None:
    """Neither a page of another origin, nor one whose name was pointed here: on no page, with no method."""
    told = await steer(sidecar, headers)
    assert told <= {403, 405}
    assert 403 in told
    async with sidecar.http.get(f"{sidecar.admin_url}/admin/upstreams") as response:
        assert "open" not in {circuit["state"] for circuit in (await response.json())["upstreams"][0]["circuits"]}
    async with sidecar.http.get(f"{sidecar.admin_url}/admin/config") as response:
        assert (await response.json())["generation"] == 1


async def test_a_page_with_the_token(start: Start) -> None:
    """Who shows the token may, whatever the browser says beside it: browsers never add it by themselves."""
    sidecar = await start(server={"admin_token": "s3cret"})
    for headers in FOREIGN:
        shown = {**headers, "authorization": "Bearer s3cret"}
        async with sidecar.http.get(f"{sidecar.admin_url}/admin/config", headers=shown) as response:
            assert response.status == 200
        shown["cookie"] = f"authorization={shown.pop('authorization')}"
        async with sidecar.http.get(f"{sidecar.admin_url}/admin/config?admin_token=s3cret", headers=shown) as response:
            assert response.status == 403
