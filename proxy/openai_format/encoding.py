"""JSON and server-sent events as we write them."""

from typing import Any

import msgspec

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"

# Legal in JSON, but line ends to readers that use `splitlines`: U+0085, U+2028, U+2029.
_ESCAPES = (
    (b"\xc2\x85", b"\\u0085"),
    (b"\xe2\x80\xa8", b"\\u2028"),
    (b"\xe2\x80\xa9", b"\\u2029"),
)

LINE_ENDS = tuple(raw for raw, _ in _ESCAPES)

_encoder = msgspec.json.Encoder()
_decode = msgspec.json.Decoder().decode


def encode(value: Any) -> bytes:
    """Compact JSON in UTF-8 that no line reader can break."""
    text = _encoder.encode(value)
    if not text.isascii():
        for raw, escaped in _ESCAPES:
            text = text.replace(raw, escaped)
    return text


def encode_event(value: Any) -> bytes:
    """One `data:` event."""
    return b"data: " + encode(value) + b"\n\n"


def decode(text: bytes | str) -> Any:
    """Any JSON value.

    Raises:
        ValueError: the text is not JSON, not UTF-8, or nested too deeply.
    """
    try:
        return _decode(text)
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def decode_object(text: bytes | str) -> dict[str, Any]:
    """A JSON object; raises ValueError for anything else."""
    value = decode(text)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value
