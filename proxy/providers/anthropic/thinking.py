"""Reasoning effort as Claude's thinking, and when it cannot be asked for.

Source: reference/upstreams.md §5.4.
"""

from collections.abc import Mapping
from typing import Literal

from proxy.call import Json
from proxy.config import Section
from proxy.openai_format.messages import Message
from proxy.openai_format.request import ChatRequest
from proxy.providers.anthropic.families import Traits

LEAST_BUDGET = 1024  # tokens
_LOST = "reasoning_effort"


class Budgets(Section):
    """Tokens of thinking for each effort, for models with manual thinking."""

    minimal: int = 1024
    low: int = 2048
    medium: int = 8192
    high: int = 16384
    xhigh: int = 16384
    max: int = 32768


class Asked:
    """What a request says of thinking: fields of the body, the limit of tokens, and what was lost."""

    def __init__(self, max_tokens: int) -> None:
        self.fields: Json = {}
        self.max_tokens = max_tokens
        self.lost: list[str] = []

    @property
    def thinks(self) -> bool:
        """Whether thinking is asked for."""
        return self.fields.get("thinking", {}).get("type") in ("enabled", "adaptive")


def ask(
    request: ChatRequest,
    traits: Traits,
    *,
    budgets: Budgets,
    display: Literal["summarized", "omitted"],
    default_max_tokens: int,
    headroom: int,
) -> Asked:
    """Put the caller's effort in the family's words."""
    effort = request.fields.get("reasoning_effort")
    asked = Asked(request.max_tokens or default_max_tokens)
    if headroom and request.max_tokens and traits.thinking == "adaptive":
        asked.max_tokens += headroom
    if effort is None:
        return asked
    if traits.thinking == "none":
        asked.lost.append(_LOST)
    elif traits.thinking == "manual":
        _ask_manual(asked, effort, request, budgets)
    elif effort == "none":
        _ask_none(asked, traits)
    else:
        _ask_adaptive(asked, effort, traits, display)
    return asked


def _ask_manual(asked: Asked, effort: str, request: ChatRequest, budgets: Budgets) -> None:
    if effort == "none":
        return
    if request.tool_choice.mode in ("required", "named") or continues_without_blocks(request.messages):
        asked.lost.append(_LOST)
        return
    budget: int = getattr(budgets, effort)
    if request.max_tokens is None:
        asked.max_tokens += budget
    else:
        budget = min(budget, request.max_tokens // 2)
    if budget < LEAST_BUDGET:
        if asked.max_tokens <= LEAST_BUDGET:
            asked.lost.append(_LOST)
            return
        budget = LEAST_BUDGET
    asked.fields["thinking"] = {"type": "enabled", "budget_tokens": budget}


def _ask_none(asked: Asked, traits: Traits) -> None:
    if traits.without_thinking == "low_effort":
        asked.fields["output_config"] = {"effort": "low"}
        asked.lost.append(f"{_LOST}:low")
    else:
        asked.fields["thinking"] = {"type": traits.without_thinking}


_NEAREST: Mapping[str, tuple[str, ...]] = {
    "minimal": ("low",),
    "xhigh": ("xhigh", "high"),
    "max": ("max", "xhigh", "high"),
}


def _ask_adaptive(asked: Asked, effort: str, traits: Traits, display: Literal["summarized", "omitted"]) -> None:
    thinking = {"type": "adaptive"}
    if not traits.shows_thinking:
        thinking["display"] = display
    nearest = next((each for each in _NEAREST.get(effort, (effort,)) if each in traits.efforts), traits.efforts[-1])
    asked.fields |= {"thinking": thinking, "output_config": {"effort": nearest}}
    if nearest != effort:
        asked.lost.append(f"{_LOST}:{nearest}")


def continues_without_blocks(messages: tuple[Message, ...]) -> bool:
    """Whether the conversation goes on after tool calls whose thinking is not at hand."""
    for message in reversed(messages):
        if message.role == "user":
            return False
        if message.role == "assistant" and message.tool_calls and not message.more.get("thinking_blocks"):
            return True
    return False
