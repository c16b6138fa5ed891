"""An OpenAI chat request as a Messages API request.

Source: platform.claude.com, "Messages"; reference/upstreams.md §5.2-§5.5.
"""

import re
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any

from proxy.call import Call, Json
from proxy.openai_format.checks import wrong_type
from proxy.openai_format.messages import Message
from proxy.openai_format.parameters import refuse
from proxy.openai_format.request import ChatRequest, read_chat
from proxy.openai_format.schemas import close_objects
from proxy.openai_format.tools import force_in_words
from proxy.providers.anthropic import families, thinking
from proxy.providers.anthropic.blocks import write_part
from proxy.providers.anthropic.families import Traits
from proxy.providers.anthropic.reply import THINKING
from proxy.providers.anthropic.settings import COLUMN, Settings

_UNFIT_FOR_ID = re.compile(r"[^a-zA-Z0-9_-]")
_PLACEHOLDER = {"type": "text", "text": "."}  # user turns may not be empty
_JSON_HINT = "Answer with one valid JSON object and nothing else."


def build_body(call: Call, model: str, settings: Settings) -> tuple[Json, ChatRequest, list[str]]:
    """The body to send, what was read, and the names of what the body does not carry."""
    request = read_chat(call.body, COLUMN)
    traits = families.traits(model, settings.version, settings.families)
    asked = thinking.ask(
        request,
        traits,
        budgets=settings.budgets,
        display=settings.thinking_display,
        default_max_tokens=settings.default_max_tokens,
        headroom=settings.thinking_headroom,
    )
    lost = [*request.dropped, *asked.lost]
    body: Json = {
        "model": model,
        "max_tokens": asked.max_tokens,
        "messages": _turns(request, model, traits),
        **_sampling(request, traits, lost, thinks=asked.thinks),
        **asked.fields,
    }
    hints = _add_tools(body, request, traits, settings, lost)
    _add_format(body, request, model, traits, lost)
    system = [text for message in request.messages if message.role == "system" for text in _worded(message)]
    system += [*hints, *([_JSON_HINT] if request.format == "json_object" else [])]
    if system:
        body["system"] = _system(request, system)
    stops = [stop for stop in request.stop if stop.strip()]
    if stops:
        body["stop_sequences"] = stops
    user = request.fields.get("safety_identifier") or request.fields.get("user")
    if user:
        body["metadata"] = {"user_id": sha256(str(user).encode()).hexdigest()}
    tier = request.fields.get("service_tier")
    if tier in ("auto", "default"):
        body["service_tier"] = "auto"
    elif tier:
        lost.append("service_tier")
    return body, request, lost


def _sampling(request: ChatRequest, traits: Traits, lost: list[str], *, thinks: bool) -> Json:
    fields = request.fields
    sampling: Json = {name: fields[name] for name in ("temperature", "top_p") if name in fields}
    if traits.sampling == "none" or thinks:
        lost.extend(sampling)
        return {}
    if len(sampling) == 2 and traits.sampling == "one":
        del sampling["top_p"]
        lost.append("top_p")
    if sampling.get("temperature", 0) > 1:
        sampling["temperature"] = 1
        lost.append("temperature:clamped")
    return sampling


def _system(request: ChatRequest, texts: list[str]) -> str | list[Json]:
    """The system prompt: one text, or blocks where a part is marked for the cache."""
    parts = [part for message in request.messages if message.role == "system" for part in message.parts]
    if not any(part.raw.get("prompt_cache_breakpoint") for part in parts):
        return "\n".join(texts)
    blocks = [write_part(part) for part in parts if part.text.strip()]
    return [*blocks, *({"type": "text", "text": text} for text in texts[len(blocks) :])]


def _add_format(body: Json, request: ChatRequest, model: str, traits: Traits, lost: list[str]) -> None:
    if request.schema is None:
        return
    if not traits.json_schema:
        refuse("response_format", f"{model} cannot be held to a JSON Schema.")
    if body["messages"][-1]["role"] == "assistant":
        refuse("response_format", "A final assistant message cannot be continued with a JSON Schema.")
    schema, without = close_objects(request.schema)
    lost.extend(f"response_format:{keyword}" for keyword in without)
    form = {"type": "json_schema", "schema": schema}
    body["output_config"] = {**body.get("output_config", {}), "format": form}


def _worded(message: Message) -> list[str]:
    """The texts that are more than white space: others are refused."""
    return [text for text in message.texts if text.strip()]


def _turns(request: ChatRequest, model: str, traits: Traits) -> list[Json]:
    """User and assistant turns in alternation, beginning with the user's."""
    turns: list[Json] = []
    ids = _fit_ids(request)
    for message in request.messages:
        if message.role == "system":
            continue
        role = "assistant" if message.role == "assistant" else "user"
        blocks = list(_blocks(message, ids))
        if role == "user" and not blocks:
            blocks = [_PLACEHOLDER]
        if not blocks:
            continue
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"].extend(blocks)
        else:
            turns.append({"role": role, "content": blocks})
    if not turns or turns[0]["role"] == "assistant":
        turns.insert(0, {"role": "user", "content": [_PLACEHOLDER]})
    if turns[-1]["role"] == "assistant":
        _end_with_assistant(turns[-1], model, traits)
    return turns


def _end_with_assistant(turn: Json, model: str, traits: Traits) -> None:
    if not traits.prefill:
        refuse(
            "messages",
            f"{model} does not continue a final assistant message; end 'messages' with a user message.",
            value=True,
        )
    last = turn["content"][-1]
    if last["type"] == "text":
        turn["content"][-1] = {**last, "text": last["text"].rstrip()}


def _blocks(message: Message, ids: Mapping[str, str]) -> Iterator[Json]:
    content = [write_part(part) for part in message.parts if part.kind != "text" or part.text.strip()]
    if not message.parts:
        content = [{"type": "text", "text": text} for text in message.texts]
    if message.role == "tool":
        result: Json = {"type": "tool_result", "tool_use_id": ids[message.tool_call_id]}
        yield {**result, "content": content} if content else result
        return
    if message.role == "assistant":
        yield from _thinking_blocks(message)
    yield from content
    for call in message.tool_calls:
        yield {"type": "tool_use", "id": ids[call.id], "name": call.name, "input": call.arguments}


def _thinking_blocks(message: Message) -> list[Json]:
    """The blocks of an earlier answer, which must go back unchanged."""
    blocks = message.more.get("thinking_blocks") or []
    place = f"{message.place}.thinking_blocks"
    if not isinstance(blocks, list):
        wrong_type(place, "an array", blocks)
    for index, block in enumerate(blocks):
        if not isinstance(block, dict) or block.get("type") not in THINKING:
            wrong_type(f"{place}[{index}]", "a thinking block", block)
    return blocks


def _fit_ids(request: ChatRequest) -> Mapping[str, str]:
    """Ids of other vendors hold characters that are refused here: each gets one that fits, and no two the same."""
    given = dict.fromkeys(call.id for message in request.messages for call in message.tool_calls)
    ids = {call_id: call_id for call_id in given if call_id and not _UNFIT_FOR_ID.search(call_id)}
    taken, tried = set(ids), dict[str, int]()
    for call_id in given:
        if call_id in ids:
            continue
        base = fit = _UNFIT_FOR_ID.sub("_", call_id) or "_"
        while fit in taken:
            tried[base] = tried.get(base, 0) + 1
            fit = f"{base}_" if tried[base] == 1 else f"{base}_{tried[base]}"
        ids[call_id] = fit
        taken.add(fit)
    return ids


def _tools(request: ChatRequest, traits: Traits, lost: list[str]) -> Iterator[Json]:
    """Tools; a strict one has a schema that the model can be held to, or is not strict."""
    for tool in request.tools:
        schema, strict = tool.parameters or {"type": "object", "properties": {}}, tool.strict
        if strict and traits.json_schema:
            schema, without = close_objects(schema)
            lost.extend(f"tools:{keyword}" for keyword in without)
        elif strict:
            lost.append("tools:strict")
            strict = None
        described = {"description": tool.description, "input_schema": schema, "strict": strict}
        yield {"name": tool.name, **{name: value for name, value in described.items() if value is not None}}


_CHOICES = {"auto": "auto", "none": "none", "required": "any", "named": "tool"}


def _add_tools(body: Json, request: ChatRequest, traits: Traits, settings: Settings, lost: list[str]) -> list[str]:
    """Tools and how they may be chosen; returns what the system prompt must say instead of a force that is refused."""
    if not request.tools:
        return []
    mode, name = request.tool_choice.mode, request.tool_choice.name
    tools, hints = list(_tools(request, traits, lost)), []
    if mode in ("required", "named") and not traits.forced_tools:
        if settings.forced_tool_fallback == "reject":
            refuse("tool_choice", "This model cannot be forced to call a tool.")
        if mode == "named":
            tools = [tool for tool in tools if tool["name"] == name]
        hints = [force_in_words(name)]
        mode = "auto"
        lost.append("tool_choice:hint")
    body["tools"] = tools
    single = (request.single or request.legacy) and mode != "none"
    if mode is not None or single:
        choice: dict[str, Any] = {"type": _CHOICES[mode or "auto"]}
        if mode == "named":
            choice["name"] = name
        if single:
            choice["disable_parallel_tool_use"] = True
        body["tool_choice"] = choice
    return hints
