"""In which order targets are tried. Pure: chance, and how things stand, are arguments.

Source: nginx, `ngx_http_upstream_round_robin.c` (smooth weighted round-robin); Thaler and Ravishankar, "Using
name-based mappings to increase hit rates", 1998 (rendezvous hashing), with weights by -ln(hash) / weight; Mitzenmacher,
"The power of two choices in randomized load balancing", 2001.
"""

from collections.abc import Callable, Sequence
from hashlib import blake2b
from math import gcd, log

Chance = Callable[[], float]  # uniform in [0, 1)

MOST_STEPS = 1000  # of a cycle, to begin in the midst of it
UNTRIED_SECONDS = 1000.0  # what a second call costs at a target that has not answered its first


class Turns:
    """Takes turns by weight, as evenly as can be: each comes as often as its weight says in every cycle.

    Args:
        weights: at least one is above 0.
        chance: where in the cycle to begin, so that not every process begins alike.
    """

    __slots__ = ("_current", "_weights")

    def __init__(self, weights: Sequence[float], chance: Chance) -> None:
        self._weights = tuple(weights)
        self._current = [0.0] * len(weights)
        whole = [int(weight) for weight in weights]
        cycle = sum(whole) // gcd(*whole) if tuple(whole) == self._weights else MOST_STEPS
        for _ in range(int(chance() * min(cycle, MOST_STEPS))):
            self.take()

    def peek(self) -> int:
        """Whose turn it is."""
        due = [each + weight for each, weight in zip(self._current, self._weights, strict=True)]
        return max(range(len(due)), key=due.__getitem__)

    def take(self) -> int:
        """The same, and on to the next turn."""
        index = self.peek()
        for place, weight in enumerate(self._weights):
            self._current[place] += weight
        self._current[index] -= sum(self._weights)
        return index


def drawn(weights: Sequence[float], first: int | None, chance: Chance) -> list[int]:
    """Places in the order to try: `first` if there is one, then the others one by one, by the odds of their weights.

    Those of weight 0 come last.
    """
    left = [place for place in range(len(weights)) if place != first]
    order = [] if first is None else [first]
    while left:
        total = sum(weights[place] for place in left)
        if total == 0:
            return order + left
        point = chance() * total
        for index, place in enumerate(left):
            point -= weights[place]
            if point < 0:
                order.append(left.pop(index))
                break
        else:  # what is lost in sums of fractions
            order.append(left.pop())
    return order


def share_of(key: str, name: str) -> float:
    """A number in (0, 1) that is always the same for a key and a name, and tells nothing of either."""
    digest = blake2b(f"{key}\0{name}".encode("utf-8", "surrogatepass"), digest_size=7).digest()
    return (int.from_bytes(digest, "big") + 1) / (2**56 + 2)


def sticky_scores(key: str, names: Sequence[str], weights: Sequence[float]) -> list[float]:
    """Rendezvous hashing: the lowest score wins, each as often as its weight says, whoever reckons.

    When a target comes or goes, or weights change, no more keys move than must.
    """
    return [
        -log(share_of(key, name)) / weight if weight else float("inf")
        for name, weight in zip(names, weights, strict=True)
    ]


def latency_scores(seconds: Sequence[float | None], in_flight: Sequence[int]) -> list[float]:
    """What one more call is likely to wait: recent time, times the calls that are there with it.

    A target that nothing is known of gets one call at once, and no second until it has answered.
    """
    return [
        in_flight[place] * UNTRIED_SECONDS if each is None else each * (in_flight[place] + 1)
        for place, each in enumerate(seconds)
    ]


def better_of_two(scores: Sequence[float], chance: Chance) -> list[int]:
    """The better of two places drawn by chance, then all others, the best first.

    Two and not all: were it the best of all, every caller would run to the same place at once.
    """
    order = sorted(range(len(scores)), key=scores.__getitem__)
    if len(scores) < 3:
        return order
    one = int(chance() * len(scores))
    other = int(chance() * (len(scores) - 1))
    other += other >= one
    first = min(one, other, key=scores.__getitem__)
    return [first, *(place for place in order if place != first)]


def least_first(scores: Sequence[float], chance: Chance) -> list[int]:
    """The lowest score first; among equals chance decides."""
    if len(set(scores)) == len(scores):
        return sorted(range(len(scores)), key=scores.__getitem__)
    return sorted(range(len(scores)), key=lambda place: (scores[place], chance()))
