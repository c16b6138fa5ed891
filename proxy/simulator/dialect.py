"""The seam of the simulator: what a dialect reads, writes and refuses, and how frames are spelt."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import msgspec

from proxy.simulator.answers import Answer, Question
from proxy.simulator.behaviour import Behaviour

EPOCH = 1_795_000_000  # the simulated present, so that the same request gives the same bytes

Body = dict[str, Any]
Framing = Literal["sse", "ndjson", "text", "unframed"]
Stage = Literal["setup", "content", "closing"]


@dataclass(frozen=True, slots=True)
class Frame:
    """One event or line of a stream, not yet spelt.

    A setup frame announces content without carrying any; closing frames say how the answer ended.
    `then` leaves in the same write; an unfinished frame lacks its closing line end.
    """

    data: bytes
    stage: Stage
    event: str | None = None
    then: "Frame | None" = None
    unfinished: bool = False


@dataclass(frozen=True, slots=True)
class Problem:
    """A refusal or a failure, in the words of the dialect.

    `in_stream`: a call that streams is told by an event, with status 200. `quirks` are the behaviour's.
    """

    status: int
    message: str
    type: str | None = None
    param: Any = None
    code: str | None = None
    retry_after: float | None = None
    in_stream: bool = False
    quirks: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """A whole HTTP answer; a public one needs no credential."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    public: bool = False


class Refused(Exception):
    """The request is not one the real server would accept."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


class Operation(Protocol):
    """What one path of a dialect does with a call. Pure, as the dialect is."""

    @property
    def framing(self) -> Framing:
        """How a stream is framed."""

    def read(self, headers: Mapping[str, str], body: bytes) -> Question:
        """Judge a request and reduce it to the question; raises Refused."""

    def whole(self, question: Question, answers: Sequence[Answer], behaviour: Behaviour) -> bytes | Page:
        """Render the answer to a call that does not stream; bytes are JSON with the dialect's headers."""

    def frames(self, question: Question, answers: Sequence[Answer], behaviour: Behaviour) -> Iterator[Frame]:
        """Render a stream; its last frame is the terminal event."""


class Dialect(Protocol):
    """One kind of upstream. Pure: no clock, chance, network or log."""

    @property
    def name(self) -> str:
        """The first segment of every path, and the key of scripts and counters."""

    @property
    def base_path(self) -> str:
        """What a client's base URL ends with, below the dialect's own prefix: "/v1" or ""."""

    @property
    def models(self) -> tuple[str, ...]:
        """The models that are listed; others are answered too."""

    def operation(self, path: str) -> Operation | None:
        """Return what a POST to a path below the prefix does, or None where it does nothing."""

    def authorize(self, headers: Mapping[str, str], key: str | None) -> None:
        """Raise Refused unless the credential is the key; without a key anything well-formed is."""

    def page(self, path: str, models: Sequence[str]) -> Page | None:
        """Answer a GET, or None where nothing is found."""

    def lost(self, method: str, path: str, request_id: str) -> Page:
        """Answer a path or a method that does not exist."""

    def problem(self, status: int | None, error: str | None, model: str) -> Problem:
        """Phrase a scripted failure; without a status and a name, what the dialect fails with most."""

    def problem_page(self, problem: Problem, request_id: str) -> Page:
        """Render a problem as an answer."""

    def problem_frame(self, problem: Problem, request_id: str) -> Frame:
        """Render a problem as an event within a stream."""

    def headers(self, request_id: str) -> dict[str, str]:
        """Return the headers of every answer to a call."""


def spell(frame: Frame, framing: Framing, behaviour: Behaviour, *, first: bool = False) -> bytes:
    """Write a frame as bytes, with the behaviour's oddities of SSE.

    Source: WHATWG HTML, "Server-sent events", interpreting an event stream.
    """
    following = spell(frame.then, framing, behaviour) if frame.then is not None else b""
    if framing in ("text", "unframed"):
        return frame.data + following
    if framing == "ndjson":
        return frame.data + (b"" if frame.unfinished else b"\n") + following
    end = b"\r\n" if behaviour.crlf else b"\n"
    colon = b":" if behaviour.no_space else b": "
    lines = b"data" + colon + frame.data + (b"" if frame.unfinished else end + end)
    if frame.event is not None:
        lines = b"event" + colon + frame.event.encode() + end + lines
    if "retry_lines" in behaviour.quirks:
        named = b"" if frame.event is not None else b"event" + colon + b"message" + end
        lines = b"retry" + colon + b"3000" + end + end + b"id" + colon + b"7" + end + named + lines
    if behaviour.comments and not first:
        lines = b": ping" + end + end + lines
    return (b"\xef\xbb\xbf" if first and "bom" in behaviour.quirks else b"") + lines + following


def choose_problem(
    named: Mapping[str, Problem],
    by_status: Mapping[int, Problem],
    status: int | None,
    error: str | None,
    model: str,
) -> Problem | None:
    """Look a scripted failure up, by name before status; the status asked for stays the status."""
    problem = named.get(error or "") or by_status.get(status or 0)
    if problem is None:
        return None
    return replace(problem, status=status or problem.status, message=problem.message.replace("{model}", model))


def retry_after_header(problem: Problem) -> dict[str, str]:
    """Spell Retry-After, if the problem has one."""
    return {} if problem.retry_after is None else {"retry-after": f"{problem.retry_after:g}"}


def parse_object(body: bytes) -> Body | None:
    """Decode a JSON object, or None when it is none."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    return value if isinstance(value, dict) else None


def without_nulls(body: Body) -> Body:
    """Drop the fields that are null, for dialects that read null as absent."""
    return {name: value for name, value in body.items() if value is not None}


def bearer(headers: Mapping[str, str]) -> str | None:
    """Return the token of a Bearer credential."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None
