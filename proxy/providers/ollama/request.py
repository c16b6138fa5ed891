"""An OpenAI chat request as one for Ollama's native /api/chat.

Source: ollama/docs/api.md; reference/upstreams.md §7.2.
"""

from collections.abc import Iterator
from fnmatch import fnmatchcase

from proxy.call import Call, Json
from proxy.openai_format.messages import Message
from proxy.openai_format.parameters import refuse
from proxy.openai_format.request import ChatRequest, read_chat
from proxy.openai_format.schemas import inline_refs
from proxy.openai_format.tools import Tool, force_in_words
from proxy.providers.ollama.settings import COLUMN, EXTRAS, Settings

_OPTIONS = ("temperature", "top_p", "seed", "presence_penalty", "frequency_penalty", *EXTRAS)
_LEVELS = {"minimal": "low", "xhigh": "max"}
_OPENAI_LEVELS = {"minimal": "low", "xhigh": "high", "max": "high"}  # of gpt-oss


def build_body(call: Call, model: str, settings: Settings) -> tuple[Json, ChatRequest, list[str]]:
    """The body to send, what was read, and the names of what the body does not carry."""
    request = read_chat(call.body, COLUMN)
    lost = list(request.dropped)
    messages = list(_messages(request.messages))
    body: Json = {
        "model": model,
        "messages": messages,
        "stream": call.stream,
        "truncate": settings.truncate,
        "shift": settings.truncate,
    }
    tools = request.tools if request.tool_choice.mode != "none" else ()
    if tools and request.tool_choice.mode in ("required", "named"):
        tools = _force(request, settings, messages, lost)
    if tools:
        body["tools"] = [_tool(tool.name, tool.description, tool.parameters) for tool in tools]
    if request.format != "text":
        body["format"] = inline_refs(request.schema) if request.schema is not None else "json"
    if settings.keep_alive is not None:
        body["keep_alive"] = settings.keep_alive
    body |= {name: request.fields[name] for name in ("logprobs", "top_logprobs") if name in request.fields}
    _think(body, request, model, settings, lost)
    chosen = {**settings.options, **_options(request)}
    if chosen:
        body["options"] = chosen
    return body, request, lost


def _think(body: Json, request: ChatRequest, model: str, settings: Settings, lost: list[str]) -> None:
    effort = request.fields.get("reasoning_effort")
    if effort is None:
        return
    kind = next((kind for glob, kind in settings.families.items() if fnmatchcase(model, glob)), settings.think)
    if kind == "never":
        lost.append("reasoning_effort")
        return
    has_levels = model.rpartition("/")[2].startswith("gpt-oss")
    if effort == "none" or not (has_levels or kind == "levels"):
        body["think"] = effort != "none"
    else:
        body["think"] = (_OPENAI_LEVELS if has_levels else _LEVELS).get(effort, effort)
    if effort != "none" and body["think"] != effort:
        lost.append(f"reasoning_effort:{'on' if body['think'] is True else body['think']}")


def _force(request: ChatRequest, settings: Settings, messages: list[Json], lost: list[str]) -> tuple[Tool, ...]:
    """Ollama cannot be made to call a tool: it is asked to, where the settings say so."""
    if settings.forced_tool_fallback == "reject":
        refuse(
            "tool_choice",
            "Ollama cannot be made to call a tool; use 'auto' or 'none', or set the upstream's forced_tool_fallback.",
        )
    lost.append("tool_choice:hint")
    name = request.tool_choice.name
    place = next((index for index, message in enumerate(messages) if message["role"] != "system"), len(messages))
    messages.insert(place, {"role": "system", "content": force_in_words(name)})
    return tuple(tool for tool in request.tools if not name or tool.name == name)


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
        images = [part.data.base64 for part in message.parts if part.data is not None]
        if images:
            made["images"] = images
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


def _tool(name: str, description: str | None, parameters: Json | None) -> Json:
    schema = inline_refs(parameters) if parameters else {"type": "object", "properties": {}}
    described = {"name": name, "description": description, "parameters": schema}
    return {"type": "function", "function": {key: value for key, value in described.items() if value is not None}}
