"""Judge a request as Ollama does, and reduce it to a question."""

import base64
import binascii
from collections.abc import Mapping
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


def read_question(body: bytes) -> Question:
    """Judge a request; null means absent, unknown fields are ignored.

    Raises:
        Refused: with the words of the Go server.

    Source: ollama, docs/api.md, "Generate a chat completion"; api/types.go, ChatRequest.
    """
    if not body.strip():
        raise _refuse("missing request body")
    parsed = parse_object(body)
    if parsed is None:
        raise _refuse("invalid character in JSON, looking for beginning of value")
    request = without_nulls(parsed)
    model = _field(request, "model", str, "ChatRequest", "")
    messages = _field(request, "messages", list, "ChatRequest", [])
    stream = _field(request, "stream", bool, "ChatRequest", True)
    options = _read_options(_field(request, "options", dict, "ChatRequest", {}))
    if not model:
        raise _refuse("model is required")
    _check_others(request)
    stops = options.get("stop", [])
    limit = options.get("num_predict", -1)
    return Question(
        model=model,
        turns=tuple(_read_message(each) for each in messages),
        tools=tuple(_read_tool(each) for each in _field(request, "tools", list, "ChatRequest", [])),
        max_tokens=limit if limit >= 0 else None,
        stops=tuple(stops),
        seed=options.get("seed"),
        stream=stream,
    )


def _refuse(message: str) -> Refused:
    return Refused(Problem(400, message))


def _field(owner: Body, name: str, kind: type, struct: str, default: Any) -> Any:
    """Read a field of the given type; null and absence give the default."""
    value = owner.get(name)
    if value is None:
        return default
    if type(value) is not kind:
        got = _KINDS[type(value)]
        wanted = {str: "string", bool: "bool", int: "int"}.get(kind, f"api.{name.title()}")
        raise _refuse(f"json: cannot unmarshal {got} into Go struct field {struct}.{name} of type {wanted}")
    return value


def _check_others(request: Body) -> None:
    """Check what does not change the answer."""
    form = request.get("format", "json")
    if form not in ("json", "") and not isinstance(form, dict):
        raise _refuse('invalid format: expected "json" or a JSON schema')
    if not isinstance(request.get("think", False), (bool, str)):
        raise _refuse('think must be a boolean or string ("high", "medium", "low", true, or false)')
    _field(request, "logprobs", bool, "ChatRequest", False)
    if not 0 <= _field(request, "top_logprobs", int, "ChatRequest", 0) <= MOST_LOGPROBS:
        raise _refuse(f"top_logprobs must be between 0 and {MOST_LOGPROBS}")


def _read_options(options: Body) -> Body:
    """Check the known options; unknown ones are ignored, as the server only warns."""
    known = without_nulls(options)
    for name in _INTEGERS:
        if name in known and (isinstance(known[name], bool) or not isinstance(known[name], int)):
            raise _refuse(f'option "{name}" must be of type integer')
    for name in _FLOATS:
        if name in known and (isinstance(known[name], bool) or not isinstance(known[name], (int, float))):
            raise _refuse(f'option "{name}" must be of type float32')
    stops = known.get("stop", [])
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise _refuse('option "stop" must be of type array')
    return known


def _read_message(message: Any) -> Turn:
    if not isinstance(message, dict):
        raise _refuse("json: cannot unmarshal value into Go struct field ChatRequest.messages of type api.Message")
    role = _field(message, "role", str, "ChatRequest.messages", "")
    if role not in _ROLES:
        raise _refuse(f"invalid role: {role}, role must be one of [system, user, assistant, tool]")
    said = [_field(message, "content", str, "ChatRequest.messages", "")]
    for name in ("thinking", "tool_name", "tool_call_id"):
        _field(message, name, str, "ChatRequest.messages", "")
    for image in _field(message, "images", list, "ChatRequest.messages", []):
        _check_image(image)
    said += [_read_call(call) for call in _field(message, "tool_calls", list, "ChatRequest.messages", [])]
    return Turn(_ROLES[role], "\n".join(part for part in said if part))


def _check_image(image: Any) -> None:
    try:
        base64.b64decode(image, validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise _refuse("illegal base64 data at input byte 0") from error


def _read_call(call: Any) -> str:
    struct = "ChatRequest.messages.tool_calls"
    function = _field(call, "function", dict, struct, {}) if isinstance(call, dict) else {}
    name = _field(function, "name", str, f"{struct}.function", "")
    arguments = _field(function, "arguments", dict, f"{struct}.function", {})
    return f"{name} {msgspec.json.encode(arguments).decode()}"


def _read_tool(tool: Any) -> Tool:
    if not isinstance(tool, dict):
        raise _refuse("json: cannot unmarshal value into Go struct field ChatRequest.tools of type api.Tool")
    function = _field(tool, "function", dict, "ChatRequest.tools", {})
    name = _field(function, "name", str, "ChatRequest.tools.function", "")
    schema = _field(function, "parameters", dict, "ChatRequest.tools.function", {})
    fault = find_fault(schema, "ChatRequest.tools.function.parameters")
    if fault is not None:
        raise _refuse(f"json: cannot unmarshal: {fault}")
    return Tool(name, schema)
