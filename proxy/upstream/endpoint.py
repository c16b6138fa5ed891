"""An upstream ready to be called: its dialect, its connections and its key."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from proxy import __version__
from proxy.call import Call, header_values
from proxy.config import Upstream
from proxy.providers.seam import Provider, UpstreamRequest, with_header
from proxy.upstream.credentials import credential_for
from proxy.upstream.transport import Exchange, Transport

USER_AGENT = f"octet/{__version__}"
_FROM_CALLER = ("traceparent", "tracestate")
_WITH_CALLERS_KEY = ("openai-organization", "openai-project")
_SHORTEST_SECRET = 6  # characters; what is shorter, such as the key of a local server, stands in any word
_MAX_FORWARDED = 512  # characters of a header's value


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Everything about one upstream that outlives a call.

    Args:
        via: our own entry of the `via` header, by which we know a call that comes back to us.
    """

    name: str
    upstream: Upstream
    provider: Provider
    transport: Transport
    credential: str | None = field(repr=False)
    via: str

    def dress(self, request: UpstreamRequest, call: Call) -> UpstreamRequest:
        """The request with the headers and the key that belong to this upstream and this caller.

        Raises:
            Unauthenticated: the caller's own key is wanted and was not sent.
        """
        headers = {
            "accept": "text/event-stream" if call.stream else "application/json",
            **request.headers,
            "accept-encoding": "identity",
            "user-agent": USER_AGENT,
            **_passed_on(call.headers, _FROM_CALLER),
            "via": ", ".join([*filter(None, [_sane(header_values(call.headers, "via"))]), self.via]),
        }
        if self.upstream.credential == "caller":
            headers |= _passed_on(call.headers, _WITH_CALLERS_KEY)
        headers |= self.upstream.headers
        return self.authorize(
            replace(request, headers=headers), credential_for(self.upstream, self.credential, call.caller)
        )

    def redact(self, text: str) -> str:
        """A text of the upstream's without our key, or what we send beside it, should it quote them."""
        for secret in (self.credential or "", *self.upstream.headers.values(), *self.upstream.query.values()):
            if len(secret) >= _SHORTEST_SECRET:
                text = text.replace(secret, "[redacted]")
        return text

    def probe(self, request: UpstreamRequest) -> UpstreamRequest:
        """A request of our own, with our own key."""
        headers = {**request.headers, "accept": "application/json", "user-agent": USER_AGENT, **self.upstream.headers}
        return self.authorize(replace(request, headers=headers), self.credential)

    def open(self, request: UpstreamRequest) -> Exchange:
        """Entering it sends the request and waits for the answer's head."""
        return self.transport.open(request)

    def authorize(self, request: UpstreamRequest, credential: str | None) -> UpstreamRequest:
        """The request with the key in its place."""
        if credential is None:
            return request
        if self.upstream.auth_header is not None:
            return with_header(request, self.upstream.auth_header, credential)
        return self.provider.authorize(request, self.upstream, credential)

    @property
    def host(self) -> str:
        """Host and port, for people."""
        return urlsplit(str(self.upstream.base_url)).netloc


def _passed_on(headers: Mapping[str, str], names: tuple[str, ...]) -> dict[str, str]:
    return {name: value for name in names if (value := _sane(headers.get(name)))}


def _sane(value: str | None) -> str:
    """A header's value that may travel on: printable, of bounded length."""
    return value if value and len(value) <= _MAX_FORWARDED and value.isprintable() and value.isascii() else ""
