"""OpenAI's own API, and all that speak it alike (Azure OpenAI and other compatible vendors).

Source: OpenAI API reference; reference/upstreams.md §4.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from proxy.call import Call, Json
from proxy.config import ProviderTraits, Upstream
from proxy.errors import UpstreamError
from proxy.openai_format.encoding import decode_object
from proxy.openai_format.errors import classify, read_error, retry_after
from proxy.providers.exact import splice_request
from proxy.providers.openai.reply import complete
from proxy.providers.openai.request import normalise_request
from proxy.providers.openai.stream import NormalisedStream
from proxy.providers.seam import JSON_HEADERS, Provider, StreamParser, Target, UpstreamRequest, with_header


@dataclass(frozen=True, slots=True)
class OpenAI:
    """The dialect that our callers speak."""

    traits: ProviderTraits = ProviderTraits(
        base_url="https://api.openai.com/v1",
        wires=("exact", "normalise"),
        key_variables=("OPENAI_API_KEY",),
        patterns=("gpt-*", "chatgpt-*", "ft:*", "text-embedding-*", "o[0-9]*"),
    )

    def build_request(self, call: Call, target: Target) -> UpstreamRequest:
        url = f"{target.upstream.base_url}/chat/completions"
        if target.upstream.wire == "exact":
            return UpstreamRequest(url, JSON_HEADERS, splice_request(call, target.model))
        body, dropped = normalise_request(call, target.model)
        return UpstreamRequest(url, JSON_HEADERS, body, dropped)

    def authorize(self, request: UpstreamRequest, upstream: Upstream, credential: str) -> UpstreamRequest:  # noqa: ARG002
        return with_header(request, "authorization", f"Bearer {credential}")

    def parse_completion(self, call: Call, target: Target, body: bytes) -> Json:  # noqa: ARG002
        return complete(call, body)

    def open_stream(self, call: Call, target: Target) -> StreamParser:
        return NormalisedStream(call, target.upstream.max_frame_bytes)

    def parse_error(self, target: Target, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:  # noqa: ARG002
        return classify(status, read_error(body), retry_after(headers))

    def models_request(self, upstream: Upstream) -> UpstreamRequest:
        return UpstreamRequest(f"{upstream.base_url}/models", {}, b"", method="GET")

    def parse_models(self, body: bytes) -> Iterable[Json]:
        for model in decode_object(body).get("data") or ():
            if isinstance(model, dict) and isinstance(model.get("id"), str):
                created = model.get("created")
                yield {**model, "object": "model", "created": created if isinstance(created, int) else 0}


provider: Provider = OpenAI()
