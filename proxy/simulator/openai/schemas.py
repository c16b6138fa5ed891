"""What strict mode asks of a JSON schema, in OpenAI's words, and the formats an answer can have."""

from collections.abc import Iterator, Mapping
from typing import Any

from proxy.simulator.arguments import DEEPEST, find_fault
from proxy.simulator.openai.checks import boolean, choice, known_fields, mapping, missing, refuse, text

_REFUSED_KEYWORDS = ("oneOf", "allOf", "not", "if", "then", "else", "dependentRequired", "patternProperties")
_FORMAT_FIELDS = frozenset({"name", "description", "schema", "strict"})


def response_format(path: str, value: Any) -> None:
    """Accept text, json_object, or json_schema with a schema that holds if it is strict.

    Source: OpenAI guide, "Structured model outputs", supported schemas.
    """
    mapping(path, value)
    choice("text", "json_object", "json_schema")(f"{path}.type", value.get("type"))
    if value["type"] != "json_schema":
        return
    if "json_schema" not in value:
        raise missing(f"{path}.json_schema")
    inner = value["json_schema"]
    mapping(f"{path}.json_schema", inner)
    known_fields(f"{path}.json_schema", inner, _FORMAT_FIELDS)
    if "name" not in inner:
        raise missing(f"{path}.json_schema.name")
    text(f"{path}.json_schema.name", inner["name"])
    if inner.get("schema") is None:
        return
    mapping(f"{path}.json_schema.schema", inner["schema"])
    if inner.get("strict") is not None:
        boolean(f"{path}.json_schema.strict", inner["strict"])
    fault = find_fault(inner["schema"]) or (find_strict_fault(inner["schema"]) if inner.get("strict") else None)
    if fault is not None:
        raise refuse(f"Invalid schema for response_format '{inner['name']}': {fault}.", path)


def find_strict_fault(schema: Mapping[str, Any]) -> str | None:
    """Say which rule of strict mode a well-formed schema breaks first."""
    if schema.get("type") != "object":
        return f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{schema.get('type')}\"'"
    return next(_strict_faults(schema, (), 0), None)


def _strict_faults(schema: Any, context: tuple[str, ...], depth: int) -> Iterator[str]:
    if not isinstance(schema, Mapping) or depth > DEEPEST:
        return
    for keyword in _REFUSED_KEYWORDS:
        if keyword in schema:
            yield f"In context={context}, '{keyword}' is not permitted"
    kind = schema.get("type")
    if kind == "object" or (isinstance(kind, list) and "object" in kind) or "properties" in schema:
        yield from _object_faults(schema, context)
    for place in ("properties", "$defs", "definitions"):
        for name, each in (schema.get(place) or {}).items():
            yield from _strict_faults(each, (*context, place, name), depth + 1)
    if "items" in schema:
        yield from _strict_faults(schema["items"], (*context, "items"), depth + 1)
    for index, each in enumerate(schema.get("anyOf") or ()):
        yield from _strict_faults(each, (*context, "anyOf", str(index)), depth + 1)


def _object_faults(schema: Mapping[str, Any], context: tuple[str, ...]) -> Iterator[str]:
    if schema.get("additionalProperties") is not False:
        yield f"In context={context}, 'additionalProperties' is required to be supplied and to be false"
    required = schema.get("required") or ()
    lacking = next((name for name in schema.get("properties") or {} if name not in required), None)
    if lacking is not None:
        yield (
            f"In context={context}, 'required' is required to be supplied and to be an array including every "
            f"key in properties. Missing '{lacking}'"
        )
