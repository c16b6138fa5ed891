"""What comes back for a call: a whole answer, or a stream that pushes its events."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from proxy.call import Facts


class WholeReply(msgspec.Struct, frozen=True):
    """A completion, ready to be sent."""

    headers: Mapping[str, str]  # the upstream's
    dropped: tuple[str, ...]
    body: bytes
    facts: Facts


class Out(Protocol):
    """Where the bytes of a stream go; they are whole events."""

    @property
    def write(self) -> Callable[[bytes], object] | None:
        """Takes bytes that are framed as HTTP's chunks; None where they are not to be, or the caller has gone."""
        ...

    def push(self, data: bytes) -> None: ...

    def push_last(self, data: bytes) -> None:
        """The last events, which may be none: the stream is at its good end."""
        ...


class _Nowhere:
    """Takes a stream that nobody reads."""

    write = None

    def push(self, data: bytes) -> None:
        """Nobody reads."""

    def push_last(self, data: bytes) -> None:
        """Nobody reads."""


class Answered(Protocol):
    """What is known of an answer that is coming. `shown` is when content last came, in the loop's time."""

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def dropped(self) -> tuple[str, ...]: ...

    @property
    def facts(self) -> Facts: ...

    @property
    def shown(self) -> float: ...


class Stream(Answered, Protocol):
    """A stream that has shown its first content, or has it all; `finished` ends with it, and raises what broke it."""

    @property
    def finished(self) -> asyncio.Future[None]: ...

    def connect(self, out: Out) -> None:
        """Push what has come, and from now on all that comes, at `out`."""
        ...

    def pause(self) -> None:
        """The caller reads too slowly: what is pushed is to wait."""
        ...

    def resume(self) -> None: ...


class LiveStream(Stream, Protocol):
    """A stream of an upstream, and what must be known of it to tell it to others."""

    @property
    def usage_event(self) -> bytes:
        """The events that hold usage and nothing else, whether or not they are pushed; none before they have come."""
        ...

    @property
    def encoded(self) -> bool:
        """Whether the events are written by us, and not the upstream's own bytes."""
        ...


Reply = WholeReply | Stream
"""What is sent to the caller."""

Fetched = WholeReply | LiveStream
"""What an upstream gave."""


async def read_out(reply: Reply) -> None:
    """See an answer that nobody reads to its end; raises what breaks it."""
    if not isinstance(reply, WholeReply):
        reply.connect(_Nowhere())
        await reply.finished
