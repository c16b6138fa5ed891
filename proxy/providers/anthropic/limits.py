"""Anthropic's rate-limit headers under OpenAI's names.

Source: platform.claude.com, "Rate limits", response headers; OpenAI API reference, "Rate limits in headers";
reference/upstreams.md §2.6, §5.8.
"""

from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime

_KINDS = (("requests", ("requests",)), ("tokens", ("tokens", "input-tokens")))  # OpenAI's, and Anthropic's for it


def rate_limits(headers: Mapping[str, str]) -> dict[str, str]:
    """Limits, what remains of them, and how long until they are whole again."""
    found: dict[str, str] = {}
    for name, theirs in _KINDS:
        kind = next((kind for kind in theirs if f"anthropic-ratelimit-{kind}-limit" in headers), None)
        if kind is None:
            continue
        for what in ("limit", "remaining"):
            value = headers.get(f"anthropic-ratelimit-{kind}-{what}", "")
            if value.isdigit():
                found[f"x-ratelimit-{what}-{name}"] = value
        wait = _seconds_until(headers.get(f"anthropic-ratelimit-{kind}-reset", ""), headers.get("date", ""))
        if wait is not None:
            found[f"x-ratelimit-reset-{name}"] = _duration(wait)
    return found


def _seconds_until(reset: str, date: str) -> float | None:
    """From the answer's own date, so that no two clocks are compared."""
    try:
        return max(0.0, (datetime.fromisoformat(reset) - parsedate_to_datetime(date)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None


def _duration(seconds: float) -> str:
    """As OpenAI writes it: 12ms, 7.5s, 6m0s."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}m{rest:g}s" if minutes else f"{rest:g}s"
