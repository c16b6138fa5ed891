"""The dashboard as it is committed, taken apart for its tests."""

import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from prometheus_client.metrics import MetricWrapperBase

from grafana.build import FILE
from proxy.telemetry import Telemetry

Panel = dict[str, Any]

# Only the parent of several workers has these; see proxy/workers.
OF_WORKERS = {"octet_workers": "gauge", "octet_worker_restarts_total": "counter"}
NAME = re.compile(r"\b((?:octet|process|python)_\w+)")
SELECTOR = re.compile(r"\b([a-zA-Z_]\w*)\{([^}]*)\}")
_SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "info": ("_info",)}
_VARIABLE = re.compile(r"\$\{?(\w+)\}?")
_WINDOWS = {"__rate_interval": "1m", "__range": "1h"}

DASHBOARD: Panel = json.loads(FILE.read_text(encoding="utf-8"))
ROWS: list[Panel] = [each for each in DASHBOARD["panels"] if each["type"] == "row"]
EVERY: list[Panel] = [each for top in DASHBOARD["panels"] for each in (top, *top.get("panels", ()))]
PANELS: list[Panel] = [each for each in EVERY if each["type"] not in {"row", "text"}]
TARGETS: list[tuple[str, Panel]] = [(panel["title"], target) for panel in PANELS for target in panel["targets"]]
VARIABLES: dict[str, Panel] = {each["name"]: each for each in DASHBOARD["templating"]["list"]}


def _nowhere(line: bytes) -> None:
    """Where access lines go."""


def expressions() -> Iterator[tuple[str, str]]:
    """Every query of panels and annotations, by where it stands."""
    for title, target in TARGETS:
        yield title, target["expr"]
    for mark in DASHBOARD["annotations"]["list"]:
        yield f"annotation {mark['name']}", mark["expr"]


def filled(expression: str) -> str:
    """PromQL, with something in place of each variable."""
    return _VARIABLE.sub(lambda found: _WINDOWS.get(found[1], ".*"), expression)


@cache
def exposed() -> dict[str, str]:
    """The type of each name that can be scraped: counters end in `_total`, histograms in `_bucket` and so on."""
    names = dict(OF_WORKERS)
    for family in Telemetry(_nowhere).registry.collect():
        for suffix in _SUFFIXES.get(family.type, ("",)):
            names[family.name + suffix] = family.type
    return names


@cache
def labels() -> dict[str, set[str]]:
    """The labels of each metric of ours, by its name without suffix."""
    found: dict[str, set[str]] = {}
    for collector in Telemetry(_nowhere).registry._collector_to_names:
        family = getattr(collector, "_family", None)
        if family is not None:
            found[family[0]] = set(family[2])
        elif isinstance(collector, MetricWrapperBase):
            found[collector._name] = set(collector._labelnames)
    return found


def stem(name: str) -> str:
    """A name without what its type adds to it."""
    return re.sub(r"_(total|bucket|count|sum|info)$", "", name)
