"""Judge what is shown beside text: pictures and documents, and where they come from."""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from proxy.simulator.anthropic.checks import array, boolean, choice, known_fields, mapping, needed_fields, refuse, text
from proxy.simulator.dialect import Body

MOST_IMAGE_BYTES = 5 * 1024 * 1024

_PICTURES = ("image/jpeg", "image/png", "image/gif", "image/webp")
_FIELDS: Mapping[str, tuple[str, ...]] = {
    "base64": ("media_type", "data"),
    "url": ("url",),
    "file": ("file_id",),
    "text": ("media_type", "data"),
    "content": ("content",),
}


def check_image(path: str, block: Body) -> None:
    """Accept a picture whose bytes are what they are said to be.

    Source: Anthropic documentation, "Vision".
    """
    source = _read_source(f"{path}.source", block["source"], ("base64", "url", "file"))
    if source["type"] != "base64":
        return
    at = f"{path}.source.base64"
    choice(*_PICTURES)(f"{at}.media_type", source["media_type"])
    data = _decode(f"{at}.data", source["data"])
    if len(data) > MOST_IMAGE_BYTES:
        raise refuse(f"{at}: image exceeds 5 MB maximum: {len(data)} bytes > {MOST_IMAGE_BYTES} bytes")
    found = recognise(data)
    if found is None:
        raise refuse("Could not process image")
    if found != source["media_type"]:
        raise refuse(
            f"{at}.data: Image does not match the provided media type {source['media_type']}, it appears to be {found}"
        )


def check_document(path: str, block: Body) -> None:
    """Accept a PDF, a plain text, or blocks of text.

    Source: Anthropic documentation, "PDF support"; API reference, DocumentBlockParam.
    """
    source = _read_source(f"{path}.source", block["source"], ("base64", "url", "file", "text", "content"))
    for name in ("title", "context"):
        if block.get(name) is not None:
            text(f"{path}.{name}", block[name])
    check_citations(path, block)
    at = f"{path}.source.{source['type']}"
    if source["type"] == "base64":
        choice("application/pdf")(f"{at}.media_type", source["media_type"])
        if not _decode(f"{at}.data", source["data"]).startswith(b"%PDF-"):
            raise refuse(f"{at}.data: The PDF specified was not valid.")
    elif source["type"] == "text":
        choice("text/plain")(f"{at}.media_type", source["media_type"])
        text(f"{at}.data", source["data"])
    elif source["type"] == "content" and not isinstance(source["content"], str):
        array(f"{at}.content", source["content"])


def check_citations(path: str, block: Body) -> None:
    """Accept the switch for citations."""
    if block.get("citations") is not None:
        mapping(f"{path}.citations", block["citations"])
        known_fields(f"{path}.citations", block["citations"], frozenset({"enabled"}))
        boolean(f"{path}.citations.enabled", block["citations"].get("enabled", False))


def recognise(data: bytes) -> str | None:
    """Name the media type that the first bytes of a picture tell."""
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    return "image/webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def _read_source(path: str, source: Any, kinds: tuple[str, ...]) -> Body:
    mapping(path, source)
    choice(*kinds)(f"{path}.type", source.get("type"))
    kind = source["type"]
    known_fields(f"{path}.{kind}", source, frozenset({"type", *_FIELDS[kind]}))
    needed_fields(f"{path}.{kind}", source, *_FIELDS[kind])
    if kind == "url":
        text(f"{path}.url.url", source["url"])
        if not source["url"].startswith("https://"):
            raise refuse(f"{path}.url.url: Only HTTPS URLs are supported.")
    elif kind == "file":
        text(f"{path}.file.file_id", source["file_id"])
    found: Body = source
    return found


def _decode(path: str, data: Any) -> bytes:
    text(path, data)
    try:
        return base64.b64decode(data, validate=True)
    except (ValueError, binascii.Error) as error:
        raise refuse(f"{path}: Invalid base64 data") from error
