"""What a route changes in a body, and what it leaves as it came."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from proxy.admission.parsing import parse
from proxy.call import Call, Caller
from proxy.openai_format.overrides import Overrides

BODY = (
    '{ "model" : "m",\n "temperature":1.50e0, "messages":[ {"role":"user" , "content":"\u2028 🦊 \\u0041"} ],'
    ' "seed": null, "us\\u0065r":"ann", "top_p": 0.10}'
).encode()


def call(body: bytes = BODY, **more: Any) -> Call:
    return parse(body, caller=Caller("ann"), headers={"x": "1"}, call_id="1", received_at=1.0, **more)


def overrides(
    given: dict[str, Any] | None = None, defaults: dict[str, Any] | None = None, remove: tuple[str, ...] = ()
) -> Overrides:
    return Overrides(given or {}, defaults or {}, remove)


def values(made: Call) -> dict[str, bytes]:
    """The bytes of each member, found by where they are said to stand."""
    return {name: made.body[made.members[name]] for name in made.members}


def test_nothing_else_is_touched() -> None:
    """Every other value keeps its bytes, its place in the order, and its spelling."""
    before, after = call(), overrides({"seed": 7}, {"n": 2}, ("top_p",)).apply(call())
    kept = {name: value for name, value in values(before).items() if name not in ("seed", "top_p")}
    assert values(after) == kept | {"seed": b"7", "n": b"2"}
    assert list(after.members) == ["model", "temperature", "messages", "seed", "user", "n"]
    assert (
        after.body
        == (
            '{"model":"m","temperature":1.50e0,"messages":[ {"role":"user" , "content":"\u2028 🦊 \\u0041"} ],'
            '"seed":7,"user":"ann","n":2}'
        ).encode()
    )


def test_it_stays_the_same_call() -> None:
    """What is known of it stays, and the call that was given is not changed."""
    before = call(BODY.replace(b"{ ", b'{"stream":true,"stream_options":{"include_usage":true},', 1))
    text, members = before.body, dict(before.members)
    after = overrides({"seed": 7}, {}, ("top_p", "user")).apply(before)
    assert (before.body, dict(before.members), before.amended) == (text, members, ())
    for name in ("id", "received_at", "model", "stream", "wants_usage", "caller", "headers", "operation"):
        assert getattr(after, name) == getattr(before, name)
    assert (after.stream, after.wants_usage) == (True, True)


def test_a_second_target_gets_what_was_sent() -> None:
    """Each target's changes are made to the caller's own call, not to another target's."""
    sent = call()
    first = overrides({"seed": 7}, {}, ("top_p",)).apply(sent)
    second = overrides({}, {"seed": 9}, ("user",)).apply(sent)
    assert (first.amended, second.amended) == (("top_p",), ("user",))
    assert values(second) == {name: value for name, value in values(sent).items() if name != "user"} | {"seed": b"9"}


@pytest.mark.parametrize("value", [1, 1.5, True, None, "\u2028é", [], {}, {"a": [1, None, {"b": "c"}]}, [[1], "x"]])
def test_values_of_every_kind(value: Any) -> None:
    """What the configuration says stands there, as JSON."""
    made = overrides({"extra": value, "temperature": value}).apply(call())
    assert json.loads(values(made)["extra"]) == json.loads(values(made)["temperature"]) == value
    assert b"\xe2\x80\xa8" not in values(made)["extra"]


@pytest.mark.parametrize(
    ("sent", "stands"),
    [
        (b"", b"7"),
        (b',"seed":null', b"7"),
        (b',"seed" : null ', b"7"),
        (b',"s\\u0065ed":null', b"7"),
        (b',"seed":0', b"0"),
        (b',"seed":false', b"false"),
        (b',"seed":""', b'""'),
        (b',"seed":[]', b"[]"),
        (b',"seed":"null"', b'"null"'),
        (b',"s\\u0065ed" : 1.0', b"1.0"),
    ],
)
def test_defaults_stand_in_for_what_is_absent(sent: bytes, stands: bytes) -> None:
    """Null is absent; whatever else was sent stays, also what is empty or false, however its name is spelled."""
    made = overrides(defaults={"seed": 7}).apply(call(b'{"model":"m","messages":[{}]' + sent + b"}"))
    assert values(made)["seed"] == stands
    assert made.amended == ()


@pytest.mark.parametrize("name", [b"seed", b"s\\u0065ed", b"\\u0073\\u0065\\u0065\\u0064"])
def test_escapes_hide_no_name(name: bytes) -> None:
    """A name that is spelled with escapes is the same name: it is set once, and removed."""
    sent = call(b'{"model":"m","' + name + b'":1,"messages":[{}]}')
    assert overrides({"seed": 7}).apply(sent).body == b'{"model":"m","seed":7,"messages":[{}]}'
    removed = overrides(remove=("seed",)).apply(sent)
    assert (removed.body, removed.amended) == (b'{"model":"m","messages":[{}]}', ("seed",))


def test_names_with_signs_of_their_own() -> None:
    """Quotes, backslashes and line ends in a name are escaped again, and stay the same name."""
    sent = call(b'{"model":"m","messages":[{}],"a\\"b\\\\\\n\\u2028\xc3\xa9":1}')
    made = overrides({"seed": 7}).apply(sent)
    assert json.loads(made.body) == {**json.loads(sent.body), "seed": 7}
    assert list(made.members) == [*sent.members, "seed"]


@pytest.mark.parametrize(
    ("remove", "amended"),
    [
        (("top_p",), ("top_p",)),
        (("absent",), ()),
        (("user", "absent", "top_p"), ("user", "top_p")),
        (("seed",), ("seed",)),
        (("top_p", "top_p"), ("top_p",)),
    ],
)
def test_only_what_was_there_is_dropped(remove: tuple[str, ...], amended: tuple[str, ...]) -> None:
    """Names that a call loses are told, each once; those it did not have are not."""
    made = overrides(remove=remove).apply(call())
    assert made.amended == amended
    assert not set(remove) & set(made.members)


def test_what_was_dropped_before_stays_told() -> None:
    """Removals add to what a model family had refused already."""
    first = overrides(remove=("user",)).apply(call())
    assert overrides(remove=("top_p",)).apply(first).amended == ("user", "top_p")


def test_only_the_top_is_meant() -> None:
    """Members of members are no fields of the body."""
    sent = call(b'{"model":"m","messages":[{"seed":1}],"metadata":{"seed":2}}')
    made = overrides({"seed": 7}).apply(sent)
    assert json.loads(made.body) == {"model": "m", "messages": [{"seed": 1}], "metadata": {"seed": 2}, "seed": 7}
    assert overrides(remove=("seed",)).apply(sent).amended == ()


def test_whether_anything_is_changed() -> None:
    """Nothing given, no default and nothing removed is no change."""
    assert not overrides()
    assert all((overrides({"a": None}), overrides(defaults={"a": 0}), overrides(remove=("a",))))


def test_other_changes_have_another_text() -> None:
    """The same changes have the same text; a value, a place or a name more makes it another."""
    made = [
        overrides({"a": 1}),
        overrides({"a": 2}),
        overrides({"a": "1"}),
        overrides({"b": 1}),
        overrides(defaults={"a": 1}),
        overrides({"a": 1}, {"b": 1}),
        overrides(remove=("a",)),
        overrides(remove=("a", "b")),
        overrides({"a": 1}, remove=("b",)),
    ]
    assert len({each.text for each in made}) == len(made)
    assert overrides({"a": 1}, {"b": [2]}, ("c",)).text == overrides({"a": 1}, {"b": [2]}, ("c",)).text


names = some.sampled_from(["seed", "user", "top_p", "é", 'a"b', "x\\"])
texts = some.text(some.characters(exclude_categories=["Cs"]))
json_values = some.recursive(
    some.none() | some.booleans() | some.integers(-(2**53), 2**53) | texts,
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text("ab", max_size=2), inner, max_size=2),
    max_leaves=5,
)
fields = some.dictionaries(names, json_values, max_size=5)


@given(fields, fields, fields, some.lists(names, max_size=3), some.booleans(), some.sampled_from([None, 1]))
def test_any_body(
    sent: dict[str, Any], given: dict[str, Any], defaults: dict[str, Any], remove: list[str], escaped: bool, indent: Any
) -> None:
    """What stands there in the end is what the three say, in this order: removed, by default, set."""
    whole = {"model": "m", "messages": [{}], **sent}
    text = json.dumps(whole, ensure_ascii=escaped, indent=indent).encode()
    made = Overrides(given, defaults, remove).apply(call(text))
    left = {name: value for name, value in whole.items() if name not in remove}
    stands = {name: value for name, value in defaults.items() if left.get(name) is None}
    assert json.loads(made.body) == {**left, **stands, **given}
    assert {name: json.loads(value) for name, value in values(made).items()} == json.loads(made.body)
    assert set(made.amended) == set(remove) & set(whole)
