"""Hugging Face's Text Generation Inference: its OpenAI layer, or its native /generate.

Source: huggingface/text-generation-inference, 3.3.6-dev0; reference/upstreams.md §9.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from proxy.call import Call, Json
from proxy.config import ProviderTraits, Section, Upstream
from proxy.errors import UpstreamError
from proxy.openai_format.amendments import value_of
from proxy.openai_format.encoding import encode
from proxy.openai_format.errors import retry_after
from proxy.openai_format.parameters import refuse
from proxy.openai_format.request import read_chat
from proxy.openai_format.stops import CutStream, cut_completion, stops_of
from proxy.providers.openai.imitation import Imitation, write_request
from proxy.providers.openai.imitator import Imitator, with_v1
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
from proxy.providers.template.prompt import Prompt, PromptText, lost_calls
from proxy.providers.tgi import generate
from proxy.providers.tgi.chat import COLUMN, IMITATION, ChatStream, lost_texts
from proxy.providers.tgi.generate import GenerateStream, read_failure, read_generation


class Settings(Section):
    """What only TGI knows."""

    api: Literal["chat", "generate"] = "chat"
    """The OpenAI layer, which applies the model's chat template; or /generate, with a prompt made here."""
    adapters: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """LoRA adapters: model names that are sent as they are. Others are sent as `tgi`, the model it was started with."""
    default_max_tokens: Annotated[int, Field(gt=0)] = 1024
    """Sent when the caller sets no limit: older servers would stop after 20 tokens."""
    prompt: PromptText = "simple"
    """api: generate: how messages become the prompt: simple, last_user, or a Jinja template."""


@dataclass(frozen=True)
class Tgi(Imitator):
    """Text Generation Inference."""

    traits: ProviderTraits = ProviderTraits(
        base_url=None,
        wires=("normalise",),
        list_models=True,
        settings=Settings,
        columns={"tgi": COLUMN, "tgi generate": generate.COLUMN},
        key_variables=("TGI_API_KEY",),
        url_variable="TGI_BASE_URL",
    )

    def imitation(self, target: Target) -> Imitation:  # noqa: ARG002
        return IMITATION

    def model(self, target: Target) -> str:
        settings: Settings = target.upstream.settings
        return target.model if target.model in settings.adapters else "tgi"

    def build_request(self, call: Call, target: Target) -> UpstreamRequest:
        settings: Settings = target.upstream.settings
        if settings.api == "generate":
            refuse_operation(call, "chat")
            return self._generate(call, target, settings)
        refuse_operation(call, "chat", "completions")
        if call.operation == "completions":
            return _completions(call, target, self.model(target))
        body, request = write_request(call, self.model(target), IMITATION)
        body.setdefault("max_tokens", settings.default_max_tokens)
        return UpstreamRequest(
            f"{with_v1(target.upstream)}/chat/completions",
            JSON_HEADERS,
            encode(body),
            (*request.dropped, *lost_texts(request)),
            copies=copies_of(request.n, target.upstream),
        )

    def _generate(self, call: Call, target: Target, settings: Settings) -> UpstreamRequest:
        request = read_chat(call.body, generate.COLUMN)
        body = generate.build_body(request, Prompt(settings.prompt), settings.default_max_tokens, stream=call.stream)
        if target.model in settings.adapters:
            body["parameters"]["adapter_id"] = target.model
        path = "/generate_stream" if call.stream else "/generate"
        copies = copies_of(request.n, target.upstream)
        url, dropped = _root(target.upstream) + path, (*request.dropped, *lost_calls(request))
        return UpstreamRequest(url, JSON_HEADERS, encode(body), dropped, copies=copies)

    def parse_completion(self, call: Call, target: Target, headers: Mapping[str, str], body: bytes) -> Json:
        if target.upstream.settings.api == "generate":
            whole = read_generation(call, headers, body, logprobs=bool(value_of(call, "logprobs")))
        else:
            whole = super().parse_completion(call, target, headers, body)
        return cut_completion(whole, stops_of(call))

    def open_stream(self, call: Call, target: Target, headers: Mapping[str, str]) -> StreamParser:
        stream: StreamParser
        if target.upstream.settings.api == "generate":
            logprobs = bool(value_of(call, "logprobs"))
            stream = GenerateStream(call, headers, target.upstream.max_frame_bytes, logprobs=logprobs)
        else:
            stream = ChatStream(call, target.upstream.max_frame_bytes, self.repairs(call, target))
        stops = stops_of(call)
        return CutStream(stream, stops) if stops else stream

    def parse_error(self, target: Target, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:  # noqa: ARG002
        return read_failure(status, body, retry_after(headers))


def _root(upstream: Upstream) -> str:
    return str(upstream.base_url).removesuffix("/v1")


def _completions(call: Call, target: Target, model: str) -> UpstreamRequest:
    """/v1/completions, where `stop` must be an array and `suffix` is refused."""
    if value_of(call, "suffix") is not None:
        refuse("suffix", "TGI completes only at the end of a prompt.", value=False)
    edits = {"stop": encode(list(stops_of(call)))} if isinstance(value_of(call, "stop"), str) else {}
    body = splice_request(call, model, edits, ask_usage=False)
    return UpstreamRequest(f"{with_v1(target.upstream)}/completions", JSON_HEADERS, body)


provider: Provider = Tgi()
