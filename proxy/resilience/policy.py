"""What follows a failed attempt. Pure.

Source: DESIGN.md §7.
"""

from collections.abc import Mapping

from proxy.errors import (
    Broken,
    CallerKeyRefused,
    CredentialRefused,
    CutShort,
    Limited,
    ModelMissing,
    Overloaded,
    PaidOut,
    RequestRefused,
    TooSlow,
    Unreachable,
    UpstreamError,
)

# Whether the next target may do better. A failure is looked up by its class, else by the nearest class above.
TRIES_NEXT: Mapping[type[UpstreamError], bool] = {
    RequestRefused: False,
    ModelMissing: True,
    CallerKeyRefused: False,
    CredentialRefused: True,
    PaidOut: True,
    Limited: True,
    Overloaded: True,
    Broken: True,
    Unreachable: True,
    TooSlow: True,
    CutShort: True,
}


def tries_next(failure: UpstreamError) -> bool:
    """Whether the next untried target is tried after this failure, before anything was sent to the caller."""
    return next(TRIES_NEXT[kind] for kind in type(failure).__mro__ if kind in TRIES_NEXT)
