"""HTTP towards one upstream, behind an interface that pushes.

An `Exchange` is one request and its answer. Its body is either read whole, or pushed at a sink: bytes are handed on
as they arrive, and the sink may ask for a pause.

Source: RFC 9112; reference/libraries.md §4 (aiohttp's client and its traps).
"""

import asyncio
import ssl
from collections.abc import Mapping
from types import SimpleNamespace, TracebackType
from typing import Self
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

import aiohttp
from yarl import URL

from proxy.call import Sink
from proxy.config import Upstream
from proxy.errors import Broken, CutShort, ProxyFault, TooSlow, Unreachable, UpstreamError
from proxy.providers.seam import UpstreamRequest

IDLE_CONNECTION_SECONDS = 4.0  # vLLM and others on uvicorn close at 5
READ_BUFFER_BYTES = 64 * 1024
FAIR_BYTES = 16 * 1024
_AUTOMATIC = ("Accept", "Accept-Encoding", "User-Agent")


class Transport:
    """The connections to one upstream."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        connector = aiohttp.TCPConnector(
            limit=0,
            ssl=_tls(upstream),
            keepalive_timeout=IDLE_CONNECTION_SECONDS,
            ttl_dns_cache=10,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=_AUTOMATIC,
            timeout=aiohttp.ClientTimeout(total=None, connect=upstream.timeouts.connect_seconds),
            read_bufsize=READ_BUFFER_BYTES,
            auto_decompress=False,  # none is asked for, and a small answer could grow without bound
            trust_env=False,  # it would read .netrc too, and send what stands there
            trace_configs=[_noting_reuse()],
        )
        self._proxy = upstream.proxy or _proxy_of_environment(str(upstream.base_url))

    def open(self, request: UpstreamRequest) -> "Exchange":
        """An exchange; entering it sends the request and waits for the answer's head."""
        return Exchange(self._session, request, self._upstream, self._proxy)

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()


def _noting_reuse() -> aiohttp.TraceConfig:
    """Tells an exchange that its request goes out on a kept-alive connection."""

    async def note(_: object, context: SimpleNamespace, __: object) -> None:
        context.trace_request_ctx.reused = True

    config = aiohttp.TraceConfig()
    config.on_connection_reuseconn.append(note)
    return config


def _proxy_of_environment(base_url: str) -> str | None:
    """HTTPS_PROXY or HTTP_PROXY, unless NO_PROXY names the host."""
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    return None if proxy_bypass_environment(host) else getproxies_environment().get(parts.scheme)


def _tls(upstream: Upstream) -> ssl.SSLContext | bool:
    tls = upstream.tls
    if not (tls.ca_file or tls.cert_file):
        return True
    context = ssl.create_default_context(cafile=tls.ca_file)
    if tls.cert_file:
        context.load_cert_chain(tls.cert_file, tls.key_file)
    return context


class Exchange:
    """One request and its answer; leaving it frees the connection, at once when the body is not at its end."""

    def __init__(
        self, session: aiohttp.ClientSession, request: UpstreamRequest, upstream: Upstream, proxy: str | None
    ) -> None:
        self._session = session
        self._request = request
        self._query = upstream.query
        self._proxy = proxy
        self.reused = False  # whether the request went out on a kept-alive connection
        self._response: aiohttp.ClientResponse | None = None
        self._pump: asyncio.Task[None] | None = None
        self._may_flow = asyncio.Event()
        self._may_flow.set()

    async def __aenter__(self) -> Self:
        """Raises: Unreachable, TooSlow (connect), Broken."""
        self._response = await self._send()
        if self._response.headers.get("content-encoding", "identity").lower() != "identity":
            self._response.close()
            raise Broken("the upstream compresses its answer, which it was not asked to", code="upstream_bad_response")
        return self

    async def _send(self) -> aiohttp.ClientResponse:
        """Send the request and wait for the answer's head.

        A kept-alive connection may be closed by the upstream just as it is used again. Then not a byte of an answer
        has come, and the request goes out once more.
        """
        request = self._request
        url = URL(request.url, encoded=True)
        for may_repeat in (True, True, False):
            self.reused = False
            try:
                return await self._session.request(
                    request.method,
                    url.update_query(self._query) if self._query else url,
                    data=request.body or None,
                    headers=request.headers,
                    allow_redirects=False,
                    proxy=self._proxy,
                    trace_request_ctx=self,
                )
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
                if not (may_repeat and self.reused):
                    raise _translate(error) from error
            except (aiohttp.ClientError, OSError, ValueError, TimeoutError) as error:
                raise _translate(error) from error
        raise ProxyFault("a request is sent or fails")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Nothing is awaited here: a caller may hang up at any moment, and a cancelled clean-up cleans nothing.
        if self._pump is not None:
            self._pump.cancel()
        if self._response is not None:
            self._response.release() if self._response.content.is_eof() else self._response.close()

    @property
    def _answer(self) -> aiohttp.ClientResponse:
        if self._response is None:
            raise ProxyFault("the exchange is not open")
        return self._response

    @property
    def status(self) -> int:
        return self._answer.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self._answer.headers

    @property
    def content_type(self) -> str:
        """As sent; empty when absent."""
        return self._answer.headers.get("content-type", "")

    async def read(self, limit: int) -> bytes:
        """The whole body.

        Raises:
            CutShort: it broke off.
            Broken: it is longer than `limit` bytes.
        """
        body = await self.read_up_to(limit)
        if not self._answer.content.at_eof():
            raise Broken(f"the upstream's answer is larger than {limit} bytes", code="upstream_bad_response")
        return body

    async def read_up_to(self, limit: int) -> bytes:
        """The body's beginning: at least `limit` bytes if it has as many.

        Raises:
            CutShort: it broke off.
        """
        parts, size = [], 0
        try:
            async for data in self._answer.content.iter_any():
                parts.append(data)
                size += len(data)
                if size > limit:
                    break
        except (aiohttp.ClientError, OSError) as error:
            raise CutShort("the upstream's answer broke off") from error
        return b"".join(parts)

    def start(self, sink: Sink) -> None:
        """Push the body at `sink`, to its end or failure."""
        self._pump = asyncio.get_running_loop().create_task(self._push(sink))

    def pause(self) -> None:
        """Push nothing until `resume`; what the upstream sends then waits in the network."""
        self._may_flow.clear()

    def resume(self) -> None:
        self._may_flow.set()

    async def _push(self, sink: Sink) -> None:
        try:
            async for data in self._answer.content.iter_any():
                sink.feed(data)
                if len(data) >= FAIR_BYTES:  # more may be waiting: the other calls come first
                    await asyncio.sleep(0)
                if not self._may_flow.is_set():
                    await self._may_flow.wait()
        except (aiohttp.ClientError, OSError) as error:
            failure = CutShort("the upstream's answer broke off")
            failure.__cause__ = error
            sink.fail(failure)
        except Exception as error:  # noqa: BLE001  # our own bug must end the stream, not leave it standing
            fault = ProxyFault("the sidecar failed on this stream")
            fault.__cause__ = error
            sink.fail(fault)
        else:
            sink.end()


def _translate(error: Exception) -> UpstreamError:
    """aiohttp's failures before an answer, in our words; no address or text of the upstream is quoted."""
    if isinstance(error, aiohttp.ConnectionTimeoutError | TimeoutError):
        return TooSlow("no connection to the upstream in time", clock="connect")
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return Unreachable("the upstream's TLS certificate is not trusted")
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return Unreachable("the upstream's name cannot be resolved")
    if isinstance(error, aiohttp.ClientSSLError):
        return Unreachable("no TLS connection to the upstream")
    if isinstance(error, aiohttp.ClientConnectorError):
        return Unreachable("no connection to the upstream")
    if isinstance(error, aiohttp.ClientResponseError | ValueError):
        return Broken("the upstream's answer is not HTTP", code="upstream_bad_response")
    return Unreachable("the connection to the upstream broke before an answer", code="upstream_disconnected")
