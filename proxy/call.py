"""The nouns of one call: who calls, what is asked, and how answers are pushed towards the caller."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Json = dict[str, Any]
Operation = Literal["chat", "completions", "embeddings"]


def header_values(headers: Mapping[str, str], name: str) -> str:
    """Every line of a header that may come in several, joined as one."""
    lines = getattr(headers, "getall", None)
    return ", ".join(lines(name, ())) if lines is not None else headers.get(name, "")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends the call.

    `name` is None when the sidecar has no callers configured. `credential` is the caller's own upstream key
    as sent (`Authorization: Bearer`), or None; a key of *ours* never stands there.
    """

    name: str | None = None
    models: tuple[str, ...] = ()
    credential: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Member:
    """Where a top-level member's value stands in the body: `body[start:end]`, in bytes."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Call:
    """A request, admitted.

    Args:
        id: the request id, sane for headers and logs.
        received_at: unix time in seconds.
        body: valid JSON, an object without duplicate top-level keys, exactly as sent.
        members: each top-level key's place in `body`.
        wants_usage: the caller asked for the usage chunk of a stream.
        headers: the caller's headers, looked up without regard to case.
        amended: what was taken out of `body` since an upstream's model family refuses it.
    """

    id: str
    received_at: float
    body: bytes = field(repr=False)
    members: Mapping[str, Member] = field(repr=False)
    model: str
    stream: bool
    wants_usage: bool
    caller: Caller = Caller()
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    operation: Operation = "chat"
    amended: tuple[str, ...] = ()


@dataclass(slots=True)
class Facts:
    """What accounting needs to know of an answer, gathered while it passes by."""

    content: bool = False  # text, reasoning, refusal, tool call, audio or thinking block seen
    finished: bool = False  # every choice seen has a finish_reason, or the terminal frame came
    finish_reason: str | None = None  # of the first choice to finish
    usage: Json | None = None  # in OpenAI's shape


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
