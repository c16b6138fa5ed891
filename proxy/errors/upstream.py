"""Failures of providers, and of ours to reach them."""

from typing import Any, ClassVar

from proxy.errors.base import NO_RETRY, ProxyError

WORDS = frozenset(
    "billing_hard_limit_reached content_filter content_policy content_policy_violation context_length_exceeded "
    "insufficient_quota invalid_api_key invalid_image invalid_json invalid_prompt invalid_request_error invalid_type "
    "invalid_value missing_required_parameter model_not_found overloaded overloaded_error rate_limit_exceeded "
    "request_too_large server_error string_above_max_length timeout tokens_exceeded unknown_parameter "
    "unsupported_endpoint unsupported_parameter unsupported_value upstream_bad_response upstream_disconnected "
    "upstream_misconfigured".split()
)


class UpstreamError(ProxyError):
    """A provider failed.

    Args:
        retry_after: seconds the upstream asked us to wait, or None.
        upstream_request_id: the provider's own id of the failed call, or None.
    """

    status = 502
    code: str | None = "upstream_error"

    def __init__(self, message: str, *, retry_after: float | None = None, **rest: Any) -> None:
        super().__init__(message, **rest)
        self.retry_after = retry_after
        self.upstream_request_id: str | None = None
        self.repeat: bool | None = None  # what its x-should-retry says

    @property
    def told_code(self) -> str | None:
        """The code for everybody's eyes: ours, or a word of OpenAI's. What else an upstream sends may quote one."""
        return self.code if self.code == type(self).code or self.code in WORDS else None


class RequestRefused(UpstreamError):
    """The provider found the caller's request at fault; its message and code are kept."""

    status = 400
    type = "invalid_request_error"
    code: str | None = None


class ContextExceeded(RequestRefused):
    """The conversation is longer than the model's context."""

    code = "context_length_exceeded"


class ContentRefused(RequestRefused):
    """The provider's content policy refused the request."""

    code = "content_filter"


class ModelMissing(UpstreamError):
    """The upstream does not have the model."""

    status = 404
    type = "invalid_request_error"
    code = "model_not_found"


class CallerKeyRefused(UpstreamError):
    """The caller's own credential, passed through, was refused."""

    status = 401
    type = "authentication_error"
    code: str | None = "invalid_api_key"


class CallerNotPermitted(CallerKeyRefused):
    """The caller's own credential is known upstream but may not do this."""

    status = 403
    type = "permission_error"
    code = None


class CredentialRefused(UpstreamError):
    """Our credential was refused. `theirs` is what the upstream said: for the caller only when the key was theirs."""

    code = "upstream_auth_failed"

    def __init__(self, message: str, *, theirs: str = "", **rest: Any) -> None:
        super().__init__(message, **rest)
        self.theirs = theirs


class PermissionRefused(CredentialRefused):
    """Our credential is known upstream but may not do this."""


class PaidOut(UpstreamError):
    """The account behind the upstream has no quota or balance left; waiting does not help."""

    status = 429
    type = "insufficient_quota"
    code = "insufficient_quota"
    own_headers: ClassVar[dict[str, str]] = NO_RETRY


class Limited(UpstreamError):
    """Too many calls or tokens for now."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class Overloaded(UpstreamError):
    """The upstream has no capacity for now."""

    status = 503
    code = "overloaded"


class PoolFull(Overloaded):
    """Every connection that our `max_connections` allows is in use; the upstream has nothing to do with it."""


class Broken(UpstreamError):
    """The upstream answered, but not with an answer."""


class Unreachable(UpstreamError):
    """No connection could be made, or it broke before an answer began."""

    code = "upstream_unreachable"


class TooSlow(UpstreamError):
    """A clock ran out; `clock` is one of those below."""

    texts: ClassVar[dict[str, str]] = {
        "connect": "no connection to the upstream in time", "first_token": "no content from the upstream in time",
        "idle": "the upstream's stream stands still", "total": "the upstream's answer took too long",
        "upstream": "the upstream timed out",  # its own 408 or 504
        "deadline": "no answer within the time that this call has (x-octet-timeout, the client's own, total_seconds)",
    }  # fmt: skip

    status = 504
    type = "timeout_error"
    code = "upstream_timeout"

    def __init__(self, message: str = "", *, clock: str, **rest: Any) -> None:
        super().__init__(message or self.texts[clock], **rest)
        self.clock = clock

    @property
    def reason(self) -> str:
        return f"TooSlow.{self.clock}"


class CutShort(UpstreamError):
    """The answer ended before its terminal event."""

    code = "upstream_disconnected"


class CircuitsOpen(UpstreamError):
    """Every upstream of the route is left alone for a while after it failed; none was asked."""

    status = 503
    code = "circuit_open"
