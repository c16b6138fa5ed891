"""The whole dashboard, as Grafana's JSON model has it."""

from typing import Any

from grafana.frame import annotations, links, variables
from grafana.layout import place
from grafana.rows import cache, details, limits, overview, process, spending, streaming, upstreams

ROWS = (
    overview.ROW, upstreams.ROW, upstreams.ONE, streaming.ROW, cache.ROW, spending.ROW, limits.ROW, process.ROW,
    *details.ROWS,
)  # fmt: skip


def dashboard() -> dict[str, Any]:
    """Made anew at each call; the same each time."""
    return {
        "id": None, "uid": "octet", "title": "Octet", "tags": ["octet", "llm"], "schemaVersion": 41, "version": 1,
        "description": "The OpenAI-compatible sidecar: calls, upstreams, streams, cache, cost, limits, process.",
        "editable": False, "graphTooltip": 1, "refresh": "10s", "timezone": "browser", "weekStart": "",
        "fiscalYearStartMonth": 0,
        "time": {"from": "now-1h", "to": "now"}, "liveNow": False, "preload": False,
        "timepicker": {"refresh_intervals": ["10s", "30s", "1m", "5m", "15m", "1h"]},
        "templating": {"list": variables()}, "annotations": {"list": annotations()}, "links": links(),
        "panels": place(ROWS),
    }  # fmt: skip
