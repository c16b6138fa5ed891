"""What we write is JSON that no line reader can break."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.openai_format.encoding import DONE, KEEP_ALIVE, decode, decode_object, encode, encode_event

unhurried = settings(suppress_health_check=[HealthCheck.too_slow])

# Where `str.splitlines` breaks lines.
BREAKS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
texts = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from(BREAKS))
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=10,
)


@unhurried
@given(values)
def test_a_line_reader_sees_one_line(value: Any) -> None:
    """The bytes survive `str.splitlines`, and mean what was meant."""
    text = encode(value)
    assert text.decode().splitlines() == [text.decode()]
    assert json.loads(text) == value
    assert decode(text) == value


@pytest.mark.parametrize("sign", list(BREAKS), ids=ascii)
def test_line_ends_are_escaped(sign: str) -> None:
    """U+0085, U+2028, U+2029 and their like never stand raw, in values nor in keys."""
    assert sign not in encode({sign: sign}).decode()
    assert json.loads(encode({sign: [sign]})) == {sign: [sign]}


def test_other_text_is_left_raw() -> None:
    """Only what breaks lines is escaped; the rest is UTF-8, and compact."""
    assert encode({"a": "é🦊\u2027\u202a\u0084"}) == '{"a":"é🦊\u2027\u202a\u0084"}'.encode()


def test_an_event_is_one_data_line() -> None:
    """An event is `data: `, the JSON, and a blank line."""
    assert encode_event({"a": "\u2028"}) == b'data: {"a":"\\u2028"}\n\n'
    assert DONE == b"data: [DONE]\n\n"
    assert KEEP_ALIVE.startswith(b":")
    assert KEEP_ALIVE.endswith(b"\n\n")


@pytest.mark.parametrize("text", [b"", b"{", b"NaN", b"1e999", b"'a'", b'"\xff"', b"[" * 100_000, b"[1] 2"])
def test_what_is_not_json_is_a_value_error(text: bytes) -> None:
    """Whatever is wrong with a text, callers have one exception to know."""
    with pytest.raises(ValueError, match=r"\S"):
        decode(text)


@pytest.mark.parametrize("text", ["[]", "1", "null", '"{}"'])
def test_only_an_object_is_an_object(text: str) -> None:
    """Another JSON value than an object is refused."""
    with pytest.raises(ValueError, match="not a JSON object"):
        decode_object(text)
    assert decode_object('{"a":1}') == {"a": 1}
