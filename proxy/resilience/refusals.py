"""What is made of an upstream's refusal."""

from proxy.call import Call
from proxy.errors import InvalidRequest, UpstreamError
from proxy.providers.seam import Target
from proxy.providers.wire import Endpoint

REPEAT = {"true": True, "false": False}


def redact(error: UpstreamError, endpoint: Endpoint, target: Target) -> None:
    """Take our secrets out of what the upstream said."""
    error.message = endpoint.redact(error.message, target.headers)
    error.param = endpoint.redact(error.param, target.headers) if error.param else error.param
    error.code = endpoint.redact(error.code, target.headers) if error.code else error.code


def amended_call(endpoint: Endpoint, call: Call, target: Target, error: UpstreamError) -> Call | None:
    """The call without what was refused; None also when an exact wire passed a body that cannot be read whole."""
    try:
        return endpoint.provider.amend(call, target, error)
    except (ValueError, InvalidRequest):
        return None
