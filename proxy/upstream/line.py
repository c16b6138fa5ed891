"""What an exchange asks of the connection that carries it."""

from typing import Protocol

from proxy.providers.wire import Shortcut


class Line(Protocol):
    """The connection that an exchange has while its answer comes."""

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def watch(self, until: float) -> None:
        """Call the exchange's `expire` at this time of the loop's, or earlier."""
        ...

    def shorten(self, shortcut: Shortcut | None) -> None:
        """Let this stand before the connection until the exchange lets go, or until None does."""
        ...

    def drain(self) -> None:
        """Nobody wants the rest of this answer, but its end seems near: take it in, for a moment."""
        ...

    def release(self, *, reusable: bool) -> None:
        """The exchange is over, and lets the connection go: into the pool, or shut."""
        ...
