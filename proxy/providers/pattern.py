"""Frames of a stream that are alike but for their texts: where one has been read, the next ones need no reading.

Source: RFC 8259 §7 (strings).
"""

import re

import msgspec

from proxy.openai_format.encoding import LINE_ENDS

MOST_TEXTS = 4

# In JSON, a quote, one of these names, a quote and a colon are nothing but a member's name.
_SHOWN = rb"content|text|arguments|partial_json"
_UNREAD = rb"created_at|obfuscation"
_NOTED = rb"reasoning|reasoning_content|refusal"
# With only such escapes as everybody writes a text means the same wherever it is put. Nothing that matched is tried
# again in another way: that would take for ever.
_PLAIN = rb'(?:[^"\\\x00-\x1f]++|\\["\\bfnrt])*+'
_is_escaped = re.compile(_PLAIN).fullmatch
_TEXT = rb'"(?:%b)": ?"(' + _PLAIN + rb')"'
_find_texts = re.compile(_TEXT % b"|".join((_SHOWN, _UNREAD, _NOTED))).finditer
_find_told = re.compile(_TEXT % b"|".join((_SHOWN, _UNREAD))).finditer


class Pattern(msgspec.Struct, frozen=True):
    """What frames have in common.

    Args:
        fixed: what stands before, between and after their texts.
        before, after: what is written around the texts; None: the frame goes out as it came.
        last_only: only the last text is written, and not all from the first one on.
        lacks_last: the last text may be empty; where another is, the frame has no content, and is no such frame.
    """

    fixed: tuple[bytes, ...]
    before: bytes | None = None
    after: bytes = b""
    last_only: bool = False
    lacks_last: bool = False


def same(frame: bytes) -> Pattern | None:
    """The pattern of a frame that goes out as it came; None when nothing in it can vary."""
    texts = list(_find_texts(frame))
    fixed = () if all(map(_is_filling, texts)) else _between(frame, texts)
    return Pattern(fixed, lacks_last=_is_filling(texts[-1])) if fixed else None


def renamed(frame: bytes, out: bytes) -> Pattern | None:
    """The same for one that goes out with something else before its texts."""
    texts = list(_find_texts(frame))
    fixed, written = _between(frame, texts), _between(out, list(_find_texts(out)))
    if not written or fixed[1:] != written[1:] or all(map(_is_filling, texts)):
        return None
    return Pattern(fixed, written[0], fixed[-1], lacks_last=_is_filling(texts[-1]))


def retold(frame: bytes, out: bytes) -> Pattern | None:
    """The same for one of which only a text goes out, in a frame of another dialect."""
    texts, written = list(_find_told(frame)), list(_find_texts(out))
    if not texts or len(written) != 1 or not written[0][1] or texts[-1][1] != written[0][1]:
        return None
    if any(not text[0].startswith(b'"created_at"') for text in texts[:-1]):
        return None
    fixed, around = _between(frame, texts), _between(out, written)
    return Pattern(fixed, around[0], around[1], last_only=True) if fixed else None


def is_plain(text: bytes) -> bool:
    """Whether this can stand between the quotes of a JSON string as we write it."""
    try:
        shown = text.decode()
    except UnicodeDecodeError:
        return False
    if shown.isprintable() and '"' not in shown and "\\" not in shown:  # as nearly all are
        return True
    return _is_escaped(text) is not None and not any(each in text for each in LINE_ENDS)


def _is_filling(text: re.Match[bytes]) -> bool:
    """Whether a text only hides the length of the others, as OpenAI's do, or tells a time."""
    return text[0].startswith((b'"obfuscation"', b'"created_at"'))


def _between(frame: bytes, texts: list[re.Match[bytes]]) -> tuple[bytes, ...]:
    """What stands before, between and after texts; nothing when there are none, or too many."""
    if not 0 < len(texts) <= MOST_TEXTS:
        return ()
    starts = [0, *(text.end(1) for text in texts)]
    ends = [*(text.start(1) for text in texts), len(frame)]
    return tuple(frame[start:end] for start, end in zip(starts, ends, strict=True))
