"""The kinds of panel, with the manners that all of one kind share.

A panel is what Grafana's JSON model says, but for its place: `layout` gives it. Every function takes the title, the
description (what it shows, what is normal, what to do otherwise), the queries, the unit, and the size in columns (of
24) and rows.

Source: Grafana, "Dashboard JSON model"; the types of `@grafana/schema`.
"""

from collections.abc import Sequence
from typing import Any

from grafana.queries import DATASOURCE

Panel = dict[str, Any]
Targets = Sequence[dict[str, Any]]

HALF = (12, 8)
NOTHING = "Nothing in this time"
USUAL_REACH = {"reqps": 0.1, "ops": 0.1}  # else an axis of nothing but zeros would reach to 100


def good_until(limit: float) -> list[Panel]:
    """Green below a limit, red from it on."""
    return [{"color": "green", "value": None}, {"color": "red", "value": limit}]


def good_from(limit: float) -> list[Panel]:
    """Orange below a limit, green from it on."""
    return [{"color": "orange", "value": None}, {"color": "green", "value": limit}]


def stat(
    title: str, description: str, expression: dict[str, Any], unit: str, *, steps: list[Panel] | None = None,
    mappings: list[Panel] | None = None, size: tuple[int, int] = (3, 4), graph: bool = False, empty: str = NOTHING,
    decimals: int | None = None,
) -> Panel:  # fmt: skip
    """One number, with its course behind it where there is room."""
    defaults = {
        "color": {"mode": "thresholds"} if steps else {"mode": "fixed", "fixedColor": "blue"},
        "thresholds": _thresholds(steps or [{"color": "blue", "value": None}]),
        **({"decimals": decimals} if decimals is not None else {}),
        "mappings": mappings or [],
    }
    options = {
        "colorMode": "value", "graphMode": "area" if graph else "none", "justifyMode": "auto", "orientation": "auto",
        "percentChangeColorMode": "standard", "showPercentChange": False, "textMode": "auto", "wideLayout": True,
        "reduceOptions": _last(),
    }  # fmt: skip
    return _panel("stat", title, description, [expression], unit, size, defaults, options, empty=empty)


def series(
    title: str, description: str, targets: Targets, unit: str, *, steps: list[Panel] | None = None,
    stacked: bool = False, ratio: bool = False, overrides: Sequence[Panel] = (), links: Sequence[Panel] = (),
    size: tuple[int, int] = HALF, empty: str = NOTHING, legend: Sequence[str] = (), decimals: int | None = None,
    reach: float | None = None,
) -> Panel:  # fmt: skip
    """Lines over time, from zero; stacked only where they are parts of a whole.

    Args:
        ratio: a share, whose axis ends at 1.
        legend: reducers for a legend in columns, such as `mean`, `max`.
        reach: how far the axis goes at least; further where values do.
    """
    custom = {
        "drawStyle": "line", "lineInterpolation": "linear", "lineWidth": 0 if stacked else 2,
        "fillOpacity": 60 if stacked else 6, "gradientMode": "none", "showPoints": "never" if stacked else "auto",
        "pointSize": 4, "spanNulls": False, "insertNulls": False, "barAlignment": 0, "axisPlacement": "auto",
        "axisLabel": "", "axisColorMode": "text", "axisCenteredZero": False, "axisBorderShow": False,
        "scaleDistribution": {"type": "linear"}, "hideFrom": {"legend": False, "tooltip": False, "viz": False},
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "dashed" if steps else "off"},
        **({"axisSoftMax": reach or USUAL_REACH[unit]} if reach or unit in USUAL_REACH else {}),
    }  # fmt: skip
    defaults = {
        "color": {"mode": "palette-classic"}, "custom": custom, "min": 0, "mappings": [], "links": list(links),
        **({"max": 1} if ratio else {}), **({"decimals": decimals} if decimals is not None else {}),
        "thresholds": _thresholds(steps or [{"color": "green", "value": None}]),
    }  # fmt: skip
    options = {
        "legend": {
            "displayMode": "table" if legend else "list", "placement": "right" if legend else "bottom",
            "showLegend": True, "calcs": list(legend),
        },
        "tooltip": {"mode": "multi", "sort": "desc"},
    }  # fmt: skip
    return _panel("timeseries", title, description, targets, unit, size, defaults, options, overrides, empty)


def heatmap(title: str, description: str, expression: str, *, size: tuple[int, int] = HALF, scheme: str) -> Panel:
    """How durations are spread over time, from a histogram's buckets."""
    source = {
        "datasource": DATASOURCE, "expr": expression, "legendFormat": "{{le}}", "range": True, "format": "heatmap",
        "exemplar": True,
    }  # fmt: skip
    hidden = {"legend": False, "tooltip": False, "viz": False}
    defaults = {"custom": {"hideFrom": hidden, "scaleDistribution": {"type": "linear"}}}
    options = {
        "calculate": False, "cellGap": 1, "cellValues": {"unit": "short", "decimals": 0},
        "color": {
            "mode": "scheme", "scheme": scheme, "fill": "dark-orange", "scale": "exponential", "exponent": 0.5,
            "steps": 64, "reverse": False,
        },
        "exemplars": {"color": "rgba(255,0,255,0.7)"}, "filterValues": {"le": 1e-9}, "legend": {"show": True},
        "rowsFrame": {"layout": "auto"}, "showValue": "never",
        "tooltip": {"mode": "single", "yHistogram": True, "showColorScale": True},
        "yAxis": {"axisPlacement": "left", "reverse": False, "unit": "s"},
    }  # fmt: skip
    made = _panel("heatmap", title, description, [source], "short", size, defaults, options)
    return {**made, "maxDataPoints": 120}


def timeline(
    title: str, description: str, targets: Targets, *, mappings: list[Panel], steps: list[Panel],
    links: Sequence[Panel] = (), size: tuple[int, int] = (24, 6), empty: str = NOTHING,
) -> Panel:  # fmt: skip
    """States over time, one line for each of what has them."""
    hidden = {"legend": False, "tooltip": False, "viz": False}
    defaults = {
        "color": {"mode": "thresholds"}, "custom": {"fillOpacity": 80, "lineWidth": 0, "hideFrom": hidden},
        "mappings": mappings, "thresholds": _thresholds(steps), "links": list(links),
    }  # fmt: skip
    options = {
        "alignValue": "left", "mergeValues": True, "rowHeight": 0.8, "showValue": "auto",
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "single", "sort": "none"},
    }  # fmt: skip
    return _panel("state-timeline", title, description, targets, "none", size, defaults, options, empty=empty)


def bars(
    title: str, description: str, targets: Targets, unit: str, *, steps: list[Panel], limit: float | None = None,
    size: tuple[int, int] = HALF, empty: str = NOTHING,
) -> Panel:  # fmt: skip
    """Things beside one another, as they are now."""
    defaults = {
        "color": {"mode": "thresholds"}, "thresholds": _thresholds(steps), "min": 0, "mappings": [],
        "decimals": 1, **({"max": limit} if limit is not None else {}),
    }  # fmt: skip
    options = {
        "displayMode": "basic", "orientation": "horizontal", "showUnfilled": True, "valueMode": "color",
        "namePlacement": "top", "sizing": "auto", "minVizWidth": 8, "minVizHeight": 16, "maxVizHeight": 40,
        "reduceOptions": _last(),
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False, "calcs": []},
    }  # fmt: skip
    return _panel("bargauge", title, description, targets, unit, size, defaults, options, empty=empty)


def table(
    title: str, description: str, targets: Targets, unit: str, *, transformations: list[Panel],
    overrides: Sequence[Panel] = (), sort: str, size: tuple[int, int] = HALF, empty: str = NOTHING,
) -> Panel:  # fmt: skip
    """Rows and columns of instant queries.

    Args:
        sort: the column whose largest value comes first.
    """
    defaults = {
        "color": {"mode": "fixed", "fixedColor": "text"}, "mappings": [],
        "custom": {"align": "auto", "cellOptions": {"type": "auto"}, "inspect": False},
        "thresholds": _thresholds([{"color": "text", "value": None}]),
    }  # fmt: skip
    options = {
        "showHeader": True, "cellHeight": "sm", "frameIndex": 0, "sortBy": [{"displayName": sort, "desc": True}],
    }  # fmt: skip
    made = _panel("table", title, description, targets, unit, size, defaults, options, overrides, empty)
    return {**made, "transformations": transformations}


def text(content: str, *, size: tuple[int, int]) -> Panel:
    """Words, in Markdown."""
    return {
        "type": "text", "title": "", "description": "What this dashboard is for.", "transparent": True,
        "gridPos": {"w": size[0], "h": size[1]}, "options": {"mode": "markdown", "content": content},
    }  # fmt: skip


def _panel(
    kind: str, title: str, description: str, targets: Targets, unit: str, size: tuple[int, int], defaults: Panel,
    options: Panel, overrides: Sequence[Panel] = (), empty: str = NOTHING,
) -> Panel:  # fmt: skip
    named = [{"refId": chr(ord("A") + place), **each} for place, each in enumerate(targets)]
    return {
        "type": kind, "title": title, "description": description, "datasource": DATASOURCE,
        "gridPos": {"w": size[0], "h": size[1]}, "targets": named, "options": options,
        "fieldConfig": {"defaults": {"unit": unit, "noValue": empty, **defaults}, "overrides": list(overrides)},
    }  # fmt: skip


def _thresholds(steps: list[Panel]) -> Panel:
    return {"mode": "absolute", "steps": steps}


def _last() -> Panel:
    return {"calcs": ["lastNotNull"], "fields": "", "values": False}
