"""What tokens cost, and how much may be spent: the sections of prices and budgets."""

from typing import Annotated

from pydantic import Field

from proxy.config.section import Section

Dollars = Annotated[float, Field(ge=0, le=1_000_000_000)]
Spendable = Annotated[float, Field(gt=0, le=1_000_000_000)]


class Price(Section):
    """What an upstream takes for its tokens, in US dollars."""

    input_per_million: Dollars = 0.0
    output_per_million: Dollars = 0.0
    cached_input_per_million: Dollars | None = None
    """Of a prompt's tokens that the upstream had in its cache. Default: as `input_per_million`."""
    cache_write_per_million: Dollars | None = None
    """Of a prompt's tokens that the upstream put in its cache. Default: as `input_per_million`."""
    reasoning_per_million: Dollars | None = None
    """Of an answer's tokens that were thoughts. Default: as `output_per_million`."""


class Budget(Section):
    """How much may be spent, in US dollars; days and months begin at midnight UTC."""

    daily_usd: Spendable | None = None
    """Calls above it are answered 429 until the day is over."""
    monthly_usd: Spendable | None = None
    warn_at: Annotated[float, Field(gt=0, le=1)] = 0.8
    """The share of either at which the log says so, once."""

    @property
    def limits(self) -> dict[str, float]:
        """By the period that they are for."""
        limits = {"day": self.daily_usd, "month": self.monthly_usd}
        return {period: limit for period, limit in limits.items() if limit is not None}
