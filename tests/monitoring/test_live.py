"""A real Prometheus scrapes a sidecar in trouble: every question of the dashboard and of the rules has an answer."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy.simulator import Simulator
from tests.monitoring.scene import Callers, configuration
from tests.monitoring.servers import ROOT, Prometheus, run, shipped_rules, until
from tests.programs import tool
from tests.redis_server import RedisServer
from tests.reload.conftest import Live, StartLive

ROUNDS = 4  # a failure's series begins with its first increment: it takes another round, and another scrape, to be seen
SUBSTITUTES = {"__rate_interval": "4s", "__interval": "1s", "__range": "15m"}  # others are variables: everything
METRIC = re.compile(r"(?<![\w:])(?:octet[_:]|process_)[\w:]+")
LABEL_VALUES = re.compile(r"label_values\((.+), *\w+\)")
EMPTY = {  # what has no answer here, by a piece of its text, and why
    "octet_workers": "there is one process",
    "octet_worker_restarts_total": "there is one process",
}
ON_THEIR_WAY = {"OctetHighErrorRate", "OctetCircuitOpen", "OctetCredentialsRefused"}  # alerts that have cause


@pytest.mark.timeout(120)
async def test_every_question_has_an_answer(
    tmp_path: Path, simulator: Simulator, redis: RedisServer, live: StartLive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After rounds of everything and a reload: panels, variables, rules; and the metrics themselves are well-formed."""
    tool("promtool")
    monkeypatch.setattr("proxy.telemetry.metrics.memory_limit", lambda: 2**40)  # there may be none here
    tree = configuration(simulator, redis.url)
    sidecar = await live(tree)
    # rules that are evaluated once a minute, or less, would not be in time
    rules = {name: re.sub(r"interval: \d+m", "interval: 1s", text) for name, text in shipped_rules().items()}
    (tmp_path / "prometheus").mkdir()
    async with Prometheus(tmp_path / "prometheus", str(sidecar.app.admin), rules) as prometheus:
        async with Callers(sidecar) as callers:
            for number in range(ROUNDS):
                await callers.round()
                if number == ROUNDS - 2:
                    await sidecar.take({**tree, "server": {**tree["server"], "drain_seconds": 3.0}})
                await until(lambda: _scraped(prometheus, sidecar))
        await until(lambda: _evaluated(prometheus))
        await _all_answered(prometheus)
        await _rules_are_well(prometheus)
        await _metrics_are_well(sidecar)


async def _scraped(prometheus: Prometheus, sidecar: Live) -> bool:
    """Whether Prometheus knows of all calls."""
    told = [value for name, value in (await sidecar.counters()).items() if name.startswith("octet_calls_total")]
    return list((await prometheus.query("sum(octet_calls_total)")).values()) == [sum(told)]


async def _evaluated(prometheus: Prometheus) -> bool:
    return bool(await prometheus.query("octet:errors:ratio5m")) and all(
        rule["health"] != "unknown" for rule in await prometheus.rules()
    )


def dashboard_questions() -> Iterator[tuple[str, str]]:
    """Where it stands, and what is asked: targets of panels, annotations and variables."""
    dashboard = json.loads((ROOT / "grafana" / "octet.json").read_text())

    def panels(listed: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for panel in listed:
            yield panel
            yield from panels(panel.get("panels", []))

    for panel in panels(dashboard["panels"]):
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for annotation in dashboard["annotations"]["list"]:
        if "expr" in annotation:
            yield f"annotation {annotation['name']}", annotation["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            found = LABEL_VALUES.fullmatch(variable["query"]["query"])
            assert found is not None
            yield f"variable {variable['name']}", found[1]


def rules_of(kind: str) -> Iterator[tuple[str, str]]:
    """Name and expression of the rules that are of a kind: `alert` or `record`."""
    for text in shipped_rules().values():
        for group in yaml.safe_load(text)["groups"]:
            yield from ((rule[kind], rule["expr"]) for rule in group["rules"] if kind in rule)


def substituted(expression: str) -> str:
    """As Grafana would ask, with everything chosen."""
    return re.sub(r"\$\{?(\w+)(?::\w+)?\}?", lambda found: SUBSTITUTES.get(found[1], ".*"), expression)


async def _all_answered(prometheus: Prometheus) -> None:
    """By a number at least, but for those questions of which it is known why."""
    questions = [*dashboard_questions(), *rules_of("record")]
    assert len(questions) > 50
    silent = [
        f"{place}: {expression}"
        for place, expression in questions
        if not await prometheus.numbers(substituted(expression))
    ]
    unexplained = [each for each in silent if not any(piece in each for piece in EMPTY)]
    assert not unexplained, "\n".join(unexplained)
    answered = [piece for piece in EMPTY if not any(piece in each for each in silent)]
    assert not answered, f"these have answers: {answered}"


async def _rules_are_well(prometheus: Prometheus) -> None:
    """Each is evaluated without an error, what alerts ask for is there, and those that should be are on their way."""
    rules = await prometheus.rules()
    assert [rule for rule in rules if rule["health"] != "ok" or rule.get("lastError")] == []
    asked = {name for _, expression in rules_of("alert") for name in METRIC.findall(expression)}
    assert {name for name in asked if not await prometheus.numbers(name)} <= EMPTY.keys()
    assert {rule["name"] for rule in rules if rule.get("alerts")} >= ON_THEIR_WAY


async def _metrics_are_well(sidecar: Live) -> None:
    """Promtool has nothing to say of names, units and help texts."""
    async with sidecar.http.get(f"{sidecar.admin_url}/metrics") as response:
        body = await response.read()
    code, told = await run(tool("promtool"), "check", "metrics", given=body)
    assert (code, told) == (0, "")
