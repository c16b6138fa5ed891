"""How an upstream's own limits stand, as it says itself: we slow down before it has to refuse. Pure.

Source: OpenAI API reference, "Rate limits in headers"; RFC 9110 §10.2.3 (Retry-After).
"""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from proxy.call import Json

MOST_MODELS = 256
LONGEST = 60.0  # seconds; nobody is left alone for longer on a word of its own
UNTOLD = 1.0  # seconds after a 429 that names no time
_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")
_KINDS = (("requests", "x-ratelimit-remaining-requests"), ("tokens", "x-ratelimit-remaining-tokens"))


class _Left(NamedTuple):
    """What remained of one limit, when that was said, and seconds until there is one more."""

    amount: float
    at: float
    seconds_each: float
    whole: float  # when all of it is back

    def until(self, need: float) -> float:
        """When so much will be there."""
        return min(self.whole, self.at + (need - self.amount) * self.seconds_each)


class Pace:
    """What one upstream said, model by model: what remains, and until when nothing does."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}  # by model: before this it refuses
        self._left: dict[str, dict[str, _Left]] = {}  # by model and kind

    @property
    def is_known(self) -> bool:
        """Whether anything is."""
        return bool(self._until or self._left)

    def wait(self, model: str, tokens: Callable[[], int], now: float) -> float:
        """Seconds until a call for so many tokens is worth sending; 0: now."""
        until = self._until.get(model, 0.0) if self._until else 0.0
        for kind, left in self._left.get(model, _NOTHING).items() if self._left else ():
            need = 1 if kind == "requests" else tokens()
            if left.amount < need:
                until = max(until, left.until(need))
        return max(0.0, until - now) if until else 0.0

    def sent(self, model: str, tokens: Callable[[], int]) -> None:
        """A call goes out: it will be taken off what remains."""
        known = self._left.get(model) if self._left else None
        if known is not None:
            for kind, left in known.items():
                known[kind] = left._replace(amount=left.amount - (1 if kind == "requests" else tokens()))

    def refused(self, model: str, wait: float | None, now: float) -> None:
        """It answered 429; `wait` is its Retry-After in seconds, or None."""
        if model not in self._until and len(self._until) >= MOST_MODELS:  # callers invent names
            self._until.clear()
        until = now + min(UNTOLD if wait is None else wait, LONGEST)
        self._until[model] = until if wait is not None else max(until, self._until.get(model, 0.0))

    def heard(self, model: str, headers: Mapping[str, str], clock: Callable[[], float]) -> None:
        """An answer came, with these headers in OpenAI's names."""
        for kind, header in _KINDS:
            told = headers.get(header)
            remaining = _number(told) if told is not None else None
            if remaining is None:
                continue
            seconds = _seconds(headers.get(f"x-ratelimit-reset-{kind}", ""))
            if seconds is None:
                continue
            now = clock()
            limit = _number(headers.get(f"x-ratelimit-limit-{kind}", "")) or 0
            used = limit - remaining
            if model not in self._left and len(self._left) >= MOST_MODELS:
                self._left.clear()
            self._left.setdefault(model, {})[kind] = _Left(
                remaining, now, seconds / used if used > 0 else seconds, now + min(seconds, LONGEST)
            )

    def describe(self, now: float) -> Json:
        """What was said and still holds, for people, by model."""
        models = {model for model, until in self._until.items() if until > now}
        models |= {model for model, kinds in self._left.items() if any(left.whole > now for left in kinds.values())}
        return {
            model: {
                "refuses_for_seconds": round(max(0.0, self._until.get(model, 0.0) - now), 3),
                "left": {kind: left.amount for kind, left in self._left.get(model, _NOTHING).items()},
            }
            for model in sorted(models)
        }


_NOTHING: Mapping[str, _Left] = {}


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 15 else None


def _seconds(text: str) -> float | None:
    """`7.5s`, `6m0s`, `12ms`, or plain seconds; None when it is none of them."""
    if not text or len(text) > 32:
        return None
    match = _DURATION.fullmatch(text)
    if match is not None:
        hours, minutes, seconds, milliseconds = (float(part or 0) for part in match.groups())
        return hours * 3600 + minutes * 60 + seconds + milliseconds / 1000
    return float(text) if text.replace(".", "", 1).isdigit() and text.isascii() else None
