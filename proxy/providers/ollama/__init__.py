"""Ollama's native API.

Source: ollama/docs/api.md; reference/upstreams.md §7.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from proxy.call import Call, Json
from proxy.config import ProviderTraits, Upstream
from proxy.errors import ModelMissing, RequestRefused, UpstreamError
from proxy.openai_format.amendments import changed, value_of
from proxy.openai_format.chunks import collect
from proxy.openai_format.encoding import decode_object, encode
from proxy.openai_format.errors import classify, misconfigured, read_error, read_object, retry_after
from proxy.providers.embeddings import embedding_list
from proxy.providers.ollama.embed import build_embed
from proxy.providers.ollama.request import build_body
from proxy.providers.ollama.settings import COLUMN, Settings
from proxy.providers.ollama.stream import ChatStream
from proxy.providers.seam import (
    JSON_HEADERS,
    Provider,
    StreamParser,
    Target,
    UpstreamRequest,
    copies_of,
    refuse_operation,
)
from proxy.providers.splice import splice_request


@dataclass(frozen=True, slots=True)
class Ollama(Provider):
    """/api/chat: newline-delimited JSON."""

    traits: ProviderTraits = ProviderTraits(
        base_url="http://localhost:11434",
        wires=("normalise",),
        list_models=True,
        settings=Settings,
        columns={"ollama": COLUMN},
        url_variable="OLLAMA_BASE_URL",
    )

    def build_request(self, call: Call, target: Target) -> UpstreamRequest:
        settings: Settings = target.upstream.settings
        refuse_operation(call, "chat", "completions", "embeddings")
        root = _root(target.upstream)
        if call.operation == "completions":
            return UpstreamRequest(f"{root}/v1/completions", JSON_HEADERS, splice_request(call, target.model))
        if call.operation == "embeddings":
            embed, dropped = build_embed(call, target.model, settings)
            return UpstreamRequest(f"{root}/api/embed", JSON_HEADERS, encode(embed), dropped)
        body, request, lost = build_body(call, target.model, settings)
        copies = copies_of(request.n, target.upstream)
        return UpstreamRequest(f"{root}/api/chat", JSON_HEADERS, encode(body), tuple(lost), copies=copies)

    def parse_completion(self, call: Call, target: Target, headers: Mapping[str, str], body: bytes) -> Json:  # noqa: ARG002
        parser = self._parser(call, target)
        return collect([*parser.read(body), *parser.finish()])

    def open_stream(self, call: Call, target: Target, headers: Mapping[str, str]) -> StreamParser:  # noqa: ARG002
        return self._parser(call, target)

    def _parser(self, call: Call, target: Target) -> ChatStream:
        single = value_of(call, "parallel_tool_calls") is False
        return ChatStream(call, target.upstream.max_frame_bytes, single=single)

    def parse_embeddings(self, call: Call, target: Target, body: bytes) -> Json:  # noqa: ARG002
        answer = read_object(body)
        return embedding_list(answer["embeddings"], answer.get("prompt_eval_count") or 0)

    def amend(self, call: Call, target: Target, error: UpstreamError) -> Call | None:  # noqa: ARG002
        """Ollama names no field: the text of its refusal is searched for one, when the call has it."""
        asked = value_of(call, "reasoning_effort") is not None
        if isinstance(error, RequestRefused) and asked and "does not support thinking" in error.message:
            return changed(call, remove=("reasoning_effort",), names=("reasoning_effort",))
        return None

    def parse_error(self, target: Target, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:  # noqa: ARG002
        facts = read_error(body)
        if status == 404:
            return ModelMissing(facts.message) if facts.structured else misconfigured(status)
        return classify(status, facts, retry_after(headers))

    def models_request(self, upstream: Upstream) -> UpstreamRequest | None:
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
