"""From an upstream that dies to a message in somebody's hand: a real Prometheus, a real Alertmanager, a local webhook.

The rules and the routes are those that are shipped, made quicker by one substitution each: what is said in minutes is
meant in seconds. `for: 5m` becomes `for: 5s`, `[2m]` becomes `[2s]`; hours, days and names stay.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer

from proxy.simulator import Behaviour, Simulator
from tests.conftest import Sidecar, Start
from tests.monitoring.servers import ALERTMANAGER, DEPLOY, Alertmanager, Prometheus, shipped_rules, until
from tests.programs import tool

PLACEHOLDER = "http://127.0.0.1:9095"
MINUTES = re.compile(r"(?<!\w)(\d+)m\b")
PAUSE_SECONDS = 0.02  # between two calls: the others need the processor too
PATIENCE = 60.0  # a machine that is busy scrapes late, and lets alerts end and begin again


class Inbox:
    """Who is on call, and the team: what has come for each."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, dict[str, Any]]] = []

    async def take(self, request: web.Request) -> web.Response:
        """One message."""
        self.messages.append((request.match_info["receiver"], await request.json()))
        return web.Response()

    async def find(self, receiver: str, alert: str, status: str) -> dict[str, Any]:
        """An alert that has come for a receiver in a state, as it was told; empty while it has not."""
        for whom, message in self.messages:
            for each in message["alerts"]:
                if (whom, each["labels"]["alertname"], each["status"]) == (receiver, alert, status):
                    return dict(each)
        return {}


@asynccontextmanager
async def listening(inbox: Inbox) -> AsyncIterator[str]:
    """The address at which messages are taken."""
    app = web.Application()
    app.router.add_post("/octet/{receiver}", inbox.take)
    async with TestServer(app) as server:
        yield str(server.make_url("")).rstrip("/")


def settings(url: str) -> dict[str, Any]:
    """The shipped configuration of Alertmanager, which tells this address, at once."""
    text = (DEPLOY / "alertmanager" / "alertmanager.yml").read_text()
    assert PLACEHOLDER in text
    told: dict[str, Any] = yaml.safe_load(text.replace(PLACEHOLDER, url))
    for route in (told["route"], *told["route"]["routes"]):
        route |= {"group_wait": "1s", "group_interval": "1s"}
    return told


def quick_rules() -> dict[str, str]:
    """The shipped rules, in which minutes are seconds."""
    return {name: MINUTES.sub(r"\1s", text) for name, text in shipped_rules().items()}


async def call_until(sidecar: Sidecar, done: asyncio.Event) -> None:
    """Somebody calls all the time, and does not mind what comes."""
    while not done.is_set():
        async with await sidecar.chat() as response:
            await response.read()
        await asyncio.sleep(PAUSE_SECONDS)


@pytest.mark.timeout(180)
async def test_an_upstream_dies_and_somebody_is_told(tmp_path: Path, start: Start, simulator: Simulator) -> None:
    """Both alerts come with their texts filled in, what follows is held back, and all ends with the outage."""
    tool("prometheus"), tool(*ALERTMANAGER)
    policy = {"window": 10, "minimum_calls": 5, "open_seconds": 0.5}
    sidecar = await start(upstreams={"openai": {"circuit": policy}})
    for name in ("alertmanager", "prometheus"):
        (tmp_path / name).mkdir()
    inbox, done = Inbox(), asyncio.Event()
    async with (
        listening(inbox) as url,
        Alertmanager(tmp_path / "alertmanager", settings(url)) as manager,
        Prometheus(
            tmp_path / "prometheus", str(sidecar.app.admin), quick_rules(), manager.address, pace="500ms"
        ) as prometheus,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(call_until(sidecar, done))
        await until(lambda: prometheus.query("octet:errors:ratio5m == 0"))
        simulator.always("openai", Behaviour(status=503))

        told = await until(lambda: inbox.find("on-call", "OctetHighErrorRate", "firing"), PATIENCE)
        assert told["labels"] == {"alertname": "OctetHighErrorRate", "job": "octet", "severity": "critical"}
        assert told["annotations"]["summary"] == "More than 10 % of calls fail."
        assert re.match(r"[\d.]+% of the calls of octet failed in the last five ", told["annotations"]["description"])
        assert told["annotations"]["runbook_url"].endswith("#octethigherrorrate")

        told = await until(lambda: inbox.find("team", "OctetCircuitOpen", "firing"), PATIENCE)
        assert told["labels"]["upstream"] == "openai"
        assert f"{sidecar.app.admin} has left upstream openai alone" in told["annotations"]["description"]

        assert await until(lambda: held_back(manager), PATIENCE) == {"OctetHighErrorRate"}

        simulator.always("openai", None)
        await until(lambda: inbox.find("on-call", "OctetHighErrorRate", "resolved"), PATIENCE)
        await until(lambda: inbox.find("team", "OctetCircuitOpen", "resolved"), PATIENCE)
        await until(lambda: prometheus.query("octet:errors:ratio5m == 0"), PATIENCE)
        done.set()


async def held_back(manager: Alertmanager) -> set[str]:
    """The names of warnings that nobody is told of, since something worse is."""
    alerts = await manager.get("/api/v2/alerts")
    return {
        each["labels"]["alertname"]
        for each in alerts
        if each["labels"]["severity"] == "warning" and each["status"]["state"] == "suppressed"
    }


async def test_of_a_process_that_is_down_nothing_else_is_told(tmp_path: Path) -> None:
    """What else is wrong with it is held back; its neighbours' troubles, and those of all together, are not."""
    inbox = Inbox()
    down = {"alertname": "OctetDown", "severity": "critical", "job": "octet", "namespace": "shop"}
    others: list[dict[str, str]] = [
        {"alertname": "OctetLoopLag", "severity": "warning", "job": "octet", "namespace": "shop", "instance": "a"},
        {"alertname": "OctetLoopLag", "severity": "warning", "job": "octet", "namespace": "shop", "instance": "b"},
        {"alertname": "OctetDown", "severity": "critical", "job": "octet", "namespace": "lab", "instance": "a"},
        {"alertname": "OctetHighErrorRate", "severity": "critical", "job": "octet", "namespace": "shop"},
        {"alertname": "SomethingElse", "severity": "warning", "job": "octet", "namespace": "shop", "instance": "a"},
    ]
    async with listening(inbox) as url, Alertmanager(tmp_path, settings(url)) as manager:
        alerts = [{"labels": labels} for labels in ({**down, "instance": "a"}, *others)]
        async with manager.http.post(f"http://{manager.address}/api/v2/alerts", json=alerts) as response:
            assert response.status == 200

        async def told() -> bool:
            known = await manager.get("/api/v2/alerts")
            return {each["status"]["state"] for each in known} == {"active", "suppressed"} and len(known) == len(alerts)

        await until(told)
        held = [each["labels"] for each in await manager.get("/api/v2/alerts") if each["status"]["inhibitedBy"]]
        assert held == [others[0]]
        await until(lambda: inbox.find("team", "SomethingElse", "firing"))
