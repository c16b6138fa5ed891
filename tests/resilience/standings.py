"""Upstreams whose standing is scripted, for plans."""

from collections.abc import Callable

from proxy.call import NoRoom
from proxy.providers.seam import Target


class Scripted:
    """One upstream: its circuit, its pace and its limiter, all three.

    Args:
        name: that targets have.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_closed = True
        self.circuit_wait = 0.0
        self.pace_wait = 0.0
        self.room: NoRoom | None = None
        self.may_ask = False  # whether the fleet may have room
        self.asked: list[object] = []
        self.pace = Pace(self)
        self.limiter = Limiter(self)

    def circuit(self, target: Target) -> "Scripted":
        assert target.name == self.name
        return self

    def wait(self) -> float:
        return self.circuit_wait


class Pace:
    def __init__(self, standing: Scripted) -> None:
        self._standing = standing

    def wait(self, model: str, tokens: Callable[[], int], now: float) -> float:
        self._standing.asked.append(("pace", model, tokens(), now))
        return self._standing.pace_wait


class Limiter:
    def __init__(self, standing: Scripted) -> None:
        self._standing = standing

    def refusal(self, tokens: Callable[[], int]) -> NoRoom | None:
        self._standing.asked.append(("limiter", tokens()))
        return self._standing.room

    def may_ask(self, refusal: NoRoom) -> bool:
        return self._standing.may_ask


Standings = dict[str, Scripted]


def standings(names: str) -> Standings:
    return {name: Scripted(name) for name in names}
