"""Anthropic's Messages API.

Source: platform.claude.com; reference/upstreams.md §5.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from proxy.call import Call, Json
from proxy.config import ProviderTraits, Upstream
from proxy.errors import ModelMissing, RequestRefused, UpstreamError
from proxy.openai_format.encoding import decode_object, encode
from proxy.openai_format.errors import classify, misconfigured, read_error, retry_after
from proxy.openai_format.stops import CutStream, cut_completion, stops_of
from proxy.providers.anthropic.amend import amend
from proxy.providers.anthropic.limits import rate_limits
from proxy.providers.anthropic.reply import completion
from proxy.providers.anthropic.request import build_body
from proxy.providers.anthropic.settings import COLUMN, Settings
from proxy.providers.anthropic.stream import MessagesStream
from proxy.providers.seam import (
    JSON_HEADERS,
    Provider,
    StreamParser,
    Target,
    UpstreamRequest,
    copies_of,
    refuse_operation,
)

MOST_TOKENS_AT_ONCE = 21_333  # a longer answer is streamed, since connections do not last: its SDKs refuse it too


@dataclass(frozen=True, slots=True)
class Anthropic(Provider):
    """The Messages API."""

    traits: ProviderTraits = ProviderTraits(
        base_url="https://api.anthropic.com",
        wires=("normalise",),
        settings=Settings,
        columns={"anthropic": COLUMN},
        key_variables=("ANTHROPIC_API_KEY",),
        patterns=("claude-*",),
    )

    def build_request(self, call: Call, target: Target) -> UpstreamRequest:
        refuse_operation(call, "chat")
        settings: Settings = target.upstream.settings
        body, request, lost = build_body(call, target.model, settings)
        headers = {**JSON_HEADERS, "anthropic-version": settings.version}
        if call.stream:
            body["stream"] = True
        elif body["max_tokens"] > MOST_TOKENS_AT_ONCE:
            body["stream"] = True
            headers["accept"] = "text/event-stream"
        return UpstreamRequest(
            f"{_root(target.upstream)}/v1/messages",
            headers,
            encode(body),
            tuple(lost),
            copies=copies_of(request.n, target.upstream),
        )

    def authorize(self, upstream: Upstream, credential: str) -> Mapping[str, str]:
        settings: Settings = upstream.settings
        if settings.key_header == "authorization":
            return Provider.authorize(self, upstream, credential)
        return {"x-api-key": credential}

    def parse_completion(self, call: Call, target: Target, headers: Mapping[str, str], body: bytes) -> Json:  # noqa: ARG002
        return cut_completion(completion(call, body), _own_stops(call))

    def open_stream(self, call: Call, target: Target, headers: Mapping[str, str]) -> StreamParser:  # noqa: ARG002
        stream = MessagesStream(call, target.upstream.max_frame_bytes)
        stops = _own_stops(call)
        return CutStream(stream, stops) if stops else stream

    def parse_error(self, target: Target, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        facts = read_error(body)
        if status == 404 and facts.type == "not_found_error" and target.model in facts.message:
            return ModelMissing(facts.message)
        if status == 404:
            return misconfigured(status)
        if status == 412:
            return RequestRefused(facts.message)
        return classify(status, facts, retry_after(headers))

    def amend(self, call: Call, target: Target, error: UpstreamError) -> Call | None:  # noqa: ARG002
        return amend(call, error)

    def rate_limits(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        return rate_limits(headers)

    def models_request(self, upstream: Upstream) -> UpstreamRequest | None:
        settings: Settings = upstream.settings
        headers = {"anthropic-version": settings.version}
        return UpstreamRequest(f"{_root(upstream)}/v1/models?limit=1000", headers, b"", method="GET")

    def parse_models(self, body: bytes) -> Iterable[Json]:
        for model in decode_object(body).get("data") or ():
            if isinstance(model, dict) and isinstance(model.get("id"), str):
                yield {
                    "id": model["id"],
                    "object": "model",
                    "created": _unix(model.get("created_at")),
                    "owned_by": "anthropic",
                }


def _own_stops(call: Call) -> tuple[str, ...]:
    """The stop strings that Anthropic refuses, since they are white space: cut on our side."""
    return tuple(stop for stop in stops_of(call) if not stop.strip())


def _root(upstream: Upstream) -> str:
    return str(upstream.base_url).removesuffix("/v1")


def _unix(created_at: object) -> int:
    try:
        return int(datetime.fromisoformat(str(created_at)).timestamp())
    except ValueError:
        return 0


provider: Provider = Anthropic()
