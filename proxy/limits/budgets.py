"""What may be spent: a call is refused when its caller's budget, or its route's, is used up.

What calls cost is known when they are over: those in flight may still go above it.
"""

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Protocol

from proxy.config import Budget
from proxy.errors import BudgetSpent
from proxy.telemetry import Telemetry

logger = logging.getLogger("octet")

Scope = tuple[str, str]  # `caller` or `route`, and its name
PERIODS = ("day", "month")
DAY = 86400.0
_FORMATS = {"day": "%Y-%m-%d", "month": "%Y-%m"}
_KEYS = {"day": "daily_usd", "month": "monthly_usd"}


class Share(Protocol):
    """Adds up what a fleet spends."""

    def spent(self, usd: float) -> None:
        """So much more."""
        ...

    def asked(self) -> None:
        """A call goes by what is known."""
        ...


class Spending:
    """What one caller, or one route, has spent in the day and the month that are, in US dollars.

    Args:
        clock: unix time.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.share: Share | None = None
        self.spent = dict.fromkeys(PERIODS, 0.0)  # by all, as far as is known
        self.own = dict.fromkeys(PERIODS, 0.0)  # by this process
        self.names = dict.fromkeys(PERIODS, "")  # of the day and the month: 2026-11-27 and 2026-11
        self.said: dict[str, tuple[str, float]] = {}  # that little is left: of which day or month, and limit
        self._clock = clock
        self._ends = 0.0

    def now(self, period: str) -> float:
        """Spent in it until now."""
        self.turn()
        return self.spent[period]

    def add(self, usd: float) -> None:
        """So much more has been spent."""
        self.turn()
        for period in PERIODS:
            self.spent[period] += usd
            self.own[period] += usd
        if self.share is not None:
            self.share.spent(usd)

    def turn(self) -> None:
        """Begin anew when a day, or a month, has begun."""
        now = self._clock()
        if self._ends - 2 * DAY <= now < self._ends:  # a clock that is set back within a day begins none anew
            return
        moment = datetime.fromtimestamp(now, UTC)
        midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
        self._ends = midnight.timestamp()
        for period, name in self.names.items():
            told = moment.strftime(_FORMATS[period])
            if told != name:
                self.names[period], self.spent[period], self.own[period] = told, 0.0, 0.0

    def left_seconds(self, period: str) -> float:
        """Until the day, or the month, is over."""
        now = self._clock()
        if period == "day":
            return max(1.0, self._ends - now)
        moment = datetime.fromtimestamp(now, UTC)
        following = (moment.replace(day=1) + timedelta(days=32)).replace(day=1)
        return max(1.0, following.replace(hour=0, minute=0, second=0, microsecond=0).timestamp() - now)


class Purse:
    """One budget, and what has been spent of it."""

    def __init__(self, scope: Scope, rules: Budget, spending: Spending) -> None:
        self.scope, self.spending = scope, spending
        self.limits = rules.limits
        self._warn_at = rules.warn_at

    def check(self, telemetry: Telemetry) -> None:
        """Raises BudgetSpent when nothing is left."""
        if self.spending.share is not None:
            self.spending.share.asked()
        for period, limit in self.limits.items():
            if self.spending.now(period) >= limit:
                scope, name = self.scope
                telemetry.limited(scope, name, _KEYS[period])
                whose = "your key" if scope == "caller" else "this model's route"
                text = f"the budget of {whose} for this {period} is spent (budget.{_KEYS[period]})"
                raise BudgetSpent(text, retry_after=self.spending.left_seconds(period), limit=_KEYS[period])

    def warn(self) -> None:
        """Say once in each day, or month, that there is not much left."""
        for period, limit in self.limits.items():
            said = self.spending.names[period], limit
            if self.spending.spent[period] >= self._warn_at * limit and self.spending.said.get(period) != said:
                self.spending.said[period] = said
                share = self.spending.spent[period] / limit
                logger.warning(
                    "%s %s has spent %.0f %% of its budget for the %s (%s: %g)",
                    *self.scope, 100 * share, period, _KEYS[period], limit,
                )  # fmt: skip


class Budgets:
    """Those of one configuration."""

    def __init__(self, purses: Mapping[Scope, Purse], telemetry: Telemetry) -> None:
        self.purses = purses
        self._telemetry = telemetry

    def check(self, caller: str, route: str) -> None:
        """Raises BudgetSpent when a call may cost nothing."""
        for scope in (("caller", caller), ("route", route)):
            purse = self.purses.get(scope)
            if purse is not None:
                purse.check(self._telemetry)

    def charge(self, caller: str, route: str, usd: float) -> None:
        """A call has cost so much."""
        for scope in (("caller", caller), ("route", route)):
            purse = self.purses.get(scope)
            if purse is not None:
                purse.spending.add(usd)
                purse.warn()
