"""TGI's OpenAI layer: what it takes, and how it must be told.

Source: huggingface/text-generation-inference, 3.3.6-dev0; reference/upstreams.md §9.3.
"""

from collections.abc import Iterator

from proxy.call import Json
from proxy.errors import Limited, UpstreamError
from proxy.openai_format.checks import wrong_value
from proxy.openai_format.parameters import DROP, EMULATE, MAP, PASS, REJECT, Column, refuse
from proxy.openai_format.request import ChatRequest
from proxy.providers.openai.imitation import NO_PARAMETERS, TOP_P_FLOOR, Imitation
from proxy.providers.openai.stream import NormalisedStream

PATIENCE = 1.0  # seconds

COLUMN = Column(
    {
        "developer role": (MAP, "system"),
        "image data:": PASS,
        "image https:": (PASS, "the server fetches"),
        "input_audio": REJECT,
        "file": REJECT,
        "custom tools": REJECT,
        "tools": (MAP, "parameters filled in"),
        "tool_choice none": PASS,
        "tool_choice required": PASS,
        "tool_choice named": PASS,
        "tool_choice allowed_tools": (EMULATE, "the tools are filtered"),
        "parallel_tool_calls": (DROP, "always one call"),
        "json_object": (MAP, "a grammar; refused beside tools"),
        "json_schema": (MAP, "a grammar; refused beside tools"),
        "temperature": PASS,
        "top_p": (MAP, "1 left out, 0 becomes 0.000001"),
        "max_completion_tokens": (MAP, "max_tokens"),
        "max_tokens": PASS,
        "stop": (MAP, "an array; its echo is cut"),
        "seed": (PASS, "not below 0"),
        "n": (EMULATE, "asked n times"),
        "logprobs": PASS,
        "top_logprobs": PASS,
        "presence_penalty": (DROP, "it would become a repetition penalty"),
        "frequency_penalty": PASS,
        "logit_bias": DROP,
        "user": DROP,
        "metadata": DROP,
        "store": DROP,
        "include_usage": PASS,
        "reasoning_effort": DROP,
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
    extras=("tool_prompt", "guideline"),
    in_messages=("name",),
    text_arguments=True,
)


def adapt(body: Json, request: ChatRequest) -> None:
    """Shapes that are an error there."""
    for message in body["messages"]:
        if "tool_calls" in message:
            message.pop("content", None)  # with any content the calls are lost
    for tool in body.get("tools", ()):
        tool["function"].setdefault("parameters", NO_PARAMETERS)
    grammar = response_grammar(request)
    body.pop("response_format", None)
    if grammar is not None:
        if request.tools:
            refuse("response_format", "TGI takes tools or a response_format, not both.")
        body["response_format"] = grammar
    fit_sampling(body)


def fit_sampling(fields: Json) -> None:
    """Values at the ends of their ranges, which TGI refuses."""
    if fields.get("top_p") == 1:
        del fields["top_p"]
    elif fields.get("top_p") == 0:
        fields["top_p"] = TOP_P_FLOOR
    if fields.get("seed", 0) < 0:
        wrong_value("seed", "'seed' must not be negative here.")


def response_grammar(request: ChatRequest) -> Json | None:
    """The constraint that the answer must fit, as TGI spells it."""
    if request.format == "text":
        return None
    return {"type": "json", "value": request.schema if request.schema is not None else {"type": "object"}}


IMITATION = Imitation(COLUMN, limit_field="max_tokens", stop_array=True, adapt=adapt, fresh_tool_ids=True)


def lost_texts(request: ChatRequest) -> list[str]:
    """Texts beside tool calls, which TGI cannot have."""
    return [f"{message.place}.content" for message in request.messages if message.tool_calls and "".join(message.texts)]


def with_patience(error: UpstreamError) -> UpstreamError:
    """TGI limits without saying for how long: a second, then."""
    if isinstance(error, Limited) and error.retry_after is None:
        error.retry_after = PATIENCE
    return error


class ChatStream(NormalisedStream):
    """A stream of the OpenAI layer, whose refusals come as events too."""

    def feed(self, data: bytes) -> Iterator[Json]:
        try:
            yield from super().feed(data)
        except UpstreamError as error:
            raise with_patience(error) from error.__cause__
