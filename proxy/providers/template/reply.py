"""The deployment's whole answer as a completion."""

import re
from collections.abc import Mapping
from typing import Any

from proxy.call import Call, Json
from proxy.errors import Broken
from proxy.openai_format import chunks
from proxy.openai_format.encoding import decode
from proxy.openai_format.errors import in_stream_error
from proxy.providers.openai.reply import finish_reason
from proxy.providers.seam import media_type
from proxy.providers.template.settings import AnswerShape, Shape

_CHARSET = re.compile(r"charset=[\"']?([A-Za-z0-9_.:-]+)", re.IGNORECASE)


def find(value: Any, path: str) -> Any:
    """What stands at a dotted path, or None."""
    for step in path.split("."):
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def find_text(value: Any, paths: tuple[str, ...]) -> str | None:
    """The first text that a path hits; a text is its own."""
    if isinstance(value, str):
        return value
    return next((text for path in paths if isinstance(text := find(value, path), str)), None)


def check_error(value: Any, shape: AnswerShape, payload: bytes) -> None:
    """Raises UpstreamError when a 200 answer holds an error."""
    if not isinstance(value, dict | list):
        return
    error = find(value, shape.error)
    if not error:
        return
    if shape.error == "error":
        raise in_stream_error(payload)
    raise Broken(error if isinstance(error, str) else "the upstream says that it failed")


def charset_of(headers: Mapping[str, str]) -> str:
    """The charset that the answer declares, when it is one."""
    declared = _CHARSET.search(headers.get("content-type", ""))
    try:
        b"text".decode(declared[1] if declared else "utf-8", "replace")
    except LookupError:
        return "utf-8"
    return declared[1] if declared else "utf-8"


def decode_text(payload: bytes, headers: Mapping[str, str]) -> str:
    return payload.decode(charset_of(headers), "replace")


def read_answer(call: Call, shape: Shape, headers: Mapping[str, str], body: bytes) -> Json:
    """A whole answer as a completion.

    Raises:
        UpstreamError: it is an error, or no text is found in it.
    """
    answer = shape.answer
    kind = media_type(headers)
    if kind in ("text/html", "application/xhtml+xml"):
        raise Broken("the upstream answered with an HTML page: check its base_url", code="upstream_bad_response")
    value: Any = decode_text(body, headers) if kind.startswith("text/") else _read_json(body, headers)
    check_error(_as_json(value), answer, body)
    text = find_text(value, answer.text)
    if text is None or not body:
        raise no_text(answer.text, "settings.answer.text")
    counts = usage_of(value, answer)
    reason = reason_of(value, answer)
    return chunks.completion(
        f"chatcmpl-{call.id}", int(call.received_at), call.model, {"content": text}, reason or "stop", counts
    )


def _as_json(value: Any) -> Any:
    """What a plain text holds when it is a JSON object: some write their errors so."""
    if not isinstance(value, str) or not value.lstrip().startswith("{"):
        return value
    try:
        return decode(value)
    except ValueError:
        return value


def _is_bare(body: bytes) -> bool:
    """Whether a body that is no JSON was not meant to be: BentoML sends untyped texts so, under JSON's name."""
    try:
        return not body.decode().lstrip().startswith(("{", "[", '"', "<"))
    except UnicodeDecodeError:
        return False


def no_text(paths: tuple[str, ...], key: str) -> Broken:
    return Broken(f"the upstream's answer has no text at {', '.join(paths)} ({key})", code="upstream_bad_response")


def _read_json(body: bytes, headers: Mapping[str, str]) -> Any:
    try:
        return decode(body)
    except ValueError as error:
        kind = media_type(headers)
        if body and (not kind or (kind == "application/json" and _is_bare(body))):
            return decode_text(body, headers)
        raise Broken("the upstream's answer is not JSON", code="upstream_bad_response") from error


def usage_of(value: Any, shape: AnswerShape) -> Json | None:
    counts = [find(value, path) if path else None for path in (shape.prompt_tokens, shape.completion_tokens)]
    return chunks.usage(*counts)


def reason_of(value: Any, shape: AnswerShape) -> str | None:
    reason = find(value, shape.finish_reason) if shape.finish_reason else None
    return finish_reason(reason) if isinstance(reason, str) and reason else None
