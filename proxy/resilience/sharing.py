"""What a circuit tells other sidecars, and asks of them."""

from typing import Protocol


class Fleet(Protocol):
    """What other sidecars are told and asked, behind the calls' backs."""

    def tell(self, *, failed: bool, slow: bool) -> None:
        """An outcome, in the closed state."""
        ...

    def may_try(self) -> bool:
        """Whether trial calls may begin here by our own decision; if not, they have been asked for."""
        ...

    def hasten(self) -> None:
        """The upstream seems to be back: trial calls are wanted though the time is not over."""
        ...

    def changed(self) -> None:
        """The circuit has entered another state."""
        ...
