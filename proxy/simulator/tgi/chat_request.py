"""Judge a chat completion request as TGI does, and reduce it to a question."""

from collections.abc import Mapping
from typing import Any, Literal

from proxy.simulator.answers import Question, Tool
from proxy.simulator.arguments import find_fault
from proxy.simulator.dialect import Body
from proxy.simulator.tgi.checks import (
    Check,
    boolean,
    decode,
    grammar,
    mapping,
    needed,
    number,
    sequence,
    text,
    undecodable,
    unprepared,
    unsigned,
    wrong_type,
)
from proxy.simulator.tgi.messages import count_images, read_messages

Mode = Literal["auto", "none", "required", "named"]
_MODES: Mapping[str, Mode] = {"auto": "auto", "none": "none", "required": "required"}


def _tool(path: str, tool: Any) -> None:
    mapping(path, tool)
    needed(path, tool, "type", "function")
    text(f"{path}.type", tool["type"])
    mapping(f"{path}.function", tool["function"])
    needed(f"{path}.function", tool["function"], "name")
    text(f"{path}.function.name", tool["function"]["name"])
    if "arguments" not in tool["function"]:
        needed(f"{path}.function", tool["function"], "parameters")


def _tool_choice(path: str, value: Any) -> None:
    if isinstance(value, str):
        return
    function = value.get("function") if isinstance(value, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise undecodable(path, "data did not match any variant of untagged enum ToolTypeDeserializer")


def _stream_options(path: str, value: Any) -> None:
    mapping(path, value)
    needed(path, value, "include_usage")
    boolean(f"{path}.include_usage", value["include_usage"])


def _messages(path: str, value: Any) -> None:
    if not isinstance(value, list):
        raise wrong_type(path, value, "a sequence")


_FIELDS: Mapping[str, Check] = {
    "model": text,
    "messages": _messages,
    "frequency_penalty": number,
    "logit_bias": sequence(number),
    "logprobs": boolean,
    "top_logprobs": unsigned,
    "max_tokens": unsigned,
    "max_completion_tokens": unsigned,
    "n": unsigned,
    "presence_penalty": number,
    "stop": sequence(text),
    "stream": boolean,
    "seed": unsigned,
    "temperature": number,
    "top_p": number,
    "tools": sequence(_tool),
    "tool_prompt": text,
    "tool_choice": _tool_choice,
    "response_format": grammar,
    "guideline": text,
    "stream_options": _stream_options,
}


def read_chat(body: Body) -> tuple[Question, Body]:
    """Decode and prepare a chat; unknown fields are ignored.

    Returns:
        The question, and its sampling parameters by their native names.

    Raises:
        Refused: what fails before the server starts to generate.

    Source: text-generation-inference, router/src/lib.rs, ChatRequest; server.rs, chat_completions.
    """
    needed("", body, "messages")
    if "max_tokens" in body and "max_completion_tokens" in body:
        raise undecodable("", "duplicate field `max_tokens`")
    request = decode(body, _FIELDS, never_null=frozenset({"messages", "stream", "stream_options"}))
    tools, mode, named = _read_tools(request)
    form = request.get("response_format")
    question = Question(
        model=request.get("model", "tgi"),
        turns=read_messages(request["messages"]),
        images=count_images(request["messages"]),
        tools=tools,
        tool_choice=mode,
        named_tool=named,
        parallel=False,  # at most one call is ever given
        max_tokens=request.get("max_tokens", request.get("max_completion_tokens")),
        stops=tuple(request.get("stop", ())),
        seed=request.get("seed"),
        stream=request.get("stream", False),
        include_usage=request.get("stream_options", {}).get("include_usage", False),
        json_schema=form["value"] if form and form["type"] != "regex" else None,
        logprobs=request.get("logprobs", False),
        top_logprobs=request.get("top_logprobs", 0),
    )
    return question, _sampling(request)


def _sampling(request: Body) -> Body:
    """Name the parameters as the generation does.

    Source: text-generation-inference, router/src/lib.rs, ChatRequest::try_into_generate.
    """
    names = {"top_p": "top_p", "stop": "stop", "frequency_penalty": "frequency_penalty"}
    names |= {"max_tokens": "max_new_tokens", "max_completion_tokens": "max_new_tokens"}
    found = {native: request[name] for name, native in names.items() if name in request}
    if request.get("temperature", 0) != 0:
        found["temperature"] = request["temperature"]  # 0 only means greedy
    if "presence_penalty" in request:
        found["repetition_penalty"] = request["presence_penalty"] + 2.0
    if request.get("logprobs"):
        found["top_n_tokens"] = request.get("top_logprobs", 0)
    return found


def _read_tools(request: Body) -> tuple[tuple[Tool, ...], Mode, str | None]:
    offered = [tool["function"] for tool in request.get("tools", ())]
    if offered and "response_format" in request:
        raise unprepared("tool_error", "Grammar and tools are mutually exclusive")
    tools = tuple(Tool(each["name"], each.get("parameters", each.get("arguments")) or {}) for each in offered)
    for tool in tools:
        fault = find_fault(tool.schema) if isinstance(tool.schema, dict) else "parameters must be an object"
        if fault is not None:
            raise unprepared("tool_error", f"Tool {tool.name}: {fault}")
    wish = request.get("tool_choice", "auto")
    if not tools or (isinstance(wish, str) and wish in _MODES):
        return tools, _MODES[wish] if isinstance(wish, str) and wish in _MODES else "auto", None
    name = wish if isinstance(wish, str) else wish["function"]["name"]
    if name not in [tool.name for tool in tools]:
        raise unprepared("tool_error", f"Tool with name {name} not found")
    return tools, "named", name
