"""The rule files by themselves: well-formed, tested, complete, and about metrics that there are."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from proxy.telemetry import Telemetry
from tests.monitoring.servers import DEPLOY, ROOT, RULES, run
from tests.programs import tool

CONFIG = DEPLOY / "prometheus" / "prometheus.yml"
TESTS = sorted((DEPLOY / "prometheus" / "tests").glob("*.yml"))
ALERTMANAGER_CONFIG = DEPLOY / "alertmanager" / "alertmanager.yml"
ANNOTATIONS = {"summary", "description", "runbook_url", "dashboard_url"}
SEVERITIES = {"critical", "warning", "info"}
ASKED_FOR = {
    "OctetHighErrorRate", "OctetCircuitOpen", "OctetSlowCalls", "OctetLowCacheHitRate",
    "OctetConnectionPoolNearlyFull", "OctetDailyCostHigh", "OctetMemoryNearLimit", "OctetLoopLag",
    "OctetConfigReloadFailed", "OctetCredentialsRefused", "OctetRedisDegraded", "OctetBudgetNearlyUsed", "OctetDown",
}  # fmt: skip
OF_WORKERS = {"octet_workers", "octet_worker_restarts"}  # told by the parent of several
METRIC = re.compile(r"(?<![\w:])(?:octet_|process_)\w+")
RECORDED = re.compile(r"(?<![\w:])octet:[\w:]+")


def rules(kind: str) -> Iterator[dict[str, Any]]:
    """The rules of all files that are of a kind: `alert` or `record`."""
    for path in sorted(RULES.glob("*.yml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from (rule for rule in group["rules"] if kind in rule)


def family(sample: str) -> str:
    """The name of the family that a sample belongs to."""
    return re.sub(r"_(total|bucket|count|sum)$", "", sample)


async def test_rules_are_well_formed() -> None:
    """Promtool finds no mistake, and nothing to complain of either."""
    code, told = await run(
        tool("promtool"), "check", "rules", "--lint=all", "--lint-fatal", *map(str, sorted(RULES.glob("*.yml")))
    )
    assert code == 0, told


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
async def test_rules_keep_their_promises(path: Any) -> None:
    """Each alert is silent, pending, firing and over when its unit tests say so."""
    code, told = await run(tool("promtool"), "test", "rules", str(path))
    assert code == 0, told


async def test_configuration_of_prometheus_is_good() -> None:
    """So are the rule files that it names."""
    code, told = await run(tool("promtool"), "check", "config", str(CONFIG))
    assert code == 0, told
    assert "2 rule files found" in told


async def test_configuration_of_alertmanager_is_good() -> None:
    """Amtool finds no mistake."""
    code, told = await run(tool("amtool"), "check-config", str(ALERTMANAGER_CONFIG))
    assert code == 0, told


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        (["alertname=OctetDown", "severity=critical"], "on-call"),
        (["alertname=OctetCircuitOpen", "severity=warning"], "team"),
        (["alertname=OctetLowCacheHitRate", "severity=info"], "team"),
        (["alertname=Other"], "team"),
    ],
)
async def test_who_is_told(labels: list[str], receiver: str) -> None:
    """What callers feel wakes somebody; all else waits for the day."""
    code, told = await run(
        tool("amtool"), "config", "routes", "test", f"--config.file={ALERTMANAGER_CONFIG}",
        f"--verify.receivers={receiver}", *labels,
    )  # fmt: skip
    assert code == 0, told


def test_every_alert_is_there() -> None:
    """Those asked for and no others, and each is tested where it is silent and where it fires."""
    assert {rule["alert"] for rule in rules("alert")} == ASKED_FOR
    tests = [yaml.safe_load(path.read_text()) for path in TESTS]
    judged = [judged for file in tests for test in file["tests"] for judged in test.get("alert_rule_test", ())]
    assert {each["alertname"] for each in judged if each["exp_alerts"]} == ASKED_FOR
    assert {each["alertname"] for each in judged if not each["exp_alerts"]} == ASKED_FOR


def test_alerts_say_what_to_do() -> None:
    """Each has a severity and all annotations; what changes from one to the next stands in the description alone."""
    for rule in rules("alert"):
        assert rule["labels"].keys() == {"severity"}
        assert rule["labels"]["severity"] in SEVERITIES
        annotations = rule["annotations"]
        assert annotations.keys() == ANNOTATIONS, rule["alert"]
        assert "{{" not in annotations["summary"] + annotations["runbook_url"] + annotations["dashboard_url"]
        assert "$value" in annotations["description"]
        assert " First: " in annotations["description"]
        assert annotations["dashboard_url"].endswith("/d/octet/octet")


def test_only_what_callers_feel_wakes_anybody() -> None:
    """Two alerts are critical."""
    critical = {rule["alert"] for rule in rules("alert") if rule["labels"]["severity"] == "critical"}
    assert critical == {"OctetHighErrorRate", "OctetDown"}


def test_runbooks_are_there() -> None:
    """What `runbook_url` points at is a heading of the operations guide."""
    headings = re.findall(r"^#+ (.+?)\s*$", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    for rule in rules("alert"):
        path, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert path.endswith("docs/operations.md")
        assert anchor == rule["alert"].lower()
        assert anchor in anchors, f"docs/operations.md has no heading {rule['alert']}"


def test_metrics_are_there() -> None:
    """Every metric that a rule asks for is one of ours or is recorded before."""
    known = OF_WORKERS | {metric.name for metric in Telemetry(lambda _: None).registry.collect()}
    recorded = {rule["record"] for rule in rules("record")}
    for rule in [*rules("alert"), *rules("record")]:
        asked = {family(name) for name in METRIC.findall(rule["expr"])}
        assert asked <= known, f"{rule.get('alert') or rule['record']}: {asked - known}"
        assert set(RECORDED.findall(rule["expr"])) <= recorded
