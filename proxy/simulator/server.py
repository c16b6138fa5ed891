"""The HTTP server of the simulated upstreams: who is asked, and what becomes of each call."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from aiohttp import web

from proxy.simulator import anthropic, bentoml, huggingface, ollama, openai, rayserve, tgi, vllm
from proxy.simulator.behaviour import Behaviour
from proxy.simulator.connections import CountingServer
from proxy.simulator.control import PREFIX, control
from proxy.simulator.dialect import Dialect, Page, Refused
from proxy.simulator.exchange import Exchange, Terms, lower_headers, seen_request
from proxy.simulator.report import Report
from proxy.simulator.scripts import Scripts

DIALECTS: Mapping[str, Dialect] = {
    each.name: each
    for each in (
        openai.dialect,
        anthropic.dialect,
        huggingface.dialect,
        ollama.dialect,
        vllm.dialect,
        tgi.dialect,
        rayserve.dialect,
        bentoml.dialect,
    )
}


class Simulator:
    """Simulated upstreams behind one port, each dialect below a prefix of its own name.

    Use as `async with Simulator() as simulator:`, or with `start` and `close`; `start` again, with
    another address, listens there too.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        pace: float = 0.0,
        keys: Mapping[str, str] | None = None,
        models: Mapping[str, Sequence[str]] | None = None,
        record: bool = True,
        keepalive_seconds: float = 75.0,
    ) -> None:
        """Prepare without listening.

        Args:
            seed: changes every answer.
            pace: seconds between the tokens of a stream.
            keys: the credential each dialect insists on; dialects left out take any or none.
            models: what each dialect lists, instead of its own; other models are answered all the same.
            record: keep the last requests in the report.
            keepalive_seconds: how long an idle connection stays open.
        """
        self.report = Report(tuple(DIALECTS), record=record)
        self._scripts = Scripts(tuple(DIALECTS))
        self._seed = seed
        self._pace = pace
        self._keys = dict(keys or {})
        self._models = {name: dialect.models for name, dialect in DIALECTS.items()} | dict(models or {})
        self._keepalive = keepalive_seconds
        self._runner: web.ServerRunner | None = None
        self._url = "http://localhost"
        self._asked = 0

    @property
    def url(self) -> str:
        """Where it listens, without a path; of a unix socket only the path within it counts."""
        return self._url

    def base_url(self, dialect: str) -> str:
        """Return the base URL that a client of this dialect is given."""
        return f"{self._url}/{dialect}{DIALECTS[dialect].base_path}"

    def script(self, dialect: str, *behaviours: Behaviour) -> None:
        """Queue behaviours, one per call of this dialect ("*": of any)."""
        self._scripts.add(dialect, *behaviours)

    def always(self, dialect: str, behaviour: Behaviour | None) -> None:
        """Set what holds for this dialect ("*": any) while its queue is empty; None takes it back."""
        self._scripts.always(dialect, behaviour)

    def clear(self) -> None:
        """Forget all that was scripted."""
        self._scripts.clear()

    async def start(self, host: str = "127.0.0.1", port: int = 0, *, path: str | Path | None = None) -> None:
        """Listen at a TCP address (port 0: any free one), or at a unix socket if a path is given."""
        if self._runner is None:
            server = CountingServer(self._handle, self.report, keepalive_seconds=self._keepalive)
            self._runner = web.ServerRunner(server, shutdown_timeout=1.0)
            await self._runner.setup()
        if path is not None:
            await web.UnixSite(self._runner, path).start()
            return
        await web.TCPSite(self._runner, host, port).start()
        bound = self._runner.addresses[-1][1]
        self._url = f"http://[{host}]:{bound}" if ":" in host else f"http://{host}:{bound}"

    async def close(self) -> None:
        """Stop listening and end everything at once, stalled calls included; these count as failed."""
        if self._runner is None:
            return
        runner, self._runner = self._runner, None
        self.report.closing = True
        for site in runner.sites:
            await site.stop()
        for connection in runner.server.connections if runner.server is not None else ():
            if connection.transport is not None:
                connection.transport.abort()
        await runner.cleanup()
        await self.report.wait_for(lambda report: report.open_calls == 0 and report.open_connections == 0)
        self.report.closing = False

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Find the dialect and the endpoint."""
        prefix, _, rest = request.path.lstrip("/").partition("/")
        if prefix == PREFIX:
            return await control(request, rest, self.report, self._scripts)
        dialect = DIALECTS.get(prefix)
        if dialect is None:
            return web.Response(status=404, text=f"no such dialect, known are {', '.join(DIALECTS)}\n")
        self._asked += 1
        self.report.connection_used(request.protocol, dialect.name)
        path, request_id = f"/{rest}", f"req_{self._seed:x}_{self._asked:012x}"
        operation = dialect.operation(path)
        if request.method == "POST" and operation is not None:
            key = self._keys.get(dialect.name)
            terms = Terms(seed=self._seed, pace=self._pace, key=key, request_id=request_id)
            return await Exchange(request, dialect, operation, terms, self.report, self._scripts).run()
        self.report.saw(seen_request(request, dialect, await request.content.read(), Behaviour()))
        page = self._find_page(request, dialect, path, request_id)
        return web.Response(
            status=page.status, body=page.body, headers={"content-type": page.content_type, **page.headers}
        )

    def _find_page(self, request: web.BaseRequest, dialect: Dialect, path: str, request_id: str) -> Page:
        """Answer anything that is no call."""
        listed = self._models[dialect.name]
        page = dialect.page(path, listed) if request.method in ("GET", "HEAD") else None
        if page is None:
            return dialect.lost(request.method, path, request_id)
        if page.public:
            return page
        try:
            dialect.authorize(lower_headers(request), self._keys.get(dialect.name))
        except Refused as refused:
            return dialect.problem_page(refused.problem, request_id)
        return page
