"""Where a dialect meets the proxy: pure operations, the same for every provider."""

from collections.abc import Iterable, Mapping
from typing import Protocol

import msgspec

from proxy.call import Call, Json
from proxy.config import Hedge, ProviderTraits, Refusal, Retry, RouteCache, Upstream
from proxy.errors import NotFound, UpstreamError
from proxy.openai_format.encoding import decode_object
from proxy.openai_format.errors import classify, read_error, read_object, retry_after
from proxy.openai_format.overrides import Overrides
from proxy.openai_format.parameters import refuse


class Target(msgspec.Struct, frozen=True):
    """A place a call may go: an upstream, and the name of the model there.

    Args:
        name: the upstream's.
        label: the model in metrics: a name from the configuration.
        overrides: what of a call's body is changed on its way there.
        headers: sent with each call.
        max_context_tokens: a larger call goes elsewhere, if it fits there.
    """

    name: str
    upstream: Upstream
    model: str
    label: str = "other"
    overrides: Overrides | None = None
    headers: Mapping[str, str] = {}
    max_context_tokens: int | None = None


class Copies(msgspec.Struct, frozen=True):
    """Where a share of the calls is copied to, and how many copies there may be at once."""

    target: Target
    share: float
    concurrent: int


class Route(msgspec.Struct, frozen=True):
    """Where a call may go, in the order to try, and what the route says of failures and time.

    Args:
        fallback_from: from this place on, the targets are fallbacks.
        fallback_on: refusals after which fallbacks are tried.
        total_seconds: bounds a call.
        cache: what of its answers is kept; None: nothing.
        primary: the targets that are no fallbacks, whether or not this call may go there; empty: they are `targets`.
        copies: where calls are copied to.
    """

    name: str
    targets: tuple[Target, ...]
    retry: Retry = Retry()
    fallback_from: int = 0
    fallback_on: tuple[Refusal, ...] = ()
    hedge: Hedge | None = None
    total_seconds: float | None = None
    cache: RouteCache | None = None
    primary: tuple[Target, ...] = ()
    copies: Copies | None = None


class UpstreamRequest(msgspec.Struct, frozen=True):
    """What is sent.

    Args:
        dropped: names of what the dialect cannot carry.
        copies: how often it is sent at once, for `n` where the dialect has none.
    """

    url: str
    headers: Mapping[str, str]
    body: bytes
    dropped: tuple[str, ...] = ()
    method: str = "POST"
    copies: int = 1

    def __repr__(self) -> str:
        return f"UpstreamRequest({self.method} {self.url!r})"  # keys and prompts are in no trace


class StreamParser(Protocol):
    """Turns the bytes of one stream into OpenAI chunks.

    `feed` and `finish` give what is complete and then raise, so that chunks before a failure are not lost.
    The chunk with `usage` comes last, whenever the upstream told it. `thinking` turns true when the model has
    begun to think, which some upstreams tell without showing the thoughts; `ended` with the terminal event,
    whether or not the body goes on. `plain` says of the last `feed` that it was one whole frame, and left the parser
    so that another one that differs only in its text, or in a time, would be told alike. `begun` is the usage that was
    told with the answer's beginning, in OpenAI's shape: it counts when the end never comes.
    """

    @property
    def begun(self) -> Json | None: ...

    @property
    def plain(self) -> bool: ...

    @property
    def thinking(self) -> bool: ...

    @property
    def ended(self) -> bool: ...

    def feed(self, data: bytes) -> Iterable[Json]: ...

    def finish(self) -> Iterable[Json]:
        """The body has ended.

        Raises:
            CutShort: before its terminal event.
        """
        ...


class Provider(Protocol):
    """One dialect. Inherit from it: what most dialects have in common is here.

    `headers` are those of the upstream's answer, looked up without regard to case.
    """

    @property
    def traits(self) -> ProviderTraits: ...

    def build_request(self, call: Call, target: Target) -> UpstreamRequest:
        """The call in this dialect; the same call may be built again for a repeat.

        Raises:
            InvalidRequest: the call is at fault, or cannot be carried here.
            NotFound: the upstream has no such operation.
        """
        ...

    def authorize(self, upstream: Upstream, credential: str) -> Mapping[str, str]:  # noqa: ARG002
        """The header that holds the credential in this dialect."""
        return {"authorization": f"Bearer {credential}"}

    def parse_completion(self, call: Call, target: Target, headers: Mapping[str, str], body: bytes) -> Json:
        """A whole answer as an OpenAI completion; raises UpstreamError when it is none."""
        ...

    def open_stream(self, call: Call, target: Target, headers: Mapping[str, str]) -> StreamParser:
        """A parser for one stream."""
        ...

    def parse_embeddings(self, call: Call, target: Target, body: bytes) -> Json:  # noqa: ARG002
        """An answer to an embeddings call in OpenAI's shape, but for `encoding_format`; raises UpstreamError."""
        return read_object(body)

    def is_stream(self, target: Target, content_type: str) -> bool:  # noqa: ARG002
        """Whether an answer of this type is a stream, and not one whole answer: some servers ignore `stream`."""
        return content_type != "application/json"

    def is_folded(self, target: Target, content_type: str) -> bool:  # noqa: ARG002
        """Whether an answer of this type to a JSON call is a stream all the same."""
        return content_type in ("text/event-stream", "application/x-ndjson")

    def parse_error(self, target: Target, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:  # noqa: ARG002
        """What an answer that is not a success means."""
        return classify(status, read_error(body), retry_after(headers))

    def amend(self, call: Call, target: Target, error: UpstreamError) -> Call | None:  # noqa: ARG002
        """The call without what this model family has just refused, or None when that is not what failed."""
        return None

    def rate_limits(self, headers: Mapping[str, str]) -> Mapping[str, str]:  # noqa: ARG002
        """What the answer's headers say of limits, in OpenAI's names, where the dialect has other names."""
        return {}

    def models_request(self, upstream: Upstream) -> UpstreamRequest | None:  # noqa: ARG002
        """Ask for the upstream's models, where it can be asked."""
        return None

    def parse_models(self, body: bytes) -> Iterable[Json]:
        """OpenAI model objects from the answer; raises ValueError when it is not a list of models."""
        for model in decode_object(body).get("data") or ():
            if isinstance(model, dict) and isinstance(model.get("id"), str):
                created = model.get("created")
                yield {**model, "object": "model", "created": created if isinstance(created, int) else 0}


JSON_HEADERS: Mapping[str, str] = {"content-type": "application/json"}


def media_type(headers: Mapping[str, str]) -> str:
    """The answer's type without its parameters."""
    if headers.get("content-type") == "application/json":  # as nearly always
        return "application/json"
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def upstream_request_id(headers: Mapping[str, str]) -> str:
    """The upstream's own id of the call; empty when it has none, or none that is fit for headers and logs."""
    given = headers.get("x-request-id") or headers.get("request-id", "")
    return given if given.isascii() and given.isprintable() and len(given) <= 200 else ""


def copies_of(n: int, upstream: Upstream) -> int:
    """How often a request is sent for `n` choices.

    Raises:
        UnsupportedParameter: more than the upstream's `max_choices`.
    """
    if n > upstream.max_choices:
        refuse("n", f"'n' is at most {upstream.max_choices} here (the upstream's max_choices).")
    return n


def refuse_operation(call: Call, *served: str) -> None:
    """Refuse what this upstream does not serve.

    Raises:
        NotFound: the call's operation is none of `served`.
    """
    if call.operation not in served:
        path = "chat/completions" if call.operation == "chat" else call.operation
        raise NotFound(f"/v1/{path} is not served by the upstream of this model.", code="unsupported_endpoint")
