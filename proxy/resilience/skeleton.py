"""purgatory's skeleton of circuits, without its Redis repository.

That is not used here, and would load the client library for everybody: 0.1 s and 7 MiB at each start.
"""

import sys
from types import ModuleType
from typing import Any

_NO_REDIS = ModuleType("purgatory.service._redis")
vars(_NO_REDIS).update(AsyncRedis=Any, SyncRedis=Any)
sys.modules.setdefault(_NO_REDIS.__name__, _NO_REDIS)

from purgatory import AsyncCircuitBreakerFactory  # noqa: E402
from purgatory.domain.messages.base import Event  # noqa: E402
from purgatory.domain.messages.commands import CreateCircuitBreaker  # noqa: E402
from purgatory.domain.messages.events import ContextChanged  # noqa: E402
from purgatory.domain.model import CLOSED, HALF_OPENED, OPENED, Context, State  # noqa: E402
from purgatory.service._async.message_handlers import register_circuit_breaker  # noqa: E402
from purgatory.service._async.repository import AsyncInMemoryRepository  # noqa: E402
from purgatory.service._async.unit_of_work import AsyncAbstractUnitOfWork, AsyncInMemoryUnitOfWork  # noqa: E402

__all__ = [
    "CLOSED",
    "HALF_OPENED",
    "OPENED",
    "AsyncAbstractUnitOfWork",
    "AsyncCircuitBreakerFactory",
    "AsyncInMemoryRepository",
    "AsyncInMemoryUnitOfWork",
    "Context",
    "ContextChanged",
    "CreateCircuitBreaker",
    "Event",
    "State",
    "register_circuit_breaker",
]
