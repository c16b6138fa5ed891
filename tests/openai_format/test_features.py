"""What is told of a call's body, however it is spelled."""

from typing import Any

import pytest

from proxy.call import Call
from proxy.openai_format.encoding import encode
from proxy.openai_format.features import member, metadata_of, offers_tools, shows_images, text_of
from proxy.openai_format.members import find_members


def call(body: bytes | dict[str, Any], operation: Any = "chat") -> Call:
    text = body if isinstance(body, bytes) else encode(body)
    return Call("id", 0.0, text, find_members(text), "m", False, False, operation=operation)


def part(kind: str) -> bytes:
    return b'{"messages":[{"role":"user","content":[{"type":"%b"}]}]}' % kind.encode()


@pytest.mark.parametrize(
    "kind",
    [
        "image_url",
        "input_image",
        "image",
        r"image\u005furl",
        r"\u0069mage_url",
        r"input\u005Fimage",
        r"\u0069\u006d\u0061\u0067\u0065",
        r"ima\u0067e\u005furl",
    ],
)
def test_an_image_is_one_however_it_is_spelled(kind: str) -> None:
    """Escapes in its type hide nothing."""
    assert shows_images(call(part(kind)))


@pytest.mark.parametrize("kind", ["text", "file", "images", "Image", r"\u0074ext", r"image\\u005furl", ""])
def test_what_is_no_image(kind: str) -> None:
    """Other types, and what only reads like an escape."""
    assert not shows_images(call(part(kind)))


def test_escaped_keys_hide_no_image() -> None:
    """Nor do escapes in the names of members."""
    body = rb'{"m\u0065ssages":[{"cont\u0065nt":[{"typ\u0065":"\u0069mag\u0065"}]}]}'
    assert shows_images(call(body))


@pytest.mark.parametrize(
    "messages",
    [[], [1, None, "image"], [{"content": "image"}], [{"content": {"type": "image"}}], [{"content": [["image"], 1]}],
     [{"content": [{"kind": "image"}]}], "image", {"image": 1}, None],
)  # fmt: skip
def test_odd_messages_hold_no_image(messages: Any) -> None:
    """What is no message with parts is for the upstream to judge."""
    assert not shows_images(call({"messages": messages}))


@pytest.mark.parametrize("kind", [["image"], {"image": 1}])
def test_a_type_that_is_no_text(kind: Any) -> None:
    """It names no image, and is for the upstream to judge."""
    assert not shows_images(call({"messages": [{"role": "user", "content": [{"type": kind}]}]}))


@pytest.mark.parametrize("messages", [5, True, 1.5])
def test_messages_of_a_call_that_is_no_chat(messages: Any) -> None:
    """Nobody has looked at them: whatever they are, they hold no image."""
    assert not shows_images(call({"prompt": "an image", "messages": messages}, "completions"))


@pytest.mark.parametrize(
    ("body", "offered"),
    [
        (rb'{"t\u006fols":[{}]}', True),
        (rb'{"function\u0073":[{}]}', True),
        (b'{"tools":[]}', False),
        (b'{"tools": [ ]}', False),
        (b'{"tools":null,"functions":null}', False),
        (b'{"messages":[{"tools":[{}]}]}', False),
    ],
)
def test_tools_however_they_are_spelled(body: bytes, offered: bool) -> None:
    """At the top of the body, with something in them."""
    assert offers_tools(call(body)) is offered


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (rb'{"m\u0065tadata":{"k\u0065y":"\u0061"}}', "a"),
        (b'{"metadata":{"key":""}}', ""),
        (b'{"metadata":{"key":1}}', None),
        (b'{"metadata":{"key":["a"]}}', None),
        (b'{"metadata":["key"]}', None),
        (b'{"metadata":"key"}', None),
        (b'{"key":"a"}', None),
    ],
)
def test_metadata(body: bytes, value: str | None) -> None:
    """A text under a key of `metadata`; whatever else stands there is none."""
    assert metadata_of(call(body), "key") == value


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"user":"ann"}', "ann"),
        (rb'{"us\u0065r":"\u0061nn"}', "ann"),
        (b'{"user":""}', None),
        (b'{"user":null}', None),
        (b'{"user":7}', None),
        (b'{"user":["ann"]}', None),
        (b'{"metadata":{"user":"ann"}}', None),
        (b"{}", None),
    ],
)
def test_texts(body: bytes, value: str | None) -> None:
    """A member of the body that is text, and not empty."""
    assert text_of(call(body), "user") == value


def test_what_cannot_be_read_is_not_there() -> None:
    """A number out of range is for the upstream to judge, and no failure of ours."""
    body = b'{"tools":[1e999],"metadata":{"key":"a","n":1e999},"user":1e999,"messages":[{"image":1e999}]}'
    made = call(body)
    assert member(made, "tools") is None
    assert not offers_tools(made)
    assert not shows_images(made)
    assert metadata_of(made, "key") is None
    assert text_of(made, "user") is None
