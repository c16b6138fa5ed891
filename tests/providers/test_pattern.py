"""Patterns: what frames have in common, found in one of them and what became of it."""

import pytest

from proxy.providers.pattern import MOST_TEXTS, Pattern, is_plain, renamed, retold, same


def test_a_frame_is_cut_at_its_texts() -> None:
    """What stands between the quotes may vary; nothing else may."""
    frame = b'data: {"id":"x","delta":{"content":"Hi"},"obfuscation": "abc"}\n\n'
    fixed = (b'data: {"id":"x","delta":{"content":"', b'"},"obfuscation": "', b'"}\n\n')
    assert same(frame) == Pattern(fixed, lacks_last=True)
    assert renamed(frame, frame.replace(b'"x"', b'"yy"')) == Pattern(
        fixed, fixed[0].replace(b"x", b"yy"), fixed[2], lacks_last=True
    )


NOT_ALIKE = {
    "nothing": b"",
    "only filling": b'{"obfuscation":"a"}',
    "a comment": b": hi\n\n",
    "no text": b'{"id":"x"}',
    "null": b'{"content":null}',
    "an odd escape": b'{"content":"a\\u0062"}',
    "another name": b'{"a\\"content":1}',
    "a text": b'{"content":"a"}',
    "too many": b'{"x":[%b]}' % b",".join([b'{"text":"a"}'] * (MOST_TEXTS + 1)),
}


@pytest.mark.parametrize("frame", NOT_ALIKE.values(), ids=NOT_ALIKE)
def test_without_a_text_there_is_no_pattern(frame: bytes) -> None:
    """Nothing that could vary, or too much of it; but one text is enough."""
    assert (same(frame) is not None) == (renamed(frame, frame) is not None) == (frame == NOT_ALIKE["a text"])


TOLD = {
    "one text": (b'{"text":"a"}', b'{"content":"a"}', Pattern((b'{"text":"', b'"}'), b'{"content":"', b'"}', True)),
    "no text": (b'{"text":""}', b'{"content":""}', None),
    "another text": (b'{"text":"a"}', b'{"content":"b"}', None),
    "told twice": (b'{"text":"a"}', b'{"content":"a"}{"content":"a"}', None),
    "not told": (b'{"text":"a"}', b"", None),
    "two texts": (b'{"text":"b","content":"a"}', b'{"content":"a"}', None),
    "thoughts": (b'{"reasoning":"a"}', b'{"reasoning":"a"}', None),
    "a time before": (
        b'{"created_at":"1","content":"a"}',
        b'{"content":"a"}',
        Pattern((b'{"created_at":"', b'","content":"', b'"}'), b'{"content":"', b'"}', True),
    ),
    "a time behind": (b'{"content":"a","created_at":"1"}', b'{"content":"a"}', None),
}


@pytest.mark.parametrize(("frame", "out", "pattern"), TOLD.values(), ids=TOLD)
def test_a_text_that_is_told_in_another_dialect(frame: bytes, out: bytes, pattern: Pattern | None) -> None:
    """One text goes out, the last; beside it only a time may vary."""
    assert retold(frame, out) == pattern


def test_a_name_behind_the_text_is_no_pattern() -> None:
    """What is renamed must stand before the texts."""
    frame = b'{"content":"a","model":"x"}'
    assert renamed(frame, frame.replace(b'"x"', b'"y"')) is None


@pytest.mark.parametrize("odd", [b"\\u00e9", b"\\/", b"\x01", b"\\"])
def test_a_long_text_with_an_odd_end(odd: bytes) -> None:
    """It is looked through once: a pattern that tried every way to cut it would not come to an end."""
    for text in (b"a" * 100_000 + odd, b"\\n" * 50_000 + odd, b"ab\\n" * 25_000 + odd):
        assert not is_plain(text)
        frame = b'{"content":"' + text + b'"}'
        assert same(frame) is renamed(frame, frame) is retold(frame, frame) is None


@pytest.mark.parametrize("text", ["", "a", "\\n\\t\\\\", '\\"', "\u3000\u00a0é🦊", "\x7f"])
def test_what_may_stand_in_a_string(text: str) -> None:
    """Characters of all scripts, and usual escapes."""
    assert is_plain(text.encode())


@pytest.mark.parametrize(
    "text", [b'"', b"\\", b"\\\\\\", b"\\u0041", b"\\/", b"\n", b"\x00", b"\xff", "\u2028".encode(), "\x85".encode()]
)
def test_what_may_not(text: bytes) -> None:
    """What ends the string, what it cannot hold, and what we would write in another way."""
    assert not is_plain(text)
