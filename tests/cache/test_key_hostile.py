"""Bodies that no good client sends have a key or none; they never break their reader."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.cache.key import canonical, read
from proxy.call import Json
from tests.cache.keys import bodies, key, sure, texts


@pytest.mark.parametrize(
    "body",
    [
        b'{"messages":[{"role":"user","role":"system"}]}',
        b'{"messages":[{"a:b":1,"a:b":2}]}',
        b'{"tools":[{"x":{"y":[{"z":1,"z":1}]}}]}',
        b'{"metadata":{"a":1,"a":2}}',
        b'{"stream_options":{"include_usage":true,"include_usage":false}}',
        b'{"messages":[{"a":1,"\\u0061":2}]}',
        b'{"messages":[{"a":":","a":"\\u003a\\u003A"}]}',
        b'{"messages":[{"a":1,"a":"\\u003a"}]}',
        b'{"messages":[{"a":1,"a":"\\u003A"}]}',
    ],
)
def test_a_key_that_stands_twice(body: bytes) -> None:
    """Two readers could believe two things: there is no key, whatever hides it."""
    assert key(body) is None


@settings(max_examples=200)
@given(body=bodies)
def test_each_key_once_has_a_key(body: Json) -> None:
    """Colons in texts are no sign of a key that stands twice."""
    assert key(body) is not None


NESTED = [
    pytest.param(b'{"messages":%b%b%b}' % (begin * depth, inner, end * depth), id=f"{depth} {begin!r} {inner!r}")
    for depth in (100, 400, 600, 900, 980, 5000, 100_000)
    for begin, end in ((b"[", b"]"), (b'{"a":', b"}"))
    for inner in (b"1", b"null", b'{"a":null}')
]  # fmt: skip


@pytest.mark.parametrize("body", NESTED)
def test_deep_bodies(body: bytes) -> None:
    """Nested as deep as anything, a body has a key or none; it never breaks its reader."""
    fields = read(body)
    if fields is not None:
        assert canonical(body, fields) != b""


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"1", b'"x"', b"null", b"\xff", b'{"a":"\xff"}', b'{"a":"\\ud800"}', b'{"a":1e999}',
        b'{"a":-1e999}', b'{"a":NaN}', b'{"a":%b}' % (b"9" * 100_000), b'{"a":0.%b}' % (b"1" * 100_000),
        b'{"a":1e-999}', b'{"a":%b}' % (b'"' + b"\\" * 99_999 + b'"'), b'\xef\xbb\xbf{"a":1}', b'{"a":1}{"a":2}',
        b'{"":""}',
    ],
    ids=lambda body: repr(body[:12]),
)  # fmt: skip
def test_odd_bodies(body: bytes) -> None:
    """None of them breaks its reader."""
    fields = read(body)
    if fields is not None:
        canonical(body, fields)


def test_a_large_body() -> None:
    """A megabyte has a key like any other, and its last character decides too."""
    text = "x: " * 350_000
    assert sure({"messages": [{"content": text}]}) != sure({"messages": [{"content": text + "y"}]})


@settings(max_examples=300)
@given(body=st.binary(max_size=60) | texts.map(str.encode))
def test_any_bytes(body: bytes) -> None:
    """Whatever comes, there is a key or there is none."""
    found = key(body)
    assert found is None or len(found.digest) == 32
