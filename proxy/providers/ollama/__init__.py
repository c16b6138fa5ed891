"""Ollama's native API.

Source: ollama/docs/api.md; reference/upstreams.md §7.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from proxy.call import Call, Json
from proxy.config import ProviderTraits, Section, Upstream
from proxy.errors import ModelMissing, UpstreamError
from proxy.openai_format.chunks import collect
from proxy.openai_format.encoding import decode_object
from proxy.openai_format.errors import classify, misconfigured, read_error, retry_after
from proxy.providers.ollama.request import build_body
from proxy.providers.ollama.stream import ChatStream
from proxy.providers.seam import JSON_HEADERS, Provider, StreamParser, Target, UpstreamRequest, with_header


class Settings(Section):
    """What only Ollama knows."""

    truncate: bool = False
    """Let Ollama drop the oldest messages of a conversation longer than its context, in silence."""
    keep_alive: str | int | None = None
    """How long the model stays loaded: a duration such as 10m, or seconds; -1: for ever."""
    options: Mapping[str, Any] = {}
    """Model options for every call, such as num_ctx; a caller's parameters win."""


@dataclass(frozen=True, slots=True)
class Ollama:
    """/api/chat: newline-delimited JSON."""

    traits: ProviderTraits = ProviderTraits(
        base_url="http://localhost:11434",
        wires=("normalise",),
        list_models=True,
        settings=Settings,
        url_variable="OLLAMA_BASE_URL",
    )

    def build_request(self, call: Call, target: Target) -> UpstreamRequest:
        settings: Settings = target.upstream.settings
        body, dropped = build_body(
            call,
            target.model,
            truncate=settings.truncate,
            keep_alive=settings.keep_alive,
            options=settings.options,
        )
        return UpstreamRequest(f"{_root(target.upstream)}/api/chat", JSON_HEADERS, body, dropped)

    def authorize(self, request: UpstreamRequest, upstream: Upstream, credential: str) -> UpstreamRequest:  # noqa: ARG002
        return with_header(request, "authorization", f"Bearer {credential}")

    def parse_completion(self, call: Call, target: Target, body: bytes) -> Json:
        parser = ChatStream(call, target.upstream.max_frame_bytes)
        return collect([*parser.read(body), *parser.finish()])

    def open_stream(self, call: Call, target: Target) -> StreamParser:
        return ChatStream(call, target.upstream.max_frame_bytes)

    def parse_error(self, target: Target, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:  # noqa: ARG002
        facts = read_error(body)
        if status == 404:
            return ModelMissing(facts.message) if facts.structured else misconfigured(status)
        return classify(status, facts, retry_after(headers))

    def models_request(self, upstream: Upstream) -> UpstreamRequest:
        return UpstreamRequest(f"{_root(upstream)}/api/tags", {}, b"", method="GET")

    def parse_models(self, body: bytes) -> Iterable[Json]:
        for model in decode_object(body).get("models") or ():
            name = model.get("name") if isinstance(model, dict) else None
            if isinstance(name, str):
                owner = name.partition("/")[0] if "/" in name else "library"
                yield {"id": name, "object": "model", "created": _unix(model.get("modified_at")), "owned_by": owner}


def _root(upstream: Upstream) -> str:
    return str(upstream.base_url).removesuffix("/v1").removesuffix("/api")


def _unix(modified_at: object) -> int:
    try:
        return int(datetime.fromisoformat(str(modified_at)[:19] + "Z").timestamp())
    except ValueError:
        return 0


provider: Provider = Ollama()
