"""What goes into our answers: headers, and every error as OpenAI's error object."""

import random
import re
import time
from collections.abc import Iterable, Mapping
from functools import lru_cache
from math import ceil

from aiohttp import web

from proxy.errors import Limited, Overloaded, ProxyError
from proxy.openai_format.encoding import encode, encode_event
from proxy.openai_format.errors import error_object
from proxy.reply import Reply
from proxy.telemetry import CallRecord

JSON_TYPE = "application/json"
PATIENCE = 1.0  # seconds, where the upstream names none
MAX_RETRY_AFTER = 60.0  # seconds; SDKs give up on longer waits
_chance = random.getrandbits  # ids are to be unique, not secret; seeded anew in every process that is forked
_SANE_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
_SANE_NAME = re.compile(r"[A-Za-z0-9_.:\[\]-]{1,96}")
_MAX_NAMES = 32
_PASSED_BACK = ("x-ratelimit-", "openai-")


def request_id(headers: Mapping[str, str]) -> str:
    """The caller's own id when it is sane, else one of ours."""
    given = headers.get("x-request-id", "")
    return given if given and _SANE_ID.fullmatch(given) else f"{_chance(64):016x}"


def call_lines(record: CallRecord, reply: Reply) -> str:
    """The headers of a reply, as they are written: where it came from, and what the upstream says of its limits."""
    lines = (
        f"{_where(record.route, record.upstream, record.model, record.cache)}x-request-id: {record.request_id}\r\n"
        f"x-octet-attempts: {record.attempts}\r\nserver-timing: {_timing(record)}\r\n"
    )
    if record.cache_key:
        lines += f"x-octet-cache-key: {record.cache_key.hex()}\r\n"
    if record.age is not None:
        lines += f"age: {record.age}\r\n"
    if reply.dropped:
        lines += f"x-octet-dropped: {names(reply.dropped)}\r\n"
    if reply.headers:
        for name, value in reply.headers.items():
            if name.startswith(_PASSED_BACK) and name not in record.rate_limits and _is_value(value):
                lines += f"{name}: {value}\r\n"
    if record.rate_limits:
        lines += "".join(f"{name}: {value}\r\n" for name, value in record.rate_limits.items() if _is_value(value))
    if record.upstream_request_id:
        lines += f"x-upstream-request-id: {record.upstream_request_id}\r\n"
    return lines


@lru_cache(maxsize=1024)
def _where(route: str, upstream: str, model: str, cache: str) -> str:
    return (
        f"x-octet-route: {route}\r\nx-octet-upstream: {upstream}\r\nx-octet-model: {sane(model)}\r\n"
        f"x-octet-cache: {cache}\r\n"
    )


def _timing(record: CallRecord) -> str:
    """Our own share, and what we waited for.

    Source: W3C Server Timing; milliseconds.
    """
    own = record.own_seconds(time.perf_counter())
    timing = f"octet;dur={own * 1000:.2f}, upstream;dur={record.upstream_seconds * 1000:.2f}"
    return f"{timing}, connect;dur={record.connect_seconds * 1000:.2f}" if record.connect_seconds else timing


def names(dropped: Iterable[str]) -> str:
    """Names of a caller's fields, fit for a header."""
    shown = [name if _SANE_NAME.fullmatch(name) else "other" for name in dropped]
    unique = list(dict.fromkeys(shown))
    return ", ".join(unique[:_MAX_NAMES])


def sane(text: str) -> str:
    """A text from outside, fit for a header's value."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(character if character.isprintable() and character.isascii() else "?" for character in text)


def _is_value(value: str) -> bool:
    return value.isprintable() and value.isascii() and len(value) <= 512


def error_headers(error: ProxyError, record: CallRecord) -> dict[str, str]:
    """The headers of an error answer, with advice on when to come again."""
    headers = {"x-request-id": record.request_id, **error.headers}
    for name, value in (("route", record.route), ("upstream", record.upstream), ("model", sane(record.model))):
        if value:
            headers[f"x-octet-{name}"] = value
    if record.attempts:
        headers["x-octet-attempts"] = str(record.attempts)
    if record.route:
        headers["x-octet-cache"] = record.cache
    if record.dropped:
        headers["x-octet-dropped"] = names(record.dropped)
    if record.upstream_request_id and _is_value(record.upstream_request_id):
        headers["x-upstream-request-id"] = record.upstream_request_id
    wait = getattr(error, "retry_after", None)
    if wait is None and isinstance(error, Limited | Overloaded):
        wait = PATIENCE
    if wait is not None and error.status in (429, 503):
        wait = min(wait, MAX_RETRY_AFTER)
        headers["retry-after"] = str(max(1, ceil(wait)))
        headers["retry-after-ms"] = str(ceil(wait * 1000))
    return headers


def error_response(error: ProxyError, record: CallRecord) -> web.Response:
    """An error as an answer of its own."""
    return web.Response(
        body=encode(error_object(error, record.request_id)),
        status=error.status,
        headers=error_headers(error, record),
        content_type=JSON_TYPE,
    )


def error_event(error: ProxyError, request_id: str) -> bytes:
    """An error as the last event of a stream."""
    return encode_event(error_object(error, request_id))
