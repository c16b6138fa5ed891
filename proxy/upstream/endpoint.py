"""An upstream ready to be called: its dialect, its connections and its key."""

from collections.abc import Callable, Coroutine, Mapping
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from proxy import __version__
from proxy.call import Call, header_values
from proxy.config import Upstream
from proxy.providers.seam import JSON_HEADERS, Provider, UpstreamRequest
from proxy.upstream.credentials import credential_for
from proxy.upstream.exchange import Exchange
from proxy.upstream.transport import PreparedHeaders, Transport

USER_AGENT = f"octet/{__version__}"
_ACCEPTS = {False: "application/json", True: "text/event-stream"}
_FROM_CALLER = ("traceparent", "tracestate")
_WITH_CALLERS_KEY = ("openai-organization", "openai-project")
_SHORTEST_SECRET = 6  # characters; what is shorter, such as the key of a local server, stands in any word
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})
_MAX_FORWARDED = 512  # characters of a header's value


class Endpoint:
    """Everything about one upstream that outlives a call.

    Args:
        credential: our key, or None.
        via: our own entry of the `via` header, by which we know a call that comes back to us.
    """

    def __init__(
        self, name: str, upstream: Upstream, provider: Provider, transport: Transport, credential: str | None, via: str
    ) -> None:
        self.name = name
        self.upstream = upstream
        self.provider = provider
        self.transport = transport
        self._credential = credential
        self._via = via
        self._takes_callers_key = upstream.credential == "caller"
        own = {"accept-encoding": "identity", "user-agent": USER_AGENT}
        self._probes = {**own, **upstream.headers, **self._authorization(credential)}
        self._key = self._authorization(None if self._takes_callers_key else credential)
        self._headers = {**own, "via": via, **upstream.headers, **self._key}  # of every call
        self._usual = {
            stream: PreparedHeaders({"accept": _ACCEPTS[stream], **JSON_HEADERS, **self._headers})
            for stream in (False, True)
        }

    def dress(self, request: UpstreamRequest, call: Call, more: Mapping[str, str] = _NO_HEADERS) -> UpstreamRequest:
        """The request with the headers and the key that belong to this upstream and this caller, and `more` headers.

        Raises:
            Unauthenticated: the caller's own key is wanted and was not sent.
        """
        given = call.headers
        own = self._takes_callers_key or "traceparent" in given or "via" in given or bool(more)
        if not own and request.headers is JSON_HEADERS:
            headers: dict[str, str] = self._usual[call.stream]
        else:
            headers = {"accept": _ACCEPTS[call.stream], **request.headers, **self._headers, **more, **self._key}
        if own:
            self._add_callers(call, headers)
        dropped = (*request.dropped, *call.amended) if call.amended else request.dropped
        return UpstreamRequest(request.url, headers, request.body, dropped, request.method, request.copies)

    def _add_callers(self, call: Call, headers: dict[str, str]) -> None:
        """What of the caller's own headers travels on."""
        if "traceparent" not in headers:  # a trace that we, or the configuration, go on with has a state of its own
            _pass_on(call.headers, _FROM_CALLER, headers)
        passed = _sane(header_values(call.headers, "via"))
        if passed and headers["via"] is self._via:
            headers["via"] = f"{passed}, {self._via}"
        if self._takes_callers_key:
            _pass_on(call.headers, _WITH_CALLERS_KEY, headers)
            headers |= self._authorization(credential_for(self.upstream, self._credential, call.caller))

    def redact(self, text: str, more: Mapping[str, str] = _NO_HEADERS) -> str:
        """A text of the upstream's without our key, or what we send beside it, should it quote them."""
        beside = (*self.upstream.headers.values(), *self.upstream.query.values(), *more.values())
        for secret in (self._credential or "", *beside):
            if len(secret) >= _SHORTEST_SECRET:
                text = text.replace(secret, "[redacted]")
        return text

    def probe(self, request: UpstreamRequest) -> UpstreamRequest:
        """A request of our own, with our own key."""
        headers = {**request.headers, "accept": "application/json", **self._probes}
        return UpstreamRequest(request.url, headers, request.body, method=request.method)

    def open(
        self, request: UpstreamRequest, patience: float, clock: str, asked: Callable[[Exchange], object] = id
    ) -> Coroutine[Any, Any, Exchange]:
        """Send the request and wait for the answer's head; see the transport."""
        return self.transport.open(request, patience, clock, asked)

    def _authorization(self, credential: str | None) -> Mapping[str, str]:
        """The key in its header."""
        if credential is None:
            return {}
        if self.upstream.auth_header is not None:
            return {self.upstream.auth_header: credential}
        return self.provider.authorize(self.upstream, credential)

    @property
    def dialect(self) -> str:
        """The provider's name."""
        return self.upstream.provider

    @property
    def host(self) -> str:
        """Host and port, for people."""
        return urlsplit(str(self.upstream.base_url)).netloc


def _pass_on(given: Mapping[str, str], names: tuple[str, ...], headers: dict[str, str]) -> None:
    """Add the caller's headers, unless the upstream's configuration sets them."""
    for name in names:
        if name in given and (value := _sane(given[name])):
            headers.setdefault(name, value)


def _sane(value: str) -> str:
    """A header's value that may travel on: printable, of bounded length."""
    return value if len(value) <= _MAX_FORWARDED and value.isprintable() and value.isascii() else ""
