"""Error bodies: ours as OpenAI writes them, and everybody's as they are found on the wire."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

from proxy.call import Json
from proxy.errors import (
    NO_RETRY,
    Broken,
    ContentRefused,
    ContextExceeded,
    CredentialRefused,
    Limited,
    ModelMissing,
    Overloaded,
    PaidOut,
    PermissionRefused,
    ProxyError,
    RequestRefused,
    TooSlow,
    UpstreamError,
)
from proxy.openai_format.encoding import decode, decode_object

MAX_NAME = 200  # characters of an upstream's code or param that are passed on
_TITLE = re.compile(r"<title[^>]*>([^<]{1,200})", re.IGNORECASE)
_TRACEBACK = re.compile(r"Traceback \(most recent call last\):.*", re.DOTALL)

# The one place where prose is searched: three providers name a too long prompt in no other way (13.2).
_CONTEXT_PROSE = (
    "context length",
    "context window",
    "maximum context",
    "prompt is too long",
    "input tokens exceed",
    "inputs tokens",
    "max_new_tokens",
    "context_length_exceeded",
    "exceeds the available context",
    "too many tokens",
)
_QUOTA_CODES = frozenset(
    {"insufficient_quota", "billing_error", "billing_hard_limit_reached"}
    | {"contract_spend_limit_reached", "enforced_spend_limit_reached"}
)
_POLICY_CODES = frozenset({"content_filter", "content_policy_violation", "content_policy"})


@dataclass(frozen=True, slots=True)
class ErrorFacts:
    """What an error body says, whatever its shape."""

    message: str = ""
    type: str | None = None
    code: str | None = None
    param: str | None = None
    structured: bool = False  # JSON with a message, so the provider itself speaks, and no proxy before it


def error_object(error: ProxyError, request_id: str) -> Json:
    """OpenAI's error object; the texts of our own making name the request."""
    message = error.message
    if not isinstance(error, RequestRefused):
        message = f"{message} (request id: {request_id})"
    return {"error": {"message": message, "type": error.type, "param": error.param, "code": error.code}}


def read_error(body: bytes) -> ErrorFacts:
    """Find message, type, code and param in the error bodies seen in the field.

    Source: reference/upstreams.md §13.2.
    """
    try:
        value = decode(body)
    except ValueError:
        return _from_text(body.decode("utf-8", "replace"))
    return _from_value(value)


def _from_text(text: str) -> ErrorFacts:
    if "<html" in text[:500].lower() or "<!doctype" in text[:200].lower():
        title = _TITLE.search(text)
        return ErrorFacts(f"an HTML page titled {title[1].strip()!r}" if title else "an HTML page")
    return ErrorFacts(_clean(text))


def _from_value(value: Any) -> ErrorFacts:
    if isinstance(value, list):
        return _from_value(value[0]) if value else ErrorFacts()
    if isinstance(value, str):
        return ErrorFacts(_clean(value))
    if not isinstance(value, dict):
        return ErrorFacts()
    inner = value.get("error")
    if isinstance(inner, dict):
        details = inner.get("details")
        nested = details.get("error_code") if isinstance(details, dict) else None
        text = _clean(_first_text(inner.get("message"), inner.get("detail")))
        return ErrorFacts(
            message=text,
            type=_text(inner.get("type")),
            code=_text(inner.get("code")) or _text(nested),
            param=_text(inner.get("param")),
            structured=bool(text),
        )
    if isinstance(inner, list):
        inner = "; ".join(item for item in inner if isinstance(item, str))
    place, detail = _detail(value.get("detail"))
    text = _clean(_first_text(inner, detail, value.get("message")))
    return ErrorFacts(
        message=text,
        type=_text(value.get("error_type")) or _text(value.get("type")),
        code=_text(value.get("code")),
        param=_text(value.get("param")) or place,
        structured=bool(text),
    )


def _detail(detail: Any) -> tuple[str | None, str]:
    """FastAPI's `detail`: the place and the text of its first finding, or its text alone."""
    if isinstance(detail, list) and detail and isinstance(detail[0], dict):
        place = detail[0].get("loc")
        return ".".join(map(str, place)) if isinstance(place, list) else None, _first_text(detail[0].get("msg"))
    return None, detail if isinstance(detail, str) else ""


def _first_text(*candidates: Any) -> str:
    return next((text for text in candidates if isinstance(text, str) and text), "")


def _text(value: Any) -> str | None:
    return value[:MAX_NAME] if isinstance(value, str) and value else None


def _clean(text: str) -> str:
    return _TRACEBACK.sub("", text).strip()


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds the upstream asks us to wait: milliseconds, seconds or a date; None when absent or absurd.

    A date is measured from the answer's own `date`, so that no two clocks are compared.

    Source: RFC 9110 §10.2.3; `retry-after-ms` as the OpenAI SDKs read it.
    """
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = headers.get(name)
        if text is None:
            continue
        try:
            seconds = float(text) * scale
        except ValueError:
            seconds = _between(headers.get("date", ""), text)
        if 0 <= seconds < float("inf"):
            return seconds
    return None


def _between(start: str, end: str) -> float:
    try:
        return (parsedate_to_datetime(end) - parsedate_to_datetime(start)).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return -1.0


def classify(status: int, facts: ErrorFacts, wait: float | None = None) -> UpstreamError:
    """What kind of failure an answer with this status and error is.

    Args:
        wait: the upstream's Retry-After in seconds, or None.

    Source: reference/upstreams.md §13.1; DESIGN.md §7.
    """
    if status in (400, 409, 413, 415, 422):
        return _classify_refusal(status, facts)
    if status == 402 or (status == 429 and _QUOTA_CODES & {facts.code, facts.type}):
        return PaidOut(facts.message or "the upstream's account has no quota left")
    if status == 404:
        return _classify_missing(facts)
    if status in (401, 403):
        kind = CredentialRefused if status == 401 else PermissionRefused
        return kind("the upstream refused the sidecar's credential; its operator must mend that", theirs=facts.message)
    return _classify_failure(status, facts, wait)


def _classify_failure(status: int, facts: ErrorFacts, wait: float | None) -> UpstreamError:
    if status == 429:
        return Limited(facts.message or "the upstream limits its rate", retry_after=wait)
    if status in (408, 504):
        return TooSlow(facts.message, clock="upstream")
    if status == 508:
        return Broken(facts.message or "a loop", code="loop_detected", status=508, headers=NO_RETRY)
    if status in (503, 529):
        return Overloaded(facts.message or "the upstream is overloaded", retry_after=wait)
    if status == 405 or 300 <= status < 400:
        return misconfigured(status)
    if facts.structured:
        return Broken(facts.message, retry_after=wait)
    said = f": {facts.message}" if facts.message else ""
    return Broken(f"the upstream failed with status {status}{said}", retry_after=wait)


def misconfigured(status: int) -> UpstreamError:
    """The upstream's address leads to something else."""
    what = "redirects, which are not followed" if 300 <= status < 400 else "does not serve chat at this path"
    error = Broken(f"the upstream {what} (status {status}): check its base_url", code="upstream_misconfigured")
    error.repeat = False  # it will not be another one in a second
    return error


def read_object(text: bytes) -> Json:
    """A JSON object that an upstream sent in a 200 answer, whole or as a frame.

    Raises:
        UpstreamError: it is an error, or no JSON object.
    """
    try:
        value = decode_object(text)
    except ValueError as error:
        raise Broken("the upstream sent what is not a JSON object", code="upstream_bad_response") from error
    if value.get("error") or "error" in (value.get("type"), value.get("object")):
        raise in_stream_error(text)
    return value


def in_stream_error(body: bytes) -> UpstreamError:
    """What an error inside a 200 answer means: its own status if it names one, else its type or code.

    Source: reference/upstreams.md §13.2 (TGI `http_status_code`, vLLM an integer `code`), §5.8.
    """
    facts = read_error(body)
    try:
        value = decode(body)
    except ValueError:
        value = None
    if isinstance(value, dict) and isinstance(value.get("code"), int) and 400 <= value["code"] < 600:
        return classify(value["code"], facts)
    error = value.get("error") if isinstance(value, dict) else None
    if isinstance(error, dict):
        for status in (error.get("http_status_code"), error.get("code")):
            if isinstance(status, int) and 400 <= status < 600:
                return classify(status, facts)
    for name in (facts.code, facts.type):
        if name in _STATUS_OF:
            return classify(_STATUS_OF[name], facts)
    return classify(500, facts)


_STATUS_OF = {
    "authentication_error": 401,
    "billing_error": 402,
    "insufficient_quota": 429,
    "invalid_api_key": 401,
    "invalid_request_error": 400,
    "model_not_found": 404,
    "not_found_error": 404,
    "overloaded": 503,
    "overloaded_error": 529,
    "permission_error": 403,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "request_too_large": 413,
    "timeout_error": 504,
}


def _classify_refusal(status: int, facts: ErrorFacts) -> UpstreamError:
    message = facts.message or _phrase(status)
    if status == 409:
        return Broken(message)
    if status == 415:
        return Broken("the upstream refuses JSON at this path (415): check its base_url", code="upstream_misconfigured")
    folded = f"{facts.code or ''} {message}".casefold()
    if any(prose in folded for prose in _CONTEXT_PROSE):
        return ContextExceeded(message, param="messages")
    if status == 413:
        return RequestRefused(message, status=413, code="request_too_large")
    if facts.code in _POLICY_CODES:
        return ContentRefused(message, param=facts.param, code=facts.code)
    return RequestRefused(message, param=facts.param, code=facts.code)


def _classify_missing(facts: ErrorFacts) -> UpstreamError:
    """A 404 speaks of the model when the provider's own error says so, else of the path."""
    kind = (facts.type or "").casefold().replace("_", "")
    if facts.code == "model_not_found" or kind.startswith("notfound"):
        return ModelMissing(facts.message or "the upstream does not have this model", param=facts.param)
    return misconfigured(404)


def _phrase(status: int) -> str:
    return HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else f"status {status}"
