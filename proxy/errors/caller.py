"""Failures that the caller must mend."""

from typing import Any, ClassVar

from proxy.errors.base import NO_RETRY, ProxyError


class CallerError(ProxyError):
    """The caller must change something."""

    status = 400
    type = "invalid_request_error"


class InvalidRequest(CallerError):
    """The request is not what its endpoint takes."""


class UnsupportedParameter(InvalidRequest):
    """The chosen target cannot carry a parameter whose loss would change the answer's meaning."""

    code = "unsupported_parameter"


class Unauthenticated(CallerError):
    """No key, or one that we do not know."""

    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class Forbidden(CallerError):
    """A known caller asked for something that is not theirs."""

    status = 403
    type = "permission_error"


class NotFound(CallerError):
    """No such endpoint or model."""

    status = 404


class MethodNotAllowed(CallerError):
    """The endpoint exists, but not for this method."""

    status = 405
    code = "method_not_allowed"


class ReadTimeout(CallerError):
    """The caller stopped sending its body."""

    status = 408
    type = "timeout_error"
    code = "request_timeout"


class BodyTooLarge(CallerError):
    """The body is above `server.max_body_bytes`."""

    status = 413
    code = "request_too_large"


class UnsupportedMedia(CallerError):
    """The body is not JSON, or is compressed."""

    status = 415
    code = "unsupported_media_type"


class LoopDetected(CallerError):
    """The call carries our own `via`: some upstream points back at this sidecar."""

    status = 508
    type = "server_error"
    code = "loop_detected"
    own_headers: ClassVar[dict[str, str]] = NO_RETRY


class NotKept(CallerError):
    """The call wants a kept answer (`cache-control: only-if-cached`), and there is none.

    Source: RFC 9111 §5.2.1.7.
    """

    status = 504
    code = "not_cached"


class SlowReader(CallerError):
    """The caller read a stream too slowly that it shared with others."""

    status = 408
    type = "timeout_error"
    code = "slow_reader"
    own_headers: ClassVar[dict[str, str]] = NO_RETRY


class LimitReached(CallerError):
    """A limit of ours is used up: the caller's own, or those of all upstreams of its route.

    Args:
        retry_after: seconds until there is room again.
        limit: which one: `requests`, `tokens` or `concurrent`.
    """

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"

    def __init__(self, message: str, *, retry_after: float, limit: str, **rest: Any) -> None:
        super().__init__(message, **rest)
        self.retry_after = retry_after
        self.limit = limit

    @property
    def reason(self) -> str:
        return f"LimitReached.{self.limit}"


class BudgetSpent(LimitReached):
    """A budget in US dollars is used up; asking again before its day or month is over changes nothing.

    Source: OpenAI's error codes, "429 - You exceeded your current quota": code `insufficient_quota`.
    """

    type = "insufficient_quota"
    code = "insufficient_quota"
    own_headers: ClassVar[dict[str, str]] = NO_RETRY
