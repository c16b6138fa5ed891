"""What must agree between prices and budgets."""

from typing import Any

from proxy.config.source import Document, listing, mapping


def check_money(document: Document, tree: dict[str, Any]) -> None:
    """Note budgets that nothing could ever use up, or that bound nothing."""
    is_priced = any(mapping(mapping(upstream).get("prices")) for upstream in mapping(tree.get("upstreams")).values())
    for section, holders in (
        (("server", "callers"), listing(mapping(tree.get("server")).get("callers"))),
        (("routes",), listing(tree.get("routes"))),
    ):
        for index, holder in enumerate(holders):
            budget, path = mapping(holder).get("budget"), (*section, index, "budget")
            if not isinstance(budget, dict):
                continue
            if budget.get("daily_usd") is None and budget.get("monthly_usd") is None:
                document.mistake(path, "bounds nothing: give daily_usd or monthly_usd")
            elif not is_priced:
                document.mistake(path, "needs prices: no upstream has any, so nothing would count")
