"""JSON Schemas fitted to what a dialect takes of them.

Source: reference/upstreams.md §5.2 (Anthropic), §7.2 (Ollama); JSON Schema 2020-12.
"""

from typing import Any

from proxy.call import Json

MAX_DEPTH = 32  # of `$ref` within `$ref`; a schema that goes deeper is recursive

_HOLDS_SCHEMAS = ("properties", "$defs", "definitions", "patternProperties", "dependentSchemas")
_LISTS_SCHEMAS = ("anyOf", "allOf", "oneOf", "prefixItems")
_IS_SCHEMA = ("items", "not", "additionalProperties", "if", "then", "else", "contains", "propertyNames")

# What Anthropic's constrained output refuses.
_LIMITS = frozenset(
    """
    minimum maximum exclusiveMinimum exclusiveMaximum multipleOf minLength maxLength maxItems uniqueItems
    minProperties maxProperties
    """.split()
)


def _each(schema: Json, change: Any) -> Json:
    """The schema with `change` applied to every schema directly in it."""
    made = dict(schema)
    for name, value in schema.items():
        if name in _HOLDS_SCHEMAS and isinstance(value, dict):
            made[name] = {key: change(inner) if isinstance(inner, dict) else inner for key, inner in value.items()}
        elif name in _LISTS_SCHEMAS and isinstance(value, list):
            made[name] = [change(inner) if isinstance(inner, dict) else inner for inner in value]
        elif name in _IS_SCHEMA and isinstance(value, dict):
            made[name] = change(value)
    return made


def close_objects(schema: Json) -> tuple[Json, list[str]]:
    """The schema with every object closed and without limits, and the keywords that were left out."""
    lost: dict[str, None] = {}

    def close(inner: Json) -> Json:
        made = {}
        for name, value in _each(inner, close).items():
            if name in _LIMITS or (name == "minItems" and value not in (0, 1)):
                lost[name] = None
            else:
                made[name] = value
        if made.get("type") == "object" or "properties" in made:
            made["additionalProperties"] = False
        return made

    return close(schema), list(lost)


def inline_refs(schema: Json) -> Json:
    """The schema with each `#/...` reference replaced by what it points at; a recursive one stays as it is."""
    if "$ref" not in str(schema):
        return schema

    def inline(inner: Json, depth: int) -> Json:
        target = _find(schema, inner.get("$ref"))
        if target is None or depth > MAX_DEPTH:
            return _each(inner, lambda below: inline(below, depth))
        beside = {name: value for name, value in inner.items() if name != "$ref"}
        return inline({**target, **beside}, depth + 1)

    if _is_recursive(schema):
        return schema
    made = inline(schema, 0)
    return {name: value for name, value in made.items() if name not in ("$defs", "definitions")}


def _is_recursive(schema: Json) -> bool:
    """Whether some reference leads back to itself."""

    def leads_back(inner: Any, path: tuple[str, ...]) -> bool:
        if isinstance(inner, list):
            return any(leads_back(item, path) for item in inner)
        if not isinstance(inner, dict):
            return False
        ref = inner.get("$ref")
        if isinstance(ref, str):
            target = _find(schema, ref)
            if ref in path or ref == "#":
                return True
            if target is not None and leads_back(target, (*path, ref)):
                return True
        return any(leads_back(value, path) for name, value in inner.items() if name not in ("$defs", "definitions"))

    return leads_back(schema, ())


def _find(schema: Json, ref: Any) -> Json | None:
    """What a local reference points at."""
    if not isinstance(ref, str) or not ref.startswith("#/"):
        return None
    here: Any = schema
    for step in ref[2:].split("/"):
        here = here.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(here, dict) else None
    return here if isinstance(here, dict) else None
