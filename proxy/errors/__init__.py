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
    │   ├── NotKept                504  only a kept answer was wanted
    │   ├── SlowReader             408  of a stream that others share
    │   ├── LimitReached           429  a limit of ours, the caller's or of every upstream
    │   │   └── BudgetSpent             for a day, or a month
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
    │   │   └── PoolFull                our own connections to it are all in use
    │   ├── Broken                 502  5xx, HTML, nonsense, wrong path
    │   ├── Unreachable            502  DNS, refused, reset, TLS
    │   ├── TooSlow                504  one of the clocks
    │   ├── CutShort               502  ended before its end
    │   └── CircuitsOpen           503  every upstream is left alone after failures
    └── ProxyFault                 500  ours; details go to the log only
        ├── Stopping               503  the sidecar is shutting down
        └── Overcrowded            503  too many are served already

Every class carries what its answer needs. What *follows* a failure is decided in `resilience`, by class.

Source: OpenAI API reference, "Error codes"; DESIGN.md §7.
"""

from proxy.errors.base import (
    MAX_MESSAGE,
    NO_RETRY,
    Overcrowded,
    ProxyError,
    ProxyFault,
    Stopping,
)
from proxy.errors.caller import (
    BodyTooLarge,
    BudgetSpent,
    CallerError,
    Forbidden,
    InvalidRequest,
    LimitReached,
    LoopDetected,
    MethodNotAllowed,
    NotFound,
    NotKept,
    ReadTimeout,
    SlowReader,
    Unauthenticated,
    UnsupportedMedia,
    UnsupportedParameter,
)
from proxy.errors.upstream import (
    Broken,
    CallerKeyRefused,
    CallerNotPermitted,
    CircuitsOpen,
    ContentRefused,
    ContextExceeded,
    CredentialRefused,
    CutShort,
    Limited,
    ModelMissing,
    Overloaded,
    PaidOut,
    PermissionRefused,
    PoolFull,
    RequestRefused,
    TooSlow,
    Unreachable,
    UpstreamError,
)

__all__ = [
    "MAX_MESSAGE",
    "NO_RETRY",
    "BodyTooLarge",
    "Broken",
    "BudgetSpent",
    "CallerError",
    "CallerKeyRefused",
    "CallerNotPermitted",
    "CircuitsOpen",
    "ContentRefused",
    "ContextExceeded",
    "CredentialRefused",
    "CutShort",
    "Forbidden",
    "InvalidRequest",
    "LimitReached",
    "Limited",
    "LoopDetected",
    "MethodNotAllowed",
    "ModelMissing",
    "NotFound",
    "NotKept",
    "Overcrowded",
    "Overloaded",
    "PaidOut",
    "PermissionRefused",
    "PoolFull",
    "ProxyError",
    "ProxyFault",
    "ReadTimeout",
    "RequestRefused",
    "SlowReader",
    "Stopping",
    "TooSlow",
    "Unauthenticated",
    "Unreachable",
    "UnsupportedMedia",
    "UnsupportedParameter",
    "UpstreamError",
]
