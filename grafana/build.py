"""Writes the dashboard: `python -m grafana.build`."""

import json
from pathlib import Path

from grafana.dashboard import dashboard

FILE = Path(__file__).parent / "octet.json"


def text() -> str:
    """The file's content."""
    return json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
