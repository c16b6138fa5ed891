"""What only Anthropic knows, and what becomes of OpenAI's parameters there."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from proxy.config import Section
from proxy.openai_format.parameters import DROP, EMULATE, MAP, REJECT, Column
from proxy.providers.anthropic.families import Family
from proxy.providers.anthropic.thinking import Budgets


class Settings(Section):
    """What only Anthropic knows."""

    version: Literal["2023-06-01", "2026-10-21"] = "2023-06-01"
    """The anthropic-version header."""
    default_max_tokens: Annotated[int, Field(gt=0)] = 4096
    """Sent when the caller sets no limit: the field is mandatory there."""
    key_header: Literal["x-api-key", "authorization"] = "x-api-key"
    """Where the key goes; authorization: as a Bearer token."""
    forced_tool_fallback: Literal["auto_with_hint", "reject"] = "auto_with_hint"
    """For models that cannot be forced to call a tool: ask them to, or refuse the call."""
    budgets: Budgets = Budgets()
    """Tokens of thinking for each reasoning_effort, for models up to 4.5."""
    thinking_display: Literal["summarized", "omitted"] = "summarized"
    """Whether models from 4.7 on show their thinking when reasoning_effort is asked for."""
    thinking_headroom: Annotated[int, Field(ge=0)] = 0
    """Added to the caller's limit of tokens for models that think adaptively, since thinking counts."""
    families: Mapping[str, Family] = {}
    """Globs of model names, and what differs for them from what their names tell."""


COLUMN = Column(
    {
        "developer role": (MAP, "system"),
        "image data:": (MAP, "base64 source; jpeg, png, gif, webp"),
        "image https:": (MAP, "url source"),
        "input_audio": REJECT,
        "file": (MAP, "document; PDF and plain text as file_data"),
        "custom tools": REJECT,
        "tools": (MAP, "input_schema"),
        "tool_choice none": MAP,
        "tool_choice required": (MAP, "any; a hint in the system prompt where the model refuses force"),
        "tool_choice named": (MAP, "tool; a hint in the system prompt where the model refuses force"),
        "tool_choice allowed_tools": (EMULATE, "the tools are filtered"),
        "parallel_tool_calls": (MAP, "disable_parallel_tool_use"),
        "json_object": (EMULATE, "a line in the system prompt"),
        "json_schema": (MAP, "output_config.format; objects closed, limits dropped; refused by models before 4.5"),
        "temperature": (MAP, "at most 1; dropped from Claude 4.7 on and while thinking"),
        "top_p": (MAP, "dropped beside temperature by Claude 4, from 4.7 on and while thinking"),
        "max_completion_tokens": (MAP, "max_tokens, mandatory: default_max_tokens"),
        "max_tokens": (MAP, "mandatory: default_max_tokens"),
        "stop": (MAP, "stop_sequences; white space is cut on our side"),
        "seed": DROP,
        "n": (EMULATE, "asked n times"),
        "logprobs": REJECT,
        "top_logprobs": REJECT,
        "presence_penalty": DROP,
        "frequency_penalty": DROP,
        "logit_bias": DROP,
        "user": (MAP, "metadata.user_id, a hash"),
        "metadata": DROP,
        "store": DROP,
        "include_usage": EMULATE,
        "reasoning_effort": (MAP, "thinking budgets up to 4.5, adaptive with effort from 4.6; dropped before 3.7"),
        "verbosity": DROP,
        "service_tier": (MAP, "auto and default; others dropped"),
        "modalities with audio": REJECT,
        "audio": REJECT,
        "prediction": DROP,
        "prompt_cache_*": (DROP, "mark a part with prompt_cache_breakpoint instead"),
        "moderation": DROP,
        "web_search_options": DROP,
        "functions": (MAP, "tools, and back"),
    },
    in_messages=("thinking_blocks", "prompt_cache_breakpoint"),
)
