"""Names that lead nowhere, and names that stand twice."""

from collections.abc import Collection
from typing import Any

from proxy.config.mistakes import Path, nearest
from proxy.config.source import Document


def unknown(document: Document, path: Path, name: str, known: Collection[str]) -> None:
    """Note a name that is none of those known; the last word of the path says what it names."""
    kind = next(step for step in reversed(path) if isinstance(step, str))
    hint = nearest(name, known) if path not in document.from_outside else ""
    document.mistake(path, f"unknown {kind} {document.quote(path, name)}{hint}")


def check_unique(document: Document, items: list[dict[str, Any]], path: Path, key: str) -> None:
    """Note every item whose key an earlier one has too."""
    seen: dict[str, int] = {}
    for index, item in enumerate(items):
        value = item.get(key)
        if isinstance(value, str) and seen.setdefault(value, index) != index:
            document.mistake((*path, index, key), f"the same {key} stands at {path[-1]}[{seen[value]}]")
