"""The operator's side: who may steer, what is shown, and what opening and resetting a circuit does."""

from typing import Any

import aiohttp
import pytest

from proxy.simulator import Behaviour, Simulator
from tests.conftest import Sidecar, Start

FAST = {"circuit": {"window": 4, "minimum_calls": 2, "open_seconds": 60}}
ROUTES = [{"name": "one", "targets": [{"upstream": "openai", "model": "gpt-4o-mini"}], "retry": {"attempts": 1}}]


async def ask(sidecar: Sidecar, method: str, path: str, **headers: str) -> tuple[int, Any]:
    """Status and body of a request to the admin side."""
    url = f"{sidecar.admin_url}{path}"
    async with sidecar.http.request(
        method, url, headers={name.replace("_", "-"): value for name, value in headers.items()}
    ) as response:
        return response.status, await response.json()


async def upstream(sidecar: Sidecar, name: str = "openai") -> Any:
    """What is shown of an upstream."""
    status, shown = await ask(sidecar, "GET", "/admin/upstreams")
    assert status == 200
    return next(each for each in shown["upstreams"] if each["name"] == name)


async def test_an_upstream_as_it_stands(start: Start, simulator: Simulator) -> None:
    """Its circuit, last failures (without secrets), latency, our limits and its own are there."""
    limits = {"concurrent": 3, "requests_per_minute": 60, "tokens_per_minute": 6000}
    sidecar = await start(routes=ROUTES, upstreams={"openai": {**FAST, "limits": limits}})
    told = {"x-ratelimit-remaining-requests": "7", "x-ratelimit-reset-requests": "30s"}
    simulator.script("openai", Behaviour(headers=told), Behaviour(status=500, text="sk-ours is wrong"))
    assert (await sidecar.chat()).status == 200
    assert (await sidecar.chat()).status == 502
    shown = await upstream(sidecar)
    assert shown["circuits"] == [
        {"name": "openai", "state": "open", "seconds_left": shown["circuits"][0]["seconds_left"], "held": False}
    ]
    assert 0 < shown["circuits"][0]["seconds_left"] <= 60
    (failure,) = shown["failures"]
    assert failure["reason"] == "Broken"
    assert failure["model"] == "gpt-4o-mini"
    assert "sk-ours" not in str(shown)
    assert shown["latency"]["json"]["calls"] == 1
    assert shown["limits"]["concurrent"] == {"limit": 3, "in_use": 0, "waiting": 0}
    assert shown["limits"]["requests_per_minute"]["limit"] == 60
    assert 58 <= shown["limits"]["requests_per_minute"]["left"] < 60
    assert shown["told_limits"]["gpt-4o-mini"]["left"] == {"requests": 6}
    assert (await upstream(sidecar, "ollama"))["limits"] is None


async def test_an_operator_opens_and_resets(start: Start, simulator: Simulator) -> None:
    """Held open no call goes there, whatever happens; after a reset all do, and what failed before is forgotten."""
    sidecar = await start(routes=ROUTES, upstreams={"openai": FAST})
    status, shown = await ask(sidecar, "POST", "/admin/upstreams/openai/open")
    assert (status, shown["circuits"][0]["state"], shown["circuits"][0]["held"]) == (200, "open", True)
    response = await sidecar.chat()
    assert response.status == 503
    assert (await response.json())["error"]["code"] == "circuit_open"
    assert response.headers["retry-after"] == "60"
    assert simulator.report.calls == 0
    assert await sidecar.metric("octet_circuit_state", upstream="openai") == 2
    status, shown = await ask(sidecar, "POST", "/admin/upstreams/openai/reset")
    assert (status, shown["circuits"][0]) == (
        200,
        {"name": "openai", "state": "closed", "calls": 0, "failures": 0, "slow_calls": 0},
    )
    assert (await sidecar.chat()).status == 200


async def test_open_for_a_while(start: Start) -> None:
    """`seconds` says how long."""
    sidecar = await start(routes=ROUTES)
    status, shown = await ask(sidecar, "POST", "/admin/upstreams/openai/open?seconds=7")
    assert status == 200
    assert 6 < shown["circuits"][0]["seconds_left"] <= 7


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "x", "1e9", ""])
async def test_no_such_time(sidecar: Sidecar, seconds: str) -> None:
    """What is no time is refused, and nothing changes."""
    status, body = await ask(sidecar, "POST", f"/admin/upstreams/openai/open?seconds={seconds}")
    assert (status, body["error"]["param"]) == (400, "seconds")
    assert (await upstream(sidecar))["circuits"][0]["state"] == "closed"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/admin/upstreams/nobody/open", 404),
        ("POST", "/admin/upstreams/nobody/reset", 404),
        ("GET", "/admin/upstreams/openai/open", 405),
        ("POST", "/admin/upstreams", 405),
        ("POST", "/admin/upstreams/openai/close", 404),
        ("GET", "/admin", 404),
        ("GET", "/admin/", 404),
    ],
)
async def test_no_such_page(sidecar: Sidecar, method: str, path: str, status: int) -> None:
    """Wrong paths and methods are told in OpenAI's shape."""
    answered, body = await ask(sidecar, method, path)
    assert answered == status
    assert body["error"]["message"]


async def test_web_pages_may_not_steer(sidecar: Sidecar) -> None:
    """Neither one that posts from a browser on this machine, nor one whose host name has been pointed here."""
    for headers in ({"origin": "http://127.0.0.1:8081"}, {"origin": "null"}, {"host": "evil.example"}):
        for method, path in (("POST", "/admin/upstreams/openai/open"), ("GET", "/admin/upstreams")):
            status, body = await ask(sidecar, method, path, **headers)
            assert (status, body["error"]["code"]) == (403, "admin_token_needed")
    for host in ("localhost:8081", "LOCALHOST", "127.0.0.1", "[::1]:8081", "[::1]"):
        assert (await ask(sidecar, "GET", "/admin/upstreams", host=host))[0] == 200


async def test_other_machines_bring_the_token(start: Start) -> None:
    """From elsewhere only metrics and probes, unless the token is shown; a wrong one is none."""
    sidecar = await start(server={"admin_token": "s3cret"})
    for shown, status in ((None, 403), ("Bearer wrong", 403), ("s3cret", 403), ("Bearer s3cret", 200)):
        headers = {"host": "sidecar.example"} | ({"authorization": shown} if shown else {})
        assert (await ask(sidecar, "GET", "/admin/upstreams", **headers))[0] == status
    async with sidecar.http.get(f"{sidecar.admin_url}/metrics", headers={"host": "sidecar.example"}) as response:
        assert response.status == 200


async def test_nothing_of_it_on_the_data_port(sidecar: Sidecar) -> None:
    """Applications cannot steer."""
    async with aiohttp.ClientSession() as session, session.get(f"{sidecar.url}/admin/upstreams") as response:
        assert response.status == 404
