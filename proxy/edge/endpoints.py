"""The data listener: which path is what, and every refusal in OpenAI's shape."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Protocol

from aiohttp import web

from proxy.call import Json, Operation
from proxy.config import Server
from proxy.edge.answer import CallAnswer
from proxy.edge.body import Buffered
from proxy.edge.guard import Guard
from proxy.edge.render import error_response, request_id
from proxy.edge.written import Connection, Response, Written
from proxy.errors import MethodNotAllowed, NotFound, ProxyError
from proxy.openai_format.encoding import encode
from proxy.pipeline import Pipeline
from proxy.telemetry import CallRecord, Telemetry

logger = logging.getLogger("octet")

Handler = Callable[[web.BaseRequest], Awaitable[Response]]

CHAT = "/chat/completions"
OPERATIONS: Mapping[str, Operation] = {CHAT: "chat", "/completions": "completions", "/embeddings": "embeddings"}
MODELS = "/models"
_STARTED = int(time.time())
LIVE, READY = "/healthz", "/readyz"
_OFFERED = (
    "POST /v1/chat/completions, POST /v1/completions, POST /v1/embeddings, GET /v1/models, GET /v1/models/{id}, "
    "GET /healthz, GET /readyz"
)
_KNOWN_ELSEWHERE = ("/responses", "/audio", "/images", "/files", "/moderations")


class State(Protocol):
    """What the edge asks of the process."""

    @property
    def pipeline(self) -> Pipeline: ...

    @property
    def ready(self) -> bool: ...

    @property
    def draining(self) -> bool: ...

    def models(self) -> list[Json]: ...


class DataEndpoints:
    """Handles every request of the data listener."""

    def __init__(self, state: State, telemetry: Telemetry) -> None:
        self._state = state
        self._telemetry = telemetry
        self._handlers: Mapping[str, tuple[str, Handler]] = {
            **{
                prefix + path: ("POST", partial(self._call, operation=operation))
                for path, operation in OPERATIONS.items()
                for prefix in ("", "/v1")
            },
            MODELS: ("GET", self._list_models),
            LIVE: ("GET", self._live),
            READY: ("GET", self._ready),
        }
        self._answering: dict[asyncio.Task[object], CallRecord] = {}
        self._guard = Guard(Server())
        self._buffered = Buffered()
        telemetry.watched.buffered.set_function(lambda: self._buffered.size)

    @property
    def answering(self) -> int:
        """Calls in flight."""
        return len(self._answering)

    async def idle(self) -> None:
        """Until no call is in flight."""
        while self._answering:
            await asyncio.wait(list(self._answering))

    def cut_off(self, error: ProxyError) -> None:
        """End the calls in flight with this error."""
        for task, record in self._answering.items():
            record.cut_off_by = error
            task.cancel()

    async def handle(self, request: web.BaseRequest) -> Response:
        """One request."""
        guard = self.guard
        response: Response
        try:
            guard.check_host(request)
            if request.method == "OPTIONS" and guard.allows_origin(request):
                response = guard.preflight(request)
            else:
                response = await self._find(request)(request)
        except ProxyError as error:
            self._telemetry.refused(error.reason)
            record = CallRecord(request_id(request.headers), time.perf_counter())
            response = error_response(error, record)
        if not isinstance(response, Written):
            self.finish(request, response)
        return response

    def _find(self, request: web.BaseRequest) -> Handler:
        handler: Handler
        path = request.raw_path
        if path not in self._handlers:
            path = request.path.rstrip("/")
            path = path.removeprefix("/v1") if path.startswith("/v1/") else path
        if path.startswith(MODELS + "/"):
            method, handler = "GET", self._one_model
        elif path in self._handlers:
            method, handler = self._handlers[path]
        else:
            raise NotFound(f"there is no such endpoint; this sidecar offers {_OFFERED}{_hint(path)}", code="not_found")
        if request.method not in (method, "HEAD" if method == "GET" else method):
            raise MethodNotAllowed(f"this endpoint takes {method}", headers={"allow": method})
        return handler

    @property
    def guard(self) -> Guard:
        """Who may call from where, under the configuration of now."""
        server = self._state.pipeline.snapshot.config.server
        if self._guard.server is not server:
            self._guard = Guard(server)
        return self._guard

    def lines(self, request: web.BaseRequest) -> str:
        """The headers that every response has, as they are written."""
        return self.guard.lines(request)

    @property
    def closing(self) -> bool:
        """Whether connections end with the answer."""
        return self._state.draining

    def finish(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        """Add what every response has."""
        response.headers.update(self.guard.headers(request))
        retired = isinstance(request.protocol, Connection) and request.protocol.retired
        if self.closing or retired or response.status == 413 or not request.content.is_eof():  # the rest is not wanted
            response.force_close()

    async def _call(self, request: web.BaseRequest, *, operation: Operation) -> Response:
        pipeline = self._state.pipeline
        record = CallRecord(request_id(request.headers), time.perf_counter())
        answer = CallAnswer(request, pipeline.snapshot.config.server, self._telemetry, self, self._buffered)
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a handler runs in a task")
        self._answering[task] = record
        try:
            await pipeline.serve(request.headers, answer, record, operation)
        except ConnectionError:
            raise
        except Exception:
            if answer.response is None:
                raise
            logger.exception("call %s failed", record.request_id)
        finally:
            del self._answering[task]
            answer.close()
        if answer.response is None:
            raise RuntimeError("a served call has an answer")
        return answer.response

    async def _list_models(self, request: web.BaseRequest) -> web.StreamResponse:
        models = [model for model in self._state.models() if self._may_see(request, model["id"])]
        return self._json(request, {"object": "list", "data": models})

    async def _one_model(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path.rstrip("/")
        name = path.removeprefix("/v1").removeprefix(MODELS + "/")
        listed = next((model for model in self._state.models() if model["id"] == name), None)
        if not self._may_see(request, name) or (
            listed is None and not self._state.pipeline.snapshot.router.takes(name)
        ):
            raise NotFound("The model does not exist here.", param="model", code="model_not_found")
        return self._json(request, listed or model_object(name))

    def _may_see(self, request: web.BaseRequest, model: str) -> bool:
        auth = self._state.pipeline.snapshot.auth
        return auth.may_use(auth.identify(request.headers), model)

    def _json(self, request: web.BaseRequest, value: Json) -> web.Response:
        headers = {"x-request-id": request_id(request.headers)}
        return web.Response(body=encode(value), headers=headers, content_type="application/json")

    async def _live(self, request: web.BaseRequest) -> web.StreamResponse:
        return live(request)

    async def _ready(self, request: web.BaseRequest) -> web.StreamResponse:
        return ready(request, self._state)


def live(request: web.BaseRequest) -> web.Response:  # noqa: ARG001
    """The process answers."""
    return web.Response(text="ok\n")


class Readiness(Protocol):
    """Whether new calls are welcome."""

    @property
    def ready(self) -> bool: ...


def ready(request: web.BaseRequest, state: Readiness) -> web.Response:  # noqa: ARG001
    """New calls are welcome."""
    return web.Response(text="ready\n") if state.ready else web.Response(text="not ready\n", status=503)


def model_object(name: str) -> Json:
    """OpenAI's model object for a name of ours; it exists since we do."""
    return {"id": name, "object": "model", "created": _STARTED, "owned_by": "octet"}


def _hint(path: str) -> str:
    known = any(path.startswith(prefix) for prefix in _KNOWN_ELSEWHERE)
    return ". This endpoint of OpenAI's is not offered" if known else ""
