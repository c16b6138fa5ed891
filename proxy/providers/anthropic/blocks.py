"""Parts of a message's content as content blocks.

Source: platform.claude.com, "Vision", "PDF support", "Prompt caching"; reference/upstreams.md §5.2.
"""

from base64 import b64decode

from proxy.call import Json
from proxy.openai_format.parameters import refuse
from proxy.openai_format.parts import Part

_IMAGES = ("image/jpeg", "image/png", "image/gif", "image/webp")


def write_part(part: Part) -> Json:
    """One block; a part that is marked for the cache marks its block."""
    writers = {"text": _text, "image": _image, "file": _file}
    block = writers[part.kind](part)
    return {**block, "cache_control": {"type": "ephemeral"}} if part.raw.get("prompt_cache_breakpoint") else block


def _text(part: Part) -> Json:
    return {"type": "text", "text": part.text}


def _image(part: Part) -> Json:
    if part.data is None:
        if not part.text.lower().startswith("https://"):
            refuse(part.place, f"'{part.place}': Anthropic fetches images by https only.")
        return {"type": "image", "source": {"type": "url", "url": part.text}}
    if part.data.media_type not in _IMAGES:
        refuse(part.place, f"'{part.place}': Anthropic takes images as {', '.join(_IMAGES)}.")
    source = {"type": "base64", "media_type": part.data.media_type, "data": part.data.base64}
    return {"type": "image", "source": source}


def _file(part: Part) -> Json:
    data = part.data
    if data is None:
        refuse(part.place, f"'{part.place}': files are carried as 'file_data' only.")
    if data.media_type == "application/pdf":
        source = {"type": "base64", "media_type": data.media_type, "data": data.base64}
    elif data.media_type == "text/plain":
        text = b64decode(data.base64).decode("utf-8", "replace")
        source = {"type": "text", "media_type": data.media_type, "data": text}
    else:
        refuse(part.place, f"'{part.place}': Anthropic takes files as PDF or plain text.")
    return {"type": "document", "source": source, **({"title": part.text} if part.text else {})}
