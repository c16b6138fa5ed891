"""What is to be told of one call."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import msgspec

from proxy.call import Facts, Operation
from proxy.errors import ProxyError
from proxy.openai_format.estimate import Estimate


class Try(NamedTuple):
    """An attempt that failed; what the upstream said may quote a prompt, and is not kept."""

    upstream: str
    model: str
    reason: str
    code: str | None
    seconds: float


class AttemptTrace(Protocol):
    """An attempt as a part of its call's trace."""

    @property
    def headers(self) -> Mapping[str, str]:
        """By which the upstream goes on with the trace."""
        ...

    def end(self, error: ProxyError | None) -> None: ...


class Trace(Protocol):
    """A call's trace, where they are taken."""

    def attempt(self, upstream: str, provider: str, model: str, number: int) -> AttemptTrace:
        """One begins; `number` counts them from 1."""
        ...

    def asked(self, body: bytes) -> None:
        """What was asked, for those who want it in their traces."""
        ...

    def answered(self, body: bytes) -> None:
        """What was answered as a whole, for the same."""
        ...

    def end(self, record: "CallRecord", prompt: int | None, completion: int | None) -> None:
        """The call is over, and has used so many tokens."""
        ...


class Traces(Protocol):
    """Takes the traces of calls."""

    def begin(self, record: "CallRecord", headers: Mapping[str, str], operation: Operation) -> None:
        """Begin a call's trace, if it is to have one."""
        ...

    async def close(self) -> None:
        """Send what is left."""
        ...


class CallRecord(msgspec.Struct):
    """What is to be told of one call when it is over. Times are seconds of `time.perf_counter`.

    `phase` says where the call is: `admission`, `queue` (it waits for room), `connect`, `first_token`, `stream`,
    `json`, `back_off`, or `joined` (it waits for the answer to the same call).
    """

    request_id: str
    started: float
    caller: str = ""
    route: str = ""
    upstream: str = ""
    model_asked: str = ""
    model: str = ""
    model_label: str = "other"
    stream: bool = False
    status: int = 0
    outcome: str = ""
    reason: str = ""
    phase: str = "admission"
    attempts: int = 0
    cache: str = "bypass"  # what it had to do with the answer: `memory`, `redis`, `miss`, `joined`
    cache_key: bytes = b""  # the digest of the key it was, or could be, found under
    age: int | None = None  # of a kept answer, in seconds
    dropped: tuple[str, ...] = ()
    upstream_request_id: str = ""
    rate_limits: Mapping[str, str] = {}  # what the upstream says, in OpenAI's names
    routed: float = 0.0  # when it was clear where the call goes
    body_seconds: float = 0.0  # spent waiting for the caller's body
    connect_seconds: float = 0.0  # spent waiting for connections to upstreams
    waited_seconds: float = 0.0  # spent waiting for room, and before trying again
    upstream_seconds: float = 0.0  # spent waiting for upstreams, connections included, until the first content
    first_token: float | None = None  # when the first content was there
    gaps: list[float] = []  # between the contents of a stream, in seconds; those that have not been counted yet
    facts: Facts = msgspec.field(default_factory=Facts)
    generation: int = 0  # of the configuration
    target: object = None  # where it went, of routing's
    choice: object = None  # what routing chose, and why; of its room
    tries: tuple["Try", ...] = ()  # attempts that failed
    tokens: Estimate | None = None  # what it was thought to use
    trace_id: str = ""  # of the caller's trace, or of ours
    trace: Trace | None = None  # where traces are taken
    cut_off_by: ProxyError | None = None  # why we, not the caller, end the call

    def own_seconds(self, until: float) -> float:
        """What of the time until then was spent here, and not waiting for somebody."""
        return max(until - self.started - self.upstream_seconds - self.body_seconds - self.waited_seconds, 0.0)
