"""JSON Schemas fitted to what a dialect takes of them.

Source: reference/upstreams.md §5.2 (Anthropic), §7.2 (Ollama); JSON Schema 2020-12.
"""

from typing import Any

from proxy.call import Json

MOST_INLINED = 300  # references: a few that name one another twice would grow without bound

_HOLDS_SCHEMAS = ("properties", "$defs", "definitions", "patternProperties", "dependentSchemas")
_LISTS_SCHEMAS = ("anyOf", "allOf", "oneOf", "prefixItems", "items")
_IS_SCHEMA = ("items", "additionalProperties", "if", "then", "else", "contains", "propertyNames")

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
        kind = made.get("type")
        if kind == "object" or (isinstance(kind, list) and "object" in kind) or "properties" in made:
            if made.get("additionalProperties", False) is not False:
                lost["additionalProperties"] = None
            made["additionalProperties"] = False
        return made

    return close(schema), list(lost)


class _Left(Exception):
    """The schema cannot be had without references."""


def inline_refs(schema: Json) -> Json:
    """The schema with each `#/...` reference replaced by what it points at.

    It stays as it is when a reference leads back to itself or nowhere here, or when there would be too many.
    """
    if "$ref" not in str(schema):
        return schema
    made = 0

    def inline(inner: Json, path: tuple[str, ...]) -> Json:
        nonlocal made
        ref = inner.get("$ref")
        if not isinstance(ref, str):
            return _each(inner, lambda below: inline(below, path))
        made += 1
        target = _find(schema, ref)
        if target is None or ref in path or made > MOST_INLINED:
            raise _Left
        beside = {name: value for name, value in inner.items() if name != "$ref"}
        return inline({**target, **beside}, (*path, ref))

    body = {name: value for name, value in schema.items() if name not in ("$defs", "definitions")}
    try:
        whole = inline(body, ())
        return schema if "$ref" in str(whole) else whole
    except (_Left, RecursionError):
        return schema


def _find(schema: Json, ref: str) -> Json | None:
    """What a local reference points at."""
    if not ref.startswith("#/"):
        return None
    here: Any = schema
    for step in ref[2:].split("/"):
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(here, list) and name.isdigit() and int(name) < len(here):
            here = here[int(name)]
        else:
            here = here.get(name) if isinstance(here, dict) else None
    return here if isinstance(here, dict) else None
