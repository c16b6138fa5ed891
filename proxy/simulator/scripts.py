"""What was asked for the calls to come: a queue per dialect, and what holds when it is empty."""

from collections import deque

from proxy.simulator.behaviour import Behaviour

ANY = "*"


class Scripts:
    """Behaviours by dialect, or for any; a queue comes before what always holds, the dialect before any."""

    def __init__(self, dialects: tuple[str, ...]) -> None:
        self._queues: dict[str, deque[Behaviour]] = {name: deque() for name in (*dialects, ANY)}
        self._always: dict[str, Behaviour] = {}

    def add(self, dialect: str, *behaviours: Behaviour) -> None:
        """Queue behaviours, one per call."""
        self._known(dialect)
        self._queues[dialect].extend(behaviours)

    def always(self, dialect: str, behaviour: Behaviour | None) -> None:
        """Set what holds while nothing is queued; None takes it back."""
        self._known(dialect)
        self._always.pop(dialect, None)
        if behaviour is not None:
            self._always[dialect] = behaviour

    def clear(self) -> None:
        """Forget everything."""
        for queue in self._queues.values():
            queue.clear()
        self._always.clear()

    def take(self, dialect: str) -> Behaviour:
        """Return the behaviour of the next call, removing it if it was queued."""
        for name in (dialect, ANY):
            if self._queues[name]:
                return self._queues[name].popleft()
        return self._always.get(dialect) or self._always.get(ANY) or Behaviour()

    def _known(self, dialect: str) -> None:
        if dialect not in self._queues:
            raise KeyError(f"unknown dialect {dialect!r}, known are {', '.join(self._queues)}")
