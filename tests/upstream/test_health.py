"""Health checks: an upstream that is left alone is asked whether it is back, never with a completion."""

from typing import Any

import pytest

from proxy.config import HealthCheck
from proxy.simulator import Behaviour, Simulator
from proxy.upstream.health import is_healthy
from tests.conftest import Sidecar, Start
from tests.waiting import until

ROUTES = [{"name": "one", "targets": [{"upstream": "openai", "model": "gpt-4o-mini"}], "retry": {"attempts": 1}}]
FRAGILE = {"window": 1, "minimum_calls": 1, "open_seconds": 3600, "trial_calls": 1}


async def broken(start: Start, simulator: Simulator, **check: Any) -> Sidecar:
    """A sidecar whose only upstream has just failed."""
    sidecar = await start(
        routes=ROUTES, upstreams={"openai": {"circuit": FRAGILE, "health_check": {"interval_seconds": 0.01, **check}}}
    )
    simulator.script("openai", Behaviour(status=500))
    assert (await sidecar.chat()).status == 502
    assert sidecar.app.upstreams.now.circuits.state("openai") == "open"
    return sidecar


@pytest.mark.parametrize("kind", ["models", "connect"])
async def test_an_answer_lets_trials_begin(start: Start, simulator: Simulator, kind: str) -> None:
    """Long before `open_seconds` are over calls go there again, and nothing but the list of models was asked for."""
    sidecar = await broken(start, simulator, kind=kind)
    (circuit,) = sidecar.app.upstreams.now.circuits.by_upstream["openai"]
    await until(lambda: circuit.wait() == 0)
    assert simulator.report.calls == 1
    assert (await sidecar.chat()).status == 200
    assert sidecar.app.upstreams.now.circuits.state("openai") == "closed"
    seen = [request for request in simulator.report.requests if request.dialect == "openai"]
    paths = {request.path for request in seen if request.method == "GET"}
    assert paths == ({"/openai/v1/models"} if kind == "models" else set())


async def test_it_is_asked_until_it_answers(start: Start, simulator: Simulator) -> None:
    """An error, or nobody there, is no answer; it is asked again."""
    sidecar = await start(
        routes=ROUTES,
        upstreams={
            "openai": {
                "base_url": "http://127.0.0.1:1/v1", "circuit": FRAGILE,
                "health_check": {"interval_seconds": 0.01},
            }
        },
    )  # fmt: skip
    assert (await sidecar.chat()).status == 502
    (circuit,) = sidecar.app.upstreams.now.circuits.by_upstream["openai"]
    endpoint, dialled = sidecar.app.upstreams.now.endpoints["openai"], list[object]()
    dialler = endpoint.transport._dialer
    dialler.forget = lambda: dialled.append(None)  # type: ignore[method-assign]  # called when nobody answered
    await until(lambda: len(dialled) >= 3)
    assert circuit.wait() > 0
    assert list(sidecar.app.upstreams._checks._tasks) == ["openai"]


async def test_what_an_operator_holds_open_stays_open(start: Start, simulator: Simulator) -> None:
    """A healthy upstream is no reason to overrule a person."""
    sidecar = await broken(start, simulator)
    sidecar.app.upstreams.hold_open("openai", None)
    await simulator.report.wait_for(
        lambda report: any(request.path == "/openai/v1/models" for request in report.requests)
    )
    await until(lambda: not sidecar.app.upstreams._checks._tasks)
    assert sidecar.app.upstreams.now.circuits.by_upstream["openai"][0].wait() > 0


async def test_nobody_is_asked_without_a_check(start: Start, simulator: Simulator) -> None:
    """By default there is none."""
    sidecar = await start(routes=ROUTES, upstreams={"openai": {"circuit": FRAGILE}})
    simulator.script("openai", Behaviour(status=500))
    await sidecar.chat()
    assert not sidecar.app.upstreams._checks._tasks


async def test_stopping_ends_the_asking(start: Start, simulator: Simulator) -> None:
    """The fixture holds us to leave no task, whatever the check is doing."""
    sidecar = await broken(start, simulator, interval_seconds=3600.0)
    assert list(sidecar.app.upstreams._checks._tasks) == ["openai"]


@pytest.mark.parametrize(
    ("address", "healthy"),
    [("{url}/openai/v1", True), ("{url}/nowhere", False), ("http://127.0.0.1:1", False)],
    ids=["models", "404", "nobody"],
)
async def test_what_is_healthy(start: Start, simulator: Simulator, address: str, healthy: bool) -> None:
    """Only a 200 is."""
    sidecar = await start(upstreams={"openai": {"base_url": address.format(url=simulator.url)}})
    assert await is_healthy(sidecar.app.upstreams.now.endpoints["openai"], HealthCheck()) is healthy


async def test_a_connection_is_closed_again(sidecar: Sidecar, simulator: Simulator) -> None:
    """`connect` leaves nothing open."""
    assert await is_healthy(sidecar.app.upstreams.now.endpoints["openai"], HealthCheck(kind="connect"))
    await simulator.report.wait_for(lambda report: report.open_connections == 0)
