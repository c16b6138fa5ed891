"""What tokens cost, by what the configuration says of upstreams' prices."""

from collections.abc import Mapping

from proxy.call import Json, count_of
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
        """US dollars for a usage in OpenAI's shape; None when the price, or the usage, is not known."""
        price = self.price(upstream, model)
        return None if price is None or not usage else cost_of(price, usage)


def cost_of(price: Price, usage: Json, copies: int = 1) -> float:
    """US dollars for a usage in OpenAI's shape; what of it is no count costs nothing.

    Args:
        copies: how often the upstream was sent the prompt.

    Source: OpenAI's "Usage" object: `cached_tokens` are among the prompt's, `reasoning_tokens` among the answer's;
    `cache_write_tokens` are ours, for Anthropic's `cache_creation_input_tokens`.
    """
    prompt, answer = count_of(usage.get("prompt_tokens")) or 0, count_of(usage.get("completion_tokens")) or 0
    dollars = prompt * price.input_per_million
    if (details := usage.get("prompt_tokens_details")) and isinstance(details, dict):
        read = min(count_of(details.get("cached_tokens")) or 0, prompt)
        written = min(count_of(details.get("cache_write_tokens")) or 0, prompt - read)
        dollars += _beside(read, price.input_per_million, price.cached_input_per_million)
        dollars += _beside(written, price.input_per_million, price.cache_write_per_million)
    dollars = dollars * copies + answer * price.output_per_million
    if (details := usage.get("completion_tokens_details")) and isinstance(details, dict):
        thoughts = min(count_of(details.get("reasoning_tokens")) or 0, answer)
        dollars += _beside(thoughts, price.output_per_million, price.reasoning_per_million)
    return dollars / MILLION


def _beside(count: int, usual: float, price: float | None) -> float:
    """What tokens of a price of their own cost beside the usual one."""
    return 0.0 if price is None else count * (price - usual)
