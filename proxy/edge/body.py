"""A request's body: JSON by its headers, within its bounds, in time."""

import asyncio

from aiohttp import HttpVersion11, web
from aiohttp.http_exceptions import HttpProcessingError
from multidict import MultiMapping

from proxy.config import Server
from proxy.errors import BodyTooLarge, InvalidRequest, ProxyFault, ReadTimeout, UnsupportedMedia

CHUNKED = {"chunked"}  # the only transfer coding that we read
PROGRESS_BYTES = 64 * 1024  # in each `body_timeout_seconds`: a byte now and then is no progress


class Buffered:
    """The bodies of all calls in flight; `size` in bytes."""

    def __init__(self) -> None:
        self.size = 0


class Share:
    """What one call has of them, from its first byte until it is given back."""

    def __init__(self, buffered: Buffered, limit: int) -> None:
        self._buffered, self._limit = buffered, limit
        self._size = 0

    def take(self, size: int) -> None:
        """Raises ProxyFault when all calls together would have too much."""
        if self._buffered.size + size > self._limit:
            text = "too much is being sent at once (server.max_buffered_bytes)"
            raise ProxyFault(text, code="overloaded", status=503, headers={"retry-after": "1"})
        self._buffered.size += size
        self._size += size

    def give_back(self) -> None:
        self._buffered.size -= self._size
        self._size = 0


def check_media(request: web.BaseRequest) -> None:
    """Raises UnsupportedMedia, or InvalidRequest, for what the headers already say is no plain JSON.

    A form or text/plain is refused too, and of web pages what has no type: browsers send those across origins without
    asking.

    Source: RFC 9112 §6.1 (transfer codings); the Fetch standard, "CORS-safelisted request-header".
    """
    headers = request.headers
    kind = headers.get("content-type")
    if kind is None:
        kind = "" if "origin" in headers else "application/json"
    if kind != "application/json":
        kind = kind.partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise UnsupportedMedia("send the body as 'Content-Type: application/json'")
    if "content-encoding" in headers and listed(headers, "content-encoding") != {"identity"}:
        raise UnsupportedMedia("send the body without Content-Encoding")
    if "transfer-encoding" in headers and listed(headers, "transfer-encoding") != CHUNKED:
        raise InvalidRequest("send the body in no transfer coding but chunked")


def listed(headers: MultiMapping[str], name: str) -> set[str]:
    """The values of a header, on whichever lines they stand, in lower case."""
    return {each.strip().lower() for line in headers.getall(name) for each in line.split(",")}


async def read_body(request: web.BaseRequest, server: Server, share: Share) -> bytes:
    """The whole body.

    Raises:
        BodyTooLarge, ReadTimeout, UnsupportedMedia, InvalidRequest, ProxyFault (see `Share.take`).
    """
    check_media(request)
    limit, content = server.max_body_bytes, request.content
    if content.is_eof() and content.exception() is None:  # it came whole, with its head
        body = content.read_nowait()
        if len(body) > limit:
            raise _too_large(limit)
        share.take(len(body))
        return body
    if (request.content_length or 0) > limit:
        raise _too_large(limit)
    waits = request.headers.get("expect", "").lower() == "100-continue" and request.version >= HttpVersion11
    if waits and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    parts, size = [], 0
    while not content.at_eof():
        wanted = size + PROGRESS_BYTES
        try:
            async with asyncio.timeout(server.body_timeout_seconds):
                while size < wanted and not content.at_eof():
                    data = await content.readany()
                    size += len(data)
                    parts.append(data)
                    if size > limit:
                        raise _too_large(limit)
                    share.take(len(data))
        except TimeoutError as error:
            raise ReadTimeout("the request's body did not arrive in time") from error
        except (web.RequestPayloadError, HttpProcessingError):
            raise InvalidRequest("the request's body broke off or is malformed") from None  # it may quote the body
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body is larger than {limit} bytes (server.max_body_bytes)")
