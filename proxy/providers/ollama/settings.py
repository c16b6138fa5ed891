"""What only Ollama knows, and what becomes of OpenAI's parameters there."""

from collections.abc import Mapping
from typing import Any, Literal

from proxy.config import Section
from proxy.openai_format.messages import REASONING
from proxy.openai_format.parameters import DROP, EMULATE, MAP, REJECT, Column

EXTRAS = (
    "top_k",
    "min_p",
    "typical_p",
    "repeat_last_n",
    "repeat_penalty",
    "num_ctx",
    "num_keep",
    "num_batch",
    "num_gpu",
    "mirostat",
    "mirostat_eta",
    "mirostat_tau",
)
Think = Literal["levels", "boolean", "never"]


class Settings(Section):
    """What only Ollama knows."""

    truncate: bool = False
    """Let Ollama drop the oldest messages of a conversation longer than its context, in silence."""
    keep_alive: str | int | None = None
    """How long the model stays loaded: a duration such as 10m, or seconds; -1: for ever."""
    options: Mapping[str, Any] = {}
    """Model options for every call, such as num_ctx; a caller's parameters win."""
    think: Think = "boolean"
    """What reasoning_effort becomes: levels, only on or off, or nothing (dropped). gpt-oss always has levels."""
    families: Mapping[str, Think] = {}
    """The same for models by globs of their names."""
    forced_tool_fallback: Literal["auto_with_hint", "reject"] = "reject"
    """Ollama cannot be made to call a tool: refuse such a call, or ask for it in a system message."""


COLUMN = Column(
    {
        "developer role": (MAP, "system"),
        "image data:": (MAP, "images"),
        "image https:": (REJECT, "send a data: URI"),
        "input_audio": REJECT,
        "file": REJECT,
        "custom tools": REJECT,
        "tools": (MAP, "$ref inlined"),
        "tool_choice none": (EMULATE, "tools left out"),
        "tool_choice required": (EMULATE, "refused, or a hint (settings.forced_tool_fallback)"),
        "tool_choice named": (EMULATE, "refused, or a hint (settings.forced_tool_fallback)"),
        "tool_choice allowed_tools": (EMULATE, "the tools are filtered"),
        "parallel_tool_calls": (EMULATE, "false: the first call is kept"),
        "json_object": (MAP, "format: json"),
        "json_schema": (MAP, "format, $ref inlined"),
        "temperature": (MAP, "options"),
        "top_p": (MAP, "options"),
        "max_completion_tokens": (MAP, "options.num_predict"),
        "max_tokens": (MAP, "options.num_predict"),
        "stop": (MAP, "options"),
        "seed": (MAP, "options"),
        "n": (EMULATE, "asked n times"),
        "logprobs": MAP,
        "top_logprobs": MAP,
        "presence_penalty": (MAP, "options"),
        "frequency_penalty": (MAP, "options"),
        "logit_bias": DROP,
        "user": DROP,
        "metadata": DROP,
        "store": DROP,
        "include_usage": EMULATE,
        "reasoning_effort": (MAP, "think: on or off, levels for gpt-oss (settings.think)"),
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
    in_messages=REASONING,
)
