"""Where the calls of one rule may go, before it is decided in which order."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from proxy.config import Canary, FallbackRule, Globs, Mirror, TargetRule, Upstream
from proxy.openai_format.overrides import Overrides
from proxy.providers.seam import Copies, Target
from proxy.routing.choice import Skipped
from proxy.routing.strategies import Chance, Turns

Leaf = TargetRule | FallbackRule | Canary | Mirror  # what names an upstream


class Places(NamedTuple):
    """Where calls for one model may go; a fallback is a target, or the name of another rule."""

    tiers: tuple[tuple[Target, ...], ...]
    canary: Target | None
    fallback: tuple[Target | str, ...]
    copies: Copies | None
    primary: tuple[Target, ...]
    excluded: tuple[Skipped, ...]


class Labels:
    """Labels that are wanted of upstreams."""

    def __init__(self, wanted: Mapping[str, Iterable[str]]) -> None:
        self._wanted = [(name, Globs(tuple(globs))) for name, globs in wanted.items()]

    def fit(self, upstream: Upstream) -> bool:
        """Whether it has all of them."""
        labels = upstream.labels
        return all(name in labels and globs.fit(labels[name]) for name, globs in self._wanted)


def turns_of(tier: Sequence[TargetRule], chance: Chance) -> Turns | None:
    """None where every weight is 0: then the targets come as they stand."""
    weights = [target.weight for target in tier]
    return Turns(weights, chance) if any(weights) else None


def overrides_of(leaf: Leaf) -> Overrides | None:
    return Overrides(leaf.set, leaf.defaults, leaf.remove) or None


def or_dear(cost: float | None) -> float:
    """Whoever does not tell a price is taken for dear."""
    return float("inf") if cost is None else cost


def that_fit(
    order: list[Target], scores: list[float | None], first: int, needed: int, skipped: list[Skipped]
) -> tuple[list[Target], list[float | None], int]:
    """Without the targets whose context is too small for a call; where all are, those with the largest are left.

    The size is an estimate: where nothing is left to choose, the upstream is to judge.
    """
    sizes = [float("inf") if target.max_context_tokens is None else target.max_context_tokens for target in order]
    least = min(needed, max(sizes))
    kept = [place for place, size in enumerate(sizes) if size >= least]
    skipped += [Skipped(order[place], "max_context_tokens") for place in range(len(order)) if place not in kept]
    return [order[place] for place in kept], [scores[place] for place in kept], sum(place < first for place in kept)


def is_same(one: Target, other: Target) -> bool:
    """Whether a call would be the same at both."""
    changes = [target.overrides.text if target.overrides is not None else b"" for target in (one, other)]
    same_place = one.name == other.name and one.model == other.model
    same_size = one.max_context_tokens == other.max_context_tokens
    return same_place and same_size and changes[0] == changes[1] and one.headers == other.headers
