"""What a call says of the cache. Pure.

Source: RFC 9111 §5.2.1 (Cache-Control in requests).
"""

import re
from typing import NamedTuple

from proxy.call import NEVER


class Control(NamedTuple):
    """What a call wants.

    Args:
        read: a kept answer will do.
        write: its answer may be kept.
        max_age: the kept answer may be so old, in seconds.
        only_kept: nothing is to be asked upstream.
    """

    read: bool = True
    write: bool = True
    max_age: float = NEVER
    only_kept: bool = False


USUAL = Control()
_quoted = re.compile('"[^"]*"').sub


def control_of(header: str | None) -> Control:
    """Read a Cache-Control header. What is unknown is passed over; an age that is none asks for a new answer."""
    if not header:
        return USUAL
    if '"' in header:
        header = _quoted(lambda text: text[0].replace(",", " "), header)
    told: dict[str, str] = {}
    for directive in header.split(","):
        name, _, value = directive.partition("=")
        told[name.strip().lower()] = value.strip().strip('"').strip()
    write = "no-store" not in told
    return Control(
        read=write and "no-cache" not in told,
        write=write,
        max_age=_seconds(told["max-age"]) if "max-age" in told else NEVER,
        only_kept="only-if-cached" in told,
    )


def _seconds(text: str) -> float:
    return float(text) if text.isascii() and text.isdigit() else 0.0
