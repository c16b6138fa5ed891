"""The requests of one attempt on the wire: one, or several where an upstream has no `n`."""

import asyncio

from proxy.providers.seam import Target, UpstreamRequest, upstream_request_id
from proxy.providers.wire import Endpoint, Exchange
from proxy.resilience.refusals import REPEAT
from proxy.telemetry import CallRecord

MAX_ERROR_BYTES = 1024 * 1024


class Exchanges:
    """Those that have been opened; whoever opens them closes them."""

    __slots__ = ("_asked", "_record", "_target", "answered")

    def __init__(self, target: Target, record: CallRecord) -> None:
        self.answered: list[Exchange] = []  # whose head has come
        self._asked: list[Exchange] = []
        self._target = target
        self._record = record

    async def open_all(
        self, endpoint: Endpoint, request: UpstreamRequest, patience: float, clock: str, *, stream: bool
    ) -> list[Exchange]:
        """Send the request as often as it says; see `open`."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self.open(endpoint, request, patience, clock, stream=stream))
                    for _ in range(request.copies)
                ]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from failures
        return [task.result() for task in tasks]

    async def open(
        self, endpoint: Endpoint, request: UpstreamRequest, patience: float, clock: str, *, stream: bool
    ) -> Exchange:
        """Send the request once; the answer's head has come and is good.

        Raises:
            UpstreamError: it is not.
        """
        exchange = await endpoint.open(request, patience, clock, self._asked.append)
        self.answered.append(exchange)
        self._record.connect_seconds += exchange.connect_seconds
        if stream:
            self._record.phase = "first_token"
        if exchange.status != 200:
            body = await exchange.read_up_to(MAX_ERROR_BYTES)
            error = endpoint.provider.parse_error(self._target, exchange.status, exchange.headers, body)
            error.upstream_request_id = upstream_request_id(exchange.headers) or None
            error.repeat = REPEAT.get(exchange.headers.get("x-should-retry", ""), error.repeat)
            raise error
        return exchange

    def bound(self, until: float, clock: str) -> None:
        """Fail at this time of the loop's instead, those whose answers have not come."""
        for exchange in self._asked:
            exchange.bound(until, clock)

    def close(self, *, drain: bool) -> None:
        """Free their connections."""
        for exchange in self.answered:
            exchange.close(drain=drain)
        self.answered.clear()
        self._asked.clear()
