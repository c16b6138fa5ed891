"""Globs as the configuration writes them: `*`, `?` and `[...]`; case counts."""

import re
from collections.abc import Collection
from fnmatch import translate


class Globs:
    """Whether a text fits any of some globs."""

    def __init__(self, patterns: Collection[str]) -> None:
        self._everything = "*" in patterns
        self._fits = re.compile("|".join(map(translate, patterns)) or r"(?!)").match

    def fit(self, text: str) -> bool:
        return self._everything or self._fits(text) is not None


def is_glob(pattern: str) -> bool:
    """Whether a pattern fits more than itself."""
    return any(sign in pattern for sign in "*?[")
