"""A body becomes a Call, byte for byte, or is refused with the field at fault."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.admission.parsing import MAX_MODEL_LENGTH, parse
from proxy.call import Call, Caller
from proxy.errors import InvalidRequest

unhurried = settings(suppress_health_check=[HealthCheck.too_slow])

CALLER = Caller("search", ("gpt-*",), "sk-theirs")
HEADERS = {"x-team": "search"}
MESSAGES = [{"role": "user", "content": "Hello"}]
DEEP = b"[" * 100_000 + b"]" * 100_000


def read(body: bytes) -> Call:
    return parse(body, caller=CALLER, headers=HEADERS, call_id="req-1", received_at=1795000000.0)


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "gpt-4o", "messages": MESSAGES, **fields}).encode()


def test_a_call_carries_what_it_came_with() -> None:
    """Caller, headers, id, time and body are those of the call, and what routing needs is read."""
    text = body(stream=True, stream_options={"include_usage": True})
    call = read(text)
    assert (call.caller, call.headers, call.id, call.received_at) == (CALLER, HEADERS, "req-1", 1795000000.0)
    assert (call.model, call.stream, call.wants_usage) == ("gpt-4o", True, True)
    assert call.body is text


@pytest.mark.parametrize(
    ("fields", "stream", "wants_usage"),
    [
        ({}, False, False),
        ({"stream": None, "stream_options": None, "n": None}, False, False),
        ({"stream": False}, False, False),
        ({"stream": True, "stream_options": {}}, True, False),
        ({"stream": True, "stream_options": {"include_usage": None}}, True, False),
        ({"stream": True, "stream_options": {"include_usage": False}}, True, False),
        ({"stream": True, "stream_options": {"include_usage": True, "new": 1}}, True, True),
    ],
)
def test_null_equals_absent(fields: dict[str, Any], stream: bool, wants_usage: bool) -> None:
    """What is not asked for is not on."""
    call = read(body(**fields))
    assert (call.stream, call.wants_usage) == (stream, wants_usage)


known = {"model", "messages", "stream", "stream_options", "n"}
names = st.text(st.characters(exclude_categories=["Cs"])).filter(lambda name: name not in known)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=5,
)


@unhurried
@given(
    st.dictionaries(names, values, max_size=4),
    st.booleans(),
    st.sampled_from([None, 1, "\t"]),
    st.sampled_from([(",", ":"), (" , ", " :\r\n")]),
)
def test_the_body_is_kept(
    fields: dict[str, Any], ascii_only: bool, indent: int | str | None, separators: tuple[str, str]
) -> None:
    """Unknown fields, nulls, non-ASCII and odd spacing are nobody's business here: the bytes stay."""
    whole = {**fields, "model": "gpt-4o", "messages": MESSAGES}
    text = json.dumps(whole, ensure_ascii=ascii_only, indent=indent, separators=separators).encode()
    call = read(text)
    assert call.body is text
    assert {name: json.loads(text[place.start : place.stop]) for name, place in call.members.items()} == whole


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b" ", id="blank"),
        pytest.param(b"hello", id="text"),
        pytest.param(b'{"model":"m"', id="cut"),
        pytest.param(b"{'model':'m'}", id="single quotes"),
        pytest.param(body() + b"{}", id="two values"),
        pytest.param(b"[]", id="array"),
        pytest.param(b"null", id="null"),
        pytest.param(b'"{}"', id="string"),
        pytest.param(body().replace(b"Hello", b"\xff"), id="invalid UTF-8"),
        pytest.param(body().replace(b"Hello", b"\xed\xa0\x80"), id="a surrogate in UTF-8"),
        pytest.param(body().decode().encode("utf-16"), id="UTF-16"),
        pytest.param(body(temperature=float("nan")), id="NaN"),
        pytest.param(body(temperature=float("inf")), id="Infinity"),
        pytest.param(body().replace(b'"Hello"', DEEP), id="deep in messages"),
        pytest.param(body(x=0).replace(b"0}", DEEP + b"}"), id="deep elsewhere"),
        pytest.param(b'{"a":' * 100_000, id="deep and cut"),
        pytest.param(DEEP, id="deep array"),
    ],
)
def test_what_is_no_json_object_is_refused(text: bytes) -> None:
    """Whatever is not one JSON object in UTF-8 is a 400 without a field."""
    with pytest.raises(InvalidRequest) as caught:
        read(text)
    assert (caught.value.status, caught.value.param) == (400, None)


WRONG: dict[str, tuple[Any, ...]] = {
    "model": (None, "", 1, True, [], {}, 1.5, "a\nb", "a\x00", "a\x7f", "a\u2028b", "\u202egpt", "\x85", "x" * 257),
    "messages": (None, [], {}, "Hello", 1, ["Hello"], [MESSAGES], [None]),
    "stream": (1, 0, "true", [], {}),
    "stream_options": (True, [], "include_usage", 1),
    "n": ("1", 1.0, 1.5, True, []),
}


@pytest.mark.parametrize(
    ("param", "fields"),
    [
        *((param, {param: value}) for param, values in WRONG.items() for value in values),
        ("stream_options.include_usage", {"stream_options": {"include_usage": 1}}),
        ("stream_options.include_usage", {"stream_options": {"include_usage": "true"}}),
    ],
    ids=lambda value: json.dumps(value)[:40],
)
def test_what_is_wrong_is_named(param: str, fields: dict[str, Any]) -> None:
    """Each field that is read here is refused by its name, also on the exact wire."""
    with pytest.raises(InvalidRequest) as caught:
        read(body(**fields))
    assert (caught.value.status, caught.value.param) == (400, param)


@pytest.mark.parametrize("missing", ["model", "messages"])
def test_what_is_missing_is_named(missing: str) -> None:
    """A call needs a model and messages."""
    fields = json.loads(body())
    del fields[missing]
    with pytest.raises(InvalidRequest) as caught:
        read(json.dumps(fields).encode())
    assert (caught.value.param, caught.value.code) == (missing, "missing_required_parameter")


@pytest.mark.parametrize("model", ["x" * MAX_MODEL_LENGTH, "meta-llama/Llama-3.1-8B:free", "modèle 模型", "a b"])
def test_model_names_are_free(model: str) -> None:
    """Slashes, colons, spaces and any script may stand in a model's name."""
    assert read(body(model=model)).model == model


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        (b'"model":"gpt-4o"', "model"),
        (b'"model":"other"', "model"),
        (b'"messages":[]', "messages"),
        (b'"seed":1,"seed":1', "seed"),
        (b'"seed":1,"user":"model","seed":2', "seed"),
    ],
)
@pytest.mark.parametrize("first", [True, False], ids=["first", "last"])
def test_a_duplicate_is_refused_by_name(extra: bytes, named: str, first: bool) -> None:
    """Two readers could each believe another value: the call is refused, and the field that stands twice named."""
    text = b"{" + extra + b"," + body()[1:] if first else body()[:-1] + b"," + extra + b"}"
    with pytest.raises(InvalidRequest) as caught:
        read(text)
    assert caught.value.param == named
    assert f"'{named}'" in caught.value.message


def test_an_escaped_duplicate_is_refused() -> None:
    """An escape does not hide that a key stands twice."""
    with pytest.raises(InvalidRequest):
        read(body()[:-1] + b',"mod\\u0065l":"other"}')


@pytest.mark.parametrize("text", [b'"a b":1,"a b":1', b'"\\u0000":1,"\\u0000":2'])
def test_a_duplicate_that_is_no_word_has_no_param(text: bytes) -> None:
    """`param` is the name of a field or nothing."""
    with pytest.raises(InvalidRequest) as caught:
        read(body()[:-1] + b"," + text + b"}")
    assert caught.value.param in (None, "a b")


def test_nested_duplicates_are_the_upstreams_to_judge() -> None:
    """Only the outermost object is read here."""
    assert read(body(metadata=0).replace(b"0}", b'{"a":1,"a":2}}')).model == "gpt-4o"


def test_a_call_does_not_show_what_it_holds() -> None:
    """Neither prompt nor credential stands in a Call's repr, which may reach a log."""
    call = read(body())
    assert "Hello" not in repr(call)
    assert "sk-theirs" not in repr(call)
    assert "search" in repr(call)
