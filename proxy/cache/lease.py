"""The right to ask upstream, where several processes would: one does, the others wait for what it keeps."""

import asyncio
from collections.abc import Callable

from proxy.cache.answers import Answers
from proxy.cache.key import Key
from proxy.cache.memory import Kept
from proxy.call import Deadline
from proxy.config import RouteCache

_FIRST_LOOK, _LONGEST_PAUSE = 0.02, 0.25  # seconds between looks for what another process keeps


class Lease:
    """Of one call. Redis gives it; without Redis everybody has it."""

    def __init__(self, answers: Answers, key: Key, rules: RouteCache) -> None:
        self._answers = answers
        self._key = key
        self._seconds = rules.join_seconds
        self._held = False

    async def obtain(self, usable: Callable[[Kept], bool], deadline: Deadline) -> Kept | None:
        """Wait for it, at most the route's `join_seconds`; or what another process has kept, if it will do."""
        shelf, clock, pause = self._answers.shelf, self._answers.clock, _FIRST_LOOK
        if shelf.redis is None:
            return None
        until = min(clock() + self._seconds, deadline.whole, deadline.content)
        while not await shelf.redis.claim(self._key, self._seconds):
            if clock() >= until:
                return None
            await asyncio.sleep(pause)
            pause = min(_LONGEST_PAUSE, 1.5 * pause)
            kept = await shelf.fetch(self._key)
            if kept is not None and usable(kept):
                return kept
        self._held = True
        return None

    def release(self) -> None:
        """Let others have it."""
        redis = self._answers.shelf.redis
        if self._held and redis is not None:
            self._held = False
            redis.release(self._key)
