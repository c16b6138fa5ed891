"""What tokens cost, by what the configuration says of upstreams' prices."""

from collections.abc import Mapping

from proxy.call import Json
from proxy.config import Globs, Price, Upstream

MILLION = 1_000_000


class PriceList:
    """The prices of all upstreams."""

    def __init__(self, upstreams: Mapping[str, Upstream]) -> None:
        self._prices = {
            name: [(Globs([glob]), price) for glob, price in upstream.prices.items()]
            for name, upstream in upstreams.items()
        }
        self.known = any(self._prices.values())  # any price is

    def price(self, upstream: str, model: str) -> Price | None:
        """What a model costs; None when it is not known."""
        return next((price for globs, price in self._prices.get(upstream, ()) if globs.fit(model)), None)

    def estimate(self, upstream: str, model: str, prompt: int, answer: int) -> float | None:
        """US dollars for so many tokens; None when the price is not known."""
        return self.cost(upstream, model, {"prompt_tokens": prompt, "completion_tokens": answer})

    def cost(self, upstream: str, model: str, usage: Json | None) -> float | None:
        """US dollars for so many tokens; None when the price, or their number, is not known."""
        price = self.price(upstream, model)
        if price is None or not usage:
            return None
        return _of(usage, "prompt_tokens", price.input_per_million) + _of(
            usage, "completion_tokens", price.output_per_million
        )


def _of(usage: Json, name: str, price: float) -> float:
    count = usage.get(name)
    return count * price / MILLION if isinstance(count, int) and 0 <= count < 2**53 else 0.0
