"""What Anthropic's model families differ in.

Source: reference/upstreams.md §5.3, §5.5.
"""

import re
from typing import NamedTuple

_NEW = re.compile(r"claude-(?:[a-z]+)-(\d{1,2})(?:-(\d{1,2}))?(?:-\d{6,8}|-latest|@.*|$)")
_OLD = re.compile(r"claude-(\d)(?:-(\d))?-[a-z]+")


class Version(NamedTuple):
    """A model's version; (0, 0) when its name does not tell."""

    major: int
    minor: int


def version(model: str) -> Version:
    """`claude-haiku-4-5` is 4.5, `claude-3-5-sonnet-20241022` is 3.5, `claude-opus-4-20250514` is 4.0."""
    match = _NEW.search(model) or _OLD.search(model)
    return Version(int(match[1]), int(match[2] or 0)) if match else Version(0, 0)


def refuses_sampling(model: str, api_version: str) -> bool:
    """Whether temperature and top_p are an error at any value."""
    return api_version >= "2026-10-21" or version(model) >= (4, 7)


def takes_one_of_temperature_and_top_p(model: str) -> bool:
    """Whether the two may not be given together."""
    return version(model).major == 4


def refuses_prefill(model: str) -> bool:
    """Whether the last message may not be the assistant's."""
    return version(model) >= (4, 6)
