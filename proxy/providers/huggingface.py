"""Hugging Face: the router, serverless hf-inference, or a dedicated Inference Endpoint.

Source: huggingface_hub 2.4.0, huggingface/hub-docs; reference/upstreams.md §6.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import quote

from msgspec.structs import replace
from pydantic import Field

from proxy.call import Call, Json
from proxy.config import ProviderTraits, Section, Upstream
from proxy.errors import ModelMissing, Overloaded, UpstreamError
from proxy.openai_format.checks import wrong_value
from proxy.openai_format.encoding import decode, encode
from proxy.openai_format.errors import classify, read_error, read_object, retry_after
from proxy.openai_format.parameters import DROP, EMULATE, MAP, PASS, REJECT, Column, refuse
from proxy.openai_format.request import ChatRequest, read_fields
from proxy.providers import tgi, vllm
from proxy.providers.embeddings import embedding_list, read_input
from proxy.providers.openai.imitation import Imitation
from proxy.providers.openai.imitator import PATHS, Imitator, with_v1
from proxy.providers.seam import (
    JSON_HEADERS,
    Provider,
    StreamParser,
    Target,
    UpstreamRequest,
    refuse_operation,
)

ROUTER = "https://router.huggingface.co/v1"
SERVERLESS = "https://router.huggingface.co/hf-inference"

_NO_PROVIDER = "not supported by any provider"  # an older body of the router's has no code, only these words

COLUMN = Column(
    {
        "developer role": (MAP, "system"),
        "image data:": PASS,
        "image https:": PASS,
        "input_audio": REJECT,
        "file": REJECT,
        "custom tools": REJECT,
        "tools": PASS,
        "tool_choice none": PASS,
        "tool_choice required": PASS,
        "tool_choice named": PASS,
        "tool_choice allowed_tools": (EMULATE, "the tools are filtered"),
        "parallel_tool_calls": PASS,
        "json_object": PASS,
        "json_schema": (PASS, "hf-inference: {type: json_object, value: schema}"),
        "temperature": PASS,
        "top_p": PASS,
        "max_completion_tokens": (MAP, "max_tokens"),
        "max_tokens": PASS,
        "stop": (MAP, "an array"),
        "seed": PASS,
        "n": (EMULATE, "asked n times"),
        "logprobs": PASS,
        "top_logprobs": PASS,
        "presence_penalty": PASS,
        "frequency_penalty": PASS,
        "logit_bias": DROP,
        "user": DROP,
        "metadata": DROP,
        "store": DROP,
        "include_usage": PASS,
        "reasoning_effort": PASS,
        "verbosity": DROP,
        "service_tier": DROP,
        "modalities with audio": REJECT,
        "audio": REJECT,
        "prediction": DROP,
        "prompt_cache_*": DROP,
        "moderation": DROP,
        "web_search_options": DROP,
        "functions": (MAP, "tools, and back"),
    },
    extras=("tool_prompt",),
    in_messages=("name", "detail"),
    text_arguments=True,
)
MOST_SECONDS = 86_400  # of loading that are believed
Engine = Literal["openai", "vllm", "tgi", "tei"]


class Settings(Section):
    """What only Hugging Face knows."""

    mode: Literal["router", "hf-inference", "endpoint"] = "router"
    """The router over all providers, the serverless hf-inference alone, or a dedicated endpoint at base_url."""
    engine: Engine = "openai"
    """mode: endpoint: what runs there; openai: any other server with an OpenAI layer; tei: embeddings only."""
    bill_to: str | None = None
    """The organisation that pays (X-HF-Bill-To)."""
    scale_up_timeout_seconds: int | None = None
    """mode: endpoint: how long a request may wait there for an endpoint that wakes up (X-Scale-Up-Timeout)."""
    allow: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """engine: vllm: as for vllm."""
    adapters: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """engine: tgi: as for tgi."""


def _check(settings: Settings, upstream: Mapping[str, Any]) -> str | None:
    if settings.mode == "endpoint" and not upstream.get("base_url"):
        return "mode: endpoint needs the endpoint's base_url"
    if settings.mode != "endpoint" and settings.engine != "openai":
        return "an engine is that of a dedicated endpoint (mode: endpoint)"
    return None


def _constrained(body: Json, request: ChatRequest) -> None:
    """hf-inference spells a schema in its own way."""
    if request.schema is not None:
        body["response_format"] = {"type": "json_object", "value": request.schema}


_PLAIN = Imitation(COLUMN, stop_array=True)
_SERVERLESS = Imitation(COLUMN, stop_array=True, adapt=_constrained)


@dataclass(frozen=True)
class HuggingFace(Imitator):
    """The three services of Hugging Face."""

    traits: ProviderTraits = ProviderTraits(
        base_url=ROUTER,
        wires=("normalise", "exact"),
        wires_of=lambda settings: ("normalise",) if settings.engine == "tgi" else ("normalise", "exact"),
        settings=Settings,
        columns={"huggingface": COLUMN},
        key_variables=("HUGGINGFACE_API_KEY", "HF_TOKEN"),
        check=_check,
    )

    def imitation(self, target: Target) -> Imitation:
        settings = _settings(target.upstream)
        if settings.mode == "hf-inference":
            return _SERVERLESS
        return vllm.imitation(settings.allow) if settings.engine == "vllm" else _PLAIN

    def emulates_n(self, target: Target, request: ChatRequest) -> bool:
        if _settings(target.upstream).engine == "vllm":
            return vllm.emulates_n(request)
        return super().emulates_n(target, request)

    def root(self, upstream: Upstream) -> str:
        return with_v1(upstream) if _settings(upstream).mode == "endpoint" else str(upstream.base_url)

    def headers(self, upstream: Upstream) -> Mapping[str, str]:
        settings = _settings(upstream)
        headers = dict(JSON_HEADERS)
        if settings.bill_to:
            headers["x-hf-bill-to"] = settings.bill_to
        if settings.scale_up_timeout_seconds and settings.mode == "endpoint":
            headers["x-scale-up-timeout"] = str(settings.scale_up_timeout_seconds)
        return headers

    def build_request(self, call: Call, target: Target) -> UpstreamRequest:
        settings = _settings(target.upstream)
        if _has_tgi(target):
            request = tgi.provider.build_request(call, _as_tgi(target))
            return replace(request, headers=self.headers(target.upstream))
        if settings.mode == "router":
            refuse_operation(call, "chat")
        elif settings.mode == "hf-inference":
            return self._serverless(call, target)
        elif settings.engine == "tei":
            refuse_operation(call, "embeddings")
        return super().build_request(call, target)

    def _serverless(self, call: Call, target: Target) -> UpstreamRequest:
        """The model stands in the path."""
        refuse_operation(call, "chat", "embeddings")
        base = str(target.upstream.base_url)
        base = SERVERLESS if base == ROUTER else base
        address = f"{base}/models/{_in_path(target.model.partition(':')[0])}"
        if call.operation == "embeddings":
            return self._features(call, target, address)
        request = super().build_request(call, target)
        return replace(request, url=f"{address}/v1{PATHS['chat']}")

    def _features(self, call: Call, target: Target, address: str) -> UpstreamRequest:
        fields = {name: value for name, value in read_fields(call.body).items() if value is not None}
        if "dimensions" in fields:
            refuse("dimensions", value=False)
        body = encode({"inputs": read_input(fields)})
        dropped = tuple(name for name in fields if name not in ("model", "input", "encoding_format"))
        url = f"{address}/pipeline/feature-extraction"
        return UpstreamRequest(url, self.headers(target.upstream), body, dropped)

    def parse_completion(self, call: Call, target: Target, headers: Mapping[str, str], body: bytes) -> Json:
        if _has_tgi(target):
            return tgi.provider.parse_completion(call, _as_tgi(target), headers, body)
        return super().parse_completion(call, target, headers, body)

    def open_stream(self, call: Call, target: Target, headers: Mapping[str, str]) -> StreamParser:
        if _has_tgi(target):
            return tgi.provider.open_stream(call, _as_tgi(target), headers)
        return super().open_stream(call, target, headers)

    def parse_embeddings(self, call: Call, target: Target, body: bytes) -> Json:
        if _settings(target.upstream).mode != "hf-inference":
            return super().parse_embeddings(call, target, body)
        vectors = decode(body)
        if isinstance(vectors, dict):
            read_object(body)
        if isinstance(vectors, list) and vectors and not isinstance(vectors[0], list):
            vectors = [vectors]
        return embedding_list(vectors, 0)

    def parse_error(self, target: Target, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        if _has_tgi(target):
            return tgi.provider.parse_error(_as_tgi(target), status, headers, body)
        facts = read_error(body)
        if status == 400 and (facts.code == "model_not_supported" or _NO_PROVIDER in facts.message):
            return ModelMissing(facts.message)
        if status == 503:
            return Overloaded(facts.message or "no capacity there", retry_after=_loading_seconds(body, headers))
        return classify(status, facts, retry_after(headers))

    def models_request(self, upstream: Upstream) -> UpstreamRequest | None:
        return None if _settings(upstream).mode == "hf-inference" else super().models_request(upstream)


def _in_path(model: str) -> str:
    """A model's name as a part of a path, out of which it cannot lead."""
    if any(step in ("", ".", "..") for step in model.split("/")):
        wrong_value("model", "'model' must be like org/name here.")
    return quote(model, safe="/")


def _settings(upstream: Upstream) -> Settings:
    settings: Settings = upstream.settings
    return settings


def _has_tgi(target: Target) -> bool:
    return _settings(target.upstream).engine == "tgi"


def _as_tgi(target: Target) -> Target:
    """The same endpoint as an upstream of TGI's."""
    settings = tgi.Settings(adapters=_settings(target.upstream).adapters)
    return replace(target, upstream=target.upstream.model_copy(update={"settings": settings, "wire": "normalise"}))


def _loading_seconds(body: bytes, headers: Mapping[str, str]) -> float | None:
    """How long a model still loads, where the body says so."""
    try:
        value = decode(body)
    except ValueError:
        value = None
    told = value.get("estimated_time") if isinstance(value, dict) else None
    return float(told) if isinstance(told, int | float) and 0 <= told < MOST_SECONDS else retry_after(headers)


provider: Provider = HuggingFace()
