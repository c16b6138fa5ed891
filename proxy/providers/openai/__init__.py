"""OpenAI's own API, and all that speak it alike (Azure OpenAI and other compatible vendors).

Source: OpenAI API reference; reference/upstreams.md §4.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, Literal

from pydantic import Field

from proxy.call import Call, Json
from proxy.config import ProviderTraits, Section, Upstream
from proxy.errors import RequestRefused, UpstreamError
from proxy.openai_format.amendments import changed, value_of
from proxy.providers.openai.imitator import PATHS
from proxy.providers.openai.reply import complete
from proxy.providers.openai.request import COLUMN, normalise_request
from proxy.providers.openai.stream import NormalisedStream
from proxy.providers.seam import JSON_HEADERS, Provider, StreamParser, Target, UpstreamRequest
from proxy.providers.splice import splice_request

Fields = Annotated[tuple[str, ...], Field(min_length=1, strict=False)]


class Settings(Section):
    """What only OpenAI knows."""

    retry_without: Mapping[str, Fields] = {}
    """Globs of model names, and the parameters without which a call is sent again when such a model refuses one."""

    tools_reasoning: Literal["pass", "retry_without_effort"] = "pass"
    """When tools are refused together with reasoning: tell the caller, or ask again with `reasoning_effort: none`."""


@dataclass(frozen=True, slots=True)
class OpenAI(Provider):
    """The dialect that our callers speak."""

    traits: ProviderTraits = ProviderTraits(
        base_url="https://api.openai.com/v1",
        wires=("exact", "normalise"),
        settings=Settings,
        columns={"openai": COLUMN},
        key_variables=("OPENAI_API_KEY",),
        patterns=("gpt-*", "chatgpt-*", "ft:*", "text-embedding-*", "o[0-9]*"),
    )

    def build_request(self, call: Call, target: Target) -> UpstreamRequest:
        url = f"{target.upstream.base_url}{PATHS[call.operation]}"
        if target.upstream.wire == "exact" or call.operation != "chat":
            return UpstreamRequest(url, JSON_HEADERS, splice_request(call, target.model))
        body, dropped = normalise_request(call, target.model)
        return UpstreamRequest(url, JSON_HEADERS, body, dropped)

    def parse_completion(self, call: Call, target: Target, headers: Mapping[str, str], body: bytes) -> Json:  # noqa: ARG002
        return complete(call, body)

    def open_stream(self, call: Call, target: Target, headers: Mapping[str, str]) -> StreamParser:  # noqa: ARG002
        return NormalisedStream(call, target.upstream.max_frame_bytes)

    def amend(self, call: Call, target: Target, error: UpstreamError) -> Call | None:
        """Reasoning models take only the new name of the limit, no sampling, and some no effort beside tools.

        Source: reference/upstreams.md §4.2, §4.3.
        """
        if not isinstance(error, RequestRefused) or call.operation != "chat":
            return None
        settings: Settings = target.upstream.settings
        limit = value_of(call, "max_tokens")
        if error.param == "max_tokens" and error.code == "unsupported_parameter" and limit is not None:
            return changed(call, remove=("max_tokens",), add={"max_completion_tokens": limit})
        listed = next((names for glob, names in settings.retry_without.items() if fnmatchcase(target.model, glob)), ())
        if error.param in listed and error.code in ("unsupported_parameter", "unsupported_value"):
            sent = [name for name in listed if value_of(call, name) is not None]
            return changed(call, remove=sent, names=sent)
        if error.param == "reasoning_effort" and settings.tools_reasoning != "pass" and value_of(call, "tools"):
            return changed(call, add={"reasoning_effort": "none"}, names=("reasoning_effort:none",))
        return None

    def models_request(self, upstream: Upstream) -> UpstreamRequest | None:
        return UpstreamRequest(f"{upstream.base_url}/models", {}, b"", method="GET")


provider: Provider = OpenAI()
