"""Judge the parts of a message's content: texts, pictures, sounds and files."""

import base64
import binascii
import re
from typing import Any

from proxy.simulator.openai.checks import choice, mapping, missing, refuse, text

_DATA_URL = re.compile(r"data:(?P<type>[\w.+-]+/[\w.+-]+)(;[\w=.-]+)*;base64,(?P<data>.*)", re.DOTALL)
_PICTURES = ("image/png", "image/jpeg", "image/jpg", "image/gif", "image/webp")
_DETAILS = ("auto", "low", "high", "original")
_SOUNDS = ("wav", "mp3")


def read_part(path: str, kinds: tuple[str, ...], part: Any) -> str:
    """Return the text of a content part; pictures, sounds and files have none.

    Source: OpenAI API reference, "Create chat completion", content parts.
    """
    mapping(path, part)
    if "type" not in part:
        raise missing(f"{path}.type")
    kind = part["type"]
    choice(*kinds)(f"{path}.type", kind)
    if kind not in part:
        raise missing(f"{path}.{kind}")
    if kind in ("text", "refusal"):
        text(f"{path}.{kind}", part[kind])
        return str(part[kind])
    mapping(f"{path}.{kind}", part[kind])
    _CHECKS[kind](f"{path}.{kind}", part[kind])
    return ""


def _check_picture(path: str, picture: Any) -> None:
    url = picture.get("url")
    text(f"{path}.url", url)
    if picture.get("detail") is not None:
        choice(*_DETAILS)(f"{path}.detail", picture["detail"])
    if url.startswith(("https://", "http://")):
        return
    found = _DATA_URL.fullmatch(url)
    if found is None or not _is_base64(found["data"]):
        message = f"Invalid '{path}.url'. Expected a valid URL or a base64-encoded data URL."
        raise refuse(message, f"{path}.url", "invalid_image_url")
    if found["type"] not in _PICTURES:
        message = "You uploaded an unsupported image. Please make sure your image has of one the following formats: "
        raise refuse(f"{message}['png', 'jpeg', 'gif', 'webp'].", f"{path}.url", "invalid_image_format")


def _check_sound(path: str, sound: Any) -> None:
    for name in ("data", "format"):
        if name not in sound:
            raise missing(f"{path}.{name}")
        text(f"{path}.{name}", sound[name])
    choice(*_SOUNDS)(f"{path}.format", sound["format"])
    if not _is_base64(sound["data"]):
        raise refuse(f"Invalid '{path}.data': not base64.", f"{path}.data", "invalid_value")


def _check_file(path: str, file: Any) -> None:
    given = [name for name in ("file_data", "file_id") if file.get(name) is not None]
    if len(given) != 1:
        raise refuse(f"Invalid '{path}': expected exactly one of 'file_data' and 'file_id'.", path)
    text(f"{path}.{given[0]}", file[given[0]])
    if given == ["file_id"]:
        return
    if file.get("filename") is None:
        raise missing(f"{path}.filename")
    found = _DATA_URL.fullmatch(file["file_data"])
    if found is None or not _is_base64(found["data"]):
        raise refuse(f"Invalid '{path}.file_data': expected a data URL.", f"{path}.file_data", "invalid_value")


def _check_url(path: str, owner: Any) -> None:
    text(f"{path}.url", owner.get("url"))


def _is_base64(data: str) -> bool:
    try:
        return len(base64.b64decode(data, validate=True)) > 0
    except (binascii.Error, ValueError):
        return False


_CHECKS = {
    "image_url": _check_picture,
    "input_audio": _check_sound,
    "file": _check_file,
    "audio_url": _check_url,
    "video_url": _check_url,
}
