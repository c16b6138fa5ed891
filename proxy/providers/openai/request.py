"""The request on the normalised wire: nulls stripped, unknown fields named and dropped."""

from proxy.call import Call
from proxy.openai_format.encoding import encode
from proxy.openai_format.request import read_fields

# Source: openai-python 3.54.0, CompletionCreateParams; reference/upstreams.md §2.2.
FIELDS = frozenset(
    """
    audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens max_tokens messages
    metadata modalities model moderation n parallel_tool_calls prediction presence_penalty prompt_cache_key
    prompt_cache_options prompt_cache_retention reasoning_effort response_format safety_identifier seed service_tier
    stop store stream stream_options temperature tool_choice tools top_logprobs top_p user verbosity
    web_search_options
    """.split()
)


def normalise_request(call: Call, model: str) -> tuple[bytes, tuple[str, ...]]:
    """The body to send, and the names of what it no longer holds."""
    fields = {name: value for name, value in read_fields(call.body).items() if value is not None}
    body = {name: value for name, value in fields.items() if name in FIELDS}
    body["model"] = model
    if "max_completion_tokens" in body:
        body.pop("max_tokens", None)
    if call.stream:
        options = body.get("stream_options")
        body["stream_options"] = {**(options if isinstance(options, dict) else {}), "include_usage": True}
    return encode(body), tuple(name for name in fields if name not in FIELDS)
