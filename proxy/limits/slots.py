"""Places for calls at once, and a queue for them that is bounded, timed and fair between callers."""

import asyncio
from collections import deque


class Slots:
    """So many calls at once. Freed places go round among the callers who wait, to each caller's oldest call.

    Args:
        limit: places.
        most_waiting: calls that may wait.
    """

    def __init__(self, limit: int, most_waiting: int) -> None:
        self.limit = limit
        self.in_use = 0
        self.waiting = 0
        self._most_waiting = most_waiting
        self._queues: dict[str, deque[asyncio.Future[None]]] = {}  # by caller; the first is next

    @property
    def free(self) -> bool:
        """Whether a call would get a place at once; nobody overtakes who waits."""
        return self.in_use < self.limit and not self.waiting

    @property
    def full(self) -> bool:
        """Whether a call would not even find room to wait."""
        return not self.free and self.waiting >= self._most_waiting

    def take(self) -> None:
        """Take a place; it is free."""
        self.in_use += 1

    async def wait(self, caller: str, patience: float) -> bool:
        """Wait for a place and take it; False when `patience` seconds were not enough."""
        place = asyncio.get_running_loop().create_future()
        self._queues.setdefault(caller, deque()).append(place)
        self.waiting += 1
        try:
            async with asyncio.timeout(patience):
                await place
        except BaseException as error:
            if place.done() and not place.cancelled():  # it came just as we left
                self.give()
            else:
                self._leave(caller, place)
            if isinstance(error, TimeoutError):
                return False
            raise
        return True

    def give(self) -> None:
        """Give a place back, to who waits for it."""
        self.in_use -= 1
        self._hand_on()

    def resize(self, limit: int) -> None:
        """There are more places now, or fewer; calls that have one keep it."""
        self.limit = limit
        while self.in_use < self.limit and self.waiting:
            self._hand_on()

    def _hand_on(self) -> None:
        while self.in_use < self.limit and self._queues:
            caller = next(iter(self._queues))
            queue = self._queues.pop(caller)
            place = queue.popleft()
            if queue:
                self._queues[caller] = queue  # behind the others
            self.waiting -= 1
            if not place.done():  # who has just been cancelled does not know it yet
                self.in_use += 1
                place.set_result(None)
                return

    def _leave(self, caller: str, place: asyncio.Future[None]) -> None:
        queue = self._queues.get(caller)
        if queue is not None and place in queue:
            queue.remove(place)
            self.waiting -= 1
            if not queue:
                del self._queues[caller]
