"""Waiting for what can only be looked at: looked at every turn of the loop, never after a while."""

import asyncio
from collections.abc import Callable


async def until(holds: Callable[[], object], patience: float = 5.0) -> None:
    """Return as soon as it holds.

    Raises:
        TimeoutError: it did not, in so many seconds.
    """
    async with asyncio.timeout(patience):
        while not holds():  # noqa: ASYNC110  # there is no event to wait for
            await asyncio.sleep(0)
