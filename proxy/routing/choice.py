"""What routing sees of the world, and what it tells."""

from typing import NamedTuple, Protocol

from proxy.providers.seam import Route, Target


class Sight(Protocol):
    """How things stand, for the strategies that go by it."""

    def chance(self) -> float:
        """Uniform in [0, 1)."""
        ...

    def seconds(self, target: Target, *, stream: bool) -> float | None:
        """How long a target has taken of late until its answer, or its first content; None: nobody knows."""
        ...

    def in_flight(self, target: Target) -> int:
        """Calls that the target is answering for us."""
        ...


class Passed(NamedTuple):
    """A rule that did not take the call, and the key of its `match` that did not fit."""

    route: str
    key: str


class Skipped(NamedTuple):
    """A target that the call does not go to, and why."""

    target: Target
    because: str


class Choice(NamedTuple):
    """Where a call goes.

    Args:
        passed: the rules before the one that took it, of those that its model fits.
        skipped: targets of the rule that are not for this call.
        scores: what the strategy reckoned for the route's targets, in their order; the lowest comes first.
    """

    route: Route
    passed: tuple[Passed, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    scores: tuple[float | None, ...] = ()
