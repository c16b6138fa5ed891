"""An OpenAI chat request as one for Ollama's native /api/chat.

Source: ollama/docs/api.md; reference/upstreams.md §7.2.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from proxy.call import Call, Json
from proxy.errors import UnsupportedParameter
from proxy.openai_format.encoding import encode
from proxy.openai_format.messages import REASONING, Message
from proxy.openai_format.request import ChatRequest, dropped, read_chat

_OPTIONS = ("temperature", "top_p", "seed", "presence_penalty", "frequency_penalty")
_CARRIED = (*_OPTIONS, "stop", "max_tokens", "max_completion_tokens", "tools", "tool_choice")


def build_body(
    call: Call, model: str, *, truncate: bool, keep_alive: Any, options: Mapping[str, Any]
) -> tuple[bytes, tuple[str, ...]]:
    """The body to send, and the names of what it does not carry."""
    request = read_chat(call.body)
    _check_tool_choice(request)
    body: Json = {
        "model": model,
        "messages": list(_messages(request.messages)),
        "stream": call.stream,
        "truncate": truncate,
        "shift": truncate,
    }
    if request.tools and request.tool_choice.mode != "none":
        body["tools"] = list(_tools(request))
    if keep_alive is not None:
        body["keep_alive"] = keep_alive
    chosen = {**options, **_options(request)}
    if chosen:
        body["options"] = chosen
    left = dropped(request, _CARRIED)
    return encode(body), tuple(name for name in left if name.rpartition(".")[2] not in REASONING or "." not in name)


def _check_tool_choice(request: ChatRequest) -> None:
    if request.tool_choice.mode in ("required", "named"):
        raise UnsupportedParameter(
            "Ollama cannot be made to call a tool; use 'auto' or 'none'.",
            param="tool_choice",
            code="unsupported_value",
        )


def _options(request: ChatRequest) -> Json:
    options = {name: request.fields[name] for name in _OPTIONS if name in request.fields}
    if request.stop:
        options["stop"] = list(request.stop)
    if request.max_tokens is not None:
        options["num_predict"] = request.max_tokens
    return options


def _messages(messages: tuple[Message, ...]) -> Iterator[Json]:
    names: dict[str, str] = {}  # of the tools that were called, by the call's id
    for message in messages:
        made: Json = {"role": message.role, "content": "\n".join(message.texts)}
        if message.reasoning:
            made["thinking"] = message.reasoning
        if message.role == "tool":
            made |= {"tool_name": names[message.tool_call_id], "tool_call_id": message.tool_call_id}
        if message.tool_calls:
            names |= {call.id: call.name for call in message.tool_calls}
            made["tool_calls"] = [
                {"id": call.id, "function": {"index": index, "name": call.name, "arguments": call.arguments}}
                for index, call in enumerate(message.tool_calls)
            ]
        yield made


def _tools(request: ChatRequest) -> Iterator[Json]:
    for tool in request.tools:
        parameters = tool.parameters or {"type": "object", "properties": {}}
        described = {"name": tool.name, "description": tool.description, "parameters": parameters}
        yield {"type": "function", "function": {key: value for key, value in described.items() if value is not None}}
