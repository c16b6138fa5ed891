"""Failures, by whose fault they are.

    ProxyError
    ├── CallerError                the caller must change something; never tried again
    │   ├── InvalidRequest         400  not a chat completion request
    │   │   └── UnsupportedParameter    the chosen target cannot carry it
    │   ├── Unauthenticated        401
    │   ├── Forbidden              403
    │   ├── NotFound               404  endpoint or model
    │   ├── MethodNotAllowed       405
    │   ├── ReadTimeout            408  the body did not arrive in time
    │   ├── BodyTooLarge           413
    │   ├── UnsupportedMedia       415
    │   └── LoopDetected           508  the call has passed here before
    ├── UpstreamError              a provider failed; the next target may do better
    │   ├── RequestRefused         400  the provider found the request at fault
    │   │   ├── ContextExceeded         too long for the model
    │   │   └── ContentRefused          against the provider's policy
    │   ├── ModelMissing           404
    │   ├── CallerKeyRefused       401  the caller's own credential
    │   │   └── CallerNotPermitted 403  it is known, but may not do this
    │   ├── CredentialRefused      502  our credential: 401
    │   │   └── PermissionRefused  502  our credential: 403
    │   ├── PaidOut                429  quota or balance is gone
    │   ├── Limited                429  for a while
    │   ├── Overloaded             503
    │   ├── Broken                 502  5xx, HTML, nonsense, wrong path
    │   ├── Unreachable            502  DNS, refused, reset, TLS
    │   ├── TooSlow                504  one of the clocks
    │   └── CutShort               502  ended before its end
    └── ProxyFault                 500  ours; details go to the log only
        └── Stopping               503  the sidecar is shutting down

Every class carries what its answer needs. What *follows* a failure is decided in `resilience`, by class.

Source: OpenAI API reference, "Error codes"; DESIGN.md §7.
"""

from typing import Any, ClassVar

MAX_MESSAGE = 2000  # characters of an upstream's text that are passed on


class ProxyError(Exception):
    """A failure that can be told to the caller as an OpenAI error object."""

    status: int = 500
    type: ClassVar[str] = "server_error"
    code: str | None = None
    own_headers: ClassVar[dict[str, str]] = {}

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        status: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message[:MAX_MESSAGE]
        self.param = param
        self.headers = {**self.own_headers, **(headers or {})}
        if code is not None:
            self.code = code
        if status is not None:
            self.status = status

    @property
    def reason(self) -> str:
        """The failure's name in metrics and logs: a bounded set, never a text from outside."""
        return type(self).__name__


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
    own_headers: ClassVar[dict[str, str]] = {"x-should-retry": "false"}


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
    own_headers: ClassVar[dict[str, str]] = {"x-should-retry": "false"}


class Limited(UpstreamError):
    """Too many calls or tokens for now."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class Overloaded(UpstreamError):
    """The upstream has no capacity for now."""

    status = 503
    code = "overloaded"


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


class ProxyFault(ProxyError):
    """We are wrong."""


class Stopping(ProxyFault):
    """The sidecar is shutting down and `drain_seconds` are over."""

    status = 503
    code = "shutting_down"
