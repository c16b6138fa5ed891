"""Judge output_config: the effort, and the JSON schema that the answer has to follow."""

from collections.abc import Iterator, Mapping
from typing import Any

from proxy.simulator.anthropic.checks import choice, known_fields, mapping, needed_fields, refuse
from proxy.simulator.anthropic.models import Model
from proxy.simulator.arguments import DEEPEST, find_fault
from proxy.simulator.dialect import Body

EFFORTS = ("low", "medium", "high", "xhigh", "max")

_REFUSED_KEYWORDS = (
    "minimum maximum exclusiveMinimum exclusiveMaximum multipleOf minLength maxLength maxItems minProperties "
    "maxProperties uniqueItems"
).split()


def output_config(path: str, value: Any) -> None:
    """Accept an effort, a format, or both.

    Source: Anthropic documentation, "Effort"; "Structured outputs", JSON Schema limitations.
    """
    mapping(path, value)
    known_fields(path, value, frozenset({"effort", "format"}))
    if "effort" in value:
        choice(*EFFORTS)(f"{path}.effort", value["effort"])
    if value.get("format") is None:
        return
    at = f"{path}.format"
    mapping(at, value["format"])
    choice("json_schema")(f"{at}.type", value["format"].get("type"))
    known_fields(at, value["format"], frozenset({"type", "schema"}))
    needed_fields(at, value["format"], "schema")
    mapping(f"{at}.schema", value["format"]["schema"])
    schema = value["format"]["schema"]
    fault = find_fault(schema) or next(_faults(schema, 0), None) or _recursion(schema)
    if fault is not None:
        raise refuse(f"{at}.schema: {fault}")


def check_output(request: Body, model: Model | None) -> None:
    """Refuse what the model does not know, or what excludes one another."""
    config = request.get("output_config", {})
    form = config.get("format")
    if model is not None:
        effort = config.get("effort")
        if effort is not None and not model.efforts:
            raise refuse("This model does not support the effort parameter.")
        if effort is not None and effort not in model.efforts:
            raise refuse(f"This model does not support effort level '{effort}'.")
        if form is not None and not model.knows_formats:
            raise refuse("output_config.format: This model does not support structured outputs.")
    if form is None:
        return
    if request["messages"] and request["messages"][-1].get("role") == "assistant":
        raise refuse("output_config.format: structured outputs are incompatible with assistant message prefill")
    if any(_cites(message.get("content")) for message in request["messages"]):
        raise refuse("output_config.format: structured outputs are incompatible with citations")


def _cites(content: Any) -> bool:
    blocks = [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []
    return any(block.get("type") == "document" and (block.get("citations") or {}).get("enabled") for block in blocks)


def _faults(schema: Any, depth: int) -> Iterator[str]:
    """Find what constrained decoding cannot do."""
    if not isinstance(schema, Mapping) or depth > DEEPEST:
        return
    kind = schema.get("type")
    is_object = kind == "object" or (isinstance(kind, list) and "object" in kind)
    if is_object and schema.get("additionalProperties") is not False:
        yield "For 'object' type, 'additionalProperties' must be explicitly set to false"
    named = [keyword for keyword in _REFUSED_KEYWORDS if keyword in schema]
    if schema.get("minItems") not in (None, 0, 1):
        named.append("minItems")
    if named:
        yield f"For '{kind}' type, properties {', '.join(named)} are not supported"
    for below in _below(schema):
        yield from _faults(below, depth + 1)


def _below(schema: Mapping[str, Any]) -> Iterator[Any]:
    for place in ("properties", "$defs", "definitions"):
        named = schema.get(place)
        yield from named.values() if isinstance(named, Mapping) else ()
    for place in ("anyOf", "allOf", "oneOf"):
        listed = schema.get(place)
        yield from listed if isinstance(listed, list) else ()
    if "items" in schema:
        yield schema["items"]


def _recursion(root: Mapping[str, Any]) -> str | None:
    """Say which definition contains itself."""
    tables = [root.get(place) for place in ("definitions", "$defs")]
    definitions = {name: each for table in tables if isinstance(table, Mapping) for name, each in table.items()}
    needs = {name: set(_references(each, 0)) for name, each in definitions.items()}
    if "" in set(_references(root, 0)):
        return "Recursive schemas are not supported: '#'"
    for name in needs:
        reached: set[str] = set()
        waiting = list(needs[name])
        while waiting:
            each = waiting.pop()
            if each not in reached:
                reached.add(each)
                waiting.extend(needs.get(each, ()))
        if name in reached:
            return f"Recursive schemas are not supported: '{name}'"
    return None


def _references(schema: Any, depth: int) -> Iterator[str]:
    if not isinstance(schema, Mapping) or depth > DEEPEST:
        return
    target = schema.get("$ref")
    if isinstance(target, str) and target.startswith("#"):
        yield target.rpartition("/")[2] if "/" in target else ""
    for below in _below(schema):
        yield from _references(below, depth + 1)
