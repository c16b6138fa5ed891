"""The parts of a message's content: texts, images, sounds, files.

Source: OpenAI API reference, "Create chat completion", content parts; reference/upstreams.md §2.2, §12.4.
"""

import re
from binascii import Error, a2b_base64
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

from proxy.call import Json
from proxy.errors import InvalidRequest
from proxy.openai_format.checks import wrong_type, wrong_value
from proxy.openai_format.parameters import REJECT, Column, refuse

Kind = Literal["text", "image", "input_audio", "file"]
_KINDS = ("text", "refusal", "image_url", "input_audio", "file")
_DATA_URI = re.compile(r"data:([^;,]*)(?:;[^;,]*)*;base64,", re.IGNORECASE)
_SIGNATURES = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF8", "image/gif"),
)


@dataclass(frozen=True, slots=True)
class Data:
    """What a data: URI holds: its media type, and its base64 without the prefix."""

    media_type: str
    base64: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a message's content.

    Args:
        place: where it stands, such as `messages[0].content[1]`.
        text: of a text or refusal part; of an image, its URL unless `data` holds it.
        data: of an image or file that came as a data: URI.
        raw: the part as it was sent, without nulls.
    """

    kind: Kind
    place: str
    text: str = ""
    data: Data | None = None
    raw: Json = field(default_factory=dict, repr=False)


def read_part(part: Any, place: str, column: Column, unread: list[str]) -> Part:
    """Check a part; raises UnsupportedParameter for a kind that the dialect does not take."""
    if not isinstance(part, dict):
        wrong_type(place, "an object", part)
    raw = {name: value for name, value in part.items() if value is not None}
    kind = raw.get("type")
    if kind not in _KINDS:
        refuse(place, f"'{place}': parts of this type are not carried to this upstream.")
    unread.extend(f"{place}.{name}" for name in raw if name not in ("type", kind) and name not in column.in_messages)
    if kind == "image_url":
        return _read_image(raw, place, column, unread)
    if kind in ("text", "refusal"):
        text = part.get(kind)
        if not isinstance(text, str):
            wrong_type(f"{place}.{kind}", "a string", text)
        return Part("text", place, text, raw=raw)
    if column[kind] is REJECT:
        _refuse(place, "a file" if kind == "file" else "sound")
    if not isinstance(raw.get(kind), dict):
        wrong_type(f"{place}.{kind}", "an object", raw.get(kind))
    return _read_file(raw, place) if kind == "file" else Part("input_audio", place, raw=raw)


def _read_image(raw: Json, place: str, column: Column, unread: list[str]) -> Part:
    if column["image data:"] is REJECT and column["image https:"] is REJECT:
        _refuse(place, "an image")
    image = raw.get("image_url")
    url = image.get("url") if isinstance(image, dict) else image
    if not isinstance(url, str):
        wrong_type(f"{place}.image_url.url", "a string", url)
    if isinstance(image, dict) and (image.get("detail") or "auto") != "auto" and "detail" not in column.in_messages:
        unread.append(f"{place}.detail")
    data = read_data_uri(url, f"{place}.image_url.url") if url[:5].lower() == "data:" else None
    if column["image data:" if data else "image https:"] is REJECT:
        _refuse(place, "an image as a data: URI" if data else "an image by its address; send it as a data: URI")
    if data is None and not url.lower().startswith(("https://", "http://")):
        wrong_value(f"{place}.image_url.url", f"'{place}': images come as data: URIs or by http.")
    return Part("image", place, "" if data else url, data, raw)


def _read_file(raw: Json, place: str) -> Part:
    file = raw["file"]
    content = file.get("file_data")
    data = read_data_uri(content, f"{place}.file.file_data") if isinstance(content, str) else None
    return Part("file", place, str(file.get("filename") or ""), data, raw)


def read_data_uri(uri: str, place: str) -> Data:
    """Take a base64 data: URI apart; an image's media type is what its bytes say.

    Source: RFC 2397.
    """
    head = _DATA_URI.match(uri)
    if head is None:
        raise InvalidRequest(f"'{place}' is not a base64 data: URI.", param=place, code="invalid_value")
    base64 = uri[head.end() :]
    try:
        first = a2b_base64(base64, strict_mode=True)[:16]
    except (Error, ValueError) as error:
        raise InvalidRequest(f"'{place}' is not valid base64.", param=place, code="invalid_value") from error
    if first[:4] == b"RIFF" and first[8:12] == b"WEBP":
        return Data("image/webp", base64)
    known = next((media_type for signature, media_type in _SIGNATURES if first.startswith(signature)), None)
    return Data(known or head[1].lower(), base64)


def _refuse(place: str, what: str) -> NoReturn:
    refuse(place, f"'{place}': this upstream does not take {what}.")
