"""Copies of calls, sent to see how another upstream does: behind the callers' backs, and their answers thrown away."""

import asyncio
import logging
import time
from collections import Counter

from proxy.call import UNBOUNDED, Call
from proxy.config import Retry
from proxy.errors import ProxyError
from proxy.openai_format.estimate import Estimate
from proxy.providers.seam import Copies, Route
from proxy.reply import read_out
from proxy.resilience.attempts import Walk
from proxy.resilience.means import Means
from proxy.telemetry import CallRecord

logger = logging.getLogger("octet")

_ONCE = Retry(attempts=1, longest_wait_seconds=0.001)


class Mirrors:
    """Those under way."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._under_way: Counter[str] = Counter()  # by route

    def copy(self, call: Call, route: Route, means: Means) -> None:
        """Send a copy, if the route's share and bound allow one; it goes by the upstream's limits and circuit too."""
        copies = route.copies
        if copies is None or means.chance() >= copies.share:
            return
        if self._under_way[route.name] >= copies.concurrent:
            means.telemetry.mirrored(route.name, copies.target.name, "dropped")
            return
        self._under_way[route.name] += 1
        task = asyncio.get_running_loop().create_task(self._send(call, route.name, copies, means))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Stop."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _send(self, call: Call, name: str, copies: Copies, means: Means) -> None:
        record = CallRecord(f"{call.id}-copy", time.perf_counter(), route=name, stream=call.stream)
        outcome = "cancelled"
        try:
            async with Walk(
                call, Route(name, (copies.target,), _ONCE), means, UNBOUNDED, Estimate(call), record
            ) as reply:
                await read_out(reply)
            outcome = "ok"
        except ProxyError as error:
            outcome = error.reason
        except Exception:
            outcome = "proxy_error"
            logger.exception("the copy of call %s failed", call.id)
        finally:
            self._under_way[name] -= 1
            if not self._under_way[name]:
                del self._under_way[name]  # routes come and go
            means.telemetry.mirrored(name, copies.target.name, outcome)
            means.telemetry.ledger.settle(record)
