"""What is made of an upstream's refusal."""

from proxy.call import Call
from proxy.errors import (
    CallerKeyRefused,
    CallerNotPermitted,
    CredentialRefused,
    InvalidRequest,
    PermissionRefused,
    UpstreamError,
)
from proxy.providers.seam import Target
from proxy.providers.wire import Endpoint

REPEAT = {"true": True, "false": False}


def redact(error: UpstreamError, endpoint: Endpoint, target: Target) -> None:
    """Take our secrets out of what the upstream said."""
    error.message = endpoint.redact(error.message, target.headers)
    error.param = endpoint.redact(error.param, target.headers) if error.param else error.param
    error.code = endpoint.redact(error.code, target.headers) if error.code else error.code


def callers_refusal(refused: CredentialRefused, endpoint: Endpoint, target: Target) -> UpstreamError:
    """The same where the key was the caller's own: it may know what the upstream said."""
    kind = CallerNotPermitted if isinstance(refused, PermissionRefused) else CallerKeyRefused
    return kind(endpoint.redact(refused.theirs, target.headers) or "the upstream refused your key")


def amended_call(endpoint: Endpoint, call: Call, target: Target, error: UpstreamError) -> Call | None:
    """The call without what was refused; None also when an exact wire passed a body that cannot be read whole."""
    try:
        return endpoint.provider.amend(call, target, error)
    except (ValueError, InvalidRequest):
        return None
