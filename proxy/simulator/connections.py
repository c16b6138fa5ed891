"""The aiohttp server, telling the report of each connection."""

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

from proxy.simulator.report import Report

HEAD_BYTES = 65_536  # of a header; scripted texts travel in one
READ_AHEAD_BYTES = 1 << 26  # reading never pauses below it: a paused connection would not notice a hang-up


class CountingServer(web.Server):
    """Counts connections where aiohttp itself learns of them, and cancels calls whose client goes."""

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        report: Report,
        *,
        keepalive_seconds: float,
    ) -> None:
        super().__init__(
            handler,
            handler_cancellation=True,
            keepalive_timeout=keepalive_seconds,
            access_log=None,
            max_field_size=HEAD_BYTES,
            max_line_size=HEAD_BYTES,
            read_bufsize=READ_AHEAD_BYTES,
        )
        self._report = report

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Count a connection that was accepted."""
        super().connection_made(handler, transport)
        self._report.connection_opened(handler)

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        """Stop counting it, whoever closed it."""
        super().connection_lost(handler, exc)
        self._report.connection_closed(handler)
