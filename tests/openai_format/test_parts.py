"""The parts of a message are read once, for every dialect; what it does not take is refused at its place."""

from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.call import Json
from proxy.errors import InvalidRequest, UnsupportedParameter
from proxy.openai_format.parameters import PARAMETERS, PASS, REJECT, Column
from proxy.openai_format.parts import Data, Part, read_data_uri, read_part

PLACE = "messages[1].content[0]"
ALL = Column({parameter.name: PASS for parameter in PARAMETERS})
TEXT_ONLY = ALL.but(dict.fromkeys(("image data:", "image https:", "input_audio", "file"), REJECT))
PNG = b64encode(b"\x89PNG\r\n\x1a\nrest").decode()
PNG_URI = f"data:image/png;base64,{PNG}"
PDF_URI = f"data:application/pdf;base64,{b64encode(b'%PDF-1.7').decode()}"
AUDIO = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}


def read(part: Any, column: Column = ALL) -> tuple[Part, list[str]]:
    """The part, and the places of what was not read."""
    unread: list[str] = []
    return read_part(part, PLACE, column, unread), unread


def image(url: Any, **more: Any) -> Json:
    return {"type": "image_url", "image_url": {"url": url, **more}}


def file(**fields: Any) -> Json:
    return {"type": "file", "file": fields}


@pytest.mark.parametrize(
    "part", [{"type": "text", "text": "Hi \u2028 🦊"}, {"type": "refusal", "refusal": "Hi \u2028 🦊"}]
)
def test_texts_and_refusals_are_text(part: Json) -> None:
    """A refusal in the history is text like another."""
    assert read(part, TEXT_ONLY) == (Part("text", PLACE, "Hi \u2028 🦊", raw=part), [])


def test_an_image_by_its_address() -> None:
    """The address stands as the text, be it within an object or alone."""
    url = "https://example.com/a.png"
    forms: list[Json] = [image(url), {"type": "image_url", "image_url": url}]
    for part in forms:
        assert read(part) == (Part("image", PLACE, url, raw=part), [])


def test_an_image_that_comes_along() -> None:
    """A data: URI is taken apart, however its scheme is written."""
    assert read(image(PNG_URI)) == (Part("image", PLACE, "", Data("image/png", PNG), image(PNG_URI)), [])
    assert read(image("DATA" + PNG_URI[4:]))[0].data == Data("image/png", PNG)


def test_a_file_that_comes_along() -> None:
    """A file's name is its text, its content is data; one that is only named by an id has none."""
    part = file(file_data=PDF_URI, filename="a.pdf")
    data = Data("application/pdf", PDF_URI.partition(",")[2])
    assert read(part) == (Part("file", PLACE, "a.pdf", data, part), [])
    assert read(file(file_id="file-1")) == (Part("file", PLACE, raw=file(file_id="file-1")), [])


def test_sound_is_carried_as_it_came() -> None:
    """Sound is not looked into."""
    assert read(AUDIO) == (Part("input_audio", PLACE, raw=AUDIO), [])


@pytest.mark.parametrize("detail", ["low", "high", "original"])
def test_a_lost_detail_has_a_name(detail: str) -> None:
    """An image's detail is named unless the dialect carries it."""
    assert read(image(PNG_URI, detail=detail))[1] == [f"{PLACE}.detail"]
    assert read(image(PNG_URI, detail=detail), ALL.but({}, in_messages=["detail"]))[1] == []


@pytest.mark.parametrize("detail", ["auto", None])
def test_the_default_detail_is_no_loss(detail: str | None) -> None:
    """`auto` asks for nothing, and null is the same as absent."""
    assert read(image(PNG_URI, detail=detail))[1] == []


def test_unknown_members_are_named() -> None:
    """What else a part has is named by its place, unless it is null or carried."""
    part: Json = {"type": "text", "text": "Hi", "mood": "good", "prompt_cache_breakpoint": {}, "gone": None}
    assert read(part)[1] == [f"{PLACE}.mood", f"{PLACE}.prompt_cache_breakpoint"]
    assert read(part, ALL.but({}, in_messages=["prompt_cache_breakpoint"]))[1] == [f"{PLACE}.mood"]
    assert "gone" not in read(part)[0].raw


@pytest.mark.parametrize(
    ("part", "column"),
    [
        pytest.param({"type": "video_url", "video_url": {}}, ALL, id="unknown kind"),
        pytest.param({"text": "Hi"}, ALL, id="no kind"),
        pytest.param({"type": ["text"], "text": "Hi"}, ALL, id="kind of a wrong type"),
        pytest.param(AUDIO, TEXT_ONLY, id="sound"),
        pytest.param(file(file_data=PDF_URI), TEXT_ONLY, id="file"),
        pytest.param(image(PNG_URI), TEXT_ONLY, id="image"),
        pytest.param({"type": "image_url"}, TEXT_ONLY, id="image, whatever is in it"),
        pytest.param(image(PNG_URI), ALL.but({"image data:": REJECT}), id="image that comes along"),
        pytest.param(image("https://example.com/a.png"), ALL.but({"image https:": REJECT}), id="image elsewhere"),
    ],
)
def test_what_is_not_taken_is_refused_at_its_place(part: Json, column: Column) -> None:
    """A part that the dialect does not carry is never left out in silence."""
    with pytest.raises(UnsupportedParameter) as caught:
        read(part, column)
    assert (caught.value.param, caught.value.code) == (PLACE, "unsupported_value")
    assert PLACE in caught.value.message


@pytest.mark.parametrize(
    ("part", "param", "code"),
    [
        ("Hello", "", "invalid_type"),
        (None, "", "invalid_type"),
        ({"type": "text"}, ".text", "invalid_type"),
        ({"type": "text", "text": ["Hi"]}, ".text", "invalid_type"),
        ({"type": "refusal", "refusal": 1}, ".refusal", "invalid_type"),
        ({"type": "image_url"}, ".image_url.url", "invalid_type"),
        (image(1), ".image_url.url", "invalid_type"),
        (image("data:image/png,raw"), ".image_url.url", "invalid_value"),
        (image("data:image/png;base64,????"), ".image_url.url", "invalid_value"),
        ({"type": "file"}, ".file", "invalid_type"),
        (file(file_data="JVBERi0xLjc="), ".file.file_data", "invalid_value"),
    ],
)
def test_what_is_wrong_is_named(part: Any, param: str, code: str) -> None:
    """A part of a wrong shape is the caller's fault, at the member that is wrong."""
    with pytest.raises(InvalidRequest) as caught:
        read(part)
    assert (caught.value.param, caught.value.code) == (PLACE + param, code)


@pytest.mark.parametrize(
    ("content", "is_one"),
    [
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"GIF89a", "image/gif"),
        (b"GIF87a", "image/gif"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "image/webp"),
        (b"RIFF\x00\x00\x00\x00WAVE", "image/tiff"),
        (b"%PDF-1.7", "image/tiff"),
        (b"", "image/tiff"),
    ],
)
def test_the_bytes_tell_the_type(content: bytes, is_one: str) -> None:
    """A known signature is believed more than the label; without one the label stands, in lower case."""
    assert read_data_uri(f"data:image/TIFF;base64,{b64encode(content).decode()}", PLACE).media_type == is_one


@pytest.mark.parametrize(
    ("uri", "media_type"),
    [
        ("data:text/plain;charset=utf-8;base64,SGk=", "text/plain"),
        ("data:;base64,SGk=", ""),
        ("Data:text/plain;BASE64,SGk=", "text/plain"),
    ],
)
def test_parameters_of_a_media_type(uri: str, media_type: str) -> None:
    """Parameters between type and base64 are passed over, and case means nothing."""
    assert read_data_uri(uri, PLACE) == Data(media_type, "SGk=")


@pytest.mark.parametrize(
    "uri", ["", "data:", "data:text/plain", "data:text/plain,Hi", "https://example.com", " data:;base64,SGk="]
)
def test_what_is_no_base64_uri(uri: str) -> None:
    """Anything else is refused, not guessed at."""
    with pytest.raises(InvalidRequest, match="not a base64 data: URI"):
        read_data_uri(uri, PLACE)


@pytest.mark.parametrize("base64", ["SGk", "S", "SGk=\n", "SG k=", "SGk=====", "SGké", "S_k-"])
def test_what_is_no_base64(base64: str) -> None:
    """Bytes that an upstream would refuse are refused here, with their place."""
    with pytest.raises(InvalidRequest, match="not valid base64") as caught:
        read_data_uri(f"data:text/plain;base64,{base64}", PLACE)
    assert caught.value.param == PLACE


@given(st.binary(max_size=40))
def test_any_bytes_survive(content: bytes) -> None:
    """The base64 is passed on as it was written."""
    base64 = b64encode(content).decode()
    assert read_data_uri(f"data:application/octet-stream;base64,{base64}", PLACE).base64 == base64


def test_contents_are_not_shown() -> None:
    """A picture or a text does not end up in a log."""
    shown = repr(read(image(PNG_URI))[0])
    assert PNG not in shown
