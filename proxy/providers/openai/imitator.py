"""What all providers that speak OpenAI's dialect share, whatever their accent.

Source: reference/upstreams.md §3.1, §6, §8-§11.
"""

from collections.abc import Mapping

from proxy.call import Call, Json
from proxy.config import Upstream
from proxy.openai_format.amendments import value_of
from proxy.openai_format.encoding import encode
from proxy.openai_format.parameters import EMULATE, refuse
from proxy.openai_format.request import ChatRequest
from proxy.providers.openai.imitation import Imitation, write_request
from proxy.providers.openai.reply import Repairs, complete
from proxy.providers.openai.stream import NormalisedStream
from proxy.providers.seam import JSON_HEADERS, Provider, StreamParser, Target, UpstreamRequest, copies_of
from proxy.providers.splice import splice_request

PATHS = {"chat": "/chat/completions", "completions": "/completions", "embeddings": "/embeddings"}


class Imitator(Provider):
    """An upstream with OpenAI's paths below `root`."""

    def imitation(self, target: Target) -> Imitation:
        """The accent spoken at this target."""
        raise NotImplementedError

    def root(self, upstream: Upstream) -> str:
        """The address that the paths are below: /v1 is added where it is missing."""
        return with_v1(upstream)

    def headers(self, upstream: Upstream) -> Mapping[str, str]:  # noqa: ARG002
        """What each request carries."""
        return JSON_HEADERS

    def model(self, target: Target) -> str:
        """The name that is sent."""
        return target.model

    def build_request(self, call: Call, target: Target) -> UpstreamRequest:
        upstream, model = target.upstream, self.model(target)
        url = self.root(upstream) + PATHS[call.operation]
        refuse_restricted(call, self.imitation(target))
        if call.operation != "chat" or upstream.wire == "exact":
            return UpstreamRequest(url, self.headers(upstream), splice_request(call, model))
        body, request = write_request(call, model, self.imitation(target))
        copies = copies_of(request.n, upstream) if self.emulates_n(target, request) else 1
        if copies > 1:
            body.pop("n", None)
        return UpstreamRequest(url, self.headers(upstream), encode(body), request.dropped, copies=copies)

    def emulates_n(self, target: Target, request: ChatRequest) -> bool:  # noqa: ARG002
        """Whether several choices are asked for one by one."""
        return self.imitation(target).column["n"] is EMULATE

    def repairs(self, call: Call, target: Target) -> Repairs:
        """What is mended in the answer to this call."""
        imitation = self.imitation(target)
        forced = imitation.named_choice_stops and names_a_tool(call)
        return Repairs(fresh_tool_ids=imitation.fresh_tool_ids, tool_finish=not forced, logprobs=True)

    def parse_completion(self, call: Call, target: Target, headers: Mapping[str, str], body: bytes) -> Json:  # noqa: ARG002
        return complete(call, body, self.repairs(call, target))

    def open_stream(self, call: Call, target: Target, headers: Mapping[str, str]) -> StreamParser:  # noqa: ARG002
        return NormalisedStream(call, target.upstream.max_frame_bytes, self.repairs(call, target))

    def models_request(self, upstream: Upstream) -> UpstreamRequest | None:
        return UpstreamRequest(f"{self.root(upstream)}/models", {}, b"", method="GET")


def with_v1(upstream: Upstream) -> str:
    """The upstream's address with /v1 at its end."""
    address = str(upstream.base_url)
    return address if address.endswith("/v1") else f"{address}/v1"


def refuse_restricted(call: Call, imitation: Imitation) -> None:
    """On the exact wire too, some of a server's own fields are not for every caller."""
    restricted = imitation.column.restricted
    for name in restricted & call.members.keys():
        if value_of(call, name) is not None:
            refuse(name, f"'{name}' is not open to callers here (the upstream's settings.allow).", value=False)

    kwargs = value_of(call, "chat_template_kwargs") if restricted else None
    if isinstance(kwargs, dict) and restricted & kwargs.keys():
        refuse("chat_template_kwargs", "A template within 'chat_template_kwargs' is not open to callers here.")


def names_a_tool(call: Call) -> bool:
    """Whether the call forces a tool by its name."""
    return isinstance(value_of(call, "tool_choice"), dict)
