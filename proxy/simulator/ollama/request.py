"""Judge a request as Ollama does, and reduce it to a question."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from proxy.simulator.answers import Question, Role, Tool, Turn
from proxy.simulator.arguments import find_fault
from proxy.simulator.dialect import Body, Problem, Refused, parse_object, without_nulls

MOST_LOGPROBS = 20

_ROLES: Mapping[str, Role] = {
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
_INTEGERS = ("num_predict", "num_ctx", "seed", "top_k", "num_keep", "repeat_last_n", "num_batch", "num_gpu")
_FLOATS = ("temperature", "top_p", "min_p", "typical_p", "repeat_penalty", "presence_penalty", "frequency_penalty")
_KINDS = {bool: "bool", int: "number", float: "number", str: "string", list: "array", dict: "object"}


THINKLESS, TOOLLESS = "plain", "bare"  # models whose names start so lack a capability
LEVELS = ("low", "medium", "high", "max")
LEVELLED = "gpt-oss"  # the only models that think so much, or so little


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatQuestion(Question):
    """A question to the native API; `think` is what was asked for, None for nothing."""

    think: bool | None = None


def read_question(body: bytes) -> ChatQuestion:
    """Judge a request; null means absent, unknown fields are ignored.

    Raises:
        Refused: with the words of the Go server.

    Source: ollama, docs/api.md, "Generate a chat completion"; api/types.go, ChatRequest.
    """
    request = read_body(body)
    model = _field(request, "model", str, "ChatRequest", "")
    messages = _field(request, "messages", list, "ChatRequest", [])
    stream = _field(request, "stream", bool, "ChatRequest", True)
    options = _read_options(_field(request, "options", dict, "ChatRequest", {}))
    if not model:
        raise refuse("model is required")
    think, effort = _read_think(request, model)
    form = _read_format(request)
    logprobs, top = _read_logprobs(request)
    tools = tuple(_read_tool(each) for each in _field(request, "tools", list, "ChatRequest", []))
    if tools and model.startswith(TOOLLESS):
        raise refuse(f"registry.ollama.ai/library/{model} does not support tools")
    stops = options.get("stop", [])
    limit = options.get("num_predict", -1)
    return ChatQuestion(
        model=model,
        turns=tuple(_read_message(each) for each in messages),
        tools=tools,
        max_tokens=limit if limit >= 0 else None,
        stops=tuple(stops),
        seed=options.get("seed"),
        stream=stream,
        json_object=form == "json",
        json_schema=form if isinstance(form, dict) else None,
        logprobs=logprobs,
        top_logprobs=top,
        images=sum(len(message.get("images") or ()) for message in messages),
        reasoning_effort=effort,
        think=think,
    )


def read_body(body: bytes) -> Body:
    """Decode a JSON object, without its nulls; raises Refused."""
    if not body.strip():
        raise refuse("missing request body")
    parsed = parse_object(body)
    if parsed is None:
        raise refuse("invalid character in JSON, looking for beginning of value")
    return without_nulls(parsed)


def refuse(message: str) -> Refused:
    """Build the refusal of a request with status 400."""
    return Refused(Problem(400, message))


def _field(owner: Body, name: str, kind: type, struct: str, default: Any) -> Any:
    """Read a field of the given type; null and absence give the default."""
    value = owner.get(name)
    if value is None:
        return default
    if type(value) is not kind:
        got = _KINDS[type(value)]
        wanted = {str: "string", bool: "bool", int: "int"}.get(kind, f"api.{name.title()}")
        raise refuse(f"json: cannot unmarshal {got} into Go struct field {struct}.{name} of type {wanted}")
    return value


def _read_think(request: Body, model: str) -> tuple[bool | None, str | None]:
    """Return whether to think, and how hard.

    Source: ollama, api/types.go, ThinkValue; server/routes.go, ChatHandler.
    """
    think = request.get("think")
    if think is None:
        return None, None
    if not isinstance(think, (bool, str)):
        raise refuse('think must be a boolean or string ("high", "medium", "low", "max", true, or false)')
    if isinstance(think, str) and think not in LEVELS:
        raise refuse(f'invalid think value: "{think}" (must be "high", "medium", "low", "max", true, or false)')
    if think is not False and model.startswith(THINKLESS):
        raise refuse(f'"{model}" does not support thinking')
    if isinstance(think, bool):
        return think, None
    if LEVELLED not in model:
        raise refuse(f'think value "{think}" is not supported for this model')
    return True, think


def _read_logprobs(request: Body) -> tuple[bool, int]:
    """Return whether log probabilities are wanted, and how many beside the token's own."""
    wanted = _field(request, "logprobs", bool, "ChatRequest", False)
    top = _field(request, "top_logprobs", int, "ChatRequest", 0)
    if not 0 <= top <= MOST_LOGPROBS:
        raise refuse(f"top_logprobs must be between 0 and {MOST_LOGPROBS}")
    return wanted, top if wanted else 0


def _read_format(request: Body) -> Any:
    """Return "json", a schema, or an empty text."""
    form = request.get("format", "")
    if form not in ("json", "") and not isinstance(form, dict):
        raise refuse('invalid format: expected "json" or a JSON schema')
    fault = find_fault(form, "format") if isinstance(form, dict) else None
    if fault is not None:
        raise refuse(f"invalid JSON schema in format: {fault}")
    return form


def _read_options(options: Body) -> Body:
    """Check the known options; unknown ones are ignored, as the server only warns."""
    known = without_nulls(options)
    for name in _INTEGERS:
        if name in known and (isinstance(known[name], bool) or not isinstance(known[name], int)):
            raise refuse(f'option "{name}" must be of type integer')
    for name in _FLOATS:
        if name in known and (isinstance(known[name], bool) or not isinstance(known[name], (int, float))):
            raise refuse(f'option "{name}" must be of type float32')
    stops = known.get("stop", [])
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise refuse('option "stop" must be of type array')
    return known


def _read_message(message: Any) -> Turn:
    if not isinstance(message, dict):
        raise refuse("json: cannot unmarshal value into Go struct field ChatRequest.messages of type api.Message")
    role = _field(message, "role", str, "ChatRequest.messages", "")
    if role not in _ROLES:
        raise refuse(f"invalid role: {role}, role must be one of [system, user, assistant, tool]")
    said = [_field(message, "content", str, "ChatRequest.messages", "")]
    for name in ("thinking", "tool_name", "tool_call_id"):
        _field(message, name, str, "ChatRequest.messages", "")
    for image in _field(message, "images", list, "ChatRequest.messages", []):
        _check_image(image)
    said += [_read_call(call) for call in _field(message, "tool_calls", list, "ChatRequest.messages", [])]
    return Turn(_ROLES[role], "\n".join(part for part in said if part))


def _check_image(image: Any) -> None:
    try:
        data = base64.b64decode(image, validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        at = image.index(":") if isinstance(image, str) and image.startswith("data:") else 0
        raise refuse(f"illegal base64 data at input byte {at}") from error
    if not data:
        raise refuse("Failed to load image or audio file")


def _read_call(call: Any) -> str:
    struct = "ChatRequest.messages.tool_calls"
    function = _field(call, "function", dict, struct, {}) if isinstance(call, dict) else {}
    name = _field(function, "name", str, f"{struct}.function", "")
    arguments = _field(function, "arguments", dict, f"{struct}.function", {})
    return f"{name} {msgspec.json.encode(arguments).decode()}"


def _read_tool(tool: Any) -> Tool:
    if not isinstance(tool, dict):
        raise refuse("json: cannot unmarshal value into Go struct field ChatRequest.tools of type api.Tool")
    function = _field(tool, "function", dict, "ChatRequest.tools", {})
    name = _field(function, "name", str, "ChatRequest.tools.function", "")
    schema = _field(function, "parameters", dict, "ChatRequest.tools.function", {})
    fault = find_fault(schema, "ChatRequest.tools.function.parameters")
    if fault is not None:
        raise refuse(f"json: cannot unmarshal: {fault}")
    return Tool(name, schema)
