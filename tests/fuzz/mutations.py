"""Good texts, spoilt: bytes that are other, more, fewer or twice; JSON whose values are not what they should be."""

import json
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st


class Members(list[tuple[str, Any]]):
    """An object as its members, so that a name may stand twice."""


class Token(str):
    """JSON, or what only looks like it, that is written as it is."""

    __slots__ = ()


ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 7, 1.5, -0.0, 1e308, 2**63, 2**64, -(2**63) - 1, 10**30, "", " ", "x", "auto", "\x00",
    "\u2028", "a\r\nb: c", "é🦊", "x" * 300, "data:image/png;base64,AA", "[DONE]", [], [[]], ["x"], [None], [1, "x"],
    Members(), Members([("type", "text")]), Members([("x", None)]),
    *map(Token, ("NaN", "-Infinity", "1e999", "-", "01", '"\\ud800"', '"\\ud83d\\ude00"', '"\\u0000"', "nul", "'x'")),
    Token("9" * 400), Token("9" * 5000), Token("[" * 300 + "]" * 300), Token('{"a":' * 300 + "1" + "}" * 300),
    Token("[" * 985 + "]" * 985), Token("[" * 2000),
)  # fmt: skip
NAMES = ("model", "stream", "content", "type", "role", "index", "delta", "choices", "error", "x", "", "\u2028", "a b")
PLAIN = tuple(value for value in ODD if not isinstance(value, Token | Members))
MILD: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    7,
    1.5,
    2**64,
    "x",
    "",
    "auto",
    "\u2028",
    [],
    ["x"],
    Members([("include_usage", False)]),
)


def read(text: str | bytes) -> Any:
    """A JSON text as a tree of `Members`, lists and values; raises ValueError where it is none."""
    return json.loads(text, object_pairs_hook=Members, parse_int=_number, parse_constant=_refuse)


def _number(text: str) -> Any:
    return int(text) if len(text) < 1000 else Token(text)


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def is_json(text: bytes) -> bool:
    """Whether a strict reader of JSON takes it."""
    try:
        read(text.decode())
    except (ValueError, RecursionError):
        return False
    return True


def write(tree: Any) -> str:
    """The tree as JSON."""
    if isinstance(tree, Token):
        return str(tree)
    if isinstance(tree, Members):
        return "{" + ",".join(f"{json.dumps(name)}:{write(value)}" for name, value in tree) + "}"
    if isinstance(tree, list):
        return "[" + ",".join(map(write, tree)) + "]"
    return json.dumps(tree, ensure_ascii=False)


def plain(tree: Any) -> Any:
    """The tree as a reader has it who keeps the last of two equal names."""
    if isinstance(tree, Members):
        return {name: plain(value) for name, value in tree}
    return [plain(value) for value in tree] if isinstance(tree, list) else tree


def _places(tree: Any) -> Iterator[tuple[list[Any], int]]:
    """Every place below a tree: a container and a position in it."""
    if isinstance(tree, list):
        for position, entry in enumerate(tree):
            yield tree, position
            yield from _places(entry[1] if isinstance(tree, Members) else entry)


def _copy(tree: Any) -> Any:
    if isinstance(tree, Members):
        return Members((name, _copy(value)) for name, value in tree)
    return [_copy(value) for value in tree] if isinstance(tree, list) else tree


def _value(container: list[Any], position: int) -> Any:
    return container[position][1] if isinstance(container, Members) else container[position]


def _put(container: list[Any], position: int, value: Any) -> None:
    container[position] = (container[position][0], value) if isinstance(container, Members) else value


def _spoil(draw: st.DrawFn, tree: list[Any], odd: tuple[Any, ...]) -> None:
    """Change one thing in a tree."""
    places = list(_places(tree))
    if not places:
        return
    container, position = places[draw(st.integers(0, len(places) - 1))]
    act = draw(st.sampled_from(("replace", "replace", "delete", "double", "swap", "wrap", "rename", "add")))
    if act == "replace":
        _put(container, position, _copy(draw(st.sampled_from(odd))))
    elif act == "delete":
        del container[position]
    elif act == "double":
        container.insert(draw(st.integers(0, len(container))), _copy(container[position]))
    elif act == "swap":
        other, place = places[draw(st.integers(0, len(places) - 1))]
        _put(container, position, _copy(_value(other, place)))
    elif act == "wrap":
        inner = _copy(_value(container, position))
        _put(container, position, draw(st.sampled_from(([inner], Members([("x", inner)])))))
    elif isinstance(container, Members):
        name = draw(st.sampled_from(NAMES))
        if act == "rename":
            container[position] = (name, container[position][1])
        else:
            container.append((name, _copy(draw(st.sampled_from(odd)))))


@st.composite
def trees(draw: st.DrawFn, seeds: st.SearchStrategy[str], odd: tuple[Any, ...] = ODD, most: int = 4) -> Any:
    """A good text's tree with some things changed."""
    tree = [read(draw(seeds))]
    for _ in range(draw(st.integers(1, most))):
        _spoil(draw, tree, odd)
    return tree[0] if tree else Members()


def spoilt_json(seeds: st.SearchStrategy[str]) -> st.SearchStrategy[bytes]:
    """A good JSON text with some things changed: mostly a few and still JSON, not always."""
    return st.one_of(trees(seeds, MILD, 1), trees(seeds, PLAIN, 2), trees(seeds)).map(
        lambda tree: write(tree).encode("utf-8", "surrogatepass")
    )


_SCRAPS = (
    b"\n", b"\r\n", b"\n\n", b"\r", b"\x00", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xe2\x80\xa8",
    b"{", b"}", b"[", b"]", b'"', b"\\", b",", b":", b"null", b"1e999", b"\\ud83d", b"data:", b"data: [DONE]\n\n",
    b"event: error\n", b": x\n\n", b'{"error":{"message":"m"}}', b'data: {"error":"x"}\n\n', b"<html>",
)  # fmt: skip
_changes = st.lists(
    st.tuples(
        st.sampled_from(("flip", "insert", "delete", "double", "scrap", "cut")),
        st.integers(0, 2**16),
        st.integers(1, 40),
        st.integers(0, 255),
    ),
    min_size=1,
    max_size=4,
)


def _changed(raw: bytes, changes: list[tuple[str, int, int, int]]) -> bytes:
    for act, place, size, what in changes:
        start = place % (len(raw) + 1)
        before, middle, after = raw[:start], raw[start : start + size], raw[start + size :]
        if act == "flip":
            middle = bytes(byte ^ (1 << what % 8) for byte in middle)
        elif act == "insert":
            middle = bytes([what]) * size + middle
        elif act == "scrap":
            middle = _SCRAPS[what % len(_SCRAPS)] + middle
        elif act == "cut":
            middle, after = b"", b""
        raw = before + middle * {"delete": 0, "double": 2}.get(act, 1) + after
    return raw


def spoilt_bytes(seeds: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """A good text with some bytes changed."""
    return st.builds(_changed, seeds, _changes)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """The data in reads that end at these places, counted round."""
    ends = sorted({place % (len(data) + 1) for place in cuts} | {len(data)})
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False) if start < end]


cuts = st.lists(st.integers(0, 2**16), max_size=8)
