"""The admin listener: metrics, probes, and what an operator may see and do; never on the data port."""

import asyncio
import ipaddress
import re
import time
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from aiohttp import web
from prometheus_client import Metric
from prometheus_client.exposition import choose_encoder

from proxy.admission.auth import Auth
from proxy.call import Json
from proxy.edge.endpoints import LIVE, READY, live, ready
from proxy.edge.guard import host_name
from proxy.edge.render import error_response, request_id
from proxy.edge.status import Board, status_page
from proxy.errors import BodyTooLarge, Forbidden, InvalidRequest, MethodNotAllowed, NotFound, ProxyError
from proxy.openai_format.encoding import decode_object, encode
from proxy.telemetry import CallRecord

UPSTREAMS, CALLS = "/admin/upstreams", "/admin/calls"
CACHE, PURGE = "/admin/cache", "/admin/cache/purge"
CONFIG, RELOAD, EXPLAIN = "/admin/config", "/admin/reload", "/admin/explain"
PAGE, LIVE_EVENTS = "/", "/admin/live"
_OFFERED = (
    "/, /metrics, /healthz, /readyz, GET /admin/live, GET /admin/config, POST /admin/reload, POST /admin/explain, "
    "GET /admin/calls, GET /admin/calls/{request-id}, GET /admin/upstreams, POST /admin/upstreams/{name}/open, "
    "POST /admin/upstreams/{name}/reset, GET /admin/cache, POST /admin/cache/purge"
)
PURGEABLE = {
    "route": re.compile(r"[A-Za-z0-9_.-]{1,64}"),
    "tenant": re.compile(r"[A-Za-z0-9_.~*-]{1,128}"),
    "key": re.compile(r"[0-9a-f]{64}"),
}
_ACTION = re.compile(rf"{UPSTREAMS}/([A-Za-z0-9_.-]{{1,64}})/(open|reset)")
_LONGEST = 86400.0  # seconds
MAX_EXPLAINED_BYTES = 1024 * 1024
MOST_CALLS = 1000


class Registry(Protocol):
    """Metrics, to be written out."""

    def collect(self) -> Iterable[Metric]: ...


class Operator(Protocol):
    """What the admin side asks of the process, or of all processes."""

    @property
    def ready(self) -> bool: ...

    @property
    def auth(self) -> Auth: ...

    async def metrics(self) -> Registry: ...

    async def ask(self, what: str, **arguments: Any) -> Json:
        """`upstreams`, `open`, `reset`, `cache`, `purge`, `config`, `reload`, `reloads`, `explain`, `calls`, `call`.

        Raises:
            ProxyError: it cannot be done.
        """
        ...


class AdminEndpoints:
    """Handles every request of the admin listener."""

    def __init__(self, operator: Operator) -> None:
        self._operator = operator
        self._board = Board(operator)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """One request."""
        try:
            response = await self._answer(request)
        except ProxyError as error:
            return error_response(error, CallRecord(request_id(request.headers), time.perf_counter()))
        if not response.prepared:
            response.headers["server"] = "octet"
        return response

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        path, operator = request.path, self._operator
        if path == PAGE:
            _expect(request, "GET", "HEAD")
            if not operator.auth.has_operator:  # with a token, who may not see it is asked for that by the page
                check_operator(request, operator.auth)
            return status_page()
        if path.startswith("/admin"):
            check_operator(request, operator.auth)
            if path == LIVE_EVENTS:
                _expect(request, "GET")
                return await self._board.show(request)
            what, arguments = await _wish(request)
            told = await operator.ask(what, **arguments)
            return _json(told, 422 if what == "reload" and not told["ok"] else 200)
        if path not in ("/metrics", LIVE, READY):
            raise NotFound(f"there is no such page; the admin side offers {_OFFERED}", code="not_found")
        _expect(request, "GET", "HEAD")
        if path == LIVE:
            return live(request)
        if path == READY:
            return ready(request, operator)
        render, content_type = choose_encoder(request.headers.get("accept", ""))
        body = await asyncio.to_thread(render, await operator.metrics())
        return web.Response(body=body, headers={"content-type": content_type})


async def _wish(request: web.BaseRequest) -> tuple[str, dict[str, Any]]:
    """What is asked for, and its arguments."""
    path, query = request.path, request.query
    for page, what in ((UPSTREAMS, "upstreams"), (CACHE, "cache"), (CONFIG, "config")):
        if path == page:
            _expect(request, "GET", "HEAD")
            return what, {}
    if path == CALLS:
        _expect(request, "GET", "HEAD")
        return "calls", {"limit": _limit(query)}
    if path.startswith(CALLS + "/"):
        _expect(request, "GET", "HEAD")
        return "call", {"request_id": path[len(CALLS) + 1 :]}
    match = _ACTION.fullmatch(path)
    if path not in (PURGE, RELOAD, EXPLAIN) and match is None:
        raise NotFound(f"there is no such page; the admin side offers {_OFFERED}", code="not_found")
    _expect(request, "POST")
    if path == PURGE:
        return "purge", {"wanted": _wanted(query)}
    if path == RELOAD:
        return "reload", {}
    if match is None:
        return "explain", {"asked": await _object(request)}
    name, action = match.groups()
    return (action, {"name": name, "seconds": _seconds(query)}) if action == "open" else (action, {"name": name})


async def _object(request: web.BaseRequest) -> Json:
    """The JSON object that a request brings."""
    body = b""
    while not request.content.at_eof():
        body += await request.content.readany()
        if len(body) > MAX_EXPLAINED_BYTES:
            raise BodyTooLarge(f"a call of at most {MAX_EXPLAINED_BYTES} bytes can be explained")
    try:
        return decode_object(body)
    except ValueError as error:
        raise InvalidRequest('send a JSON object such as {"model": "gpt-4o"}') from error


def _limit(query: Mapping[str, str]) -> int:
    text = query.get("limit", "100")
    if not text.isdecimal() or len(text) > 9 or not 0 < int(text) <= MOST_CALLS:
        raise InvalidRequest(f"limit is a number from 1 to {MOST_CALLS}", param="limit")
    return int(text)


def check_operator(request: web.BaseRequest, auth: Auth) -> None:
    """Let nobody steer but who shows the token, or is on this machine and no web page.

    Raises:
        Forbidden: somebody else.
    """
    if not auth.is_operator(request.headers) and (not _is_local(request) or "origin" in request.headers):
        raise Forbidden("send 'Authorization: Bearer TOKEN' with server.admin_token", code="admin_token_needed")


def _is_local(request: web.BaseRequest) -> bool:
    """Whether it comes from this machine, by a name of this machine: a page may have a name of its own point here."""
    peer = request.transport.get_extra_info("peername") if request.transport is not None else None
    if not isinstance(peer, tuple):
        return True  # a unix socket
    host = host_name(request)
    return _is_loopback(str(peer[0])) and (host == "localhost" or _is_address(host))


def _is_loopback(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _wanted(query: Mapping[str, str]) -> dict[str, str]:
    """Which answers are to go."""
    wanted = {name: query[name] for name in PURGEABLE if name in query}
    everything = query.get("all") in ("", "true")
    once = len(query) == len(set(query)) == len(wanted) + everything
    if not once or not all(wanted.values()) or bool(wanted) is everything:
        raise InvalidRequest("say which: ?route=NAME, ?tenant=NAME, ?key=DIGEST, several of them, or ?all")
    for name, value in wanted.items():
        if not PURGEABLE[name].fullmatch(value):
            raise InvalidRequest(f"there can be no such {name}", param=name)
    return wanted


def _seconds(query: Mapping[str, str]) -> float | None:
    """How long a circuit is to be open; None: until it is reset."""
    text = query.get("seconds")
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= _LONGEST:
        raise InvalidRequest(f"seconds must be a number above 0, at most {_LONGEST:.0f}", param="seconds")
    return seconds


def _expect(request: web.BaseRequest, *methods: str) -> None:
    if request.method not in methods:
        raise MethodNotAllowed(f"this page takes {methods[0]}", headers={"allow": methods[0]})


def _json(value: Json, status: int = 200) -> web.Response:
    return web.Response(body=encode(value), status=status, content_type="application/json")
