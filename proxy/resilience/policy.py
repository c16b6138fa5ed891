"""What follows a failed attempt. Pure.

Source: DESIGN.md §7.
"""

from collections.abc import Iterable
from typing import NamedTuple

from proxy.config import Refusal, Retry
from proxy.errors import (
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


class Fault(NamedTuple):
    """One kind of failure, and what follows.

    Args:
        kinds: failures that it is, each by its class or by its reason.
        next_target: whether another one may do better; or the word under `fallback_on` that decides it.
        repeats: whether the same target may be asked again when no other is left.
        counts: whether the circuit counts it as a failure; else it is ignored.
        final: whether the caller's client is told not to try again (x-should-retry: false).
    """

    what: str
    kinds: tuple[type[UpstreamError] | str, ...]
    examples: str
    next_target: bool | Refusal
    repeats: bool
    counts: bool
    final: bool
    answer: str


FAULTS = (
    Fault("the caller's fault", (RequestRefused,), "400 413 422", False, False, False, False,
          "400 or 413, message and code kept"),
    Fault("the model is unknown there", (ModelMissing,), "404 of the model", True, False, False, False,
          "404 model_not_found"),
    Fault("the conversation is too long", (ContextExceeded,), "context_length_exceeded", "context", False, False,
          False, "400 context_length_exceeded"),
    Fault("against the provider's policy", (ContentRefused,), "content_filter", "policy", False, False, False,
          "400 content_filter"),
    Fault("our credential", (CredentialRefused,), "401", True, False, True, True, "502 upstream_auth_failed"),
    Fault("our permission", (PermissionRefused,), "403", True, False, False, True, "502 upstream_auth_failed"),
    Fault("the caller's own credential", (CallerKeyRefused, CallerNotPermitted), "401 403", False, False, False, False,
          "401 or 403"),
    Fault("paid out", (PaidOut,), "402, 429 insufficient_quota", True, False, True, True, "429 insufficient_quota"),
    Fault("limited", (Limited,), "other 429", True, True, False, False, "429 and retry-after"),
    Fault("overloaded", (Overloaded,), "503 529", True, True, True, True, "503"),
    Fault("no connection free", (PoolFull,), "max_connections, for connect_seconds", True, True, False, True, "503"),
    Fault("broken", (Broken,), "other 5xx, 409, 404 405 415 of the path, redirects, HTML, no JSON", True, True, True,
          True, "502"),
    Fault("unreachable", (Unreachable,), "DNS, refused, reset, TLS", True, True, True, True, "502"),
    Fault("cut before the first content", (CutShort,), "the answer broke off", True, True, True, True, "502"),
    Fault("no connection in time", ("TooSlow.connect",), "connect_seconds", True, True, True, True, "504"),
    Fault("timed out over there", ("TooSlow.upstream",), "408 504", True, True, True, True, "504"),
    Fault("no answer in time", (TooSlow,), "first_token_seconds, idle_seconds, total_seconds", True, False, True, True,
          "504"),
    Fault("the call's own time is over", ("TooSlow.deadline",), "x-octet-timeout, the client's, the route's", False,
          False, False, True, "504"),
    Fault("left alone after failures", (CircuitsOpen,), "every circuit is open", False, False, False, False,
          "503 circuit_open and retry-after"),
)  # fmt: skip

_BY_KIND = {kind: fault for fault in FAULTS for kind in fault.kinds}


def fault_of(failure: UpstreamError) -> Fault:
    """The row of the table: that of its reason, else of its class, else of the nearest class above."""
    by_reason = _BY_KIND.get(failure.reason)
    return by_reason or next(_BY_KIND[kind] for kind in type(failure).__mro__ if kind in _BY_KIND)


def table() -> Iterable[tuple[str, str, str, str, str, str]]:
    """The faults as people read them; the first row is the heading."""
    yield "what", "examples", "next target", "same target again", "circuit", "to the caller, if last"
    for fault in FAULTS:
        yield (
            fault.what,
            fault.examples,
            f"by fallback_on: {fault.next_target}" if isinstance(fault.next_target, str) else _yes(fault.next_target),
            _yes(fault.repeats),
            "counts" if fault.counts else "ignored",
            fault.answer + (", x-should-retry: false" if fault.final else ""),
        )


def _yes(value: bool) -> str:
    return "yes" if value else "no"


class Option(NamedTuple):
    """A target of the route, by its place, that may be tried in so many seconds."""

    place: int
    wait: float
    repeat: bool


def choose(options: Iterable[Option], longest_wait: float, time_left: float) -> Option | None:
    """What to try next: the first untried target that is free, else what is free soonest; None: nothing in time."""
    best: Option | None = None
    for option in options:
        if not option.wait and not option.repeat:
            return option
        if best is None or option.wait < best.wait:
            best = option
    return best if best is not None and best.wait <= longest_wait and best.wait < time_left else None


def back_off(retry: Retry, repeats: int, chance: float) -> float:
    """Seconds to wait before a repeat: anything up to a bound that doubles ("full jitter").

    Args:
        repeats: how many there were before, in this call.
        chance: uniform in [0, 1).

    Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    return chance * min(retry.longest_wait_seconds, retry.first_wait_seconds * 2.0**repeats)
