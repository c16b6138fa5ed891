"""How one upstream stands with us: what all calls to it together have shown of late."""

import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from proxy.call import Hold, Json, NoRoom
from proxy.errors import Limited, UpstreamError
from proxy.providers.seam import Target
from proxy.providers.wire import Endpoint
from proxy.resilience.budget import RetryBudget
from proxy.resilience.circuit import Circuit
from proxy.resilience.circuits import CircuitTable
from proxy.resilience.latency import Latency, Load, Traffic

REMEMBERED_FAILURES = 10


Tokens = Callable[[], int]  # a call's estimate, for who needs it


class Limiter(Protocol):
    """Our own limits of the upstream."""

    def refusal(self, tokens: Tokens) -> NoRoom | None:
        """Why there is no room for a call at this moment."""
        ...

    def may_ask(self, refusal: NoRoom) -> bool:
        """Whether there may be room all the same, where nobody has asked yet."""
        ...

    def take(self, tokens: Tokens) -> Hold | NoRoom:
        """Room for one call, at once."""
        ...

    def describe(self) -> Json:
        """How they stand, for people."""
        ...

    def hold(self, caller: str, tokens: Tokens, patience: float) -> Coroutine[Any, Any, Hold | NoRoom]:
        """Room for one call, waiting in the queue if that helps."""
        ...


class Pace(Protocol):
    """The upstream's own limits, as it tells them."""

    @property
    def is_known(self) -> bool:
        """Whether anything is."""
        ...

    def wait(self, model: str, tokens: Tokens, now: float) -> float: ...

    def sent(self, model: str, tokens: Tokens) -> None: ...

    def refused(self, model: str, wait: float | None, now: float) -> None: ...

    def heard(self, model: str, headers: Mapping[str, str], clock: Callable[[], float]) -> None: ...

    def describe(self, now: float) -> Json: ...


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed attempt; `at` is unix time. What the upstream said may quote a prompt, and is not kept."""

    at: float
    model: str
    reason: str
    code: str | None


class Standing:
    """One upstream, as attempts see it.

    Args:
        clock: seconds that never go back.
        is_timed: a route goes by how quick its models are.
    """

    def __init__(
        self,
        name: str,
        endpoint: Endpoint,
        circuits: CircuitTable,
        pace: Pace,
        limiter: Limiter | None,
        clock: Callable[[], float],
        traffic: Traffic,
        *,
        is_timed: bool = True,
    ) -> None:
        self._traffic = traffic
        self.is_timed = is_timed
        self.name = name
        self.endpoint = endpoint
        self.limiter = limiter
        self.pace = pace
        self.clock = clock
        self.budget = RetryBudget()
        self.latency = {False: Latency(), True: Latency()}  # by whether it is a stream
        self.failures: deque[Failure] = deque(maxlen=REMEMBERED_FAILURES)
        self.loads: dict[str, Load] = {}  # by the model's label
        self._circuits = circuits

    def follow(self, before: "Standing") -> None:
        """It is the same upstream as before: what is known of it holds."""
        self.budget, self.latency, self.failures = before.budget, before.latency, before.failures
        self.loads, self.pace = before.loads, before.pace

    def load(self, target: Target) -> Load:
        """What a model of the upstream has to do."""
        return self.loads.get(target.label) or self.loads.setdefault(target.label, Load(self._traffic))

    def circuit(self, target: Target) -> Circuit:
        return self._circuits.of(target)

    def failed(self, target: Target, error: UpstreamError) -> None:
        """Remember a failure, and what it says of the time to come."""
        self.failures.append(Failure(time.time(), target.model, error.reason, error.told_code))
        if isinstance(error, Limited):
            self.pace.refused(target.model, error.retry_after, self.clock())

    def answered(self, target: Target, headers: Mapping[str, str], seconds: float, *, stream: bool) -> None:
        """Remember an answer, or a stream's first content, that took so long; `headers` in OpenAI's names."""
        self.latency[stream].add(seconds)
        self.pace.heard(target.model, headers, self.clock)
