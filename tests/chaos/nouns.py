"""What the account is about: calls and their ends, faults and their times, lives of sidecars, upstreams' own logs.

Times are seconds of `time.time`: those of several processes are compared.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

How = Literal["whole", "failed", "broken", "cut", "refused", "left", "hung", "wrong"]
"""How a call ended for its caller: answered whole; an error answer; a stream that ends with an error event; the
connection broke; nobody listened; the caller hung up; none, long after every time-out; what came is no answer."""

FOREVER = float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One call as it is to be made.

    Args:
        nonce: its own, and its request id.
        question: what is asked; the same question of the same tenant may be answered from the cache.
        leave_seconds, leave_events: the caller hangs up after so long, or after so many events with content.
        timeout: what it says in `x-octet-timeout`.
    """

    nonce: str
    tenant: str
    model: str
    question: str
    tokens: int = 8
    pace: float = 0.01
    stream: bool = False
    leave_seconds: float | None = None
    leave_events: int | None = None
    timeout: float | None = None

    @property
    def route(self) -> str:
        return self.model.partition("-")[0]

    @property
    def leaves(self) -> bool:
        return self.leave_seconds is not None or self.leave_events is not None


@dataclass(slots=True, kw_only=True)
class Call:
    """What became of it. `text` is all that came; the numbers are what the answer's headers and usage say."""

    ask: Ask
    sidecar: str
    sent: float
    ended: float = 0.0
    how: How = "hung"
    detail: str = ""
    status: int = 0
    code: str = ""
    request_id: str = ""
    cache: str = ""
    attempts: int | None = None
    upstream: str = ""
    text: str = ""
    completion_tokens: int | None = None


@dataclass(slots=True)
class Window:
    """A fault, and when it was in force."""

    lane: str
    name: str
    targets: tuple[str, ...]  # upstreams, sidecars, or what else it is about
    began: float
    ended: float = FOREVER

    def touches(self, since: float, until: float, after: float = 0.0) -> bool:
        """Whether it was in force between these times, or until `after` seconds before them."""
        return self.began <= until and since <= self.ended + after


@dataclass(slots=True)
class Life:
    """One process of a sidecar, from when it listened; `going` is when it was told to stop, or killed."""

    sidecar: str
    pid: int
    began: float
    going: float = FOREVER
    ended: float = FOREVER
    how: Literal["", "killed", "drained"] = ""
    exit_code: int | None = None
    lines: list[dict[str, Any]] = field(default_factory=list)
    told: str = ""  # its standard error


@dataclass(slots=True)
class Execution:
    """One answer that an echo began to make."""

    upstream: str
    serial: str
    made_for: str  # tenant/nonce
    began: float
    ended: float = FOREVER
    how: str = "open"  # whole; left by the sidecar; a fault; aborted: the connection broke, as it was told to

    @property
    def nonce(self) -> str:
        return self.made_for.partition("/")[2]


@dataclass(frozen=True, slots=True)
class Complaint:
    """Something that nothing explains."""

    about: str
    subject: str  # a request id, or a process
    text: str


@dataclass(slots=True)
class Story:
    """All that is known when it is over."""

    calls: list[Call] = field(default_factory=list)
    windows: list[Window] = field(default_factory=list)
    lives: list[Life] = field(default_factory=list)
    executions: list[Execution] = field(default_factory=list)
