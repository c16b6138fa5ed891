"""Two attempts of one call at once: the second begins when the first lets wait, and the first content wins.

Source: "The Tail at Scale", Dean and Barroso, CACM 56(2), 2013 (hedged requests).
"""

import asyncio
from collections.abc import Awaitable, Callable

from proxy.errors import CallerError, ProxyError, UpstreamError
from proxy.reply import Fetched
from proxy.resilience.attempt import Attempt
from proxy.resilience.policy import fault_of


class Race:
    """At most two attempts. What does not win is freed at once.

    Args:
        after: seconds until the second attempt begins, if the first has no content by then; None: never.
        backup: makes the second attempt; None when there is none to be had.
    """

    def __init__(self, first: Attempt, after: float | None, backup: Callable[[], Awaitable[Attempt | None]]) -> None:
        self.first = first
        self.second: Attempt | None = None
        self.failures: list[tuple[Attempt, ProxyError]] = []  # in their order; freed
        self._after = after
        self._backup = backup

    async def run(self) -> tuple[Attempt, Fetched] | None:
        """The winner and its reply; None: all have failed, or one so that the other cannot do better."""
        racing = {asyncio.create_task(self.first.run()): self.first}
        winner: tuple[Attempt, Fetched] | None = None
        try:
            done, _ = await asyncio.wait(racing, timeout=self._after)
            second = None if done else await self._backup()
            if second is not None and any(task.done() for task in racing):
                second.free()  # the first has made it meanwhile
            else:
                self.second = second
            if self.second is not None:
                racing[asyncio.create_task(self.second.run())] = self.second
            while racing and winner is None:
                await asyncio.wait(racing, return_when=asyncio.FIRST_COMPLETED)
                for task in [each for each in racing if each.done()]:
                    winner = self._end(racing.pop(task), task)
                    if winner is not None or self._is_over:
                        return winner
            return winner
        finally:
            for task, attempt in racing.items():
                if winner is not None:
                    attempt.lose()
                task.cancel()
                task.add_done_callback(_look)
                attempt.free()

    def _end(self, attempt: Attempt, task: asyncio.Task[Fetched]) -> tuple[Attempt, Fetched] | None:
        try:
            return attempt, task.result()
        except (UpstreamError, CallerError) as error:
            attempt.free()
            self.failures.append((attempt, error))
            return None
        except BaseException:
            attempt.free()
            raise

    @property
    def _is_over(self) -> bool:
        """Whether the last failure is one that the other attempt cannot mend."""
        if not self.failures:
            return False
        attempt, error = self.failures[-1]
        if isinstance(error, UpstreamError):
            return fault_of(error).next_target is False
        return attempt is self.first


def _look(task: asyncio.Task[Fetched]) -> None:
    """An attempt that nobody waits for has ended."""
    if not task.cancelled():
        task.exception()
