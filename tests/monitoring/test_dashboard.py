"""The dashboard keeps the rules of good dashboards, and shows what there is."""

import re
from itertools import combinations

import pytest
import yaml

from grafana import build, thresholds
from tests.monitoring.dashboards import DASHBOARD, EVERY, PANELS, ROWS, TARGETS, VARIABLES, Panel
from tests.monitoring.servers import RULES

# Names that people look for.
SEED = {
    "Request rate", "Response time p95", "Error rate", "Cache hit rate", "Circuit breaker state",
    "Token usage by provider", "Cost per provider", "HTTP connection pool", "Process memory",
    "Streaming vs non-streaming",
}  # fmt: skip
# Of Grafana's units, those that are used here; `count:` makes one of its own.
UNITS = {"reqps", "ops", "cps", "s", "dtdurations", "percentunit", "currencyUSD", "bytes", "short", "none"}
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
ALERTS = {
    "OctetHighErrorRate": f"> {thresholds.ERROR_RATE:g}",
    "OctetSlowCalls": f"> {thresholds.RESPONSE_SECONDS:g}",
    "OctetLowCacheHitRate": f"< {thresholds.HIT_RATE:g}",
    "OctetConnectionPoolNearlyFull": f"> {thresholds.POOL:g}",
    "OctetMemoryNearLimit": f"> {thresholds.MEMORY:g}",
    "OctetLoopLag": f"> {thresholds.LOOP_LAG_SECONDS:g}",
    "OctetBudgetNearlyUsed": f"> {thresholds.BUDGET:g}",
}
CHOICES = ["datasource", "job", "namespace", "pod", "instance", "route", "upstream", "model"]


def limits(title: str) -> list[float]:
    """Where the panel of this title changes its colour."""
    steps = next(each for each in PANELS if each["title"] == title)["fieldConfig"]["defaults"]["thresholds"]["steps"]
    return [step["value"] for step in steps[1:]]


def overlap(one: Panel, other: Panel) -> bool:
    """Whether two panels want the same place."""
    a, b = one["gridPos"], other["gridPos"]
    beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
    return not (beside or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"])


def test_the_file_is_what_the_code_makes() -> None:
    """Otherwise: `python -m grafana.build`."""
    assert build.FILE.read_text(encoding="utf-8") == build.text()


def test_it_is_made_to_be_provisioned() -> None:
    """A stable uid, no number of some server's, nothing to be changed in the browser, no refresh above the scrape's."""
    assert (DASHBOARD["uid"], DASHBOARD["title"], DASHBOARD["id"]) == ("octet", "Octet", None)
    assert (DASHBOARD["editable"], DASHBOARD["schemaVersion"], DASHBOARD["refresh"]) == (False, 41, "10s")
    assert DASHBOARD["graphTooltip"] == 1
    assert "octet" in DASHBOARD["tags"]


def test_the_ten_that_everybody_looks_for_are_there() -> None:
    """By these titles, and none in a row that is collapsed."""
    assert {each["title"] for each in DASHBOARD["panels"]} >= SEED


def test_every_number_is_unique() -> None:
    """Panels have ids, queries of one panel refIds."""
    ids = [each["id"] for each in EVERY]
    assert len(ids) == len(set(ids))
    for panel in PANELS:
        refs = [target["refId"] for target in panel["targets"]]
        assert refs
        assert len(refs) == len(set(refs)), panel["title"]


def test_titles_are_unique() -> None:
    """A message that names a panel means one."""
    titles = [each["title"] for each in EVERY if each["title"]]
    assert len(titles) == len(set(titles))


@pytest.mark.parametrize("group", [DASHBOARD["panels"], *(row["panels"] for row in ROWS if row["panels"])])
def test_panels_have_room(group: list[Panel]) -> None:
    """They stay within 24 columns, and none lies on another."""
    for panel in group:
        place = panel["gridPos"]
        assert 0 <= place["x"] < place["x"] + place["w"] <= 24
        assert place["h"] >= 1
    assert not [(one["title"], other["title"]) for one, other in combinations(group, 2) if overlap(one, other)]


def test_details_are_collapsed() -> None:
    """Their panels stand inside of their row, those of other rows below it; one row is there for each upstream."""
    for row in ROWS:
        assert row["collapsed"] == bool(row["panels"])
        assert row["collapsed"] == row["title"].startswith(("Details", "Upstream $"))
    assert [row["title"] for row in ROWS if row.get("repeat") == "upstream"] == ["Upstream $upstream"]


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_explains_itself(panel: Panel) -> None:
    """It has a title, a description that says what is normal, a unit of Grafana's, and words for no data."""
    assert panel["title"]
    assert len(panel["description"]) > 80
    assert "ormal" in panel["description"] or panel["type"] == "stat"  # which says when it is red
    defaults = panel["fieldConfig"]["defaults"]
    units = [defaults["unit"], panel["options"].get("yAxis", {}).get("unit", "none")]
    for override in panel["fieldConfig"]["overrides"]:
        units += [each["value"] for each in override["properties"] if each["id"] == "unit"]
    assert [unit for unit in units if unit not in UNITS and not unit.startswith("count:")] == []
    assert defaults["noValue"]
    if panel["type"] == "timeseries":
        assert defaults["min"] == 0
    if panel["type"] == "heatmap":
        assert panel["options"]["calculate"] is False
        assert {target["format"] for target in panel["targets"]} == {"heatmap"}


def test_the_source_is_a_choice() -> None:
    """Of every panel, query, variable and mark."""
    asking = [*PANELS, *(target for _, target in TARGETS), *DASHBOARD["annotations"]["list"]]
    asking += [each for name, each in VARIABLES.items() if name != "datasource"]
    assert [each for each in asking if each["datasource"] != SOURCE] == []
    assert (VARIABLES["datasource"]["type"], VARIABLES["datasource"]["query"]) == ("datasource", "prometheus")


def test_what_can_be_chosen() -> None:
    """Several of each, or all; looked up anew when the time range changes; each of what the ones before it leave."""
    assert list(VARIABLES) == CHOICES
    for name, each in VARIABLES.items():
        if name == "datasource":
            continue
        assert (each["multi"], each["includeAll"], each["refresh"]) == (True, True, 2), name
        assert each["current"]["value"] == ["$__all"], name
        assert each.get("allValue") == (None if name == "job" else ".*"), name
        before = CHOICES[1 : min(CHOICES.index(name), CHOICES.index("route"))]
        matchers = set(re.findall(r'(\w+)=~"\$\1"', each["query"]["query"]))
        assert matchers >= set(before), name


def test_links_keep_time_and_choices() -> None:
    """Whoever follows one finds the same hour; in a panel, everything but what the link chooses."""
    assert DASHBOARD["links"]
    assert all(link["keepTime"] for link in DASHBOARD["links"])
    data_links = [
        link["url"] for panel in PANELS for link in panel["fieldConfig"]["defaults"].get("links", ())
    ]  # fmt: skip
    assert data_links
    for url in data_links:
        chosen = re.findall(r"var-(\w+)=", url)
        kept = re.findall(r"\$\{(\w+):queryparam\}", url)
        assert sorted(chosen + kept) == sorted(CHOICES), url
        assert "${__url_time_range}" in url


def test_marks() -> None:
    """Alerts, new configurations and starts are drawn into every graph."""
    marks = {each["name"]: each for each in DASHBOARD["annotations"]["list"]}
    assert 'ALERTS{alertname=~"Octet.+", alertstate="firing"' in marks["Alerts"]["expr"]
    assert "changes(octet_config_generation{" in marks["Configuration"]["expr"]
    assert marks["Starts"]["useValueForTime"] is True
    assert all(each["enable"] for each in marks.values())


def test_red_means_what_the_alerts_mean() -> None:
    """Panels change their colour where an alert begins."""
    groups = yaml.safe_load((RULES / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    alerts = {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"]}
    for name, limit in ALERTS.items():
        assert re.search(rf"{re.escape(limit)}(?![\d.])", alerts[name]), name
    assert limits("Error rate") == limits("Errors") == [thresholds.ERROR_RATE]
    assert limits("Response time p95") == limits("JSON response p95") == [thresholds.RESPONSE_SECONDS]
    assert limits("Time to the first token") == limits("First token p95") == [thresholds.RESPONSE_SECONDS]
    assert limits("Cache hit rate") == limits("Cache hits") == [thresholds.HIT_RATE]
    assert limits("Connection pool utilisation") == [thresholds.POOL]
    assert limits("Memory of its limit") == [thresholds.MEMORY]
    assert limits("Event loop lag") == [thresholds.LOOP_LAG_SECONDS]
    assert limits("Budgets used") == [thresholds.BUDGET, 1]
    named = {name for panel in PANELS for name in re.findall(r"\bOctet[A-Z]\w+", panel["description"])}
    assert named <= set(alerts)


def test_states_have_words_and_colours() -> None:
    """A circuit's number means nothing to people."""
    panel = next(each for each in PANELS if each["title"] == "Circuit breaker state")
    assert panel["type"] == "state-timeline"
    states = panel["fieldConfig"]["defaults"]["mappings"][0]["options"]
    assert [(key, each["text"], each["color"]) for key, each in states.items()] == [
        ("0", "Closed", "green"), ("1", "Half-open", "yellow"), ("2", "Open", "red"),
    ]  # fmt: skip
