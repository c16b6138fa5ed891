"""What a server that follows OpenAI's API accepts of a chat completion request."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from proxy.simulator.answers import Role
from proxy.simulator.dialect import Body
from proxy.simulator.openai.checks import Check

COMMON = frozenset({"role", "content", "name"})
MESSAGE_FIELDS: Mapping[str, frozenset[str]] = {
    "system": COMMON,
    "developer": COMMON,
    "user": COMMON,
    "function": COMMON,
    "tool": COMMON | {"tool_call_id"},
    "assistant": COMMON | {"tool_calls", "refusal", "audio", "function_call", "annotations"},
}
ROLES: Mapping[str, Role] = {
    "system": "system",
    "assistant": "assistant",
    "user": "user",
    "function": "tool",
    "tool": "tool",
    "developer": "system",
}
PARTS: Mapping[str, tuple[str, ...]] = {
    "user": ("text", "image_url", "input_audio", "file"),
    "assistant": ("text", "refusal"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Grammar:
    """The fields of a request and of its messages; OpenAI's own where nothing else is said.

    Args:
        fields: the known fields, and what each must be.
        together: refuses fields that exclude or need one another; sees no nulls.
        ignores_unknown: fields that are not known are no mistake, here and in messages.
        default_model: answers a request that names none; None refuses it.
        tool_kinds: the types of tools.
        choice_kinds: the types of a tool_choice that is an object.
        links_results: each tool message answers a call before it, and each call is answered.
    """

    fields: Mapping[str, Check]
    together: Callable[[Body], None]
    ignores_unknown: bool = False
    default_model: str | None = None
    roles: Mapping[str, Role] = field(default_factory=lambda: ROLES)
    message_fields: Mapping[str, frozenset[str]] = field(default_factory=lambda: MESSAGE_FIELDS)
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: PARTS)
    tool_kinds: tuple[str, ...] = ("function", "custom")
    choice_kinds: tuple[str, ...] = ("function", "custom", "allowed_tools")
    links_results: bool = True
