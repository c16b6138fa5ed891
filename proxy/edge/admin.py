"""The admin listener: metrics and probes, never on the data port."""

import asyncio
import time

from aiohttp import web
from prometheus_client.exposition import choose_encoder

from proxy.edge.endpoints import LIVE, READY, State, live, ready
from proxy.edge.render import error_response, request_id
from proxy.errors import MethodNotAllowed, NotFound, ProxyError
from proxy.telemetry import CallRecord, Telemetry


class AdminEndpoints:
    """Handles every request of the admin listener."""

    def __init__(self, state: State, telemetry: Telemetry) -> None:
        self._state = state
        self._telemetry = telemetry

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """One request."""
        try:
            return await self._answer(request)
        except ProxyError as error:
            return error_response(error, CallRecord(request_id(request.headers), time.perf_counter()))

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path not in ("/metrics", LIVE, READY):
            raise NotFound("there is no such page; the admin side offers /metrics, /healthz, /readyz", code="not_found")
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed("this page takes GET", headers={"allow": "GET"})
        if request.path == LIVE:
            return live(request)
        if request.path == READY:
            return ready(request, self._state)
        render, content_type = choose_encoder(request.headers.get("accept", ""))
        body = await asyncio.to_thread(render, self._telemetry.registry)
        return web.Response(body=body, headers={"content-type": content_type})
