"""The models that upstreams say they have, asked for in the background."""

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from contextlib import closing

from proxy.call import Json
from proxy.errors import UpstreamError
from proxy.upstream.endpoint import Endpoint

logger = logging.getLogger("octet")

FRESH_SECONDS = 30.0
PATIENCE_SECONDS = 5.0
MAX_BYTES = 4 * 1024 * 1024


class ModelLists:
    """What was last heard from each upstream with `list_models`; nobody waits for it."""

    def __init__(self) -> None:
        self._endpoints: list[Endpoint] = []
        self._heard: dict[str, list[Json]] = {}
        self._asked_at = float("-inf")
        self._asking: asyncio.Task[None] | None = None

    def follow(self, endpoints: Iterable[Endpoint]) -> None:
        """Ask these from now on, and all of them soon if others than before are asked."""
        before = [(endpoint.name, endpoint.upstream) for endpoint in self._endpoints]
        self._endpoints = [endpoint for endpoint in endpoints if endpoint.upstream.list_models]
        now = [(endpoint.name, endpoint.upstream) for endpoint in self._endpoints]
        if now != before:
            self._heard = {name: models for name, models in self._heard.items() if name in dict(now)}
            self._asked_at = float("-inf")

    def heard(self) -> Mapping[str, list[Json]]:
        """Model objects by upstream; asks again, behind this answer, when it is old."""
        now = time.monotonic()
        if self._endpoints and self._asking is None and now - self._asked_at > FRESH_SECONDS:
            self._asked_at = now
            self._asking = asyncio.get_running_loop().create_task(self._ask_all())
            self._asking.add_done_callback(self._asked)
        return self._heard

    async def close(self) -> None:
        """Stop asking."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])

    def _asked(self, task: "asyncio.Task[None]") -> None:
        self._asking = None
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("listing models failed", exc_info=error)

    async def _ask_all(self) -> None:
        await asyncio.gather(*map(self._ask, self._endpoints))

    async def _ask(self, endpoint: Endpoint) -> None:
        """An upstream that does not answer keeps its last list."""
        asked = endpoint.provider.models_request(endpoint.upstream)
        if asked is None:
            return
        request = endpoint.probe(asked)
        try:
            with closing(await endpoint.open(request, PATIENCE_SECONDS, "total")) as exchange:
                body = await exchange.read(MAX_BYTES)
                if exchange.status == 200 and endpoint in self._endpoints:
                    self._heard[endpoint.name] = list(endpoint.provider.parse_models(body))
        except (UpstreamError, ValueError, TypeError) as error:
            logger.info("no list of models from %s: %s", endpoint.name, type(error).__name__)
