"""The admin listener: metrics, probes, and upstreams as they stand; never on the data port."""

import asyncio
import ipaddress
import re
import time
from collections.abc import Mapping
from typing import Protocol

from aiohttp import web
from prometheus_client.exposition import choose_encoder

from proxy.admission.auth import Auth
from proxy.call import Json
from proxy.edge.endpoints import LIVE, READY, live, ready
from proxy.edge.endpoints import State as DataState
from proxy.edge.guard import host_name
from proxy.edge.render import error_response, request_id
from proxy.errors import Forbidden, InvalidRequest, MethodNotAllowed, NotFound, ProxyError
from proxy.openai_format.encoding import encode
from proxy.telemetry import CallRecord, Telemetry

UPSTREAMS = "/admin/upstreams"
CACHE, PURGE = "/admin/cache", "/admin/cache/purge"
_OFFERED = (
    "/metrics, /healthz, /readyz, GET /admin/upstreams, POST /admin/upstreams/{name}/open, "
    "POST /admin/upstreams/{name}/reset, GET /admin/cache, POST /admin/cache/purge"
)
PURGEABLE = {
    "route": re.compile(r"[A-Za-z0-9_.-]{1,64}"),
    "tenant": re.compile(r"[A-Za-z0-9_.~*-]{1,128}"),
    "key": re.compile(r"[0-9a-f]{64}"),
}
_ACTION = re.compile(rf"{UPSTREAMS}/([A-Za-z0-9_.-]{{1,64}})/(open|reset)")
_LONGEST = 86400.0  # seconds


class State(DataState, Protocol):
    """What the admin side asks of the process."""

    @property
    def upstreams(self) -> "Upstreams": ...

    @property
    def cache(self) -> "Cache": ...


class Upstreams(Protocol):
    """All upstreams, as an operator sees them."""

    def describe(self) -> list[Json]: ...

    def hold_open(self, name: str, seconds: float | None) -> bool:
        """Let no call through to an upstream, for so long or until it is reset; False: there is no such upstream."""
        ...

    def reset(self, name: str) -> bool:
        """Let calls through again, and forget failures; False: there is no such upstream."""
        ...


class Cache(Protocol):
    """What is kept, as an operator sees it."""

    def describe_cache(self) -> Json: ...

    async def purge(self, wanted: Mapping[str, str]) -> Json:
        """Keep what fits no longer: a `route`, a `tenant`, a `key`; all of them that are given."""
        ...


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
        path = request.path
        if path.startswith("/admin"):
            check_operator(request, self._state.pipeline.snapshot.auth)
            return await self._steer(request)
        if path not in ("/metrics", LIVE, READY):
            raise NotFound(f"there is no such page; the admin side offers {_OFFERED}", code="not_found")
        _expect(request, "GET", "HEAD")
        if path == LIVE:
            return live(request)
        if path == READY:
            return ready(request, self._state)
        render, content_type = choose_encoder(request.headers.get("accept", ""))
        body = await asyncio.to_thread(render, self._telemetry.registry)
        return web.Response(body=body, headers={"content-type": content_type})

    async def _steer(self, request: web.BaseRequest) -> web.Response:
        if request.path == UPSTREAMS:
            _expect(request, "GET", "HEAD")
            return _json({"upstreams": self._state.upstreams.describe()})
        if request.path == CACHE:
            _expect(request, "GET", "HEAD")
            return _json(self._state.cache.describe_cache())
        if request.path == PURGE:
            _expect(request, "POST")
            return _json(await self._state.cache.purge(_wanted(request.query)))
        match = _ACTION.fullmatch(request.path)
        if match is None:
            raise NotFound(f"there is no such page; the admin side offers {_OFFERED}", code="not_found")
        _expect(request, "POST")
        name, action = match.groups()
        upstreams = self._state.upstreams
        known = upstreams.hold_open(name, _seconds(request.query)) if action == "open" else upstreams.reset(name)
        if not known:
            raise NotFound("there is no such upstream", code="not_found")
        return _json(next(upstream for upstream in upstreams.describe() if upstream["name"] == name))


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


def _json(value: Json) -> web.Response:
    return web.Response(body=encode(value), content_type="application/json")
