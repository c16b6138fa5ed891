"""What was looked at, line by line, and whether all of it was as promised."""

import sys
import time
from collections.abc import Callable

LONGEST = 300  # of what was seen, in characters


class Missing(Exception):
    """A program or a right that the verification cannot do without."""


class Report:
    """Prints each check as it is made, and keeps count."""

    def __init__(self) -> None:
        self.made = 0
        self.failed: list[str] = []

    def check(self, promise: str, holds: object, seen: object = "") -> None:
        """Say whether a promise holds.

        Args:
            seen: what was found; told in either case.
        """
        self.made += 1
        if not holds:
            self.failed.append(promise)
        say(f"{'ok  ' if holds else 'FAIL'}  {promise}" + (f": {str(seen)[:LONGEST]}" if str(seen) else ""))

    def equal(self, promise: str, found: object, expected: object) -> None:
        """Check that what was found is what was expected."""
        self.check(promise, found == expected, (found or "") if found == expected else f"{found!r}, not {expected!r}")

    def same(self, promise: str, found: set[str], expected: set[str]) -> None:
        """Check that two sets are the same; tells how large they are, or what only one of them has."""
        more, less = (" ".join(sorted(each)) for each in (found - expected, expected - found))
        self.check(promise, found == expected and found, f"{len(found)}" if found == expected else f"+ {more} - {less}")

    def end(self) -> int:
        """The exit code, after a last line."""
        say(f"{self.made} checks, {len(self.failed)} failed" + "".join(f"\n  {each}" for each in self.failed))
        return 1 if self.failed or not self.made else 0


def say(text: str) -> None:
    """Tell it at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def eventually(holds: Callable[[], bool], patience: float = 60.0, pause: float = 0.3) -> bool:
    """Whether it holds within so many seconds; asked until it does."""
    deadline = time.monotonic() + patience
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
    return True
