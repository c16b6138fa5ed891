"""The place of each member is exact, and a key that stands twice is always found."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from proxy.openai_format.members import DuplicateKey, find_members

unhurried = settings(suppress_health_check=[HealthCheck.too_slow])

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.sampled_from(["a", "model", '"', "\\", ""])
scalars = (
    st.none() | st.booleans() | st.sampled_from([1, 12, -1]) | st.floats(allow_nan=False, allow_infinity=False) | texts
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=6
)
spaces = st.text(" \t\r\n", max_size=3)


def escaped(text: str) -> str:
    """The same string, each UTF-16 unit written as an escape."""
    units = text.encode("utf-16-be").hex()
    return '"' + "".join(f"\\u{units[place : place + 4]}" for place in range(0, len(units), 4)) + '"'


def raw(text: str) -> str:
    """The string with as few escapes as may be."""
    return json.dumps(text, ensure_ascii=False)


spellings = st.sampled_from([escaped, raw])


@st.composite
def bodies(draw: st.DrawFn, keys: st.SearchStrategy[list[str]]) -> tuple[bytes, list[tuple[str, slice]]]:
    """The bytes of an object with these keys, oddly spaced, and where each value stands."""
    text, spans = draw(spaces).encode() + b"{", list[tuple[str, slice]]()
    for key in draw(keys):
        before, colon, after, value = draw(spaces), draw(spaces), draw(spaces), draw(values)
        text += b"," if spans else b""
        text += f"{before}{draw(spellings)(key)}{colon}:{after}".encode()
        shown = json.dumps(value, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1, "\t"])))
        spans.append((key, slice(len(text), len(text) + len(shown.encode()))))
        text += (shown + draw(spaces)).encode()
    return text + draw(spaces).encode() + b"}" + draw(spaces).encode(), spans


def twice(keys: list[str], place: int, other: int) -> list[str]:
    """The keys with one of them once more."""
    repeated = keys[place % len(keys)]
    other %= len(keys) + 1
    return [*keys[:other], repeated, *keys[other:]]


distinct = st.lists(texts, unique=True, max_size=5)
repeating = st.builds(twice, st.lists(texts, unique=True, min_size=1, max_size=4), st.integers(0, 9), st.integers(0, 9))


@unhurried
@given(bodies(distinct))
def test_spans_are_exact(body: tuple[bytes, list[tuple[str, slice]]]) -> None:
    """Each value's bytes are found, whatever the spacing, the escapes in keys and the nesting."""
    text, spans = body
    assert list(find_members(text).items()) == spans
    pairs = json.loads(text, object_pairs_hook=list)
    assert [(key, json.loads(text[place.start : place.stop], object_pairs_hook=list)) for key, place in spans] == pairs


@unhurried
@given(bodies(repeating))
@example((b'{"a":1,"a":1}', []))
@example((b'{"a":12,"a":1}', []))
@example((b'{"a":1,"b":2,"\\u0061":1}', []))
@example((b'{"a":1,"b":1,"a":1,"b":1}', []))
@example((b'{"a":{"a":1},"a":{"a":1}}', []))
def test_a_duplicate_is_always_found(body: tuple[bytes, list[tuple[str, slice]]]) -> None:
    """Two equal keys are refused: wherever they stand, however they are escaped, also with equal values."""
    text, _ = body
    keys = [key for key, _ in json.loads(text, object_pairs_hook=list)]
    assert len(set(keys)) < len(keys)
    with pytest.raises(DuplicateKey):
        find_members(text)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (b'{"a":1,"a":2}', "a"),
        (b'{"a":1,"b":1,"a":1}', "a"),
        (b'{"a":1,"b":1,"a":2}', "a"),
        (b'{"a":1,"a":1,"b":2}', "a"),
        (b'{"model":"m","model":"m","messages":[{}]}', "model"),
        (b'{"model":"m","user":"model","seed":1,"seed":1}', "seed"),
        (b'{"model":"m","tool":{"model":1},"n":1,"n":1}', "n"),
    ],
)
def test_the_duplicate_is_named(text: bytes, key: str) -> None:
    """The refusal names the key that stands twice, not its neighbour."""
    with pytest.raises(DuplicateKey) as caught:
        find_members(text)
    assert caught.value.key == key


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":{"b":1,"b":2}}',
        b'{"a":[{"b":1,"b":2}]}',
        b'{"b":"\\"a\\":1,","a":1}',
        b'{"a":"a","A":1,"a ":1}',
        '{"é":1,"e\u0301":1}'.encode(),
    ],
)
def test_what_is_no_duplicate(text: bytes) -> None:
    """Only equal keys of the outermost object count."""
    assert [key for key, _ in json.loads(text, object_pairs_hook=list)] == list(find_members(text))


tokens = st.sampled_from(
    ["{", "}", "[", "]", ",", ":", '"', '"a"', '"b"', "1", "-", "0", ".", "e", "true", "nul", " ", "\\", "\x01", "\n"]
)


@unhurried
@given(bodies(distinct), st.integers(0, 200), st.integers(0, 2), tokens)
def test_it_is_as_strict_as_a_json_reader(
    body: tuple[bytes, list[tuple[str, slice]]], place: int, without: int, token: str
) -> None:
    """What a strict reader refuses is refused, and what it takes is taken."""
    text = body[0].decode()
    text = text[:place] + token + text[place + without :]
    assume("\\ud" not in text)  # half of a surrogate pair: readers differ
    try:
        pairs: Any = json.loads(text, object_pairs_hook=list)
    except ValueError:
        pairs = None
    keys = [key for key, _ in pairs] if isinstance(pairs, list) and text.strip().startswith("{") else None
    if keys is None:
        with pytest.raises(ValueError, match=r"\S"):
            find_members(text.encode())
    elif len(set(keys)) < len(keys):
        with pytest.raises(DuplicateKey):
            find_members(text.encode())
    else:
        assert list(find_members(text.encode())) == keys


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"[]", b"1", b"null", b'"{}"', b"{} {}", b'{"a":NaN}', b'{"a":Infinity}', b"{'a':1}", b'{"a":1,}'),
        *(b"{a:1}", b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b"[" * 100_000, b'{"a":' * 100_000),
    ],
    ids=lambda text: text[:12].decode(),
)
def test_what_is_not_an_object_is_refused(text: bytes) -> None:
    """Anything but one JSON object is a ValueError, deep nesting included."""
    with pytest.raises(ValueError, match=r"\S"):
        find_members(text)
