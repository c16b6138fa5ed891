"""Which host names and which origins of web pages are served, and what every response says."""

from collections.abc import Mapping

from aiohttp import web

from proxy.config import Globs, Server
from proxy.errors import Forbidden


def host_name(request: web.BaseRequest) -> str:
    """The host that a request names, in lower case, without its port and brackets."""
    host = request.headers.get("host", "").rpartition("]")
    return (host[0] + host[1] or host[2].partition(":")[0]).strip("[]").lower()


class Guard:
    """The rules of one configuration, made ready."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._hosts = Globs(server.allowed_hosts) if server.allowed_hosts else None
        self._origins = Globs(server.cors_origins) if server.cors_origins else None
        self._headers: Mapping[str, str] = {"server": "octet"}
        self._lines = "server: octet\r\n"

    def check_host(self, request: web.BaseRequest) -> None:
        """Raises Forbidden for a host name that is not served."""
        if self._hosts is None:
            return
        if not self._hosts.fit(host_name(request)):
            raise Forbidden("this host name is not served here (server.allowed_hosts)", code="host_not_allowed")

    def allows_origin(self, request: web.BaseRequest) -> bool:
        if self._origins is None:
            return False
        origin = request.headers.get("origin")
        return origin is not None and origin.isascii() and self._origins.fit(origin)

    def preflight(self, request: web.BaseRequest) -> web.Response:
        """What a browser asks before it calls."""
        return web.Response(
            status=204,
            headers={
                "access-control-allow-methods": "GET, POST",
                "access-control-allow-headers": request.headers.get("access-control-request-headers", "*"),
                "access-control-max-age": "600",
            },
        )

    def headers(self, request: web.BaseRequest) -> Mapping[str, str]:
        """What every response says."""
        if not self.allows_origin(request):
            return self._headers
        return {
            **self._headers,
            "access-control-allow-origin": request.headers["origin"],
            "access-control-expose-headers": "*",
            "vary": "origin",
        }

    def lines(self, request: web.BaseRequest) -> str:
        """The same, as it is written."""
        if self._origins is None:
            return self._lines
        return "".join(f"{name}: {value}\r\n" for name, value in self.headers(request).items())
