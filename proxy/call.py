"""The nouns of one call: who calls, what is asked, and how answers are pushed towards the caller.

What is made anew for every call is a msgspec struct: frozen and slotted like our dataclasses, at a tenth of their cost.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

Json = dict[str, Any]
NEVER = float("inf")
Operation = Literal["chat", "completions", "embeddings"]


def header_values(headers: Mapping[str, str], name: str) -> str:
    """Every line of a header that may come in several, joined as one."""
    lines = getattr(headers, "getall", None)
    return ", ".join(lines(name, ())) if lines is not None else headers.get(name, "")


class Caller(msgspec.Struct, frozen=True):
    """Who sends the call.

    `name` is None when the sidecar has no callers configured. `credential` is the caller's own upstream key
    as sent (`Authorization: Bearer`), or None; a key of *ours* never stands there.
    """

    name: str | None = None
    models: tuple[str, ...] = ()
    credential: str | None = None

    def __repr__(self) -> str:
        return f"Caller({self.name!r})"  # keys are in no trace


class Call(msgspec.Struct, frozen=True):
    """A request, admitted.

    Args:
        id: the request id, sane for headers and logs.
        received_at: unix time in seconds.
        body: valid JSON, an object without duplicate top-level keys, exactly as sent.
        members: where each top-level key's value stands: `body[members[key]]`.
        wants_usage: the caller asked for the usage chunk of a stream.
        headers: the caller's headers, looked up without regard to case.
        amended: what was taken out of `body` since an upstream's model family refuses it.
    """

    id: str
    received_at: float
    body: bytes
    members: Mapping[str, slice]
    model: str
    stream: bool
    wants_usage: bool
    caller: Caller = Caller()
    headers: Mapping[str, str] = {}
    operation: Operation = "chat"
    amended: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Call({self.id!r}, {self.model!r}, {self.caller!r})"  # nor are prompts


class Deadline(NamedTuple):
    """The bounds of one call.

    Args:
        whole: when it must be over.
        content: when a stream must have content.
        gap: seconds that may lie between the bytes of a stream.
    """

    whole: float = NEVER
    content: float = NEVER
    gap: float = NEVER


UNBOUNDED = Deadline()


def longest(one: Deadline, other: Deadline) -> Deadline:
    """What bounds a call that serves two."""
    return Deadline(*map(max, one, other))


class Facts(msgspec.Struct):
    """What accounting needs to know of an answer, gathered while it passes by."""

    content: bool = False  # text, reasoning, refusal, tool call, audio or thinking block seen
    pieces: int = 0  # of a stream's content that were looked at; those that were only passed on are not counted
    text_bytes: int = 0  # of a stream's content in UTF-8, of an answer without usage too
    finished: bool = False  # every choice seen has a finish_reason, or the terminal frame came
    finish_reason: str | None = None  # of the first choice to finish
    usage: Json | None = None  # in OpenAI's shape
    begun: Json | None = None  # the usage that was told when the answer began: its prompt's
    copies: int = 1  # how often the upstream was sent the prompt

    @property
    def total_tokens(self) -> int | None:
        """Tokens that the answer says it used; None when it does not, or says what cannot be believed."""
        return count_of(self.usage.get("total_tokens")) if self.usage else None


def count_of(value: object) -> int | None:
    """A count as an upstream sent it, if it is one that can be believed."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else None


class NoRoom(NamedTuple):
    """A limit is used up: which one, and in how many seconds it is worth asking again (inf: it cannot be told)."""

    limit: str  # `concurrent`, `requests` or `tokens`
    wait: float

    @property
    def key(self) -> str:
        """The limit's name in a configuration."""
        return self.limit if self.limit == "concurrent" else f"{self.limit}_per_minute"


class Hold(Protocol):
    """Room under limits that a call has. It is given back once, when the call is over."""

    def settle(self, used: int | None) -> None:
        """The call is over and has used so many tokens; None: nobody knows, and the estimate stands."""
        ...

    def cancel(self) -> None:
        """The call was not sent: nothing was used, not even a request."""
        ...


class Source(Protocol):
    """Somebody who pushes bytes, and can be asked to wait."""

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class Sink(Protocol):
    """Somebody bytes are pushed at. Exactly one of `end` and `fail` comes last.

    `feed` is synchronous; a sink that wants no more ignores what still comes.
    """

    def feed(self, data: bytes) -> None: ...

    def end(self) -> None: ...

    def fail(self, error: Exception) -> None: ...
