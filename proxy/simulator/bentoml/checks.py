"""How BentoML validates the input of an endpoint, with pydantic's words in its own shape."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from proxy.simulator.dialect import Body, Problem, Refused, parse_object

VALIDATION = "validation"  # the type of a problem whose message is the finished body

_PYDANTIC = "https://errors.pydantic.dev/2.12/v"
_JSON_KINDS = ("application/json", "")


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of an endpoint's Python method; without a default it is required."""

    kind: type
    default: Any = None
    required: bool = False
    least: int | None = None


_KINDS: Mapping[type, tuple[str, str]] = {
    str: ("string_type", "Input should be a valid string"),
    int: ("int_type", "Input should be a valid integer"),
    list: ("list_type", "Input should be a valid list"),
}


def read_input(headers: Mapping[str, str], body: bytes, parameters: Mapping[str, Parameter]) -> Body:
    """Judge the JSON body of a call; unknown keys are ignored.

    Returns:
        Every parameter's value, defaults included.

    Raises:
        Refused: 400 with all faults, 415 for a pickle.

    Source: bentoml 1.4, _bentoml_impl/server/app.py; pydantic, ValidationError.
    """
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind.startswith("application/vnd.bentoml+pickle"):
        raise Refused(Problem(415, "pickle is not accepted from untrusted clients", "exception"))
    parsed = parse_object(body)
    if parsed is None or kind not in _JSON_KINDS:
        raise _refuse([_fault("json_invalid", (), "Invalid JSON: expected an object", body.decode(errors="replace"))])
    found = {name: parsed.get(name, each.default) for name, each in parameters.items()}
    faults = [fault for name, each in parameters.items() for fault in _faults(name, each, parsed)]
    if faults:
        raise _refuse(faults)
    return found


def check_messages(messages: list[Any]) -> None:
    """Refuse messages that are not `{"role": text, "content": text}`."""
    if not messages:
        raise _refuse([_fault("too_short", ("messages",), "List should have at least 1 item after validation", [])])
    faults = [
        _fault("string_type", ("messages", index, name), "Input should be a valid string", message)
        for index, message in enumerate(messages)
        for name in ("role", "content")
        if not isinstance(message, dict) or not isinstance(message.get(name), str)
    ]
    if faults:
        raise _refuse(faults)


def _faults(name: str, parameter: Parameter, sent: Body) -> list[Body]:
    if name not in sent:
        return [_fault("missing", (name,), "Field required", sent)] if parameter.required else []
    value: object = sent[name]
    if type(value) is not parameter.kind:
        kind, message = _KINDS[parameter.kind]
        return [_fault(kind, (name,), message, value)]
    if parameter.least is not None and isinstance(value, int) and value < parameter.least:
        message = f"Input should be greater than or equal to {parameter.least}"
        return [_fault("greater_than_equal", (name,), message, value)]
    return []


def _fault(kind: str, place: tuple[str | int, ...], message: str, value: Any) -> Body:
    return {"type": kind, "loc": list(place), "msg": message, "input": value, "url": f"{_PYDANTIC}/{kind}"}


def _refuse(faults: list[Body]) -> Refused:
    plural = "" if len(faults) == 1 else "s"
    places = [".".join(str(step) for step in fault["loc"]) for fault in faults]
    lines = [f"{place}\n  {fault['msg']} [type={fault['type']}]" for place, fault in zip(places, faults, strict=True)]
    text = "\n".join([f"{len(faults)} validation error{plural} for Input", *lines])
    body = msgspec.json.encode({"error": text, "detail": faults}).decode()
    return Refused(Problem(400, body, VALIDATION))
