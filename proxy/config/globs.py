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


def check_glob(pattern: str) -> str:
    """A glob that can fit something; raises ValueError."""
    position = 0
    while (start := pattern.find("[", position)) >= 0:
        first = start + 1 + (pattern[start + 1 : start + 2] == "!")
        end = pattern.find("]", first + 1)  # a bracket in the first place stands for itself
        if end < 0:
            raise ValueError(f'the glob "{pattern[:60]}" has a [ without its ]; [[] stands for a plain [')
        while first + 2 < end:
            if pattern[first + 1] != "-":
                first += 1
            elif pattern[first] > pattern[first + 2]:
                backwards = pattern[first : first + 3]
                raise ValueError(f'the glob "{pattern[:60]}" has a range that runs backwards: {backwards}')
            else:
                first += 3
        position = end + 1
    return pattern
