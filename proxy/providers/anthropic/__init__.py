"""Anthropic's Messages API.

Source: platform.claude.com; reference/upstreams.md §5.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from proxy.call import Call, Json
from proxy.config import ProviderTraits, Section, Upstream
from proxy.errors import ModelMissing, RequestRefused, UpstreamError
from proxy.openai_format.encoding import decode_object
from proxy.openai_format.errors import classify, misconfigured, read_error, retry_after
from proxy.providers.anthropic.reply import completion
from proxy.providers.anthropic.request import build_body
from proxy.providers.anthropic.stream import MessagesStream
from proxy.providers.seam import JSON_HEADERS, Provider, StreamParser, Target, UpstreamRequest, with_header


class Settings(Section):
    """What only Anthropic knows."""

    version: Literal["2023-06-01", "2026-10-21"] = "2023-06-01"
    """The anthropic-version header."""
    default_max_tokens: Annotated[int, Field(gt=0)] = 4096
    """Sent when the caller sets no limit: the field is mandatory there."""
    key_header: Literal["x-api-key", "authorization"] = "x-api-key"
    """Where the key goes; authorization: as a Bearer token."""


@dataclass(frozen=True, slots=True)
class Anthropic:
    """The Messages API."""

    traits: ProviderTraits = ProviderTraits(
        base_url="https://api.anthropic.com",
        wires=("normalise",),
        settings=Settings,
        key_variables=("ANTHROPIC_API_KEY",),
        patterns=("claude-*",),
    )

    def build_request(self, call: Call, target: Target) -> UpstreamRequest:
        settings: Settings = target.upstream.settings
        body, dropped = build_body(call, target.model, settings.version, settings.default_max_tokens)
        headers = {**JSON_HEADERS, "anthropic-version": settings.version}
        return UpstreamRequest(f"{_root(target.upstream)}/v1/messages", headers, body, dropped)

    def authorize(self, request: UpstreamRequest, upstream: Upstream, credential: str) -> UpstreamRequest:
        settings: Settings = upstream.settings
        if settings.key_header == "authorization":
            return with_header(request, "authorization", f"Bearer {credential}")
        return with_header(request, "x-api-key", credential)

    def parse_completion(self, call: Call, target: Target, body: bytes) -> Json:  # noqa: ARG002
        return completion(call, body)

    def open_stream(self, call: Call, target: Target) -> StreamParser:
        return MessagesStream(call, target.upstream.max_frame_bytes)

    def parse_error(self, target: Target, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        facts = read_error(body)
        if status == 404 and facts.type == "not_found_error" and target.model in facts.message:
            return ModelMissing(facts.message)
        if status == 404:
            return misconfigured(status)
        if status == 412:
            return RequestRefused(facts.message)
        return classify(status, facts, retry_after(headers))

    def models_request(self, upstream: Upstream) -> UpstreamRequest:
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


def _root(upstream: Upstream) -> str:
    return str(upstream.base_url).removesuffix("/v1")


def _unix(created_at: object) -> int:
    try:
        return int(datetime.fromisoformat(str(created_at)).timestamp())
    except ValueError:
        return 0


provider: Provider = Anthropic()
