"""Thinking: who may ask for it, and what becomes of thinking blocks that come back."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import msgspec

from proxy.simulator.anthropic.checks import choice, integer, known_fields, mapping, needed_fields, refuse
from proxy.simulator.anthropic.models import Model
from proxy.simulator.dialect import Body

LEAST_THINKING = 1024  # tokens of a manual thinking budget
CALM_EFFORTS = ("low", "medium", "high")  # beyond which thinking cannot be stopped

_TYPES = ("enabled", "adaptive", "disabled", "between_tools")
_BLOCKS = ("thinking", "redacted_thinking")
_MISMATCH = "prefix_mismatch_behavior"


def thinking_field(path: str, value: Any) -> None:
    """Accept what `thinking` may look like, whatever the model.

    Source: Anthropic API reference, "Create a Message", thinking.
    """
    mapping(path, value)
    choice(*_TYPES)(f"{path}.type", value.get("type"))
    kind = value["type"]
    known = {"type", "block_binding"} | ({"budget_tokens"} if kind == "enabled" else set())
    known |= set() if kind == "disabled" else {"display"}
    known_fields(f"{path}.{kind}", value, frozenset(known))
    if kind == "enabled":
        needed_fields(path, value, "budget_tokens")
        integer(LEAST_THINKING)(f"{path}.budget_tokens", value["budget_tokens"])
    if "display" in value:
        choice("summarized", "omitted")(f"{path}.{kind}.display", value["display"])
    if "block_binding" in value:
        mapping(f"{path}.block_binding", value["block_binding"])
        choice("error", "drop_block")(f"{path}.block_binding.{_MISMATCH}", value["block_binding"].get(_MISMATCH))


def check_thinking(request: Body, model: Model | None) -> None:
    """Refuse thinking that the model, or the rest of the request, does not allow.

    Source: Anthropic documentation, "Extended thinking", "Adaptive thinking".
    """
    thinking = request.get("thinking", {})
    kind = thinking.get("type")
    if kind is not None and model is not None:
        _check_kind(kind, model, request.get("output_config", {}).get("effort", "high"))
    if kind == "enabled":
        if thinking["budget_tokens"] >= request["max_tokens"]:
            raise refuse("`max_tokens` must be greater than `thinking.budget_tokens`.")
        if request.get("tool_choice", {}).get("type") in ("any", "tool"):
            raise refuse("Thinking may not be enabled when tool_choice forces tool use.")
    if not is_on(request, model):
        return
    if request.get("temperature", 1) != 1:
        raise refuse("`temperature` may only be set to 1 when thinking is enabled.")
    if request.get("top_p", 1) < 0.95:
        raise refuse("`top_p` must be greater than or equal to 0.95 when thinking is enabled.")
    if "top_k" in request:
        raise refuse("`top_k` must be unset when thinking is enabled.")


def _check_kind(kind: str, model: Model, effort: str) -> None:
    if kind not in model.thinking_types:
        known = ", ".join(f'"{each}"' for each in model.thinking_types)
        raise refuse(f'"thinking.type.{kind}" is not supported for this model. Use one of: {known or "none"}.')
    stops = kind == "between_tools" or (kind == "disabled" and model.thinks_by_default)
    if stops and effort not in CALM_EFFORTS:
        raise refuse(f"\"thinking.type.{kind}\" is not supported at effort '{effort}' for this model.")


def is_on(request: Body, model: Model | None) -> bool:
    """Whether the model thinks before it answers; between tools only once there is a result."""
    kind = request.get("thinking", {}).get("type")
    if kind is None:
        return model is not None and model.thinks_by_default
    if kind == "between_tools":
        return bool(_loop(request["messages"]))
    return bool(kind != "disabled")


def is_shown(request: Body, model: Model | None) -> bool:
    """Whether the text of thoughts is part of the answer."""
    default = "omitted" if model is not None and model.hides_thoughts else "summarized"
    return bool(request.get("thinking", {}).get("display", default) == "summarized")


def place_of(request: Body, count: int | None = None) -> str:
    """Digest the conversation before an answer: its system, tools and first `count` messages, without breakpoints."""
    messages = [[each["role"], _bare(each["content"])] for each in request["messages"][:count]]
    tools = [_bare(tool) for tool in request.get("tools", ())]
    material = [_bare(request.get("system", [])), tools, messages]
    return _digest(msgspec.json.encode(material, order="sorted"))


def _bare(value: Any) -> Any:
    """Strip breakpoints, and write a bare text as the block that it stands for."""
    if isinstance(value, str):
        return [{"type": "text", "text": value}]
    if isinstance(value, list):
        return [{name: each for name, each in block.items() if name != "cache_control"} for block in value]
    return {name: each for name, each in value.items() if name != "cache_control"}


@dataclass(frozen=True, slots=True)
class Signature:
    """Who thought what, and where."""

    model: str
    text: str
    place: str

    def spell(self) -> str:
        """Write it as the opaque text that clients carry around."""
        return base64.b64encode(msgspec.json.encode([self.model, self.text, self.place])).decode()


def sign(model: str, text: str, place: str) -> str:
    """Sign a thinking block; `text` is what is shown of it."""
    return Signature(model, _digest(text.encode()), place).spell()


def _read_signature(value: Any) -> Signature | None:
    try:
        model, text, place = msgspec.json.decode(base64.b64decode(value, validate=True), type=tuple[str, str, str])
    except (ValueError, TypeError):
        return None
    return Signature(model, text, place)


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=12).hexdigest()


def check_blocks(request: Body, model: Model | None) -> None:
    """Refuse a history whose thinking blocks were changed, or lack where they are needed.

    Source: Anthropic documentation, "Extended thinking with tool use", "Preserved thinking".
    """
    if not is_on(request, model):
        return
    messages = request["messages"]
    for index, message in enumerate(messages):
        for place, block in enumerate(_blocks_of(message)):
            if block["type"] == "thinking":
                _check_block(f"messages.{index}.content.{place}", block, request, model, index)
    loop = _loop(messages)
    if loop and request.get("thinking", {}).get("type") == "enabled":
        found = _blocks_of(messages[loop[0]])[0]["type"]
        if found not in _BLOCKS:
            raise refuse(
                f"messages.{loop[0]}.content.0.type: Expected `thinking` or `redacted_thinking`, but found `{found}`. "
                "When `thinking` is enabled, a final `assistant` message must start with a thinking block."
            )
    thoughtful = [any(block["type"] in _BLOCKS for block in _blocks_of(messages[index])) for index in loop]
    if any(thoughtful) and not all(thoughtful):
        raise refuse(
            f"messages.{loop[thoughtful.index(False)]}: `thinking` blocks must be passed back complete and unmodified "
            "within a turn, or left out altogether."
        )


def _check_block(path: str, block: Body, request: Body, model: Model | None, index: int) -> None:
    signature = _read_signature(block["signature"])
    if signature is None:
        raise refuse(f"{path}: Invalid `signature` in `thinking` block")
    if signature.model != request["model"]:
        return  # dropped without a word
    if signature.text != _digest(block["thinking"].encode()):
        raise refuse(
            f"{path}: `thinking` or `redacted_thinking` blocks in an assistant message cannot be modified. These "
            "blocks must remain as they were in the original response."
        )
    drops = request.get("thinking", {}).get("block_binding", {}).get(_MISMATCH) == "drop_block"
    bound = model is not None and model.binds_thoughts and not drops
    if bound and signature.place != place_of(request, index):
        raise refuse(f"{path}: Invalid `signature` in `thinking` block: it is bound to a different conversation")


def _loop(messages: Sequence[Body]) -> list[int]:
    """Return the places of the assistant messages whose tools the conversation is waiting for, first to last."""
    found: list[int] = []
    for index in range(len(messages) - 1, 0, -1):
        message = messages[index]
        if message["role"] == "assistant":
            found.insert(0, index)
        elif not any(block["type"] == "tool_result" for block in _blocks_of(message)):
            break
    waits = bool(found) and messages[-1]["role"] == "user"
    return found if waits and any(block["type"] == "tool_use" for block in _blocks_of(messages[found[-1]])) else []


def _blocks_of(message: Body) -> list[Body]:
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content
