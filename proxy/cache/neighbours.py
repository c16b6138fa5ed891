"""What the cache asks of the stages beside it, which it does not know."""

from collections.abc import Callable
from types import TracebackType
from typing import Protocol

from proxy.call import Deadline
from proxy.errors import ProxyError
from proxy.reply import Fetched
from proxy.telemetry import CallRecord


class Walk(Protocol):
    """The way upstream: entered, it gives the answer, and holds what that needs until it is left."""

    async def __aenter__(self) -> Fetched: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def extend(self, deadline: Deadline) -> None:
        """Let it last longer."""
        ...


class Starter(Protocol):
    """The connection of a caller whose call others may share."""

    def share(self, leave: Callable[[], bool] | None) -> None:
        """Ask `leave` when the caller goes: True, and the handler is not cancelled, for others need it."""
        ...

    def dismiss(self, error: ProxyError, record: CallRecord) -> None:
        """Tell the caller now that it gets no (further) answer; the handler goes on."""
        ...
