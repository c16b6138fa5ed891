"""A schema fitted to a dialect means what it meant, but for what is named as lost."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from proxy.call import Json
from proxy.openai_format.schemas import close_objects, inline_refs

LIMITS = {
    "minimum": 1,
    "maximum": 9,
    "exclusiveMinimum": 0,
    "exclusiveMaximum": 10,
    "multipleOf": 2,
    "minLength": 1,
    "maxLength": 9,
    "maxItems": 9,
    "uniqueItems": True,
    "minProperties": 1,
    "maxProperties": 9,
}
NAMES = ("a", "b", "minimum", "items", "$defs", "properties", "type")
CHAIN = {f"a{n}": {"$ref": f"#/$defs/a{n + 1}"} for n in range(40)}

# Schemas as callers write them: their objects and arrays name their members and items, some refer to $defs.
leaves = st.sampled_from(
    [{"type": "string"}, {"type": "integer", "minimum": 3}, {"type": "boolean"}, {"enum": ["a", 1, None]}, {}]
)
values = st.recursive(
    st.sampled_from([None, True, 0, 3, "", "a", "abc"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=6,
)


def nested(inner: st.SearchStrategy[Json]) -> st.SearchStrategy[Json]:
    members = st.dictionaries(st.sampled_from(NAMES), inner, max_size=3)
    return st.one_of(
        st.builds(
            lambda properties, number: {
                "type": "object",
                "properties": properties,
                "required": list(properties)[:number],
                "minProperties": number,
            },
            members,
            st.integers(0, 2),
        ),
        st.builds(lambda item, least: {"type": "array", "items": item, "minItems": least}, inner, st.integers(0, 3)),
        st.builds(lambda schemas: {"anyOf": schemas}, st.lists(inner, min_size=1, max_size=2)),
        st.builds(lambda schemas: {"allOf": schemas}, st.lists(inner, min_size=1, max_size=2)),
        st.builds(lambda schemas: {"type": "array", "prefixItems": schemas}, st.lists(inner, min_size=1, max_size=2)),
    )


schemas = st.recursive(leaves, nested, max_leaves=5)
pointed = st.recursive(
    leaves | st.sampled_from([{"$ref": "#/$defs/x"}, {"$ref": "#/$defs/y~1z"}]), nested, max_leaves=5
)


@st.composite
def with_definitions(draw: st.DrawFn) -> Json:
    """A schema that refers to definitions, one of which may refer to the other."""
    second = draw(schemas)
    first = draw(schemas | st.just({"$ref": "#/$defs/y~1z"}))
    return {"type": "object", "properties": {"a": draw(pointed)}, "$defs": {"x": first, "y/z": second}}


def accepts(schema: Json, value: Any) -> bool:
    return bool(Draft202012Validator(schema).is_valid(value))


def each_schema(schema: Any) -> list[Json]:
    """Every schema that stands in the schemas of these tests."""
    found = [schema]
    for name in ("properties", "$defs"):
        found += [each for inner in schema.get(name, {}).values() for each in each_schema(inner)]
    for name in ("anyOf", "allOf", "prefixItems"):
        found += [each for inner in schema.get(name, []) for each in each_schema(inner)]
    if "items" in schema:
        found += each_schema(schema["items"])
    return found


@given(schemas)
def test_every_object_is_closed(schema: Json) -> None:
    """No object takes members that it does not name, no limit is left, and what is lost has a name."""
    closed, lost = close_objects(schema)
    for each in each_schema(closed):
        assert not each.keys() & LIMITS.keys()
        assert each.get("minItems", 0) in (0, 1)
        assert each.get("additionalProperties") is (False if each.get("type") == "object" else None)
    assert set(lost) == {
        name
        for each in each_schema(schema)
        for name in each
        if name in LIMITS or (name == "minItems" and each[name] > 1)
    }
    assert len(set(lost)) == len(lost)


@given(schemas, values)
def test_nothing_is_loosened_in_silence(schema: Json, value: Any) -> None:
    """Unless a loss is named, what the closed schema accepts was accepted before; closing again changes nothing."""
    closed, lost = close_objects(schema)
    assert close_objects(closed) == (closed, [])
    assert lost or accepts(schema, value) or not accepts(closed, value)


@pytest.mark.parametrize("name", LIMITS)
def test_each_limit_is_named(name: str) -> None:
    """Every keyword that is refused there is left out and named once, wherever it stands."""
    schema = {"type": "array", "items": {name: LIMITS[name]}, name: LIMITS[name]}
    assert close_objects(schema) == ({"type": "array", "items": {}}, [name])


@pytest.mark.parametrize(("least", "is_kept"), [(0, True), (1, True), (2, False), (5, False)])
def test_only_small_counts_of_items_are_kept(least: int, is_kept: bool) -> None:
    """At least one item can be asked for, more cannot."""
    schema = {"type": "array", "minItems": least}
    assert close_objects(schema) == (schema, []) if is_kept else ({"type": "array"}, ["minItems"])


@pytest.mark.parametrize(
    "where",
    [
        *({name: {"k": None}} for name in ("properties", "$defs", "definitions", "patternProperties")),
        *({name: [None]} for name in ("anyOf", "allOf", "oneOf", "prefixItems")),
        *({name: None} for name in ("items", "if", "then", "else", "contains", "propertyNames")),
    ],
    ids=lambda where: next(iter(where)),
)
def test_schemas_are_found_wherever_they_stand(where: Json) -> None:
    """An object within any keyword that holds schemas is closed too."""

    def filled(schema: Json) -> Json:
        ((name, value),) = where.items()
        held = {"k": schema} if isinstance(value, dict) else [schema] if isinstance(value, list) else schema
        return {name: held}

    (name,) = where
    open_one = {"type": "object", "minProperties": 1}
    closed, lost = close_objects(filled(open_one))
    assert closed[name] == filled({"type": "object", "additionalProperties": False})[name]
    assert lost == ["minProperties"]


def test_what_is_denied_is_left_alone() -> None:
    """Below `not`, less would be more: what stands there keeps its limits and stays open."""
    schema = {"not": {"type": "object", "properties": {"a": {"type": "object"}}, "maxProperties": 1}}
    assert close_objects(schema) == (schema, [])


@pytest.mark.parametrize("kind", ["object", ["object", "null"], ["null", "object"]])
def test_an_object_that_may_be_something_else_is_closed(kind: Any) -> None:
    """An object is one, also where null is allowed in its place."""
    assert close_objects({"type": kind}) == ({"type": kind, "additionalProperties": False}, [])


@pytest.mark.parametrize(
    ("others", "lost"),
    [({"type": "string"}, ["additionalProperties"]), ({}, ["additionalProperties"]), (True, ["additionalProperties"]),
     (False, [])],
)  # fmt: skip
def test_a_map_that_is_closed_is_named(others: Any, lost: list[str]) -> None:
    """Members without a name of their own are lost, and the loss has a name."""
    schema = {"type": "object", "additionalProperties": others}
    assert close_objects(schema) == ({"type": "object", "additionalProperties": False}, lost)


def test_values_are_no_schemas() -> None:
    """What only looks like a keyword, as a property's name or in a constant, is left alone."""
    schema = {
        "properties": {"maximum": {"const": {"minimum": 1}}, "type": {"enum": [{"type": "object"}]}},
        "default": {"type": "object", "maximum": 1},
        "required": ["maximum"],
    }
    assert close_objects(schema) == ({**schema, "additionalProperties": False}, [])


@given(with_definitions(), values)
def test_an_inlined_schema_accepts_the_same(schema: Json, value: Any) -> None:
    """References are replaced by what they point at: the meaning stays, references and definitions go."""
    inlined = inline_refs(schema)
    if "$ref" in str(schema):
        assert "$ref" not in str(inlined)
        assert "$defs" not in inlined
    assert accepts(inlined, value) is accepts(schema, value)
    assert accepts(inlined, {"a": value}) is accepts(schema, {"a": value})


@pytest.mark.parametrize(
    ("schema", "inlined"),
    [
        pytest.param({"type": "string"}, {"type": "string"}, id="none"),
        pytest.param(
            {"$ref": "#/$defs/a", "$defs": {"a": {"type": "string"}}}, {"type": "string"}, id="the schema itself"
        ),
        pytest.param(
            {"items": {"$ref": "#/definitions/a"}, "definitions": {"a": {"type": "string"}}},
            {"items": {"type": "string"}},
            id="the older name",
        ),
        pytest.param(
            {"items": {"$ref": "#/$defs/a", "title": "d"}, "$defs": {"a": {"type": "string", "title": "e"}}},
            {"items": {"type": "string", "title": "d"}},
            id="what stands beside it wins",
        ),
        pytest.param(
            {"properties": {"a": {"type": "string"}, "b": {"$ref": "#/properties/a"}}},
            {"properties": {"a": {"type": "string"}, "b": {"type": "string"}}},
            id="elsewhere in the schema",
        ),
        pytest.param(
            {"items": {"$ref": "#/$defs/a~1b~0c"}, "$defs": {"a/b~c": {"type": "string"}}},
            {"items": {"type": "string"}},
            id="escaped",
        ),
        pytest.param(
            {"$ref": "#/$defs/a0", "$defs": {**CHAIN, "a40": {"type": "string"}}}, {"type": "string"}, id="a long chain"
        ),
        pytest.param(
            {"properties": {"$ref": {"type": "string"}}}, {"properties": {"$ref": {"type": "string"}}}, id="a name"
        ),
        pytest.param(
            {"items": {"$ref": "https://example.com/schema"}}, {"items": {"$ref": "https://example.com/schema"}},
            id="a schema elsewhere",
        ),
        pytest.param({"items": {"$ref": "#/$defs/a"}}, {"items": {"$ref": "#/$defs/a"}}, id="a reference to nothing"),
        pytest.param(
            {"items": {"$ref": "#b"}, "$defs": {"a": {"$anchor": "b"}}},
            {"items": {"$ref": "#b"}, "$defs": {"a": {"$anchor": "b"}}},
            id="a definition by its anchor",
        ),
    ],
)  # fmt: skip
def test_references(schema: Json, inlined: Json) -> None:
    """A reference within the schema is replaced; one that cannot be followed stays."""
    assert inline_refs(schema) == inlined


@pytest.mark.parametrize(
    "schema",
    [
        pytest.param({"type": "object", "properties": {"next": {"$ref": "#"}}}, id="the whole"),
        pytest.param(
            {"$ref": "#/$defs/node", "$defs": {"node": {"properties": {"next": {"$ref": "#/$defs/node"}}}}}, id="itself"
        ),
        pytest.param(
            {
                "$ref": "#/$defs/a",
                "$defs": {"a": {"items": {"$ref": "#/$defs/b"}}, "b": {"anyOf": [{"$ref": "#/$defs/a"}]}},
            },
            id="each other",
        ),
        pytest.param({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}, id="nothing but itself"),
        pytest.param(
            {"$ref": "#/$defs/n", "$defs": {"n": {"properties": {"definitions": {"$ref": "#/$defs/n"}}}}},
            id="itself, through a property called definitions",
        ),
    ],
)
def test_a_recursive_schema_stays_as_it_is(schema: Json) -> None:
    """What has no finite form is sent whole, references and definitions."""
    assert inline_refs(schema) == schema


def test_a_schema_does_not_grow_without_bound() -> None:
    """Definitions that each name the next twice are sent as they are."""
    twice = {f"a{n}": {"properties": {side: {"$ref": f"#/$defs/a{n + 1}"} for side in "lr"}} for n in range(40)}
    schema = {"$ref": "#/$defs/a0", "$defs": {**twice, "a40": {"type": "string"}}}
    assert inline_refs(schema) == schema


@given(with_definitions())
def test_the_schema_is_not_changed(schema: Json) -> None:
    """A schema that is given is never changed."""
    before = copy.deepcopy(schema)
    close_objects(schema)
    inline_refs(schema)
    assert schema == before
