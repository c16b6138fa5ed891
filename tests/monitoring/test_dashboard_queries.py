"""The dashboard's queries are right PromQL, ask for what exists, and leave nothing out."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.monitoring.dashboards import (
    EVERY,
    NAME,
    SELECTOR,
    TARGETS,
    VARIABLES,
    exposed,
    expressions,
    filled,
    labels,
    stem,
)
from tests.programs import tool

NOT_SHOWN = {
    "process_virtual_memory_bytes": "address space costs nothing; the resident memory is what has a limit",
    "python_info": "does not change while a process runs, and follows from Octet's version",
}
# Gauges and histograms of the whole process have no names of routes; these counters are part of a sum with such ones.
WITHOUT_ROUTE = {"Cache hits", "Cache hit rate"}
QUERIES = list(expressions())
COUNTERS = ("counter", "histogram")


@pytest.mark.parametrize(("where", "expression"), QUERIES)
def test_windows_follow_the_resolution(where: str, expression: str) -> None:
    """Never a fixed window; the whole time shown only where one moment is asked for."""
    windows = set(re.findall(r"\[([^\]]*)\]", expression))
    at_once = any(target.get("instant") and target["expr"] == expression for _, target in TARGETS)
    assert windows <= ({"$__range"} if at_once else {"$__rate_interval"})


@pytest.mark.parametrize(("where", "expression"), QUERIES)
def test_counters_are_never_bare(where: str, expression: str) -> None:
    """Nor summed before their rate, nor is a quantile taken but of rates by `le`."""
    types = exposed()
    for name, _ in SELECTOR.findall(expression):
        if types.get(name) in COUNTERS:
            everywhere = len(re.findall(rf"\b{name}\b", expression))
            assert everywhere == len(re.findall(rf"\b(?:rate|increase)\({name}\{{", expression)), name
    assert not re.search(r"\b(?:rate|increase)\((?:sum|max|min|avg)", expression)
    quantiles = re.findall(r"histogram_quantile\(([^,]*), (sum by \(le[,)])?", expression)
    assert all(by for _, by in quantiles)
    assert "avg" not in expression


@pytest.mark.parametrize(("where", "expression"), QUERIES)
def test_every_selector_has_the_matchers(where: str, expression: str) -> None:
    """Those of the process, and each that the metric has a label for."""
    known = labels()
    for name, matchers in SELECTOR.findall(expression):
        wanted = {"job", "instance", "namespace", "pod"}
        if where not in WITHOUT_ROUTE:
            wanted |= known.get(stem(name), set()) & {"route", "upstream", "model"}
        assert wanted <= set(re.findall(r'(\w+)=~"\$\1\|?"', matchers)), name
    bare = [name for name in NAME.findall(expression) if not re.search(rf"\b{name}\{{", expression)]
    assert bare == []


def test_every_metric_that_is_asked_for_exists() -> None:
    """A name with a slip in it would be an empty panel."""
    asked = {name for _, expression in QUERIES for name in NAME.findall(expression)}
    for name, variable in VARIABLES.items():
        if name != "datasource":
            asked |= set(NAME.findall(variable["query"]["query"].split(",")[0]))
    assert asked - exposed().keys() == set()


def test_every_metric_is_shown_or_has_a_reason() -> None:
    """A new metric comes with its panel."""
    asked = {stem(name) for _, expression in QUERIES for name in NAME.findall(expression)}
    exist = {stem(name) for name in exposed()}
    assert exist - asked - {stem(name) for name in NOT_SHOWN} == set()
    assert set(NOT_SHOWN) <= exposed().keys()
    assert asked & {stem(name) for name in NOT_SHOWN} == set()


def test_legends_name_what_the_query_keeps() -> None:
    """A label that was summed away would be an empty place in the legend."""
    for title, target in TARGETS:
        for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
            assert re.search(rf"by \([^)]*\b{label}\b", target["expr"]), (title, label)


def test_variables_in_queries_exist() -> None:
    """Grafana would send an unknown one as it is."""
    found = {name for each in EVERY for name in re.findall(r"\$\{?([a-z]\w*)", each["title"])}
    found |= {name for _, expression in QUERIES for name in re.findall(r"\$\{?([a-z]\w*)", expression)}
    assert found <= VARIABLES.keys()


def test_every_expression_parses(tmp_path: Path) -> None:
    """As Prometheus reads it, once the variables have values."""
    promtool = tool("promtool")
    rules = [{"record": f"dashboard:query:{number}", "expr": filled(each)} for number, (_, each) in enumerate(QUERIES)]
    file = tmp_path / "dashboard.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}), encoding="utf-8")
    checked = subprocess.run([promtool, "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(QUERIES)} rules found" in checked.stdout
