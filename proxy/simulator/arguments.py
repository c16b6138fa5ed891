"""Invented arguments of a tool call, from the tool's JSON schema, and whether it is one."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

DEEPEST = 8  # levels of nesting; schemas may refer to themselves


_KEYWORDS: Mapping[str, tuple[type, ...]] = {
    "type": (str, list),
    "properties": (dict,),
    "required": (list,),
    "enum": (list,),
    "anyOf": (list,),
    "oneOf": (list,),
    "minimum": (int, float),
    "maximum": (int, float),
}


def find_fault(schema: Any, path: str = "schema", depth: int = 0) -> str | None:
    """Say what is wrong with a JSON schema, as far as it is used here; null keywords are absent.

    Source: JSON Schema 2020-12, core and validation vocabularies.
    """
    if not isinstance(schema, Mapping):
        return None if isinstance(schema, bool) else f"{path} is not of type 'object', 'boolean'"
    for name, kinds in _KEYWORDS.items():
        value = schema.get(name)
        if value is not None and (not isinstance(value, kinds) or isinstance(value, bool)):
            return f"{path}.{name} is of the wrong type"
    for name in ("type", "required"):
        value = schema.get(name)
        if isinstance(value, list) and not all(isinstance(each, str) for each in value):
            return f"{path}.{name} is of the wrong type"
    if depth > DEEPEST:
        return None
    below = [(f"properties.{name}", each) for name, each in (schema.get("properties") or {}).items()]
    below += [(name, each) for name in ("anyOf", "oneOf") for each in schema.get(name) or ()]
    below += [("items", schema["items"])] if schema.get("items") is not None else []
    faults = (find_fault(each, f"{path}.{name}", depth + 1) for name, each in below)
    return next((fault for fault in faults if fault), None)


def invent_arguments(schema: Mapping[str, Any], words: Sequence[str], chance: random.Random) -> dict[str, Any]:
    """Invent an object that has the schema's required properties.

    Args:
        schema: the JSON schema of the arguments, an object.
        words: what strings are made of, never empty.
        chance: decides among them.
    """
    value = invent(schema, words, chance)
    return value if isinstance(value, dict) else {}


def invent(schema: Mapping[str, Any], words: Sequence[str], chance: random.Random) -> Any:
    """Invent a value of any schema, with nothing in it that is not required."""
    return _Inventor(schema, words, chance).invent(schema, 0)


class _Inventor:
    """Walks one schema; `root` is where `#/$defs/...` is looked up."""

    def __init__(self, root: Mapping[str, Any], words: Sequence[str], chance: random.Random) -> None:
        self._root = root
        self._words = words
        self._chance = chance

    def invent(self, schema: Any, depth: int) -> Any:
        schema = self._resolve(schema)
        if not isinstance(schema, Mapping) or depth > DEEPEST:
            return None
        if schema.get("enum"):
            return schema["enum"][0]
        if "const" in schema:
            return schema["const"]
        for union in ("anyOf", "oneOf"):
            if schema.get(union):
                return self.invent(schema[union][0], depth + 1)
        return self._invent_typed(schema, depth)

    def _invent_typed(self, schema: Mapping[str, Any], depth: int) -> Any:
        kind = schema.get("type") or ("object" if "properties" in schema else "string")
        if isinstance(kind, list):
            kind = next((each for each in kind if each != "null"), "null")
        if kind == "object":
            properties = schema.get("properties") or {}
            required = schema.get("required") or ()
            return {name: self.invent(properties.get(name, {}), depth + 1) for name in required}
        if kind == "array":
            return [self.invent(schema.get("items") or {}, depth + 1)]
        if kind in ("integer", "number"):
            return self._small_number(schema)
        if kind == "boolean":
            return True
        return None if kind == "null" else self._chance.choice(self._words)

    def _small_number(self, schema: Mapping[str, Any]) -> Any:
        number: Any = self._chance.randint(1, 9)
        low, high = schema.get("minimum"), schema.get("maximum")
        number = number if low is None else max(number, low)
        return number if high is None else min(number, high)

    def _resolve(self, schema: Any) -> Any:
        """Follow references within the schema, a bounded number of times."""
        for _ in range(DEEPEST):
            reference = schema.get("$ref") if isinstance(schema, Mapping) else None
            if not isinstance(reference, str):
                return schema
            schema = self._root
            for step in reference.removeprefix("#").strip("/").split("/"):
                schema = schema.get(step) if isinstance(schema, Mapping) else None
        return None
