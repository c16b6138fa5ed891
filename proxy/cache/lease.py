"""The right to ask upstream, where several processes would: one does, the others wait for what it keeps."""

import asyncio

from proxy.cache.answers import Answers, Question
from proxy.cache.memory import Kept

_FIRST_LOOK, _LONGEST_PAUSE = 0.02, 0.25  # seconds between looks for what another process keeps


class Lease:
    """Of one call. Redis gives it; without Redis everybody has it."""

    def __init__(self, answers: Answers, question: Question) -> None:
        self._answers = answers
        self._question = question
        self._held = False

    async def obtain(self) -> Kept | None:
        """Wait for it, at most the route's `join_seconds`; or what another process has kept meanwhile."""
        redis, question, answers = self._answers.tiers.redis, self._question, self._answers
        if redis is None:
            return None
        seconds, pause = question.rules.join_seconds, _FIRST_LOOK
        until = answers.clock() + seconds
        while not await redis.claim(question.key, seconds):
            if answers.clock() >= until:
                return None
            await asyncio.sleep(pause)
            pause = min(_LONGEST_PAUSE, 1.5 * pause)
            kept: Kept | None = await answers.tiers.get(question.key)
            if kept is not None and answers.usable(question, kept):
                return kept
        self._held = True
        return None

    def release(self) -> None:
        """Let others have it."""
        redis = self._answers.tiers.redis
        if self._held and redis is not None:
            self._held = False
            redis.release(self._question.key)
