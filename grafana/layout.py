"""Places panels on Grafana's grid of 24 columns, and numbers them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Panel = dict[str, Any]
COLUMNS = 24


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the dashboard.

    Args:
        collapsed: its panels are asked for only once somebody opens it.
        repeat: a variable; there is one such row for each of its values.
    """

    title: str
    panels: Sequence[Panel]
    collapsed: bool = False
    repeat: str | None = None


def place(rows: Sequence[Row]) -> list[Panel]:
    """The panels in their places, from left to right, from top to bottom.

    A panel's number is made of the row's and its own place there, so that a new one changes few others.
    """
    placed: list[Panel] = []
    top = 0
    for number, row in enumerate(rows, start=1):
        below, bottom = _flow(row.panels, top + 1, number * 100)
        head: Panel = {
            "type": "row", "id": number * 100, "title": row.title, "collapsed": row.collapsed,
            "gridPos": {"x": 0, "y": top, "w": COLUMNS, "h": 1}, "panels": below if row.collapsed else [],
            **({"repeat": row.repeat} if row.repeat else {}),
        }  # fmt: skip
        placed += [head] if row.collapsed else [head, *below]
        top = top + 1 if row.collapsed else bottom
    return placed


def _flow(panels: Sequence[Panel], top: int, number: int) -> tuple[list[Panel], int]:
    """Panels side by side while there is room, and where the next line begins."""
    placed: list[Panel] = []
    left = height = 0
    for order, panel in enumerate(panels, start=1):
        size = panel["gridPos"]
        if left + size["w"] > COLUMNS:
            left, top, height = 0, top + height, 0
        placed.append({**panel, "id": number + order, "gridPos": {**size, "x": left, "y": top}})
        left, height = left + size["w"], max(height, size["h"])
    return placed, top + height
