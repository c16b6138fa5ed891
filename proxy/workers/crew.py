"""The workers that serve, and what an operator asks of them: answered as one process would."""

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Any

from prometheus_client import Metric

from proxy.call import NEVER, Json
from proxy.errors import NotFound, ProxyFault
from proxy.workers.channel import Gone
from proxy.workers.child import Child
from proxy.workers.merging import Merged, Past, added, listed

PATIENCE_SECONDS = 2.0  # for a worker that does not answer an operator


class Crew:
    """Those that serve, by number.

    What an operator holds open, and what workers that have ended had counted, is known to those that follow them.

    Args:
        shared: Redis keeps limits and budgets for all of them.
    """

    def __init__(self, *, shared: bool) -> None:
        self.shared = shared
        self.children: dict[int, Child] = {}
        self.past = Past()
        self._held: dict[str, float] = {}  # upstreams that are held open, and until when

    async def metrics(self, own: Iterable[Metric]) -> Merged:
        """Those of all workers, of one that does not answer what it has told before, and the parent's `own`."""
        children = list(self.children.values())
        asked = (asyncio.wait_for(child.ask("metrics"), PATIENCE_SECONDS) for child in children)
        for child, told in zip(children, await asyncio.gather(*asked, return_exceptions=True), strict=True):
            if not isinstance(told, BaseException):
                child.told = told
        return Merged([child.told for child in children], own, self.past, shared=self.shared)

    async def ask(self, what: str, arguments: dict[str, Any]) -> Json:
        """What an operator asks of the workers; raises ProxyError."""
        if what == "explain":
            return await self._ask_one(what, arguments)
        told = await self._ask_all(what, arguments)
        self._remember(what, arguments)
        if what == "upstreams":
            return listed(told, "upstreams")
        if what == "calls":
            calls = sorted(listed(told, "calls")["calls"], key=lambda call: call["time"], reverse=True)
            return {"calls": calls[: arguments["limit"]]}
        if what in ("call", "open", "reset"):
            return next(iter(told.values()))
        merged: Json = added(list(told.values()))
        return merged

    def _remember(self, what: str, arguments: dict[str, Any]) -> None:
        if what == "open":
            seconds = arguments["seconds"]
            until = NEVER if seconds is None else asyncio.get_running_loop().time() + seconds
            self._held[arguments["name"]] = until
        elif what == "reset":
            self._held.pop(arguments["name"], None)

    async def hold(self, child: Child) -> None:
        """Have one that has begun hold open what the others do."""
        for name, until in self._held.items():
            left = until - asyncio.get_running_loop().time()
            with contextlib.suppress(NotFound):  # it is in no configuration any more
                if left > 0:
                    await child.ask("open", name=name, seconds=left if left < NEVER else None)

    async def _ask_one(self, what: str, arguments: dict[str, Any]) -> Json:
        for child in list(self.children.values()):
            with contextlib.suppress(Gone):
                told: Json = await child.ask(what, **arguments)
                return told
        raise ProxyFault("no worker is there", status=503, code="no_worker")

    async def _ask_all(self, what: str, arguments: dict[str, Any]) -> dict[int, Any]:
        """What each worker says; of one that has none of it nothing, unless that is true of all."""
        children = dict(sorted(self.children.items()))
        asked = (asyncio.wait_for(child.ask(what, **arguments), PATIENCE_SECONDS) for child in children.values())
        told = dict(zip(children, await asyncio.gather(*asked, return_exceptions=True), strict=True))
        good = {number: each for number, each in told.items() if not isinstance(each, BaseException)}
        failures = [each for each in told.values() if isinstance(each, BaseException)]
        for failure in failures:
            if not isinstance(failure, Gone | TimeoutError | NotFound) or (not good and isinstance(failure, NotFound)):
                raise failure
        if not good:
            raise ProxyFault("no worker is there", status=503, code="no_worker")
        return good
