"""Asks upstreams that are left alone whether they are back; never with a completion."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import closing

from proxy.config import HealthCheck
from proxy.errors import ProxyError
from proxy.upstream.endpoint import Endpoint

logger = logging.getLogger("octet")

PATIENCE_SECONDS = 5.0
MAX_BYTES = 4 * 1024 * 1024


Subject = Callable[[], tuple[Endpoint, HealthCheck] | None]


class HealthChecks:
    """One task for each upstream that is being asked; it ends when the upstream is back, or nobody wants to know."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def begin(self, name: str, subject: Subject, back: Callable[[], object]) -> None:
        """Ask an upstream now and then, unless that is being done.

        Args:
            subject: whom to ask, and how, at that time; None: nobody is to be asked any more.
            back: called when it has answered.
        """
        if name not in self._tasks and subject() is not None:
            task = asyncio.get_running_loop().create_task(_ask(subject, back))
            self._tasks[name] = task
            task.add_done_callback(lambda task: self._asked(name, task))

    def _asked(self, name: str, task: "asyncio.Task[None]") -> None:
        del self._tasks[name]
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("checking the health of %s failed", name, exc_info=error)

    async def close(self) -> None:
        """Stop asking."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


async def _ask(subject: Subject, back: Callable[[], object]) -> None:
    while (asked := subject()) is not None:
        await asyncio.sleep(asked[1].interval_seconds)
        asked = subject()
        if asked is not None and await is_healthy(*asked):
            if subject() is not None:
                back()
            return


async def is_healthy(endpoint: Endpoint, check: HealthCheck) -> bool:
    """Whether an upstream answers what it is asked, or takes connections where it cannot be asked."""
    asked = endpoint.provider.models_request(endpoint.upstream) if check.kind == "models" else None
    try:
        if asked is None:
            await endpoint.transport.reach()
            return True
        with closing(await endpoint.open(endpoint.probe(asked), PATIENCE_SECONDS, "total")) as exchange:
            await exchange.read(MAX_BYTES)
            return exchange.status == 200
    except ProxyError as error:
        logger.info("%s is not back: %s", endpoint.name, error.reason)
        return False
