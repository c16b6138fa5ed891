"""vLLM's OpenAI-compatible server; Ray Serve's and BentoML's OpenAI layers serve the same engine.

Source: vllm 0.33.0; reference/upstreams.md §8.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated

from pydantic import Field

from proxy.call import Json
from proxy.config import ProviderTraits, Section
from proxy.errors import RequestRefused, UpstreamError
from proxy.openai_format.errors import classify, read_error, retry_after
from proxy.openai_format.messages import REASONING
from proxy.openai_format.parameters import DROP, EMULATE, MAP, PASS, REJECT, Column
from proxy.openai_format.request import ChatRequest
from proxy.providers.openai.imitation import TOP_P_FLOOR, Imitation, LimitField
from proxy.providers.openai.imitator import Imitator
from proxy.providers.seam import Provider, Target

EXTRAS = """
    top_k min_p repetition_penalty length_penalty stop_token_ids include_stop_str_in_output ignore_eos min_tokens
    skip_special_tokens spaces_between_special_tokens allowed_token_ids bad_words prompt_logprobs
    truncate_prompt_tokens use_beam_search echo add_generation_prompt continue_final_message add_special_tokens
    chat_template_kwargs mm_processor_kwargs structured_outputs guided_json guided_regex guided_choice guided_grammar
    session_id cache_salt thinking_token_budget include_reasoning return_token_ids return_tokens_as_token_ids
    stream_interval vllm_xargs kv_transfer_params
""".split()

# They run a template on the server, make it fetch, or touch other callers' requests.
RESTRICTED = ("chat_template", "documents", "priority", "request_id")

_GUIDED = {"guided_json": "json", "guided_regex": "regex", "guided_choice": "choice", "guided_grammar": "grammar"}

COLUMN = Column(
    {
        "developer role": (MAP, "system"),
        "image data:": PASS,
        "image https:": (PASS, "the server fetches"),
        "input_audio": PASS,
        "file": REJECT,
        "custom tools": REJECT,
        "tools": PASS,
        "tool_choice none": PASS,
        "tool_choice required": PASS,
        "tool_choice named": PASS,
        "tool_choice allowed_tools": (EMULATE, "the tools are filtered"),
        "parallel_tool_calls": PASS,
        "json_object": PASS,
        "json_schema": PASS,
        "temperature": PASS,
        "top_p": (PASS, "0 becomes 0.000001"),
        "max_completion_tokens": PASS,
        "max_tokens": PASS,
        "stop": PASS,
        "seed": PASS,
        "n": (PASS, "asked n times with temperature 0"),
        "logprobs": PASS,
        "top_logprobs": PASS,
        "presence_penalty": PASS,
        "frequency_penalty": PASS,
        "logit_bias": PASS,
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
    extras=EXTRAS,
    restricted=RESTRICTED,
    formats=("structural_tag",),
    in_messages=("name", "detail", *REASONING),
    text_arguments=True,
)


class Settings(Section):
    """What only vLLM knows."""

    allow: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Fields of vLLM's that are refused unless they are listed: chat_template, documents, priority, request_id."""
    max_tokens_field: LimitField = "as_asked"
    """The name under which the limit of tokens is sent, on the normalised wire."""


def adapt(body: Json, request: ChatRequest) -> None:  # noqa: ARG001
    """Fields that only changed their names since, and a value that is refused."""
    if body.get("top_p") == 0:
        body["top_p"] = TOP_P_FLOOR
    guided = {field: body.pop(name) for name, field in _GUIDED.items() if name in body}
    if guided:
        body["structured_outputs"] = {**guided, **(body.get("structured_outputs") or {})}


@cache
def imitation(allow: tuple[str, ...] = (), limit_field: LimitField = "as_asked") -> Imitation:
    """vLLM's accent."""
    column = COLUMN.but({}, extras=allow) if allow else COLUMN
    return Imitation(column, limit_field=limit_field, adapt=adapt, named_choice_stops=True, one_call=True)


def emulates_n(request: ChatRequest) -> bool:
    """vLLM refuses several choices of the one that is most likely."""
    return request.n > 1 and request.fields.get("temperature") == 0


def parse_error(status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """vLLM's error object has an integer code, and 501 for what it cannot do."""
    facts = read_error(body)
    if status == 501:
        return RequestRefused(facts.message or "not implemented there", code="unsupported_parameter")
    return classify(status, facts, retry_after(headers))


@dataclass(frozen=True, slots=True)
class Vllm(Imitator):
    """vLLM's server."""

    traits: ProviderTraits = ProviderTraits(
        base_url=None,
        wires=("exact", "normalise"),
        list_models=True,
        settings=Settings,
        columns={"vllm": COLUMN},
        key_variables=("VLLM_API_KEY",),
        url_variable="VLLM_BASE_URL",
    )

    def imitation(self, target: Target) -> Imitation:
        settings: Settings = target.upstream.settings
        return imitation(settings.allow, settings.max_tokens_field)

    def emulates_n(self, target: Target, request: ChatRequest) -> bool:  # noqa: ARG002
        return emulates_n(request)

    def parse_error(self, target: Target, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:  # noqa: ARG002
        return parse_error(status, headers, body)


provider: Provider = Vllm()
