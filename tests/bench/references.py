"""The references: `python -m tests.bench.references alone|session PORT UPSTREAM_PORT`.

`alone` is an aiohttp server that answers by itself, `session` the shortest honest proxy of an aiohttp server and a
ClientSession: no routing, no keys, no metrics, no log.
"""

import asyncio
import sys
from typing import Any

import aiohttp
import uvloop
from aiohttp import web

from tests.bench.upstream import whole

_BODY = whole(600).partition(b"\r\n\r\n")[2]


async def alone(request: web.BaseRequest) -> web.StreamResponse:
    await request.read()
    return web.Response(body=_BODY, content_type="application/json")


class Proxy:
    """Body in, ClientSession, body or chunks out."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=600),
            auto_decompress=False,
        )

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        headers = {"content-type": "application/json", "authorization": "Bearer sk-ours"}
        async with self._session.post(self._upstream + request.path, data=body, headers=headers) as answer:
            if answer.content_type == "application/json":
                return web.Response(body=await answer.read(), status=answer.status, content_type="application/json")
            response = web.StreamResponse(headers={"content-type": answer.content_type})
            await response.prepare(request)
            async for data in answer.content.iter_any():
                await response.write(data)
            await response.write_eof()
            return response


async def main(kind: str, port: int, upstream_port: int) -> None:
    """Serve for ever."""
    handler = alone if kind == "alone" else Proxy(f"http://127.0.0.1:{upstream_port}").handle
    server = web.Server(handler, request_factory=_large_requests, handler_cancellation=True, access_log=None)
    runner = web.ServerRunner(server)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=2048).start()
    await asyncio.Event().wait()


def _large_requests(*parts: Any) -> web.BaseRequest:
    return web.BaseRequest(*parts, loop=asyncio.get_running_loop(), client_max_size=64 * 1024**2)  # type: ignore[misc]


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
