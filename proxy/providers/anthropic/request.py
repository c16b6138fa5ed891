"""An OpenAI chat request as a Messages API request.

Source: platform.claude.com, "Messages"; reference/upstreams.md §5.2-§5.5.
"""

import re
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any

from proxy.call import Call, Json
from proxy.errors import UnsupportedParameter
from proxy.openai_format.encoding import encode
from proxy.openai_format.messages import Message
from proxy.openai_format.request import ChatRequest, dropped, read_chat
from proxy.providers.anthropic import families

_CARRIED = """
    max_tokens max_completion_tokens stop tools tool_choice parallel_tool_calls user safety_identifier temperature
    top_p service_tier
""".split()
_UNFIT_FOR_ID = re.compile(r"[^a-zA-Z0-9_-]")
_PLACEHOLDER = {"type": "text", "text": "."}  # user turns may not be empty


def build_body(call: Call, model: str, api_version: str, default_max_tokens: int) -> tuple[bytes, tuple[str, ...]]:
    """The body to send, and the names of what it does not carry."""
    request = read_chat(call.body)
    sampling, lost = _sampling(request, model, api_version)
    body: Json = {
        "model": model,
        "max_tokens": request.max_tokens or default_max_tokens,
        "messages": _turns(request, model),
        **sampling,
    }
    system = [text for message in request.messages if message.role == "system" for text in _worded(message)]
    if system:
        body["system"] = "\n".join(system)
    stops = [stop for stop in request.stop if stop.strip()]
    if stops:
        body["stop_sequences"] = stops
    if len(stops) < len(request.stop):
        lost.append("stop")
    if request.tools:
        body["tools"] = list(_tools(request))
        body |= _tool_choice(request)
    user = request.fields.get("safety_identifier") or request.fields.get("user")
    if user:
        body["metadata"] = {"user_id": sha256(str(user).encode()).hexdigest()}
    tier = request.fields.get("service_tier")
    if tier in ("auto", "default"):
        body["service_tier"] = "auto"
    elif tier:
        lost.append("service_tier")
    if call.stream:
        body["stream"] = True
    return encode(body), dropped(request, _CARRIED, *lost)


def _sampling(request: ChatRequest, model: str, api_version: str) -> tuple[Json, list[str]]:
    fields, lost = request.fields, list[str]()
    sampling: Json = {name: fields[name] for name in ("temperature", "top_p") if name in fields}
    if families.refuses_sampling(model, api_version):
        return {}, list(sampling)
    if len(sampling) == 2 and families.takes_one_of_temperature_and_top_p(model):
        del sampling["top_p"]
        lost.append("top_p")
    if sampling.get("temperature", 0) > 1:
        sampling["temperature"] = 1
        lost.append("temperature:clamped")
    return sampling, lost


def _worded(message: Message) -> list[str]:
    """The texts that are more than white space: others are refused."""
    return [text for text in message.texts if text.strip()]


def _turns(request: ChatRequest, model: str) -> list[Json]:
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
        _end_with_assistant(turns[-1], model)
    return turns


def _end_with_assistant(turn: Json, model: str) -> None:
    if families.refuses_prefill(model):
        raise UnsupportedParameter(
            f"{model} does not continue a final assistant message; end 'messages' with a user message.",
            param="messages",
            code="unsupported_value",
        )
    last = turn["content"][-1]
    if last["type"] == "text":
        turn["content"][-1] = {"type": "text", "text": last["text"].rstrip()}


def _blocks(message: Message, ids: Mapping[str, str]) -> Iterator[Json]:
    texts = [{"type": "text", "text": text} for text in _worded(message)]
    if message.role == "tool":
        result: Json = {"type": "tool_result", "tool_use_id": ids[message.tool_call_id]}
        yield {**result, "content": texts} if texts else result
        return
    yield from texts
    for call in message.tool_calls:
        yield {"type": "tool_use", "id": ids[call.id], "name": call.name, "input": call.arguments}


def _fit_ids(request: ChatRequest) -> Mapping[str, str]:
    """Ids of other vendors hold characters that are refused here: each gets one that fits, and no two the same."""
    given = [call.id for message in request.messages for call in message.tool_calls]
    ids = {call_id: call_id for call_id in given if call_id and not _UNFIT_FOR_ID.search(call_id)}
    for call_id in given:
        fit = _UNFIT_FOR_ID.sub("_", call_id) or "_"
        while call_id not in ids and fit in ids.values():
            fit += "_"
        ids.setdefault(call_id, fit)
    return ids


def _tools(request: ChatRequest) -> Iterator[Json]:
    for tool in request.tools:
        schema = tool.parameters or {"type": "object", "properties": {}}
        described = {"description": tool.description, "input_schema": schema, "strict": tool.strict}
        yield {"name": tool.name, **{name: value for name, value in described.items() if value is not None}}


_CHOICES = {"auto": "auto", "none": "none", "required": "any", "named": "tool"}


def _tool_choice(request: ChatRequest) -> dict[str, Any]:
    mode = request.tool_choice.mode
    single = request.fields.get("parallel_tool_calls") is False and mode != "none"
    if mode is None and not single:
        return {}
    choice: Json = {"type": _CHOICES[mode or "auto"]}
    if mode == "named":
        choice["name"] = request.tool_choice.name
    if single:
        choice["disable_parallel_tool_use"] = True
    return {"tool_choice": choice}
