"""A framework that serves either an engine's OpenAI layer or deployments with a shape of their own."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from proxy.call import Call, Json
from proxy.config import Upstream
from proxy.errors import UpstreamError
from proxy.openai_format.encoding import encode
from proxy.openai_format.request import ChatRequest
from proxy.openai_format.stops import CutStream, cut_completion, stops_of
from proxy.providers import vllm
from proxy.providers.openai.imitation import Imitation
from proxy.providers.openai.imitator import Imitator
from proxy.providers.seam import JSON_HEADERS, StreamParser, Target, UpstreamRequest, copies_of, refuse_operation
from proxy.providers.template.reply import read_answer
from proxy.providers.template.request import fill
from proxy.providers.template.settings import Shape, names_in
from proxy.providers.template.stream import TemplateStream, is_folded, is_stream


class DeploymentSettings(Shape, vllm.Settings):
    """What both frameworks' settings have."""

    mode: str


def check_query(settings: DeploymentSettings, upstream: Mapping[str, Any]) -> str | None:
    """Names in the upstream's own `query` would be sent as they stand."""
    if settings.mode == "custom" and list(names_in(upstream.get("query"))):
        return "names such as {prompt} are filled in settings.query; the upstream's query is sent as it stands"
    return None


class Deployment(Imitator):
    """`settings.mode: custom` is a shape of its own; any other mode is vLLM's OpenAI layer."""

    def imitation(self, target: Target) -> Imitation:
        settings = _settings(target)
        return vllm.imitation(settings.allow, settings.max_tokens_field)

    def emulates_n(self, target: Target, request: ChatRequest) -> bool:  # noqa: ARG002
        return vllm.emulates_n(request)

    def build_request(self, call: Call, target: Target) -> UpstreamRequest:
        shape = _custom(target)
        if shape is None:
            return super().build_request(call, target)
        refuse_operation(call, "chat")
        filled = fill(call, target.model, shape)
        address = _address(target.upstream, shape) + (f"?{filled.query}" if filled.query else "")
        copies = copies_of(filled.n, target.upstream)
        return UpstreamRequest(address, JSON_HEADERS, encode(filled.body), filled.dropped, copies=copies)

    def parse_completion(self, call: Call, target: Target, headers: Mapping[str, str], body: bytes) -> Json:
        shape = _custom(target)
        if shape is None:
            return super().parse_completion(call, target, headers, body)
        return cut_completion(read_answer(call, shape, headers, body), stops_of(call))

    def open_stream(self, call: Call, target: Target, headers: Mapping[str, str]) -> StreamParser:
        shape = _custom(target)
        if shape is None:
            return super().open_stream(call, target, headers)
        stream = TemplateStream(call, shape, headers, target.upstream.max_frame_bytes)
        stops = stops_of(call)
        return CutStream(stream, stops, leave=True) if stops else stream

    def is_stream(self, target: Target, content_type: str) -> bool:
        shape = _custom(target)
        return super().is_stream(target, content_type) if shape is None else is_stream(shape, content_type)

    def is_folded(self, target: Target, content_type: str) -> bool:
        shape = _custom(target)
        return super().is_folded(target, content_type) if shape is None else is_folded(shape, content_type)

    def parse_error(self, target: Target, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:  # noqa: ARG002
        return vllm.parse_error(status, headers, body)

    def models_request(self, upstream: Upstream) -> UpstreamRequest | None:
        return None if upstream.settings.mode == "custom" else super().models_request(upstream)


def _address(upstream: Upstream, shape: Shape) -> str:
    """Where calls are posted; a base_url with a path of its own is whole when the settings name none."""
    base = str(upstream.base_url).rstrip("/")
    return base if shape.path == "/" and urlsplit(base).path else base + shape.path


def _settings(target: Target) -> DeploymentSettings:
    settings: DeploymentSettings = target.upstream.settings
    return settings


def _custom(target: Target) -> Shape | None:
    """The deployment's shape, when it has one of its own."""
    settings = _settings(target)
    return settings if settings.mode == "custom" else None
