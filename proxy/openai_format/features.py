"""What can be told of a call from its body, for those who route by it."""

from typing import Any

from proxy.call import Call
from proxy.openai_format.encoding import decode

_IMAGES = frozenset({"image_url", "input_image", "image"})


def member(call: Call, name: str) -> Any:
    """A top-level member of the body; None when it is absent, null, or cannot be read."""
    place = call.members.get(name)
    if place is None:
        return None
    try:
        return decode(call.body[place])
    except ValueError:
        return None


def offers_tools(call: Call) -> bool:
    """Whether the model may call tools, or functions as they were once called."""
    return any(name in call.members and member(call, name) for name in ("tools", "functions"))


def shows_images(call: Call) -> bool:
    """Whether a message holds an image."""
    if b"image" not in call.body and b"\\u" not in call.body:
        return False
    messages = member(call, "messages")
    return isinstance(messages, list) and any(map(_has_image, messages))


def _has_image(message: Any) -> bool:
    content = message.get("content") if isinstance(message, dict) else None
    return isinstance(content, list) and any(map(_is_image, content))


def _is_image(part: Any) -> bool:
    kind = part.get("type") if isinstance(part, dict) else None
    return isinstance(kind, str) and kind in _IMAGES


def metadata_of(call: Call, key: str) -> str | None:
    """A value of the call's `metadata`, as text; None when there is none."""
    metadata = member(call, "metadata")
    value = metadata.get(key) if isinstance(metadata, dict) else None
    return value if isinstance(value, str) else None


def text_of(call: Call, name: str) -> str | None:
    """A top-level member that is text, and not empty."""
    value = member(call, name)
    return value if isinstance(value, str) and value else None
