"""What is wrong with a configuration, where, and what to write instead."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

Path = tuple[str | int, ...]  # keys and list positions from the root


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a file, both counted from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake; `mark` is None where the configuration did not come from a file."""

    source: str
    mark: Mark | None
    path: Path
    message: str

    def __str__(self) -> str:
        place = f"{self.source}:{self.mark.line}:{self.mark.column}" if self.mark else self.source
        return f"{place}: {render_path(self.path)}: {self.message}" if self.path else f"{place}: {self.message}"


class ConfigError(Exception):
    """A configuration that cannot be used; all its mistakes, in the order of the file.

    Args:
        files: others that it names; what they hold may be what is wrong.
    """

    def __init__(self, mistakes: Iterable[Mistake], files: Iterable[str] = ()) -> None:
        self.files = tuple(files)
        self.mistakes = sorted(
            mistakes, key=lambda mistake: (mistake.mark.line, mistake.mark.column) if mistake.mark else (0, 0)
        )
        super().__init__("\n".join(map(str, self.mistakes)))


def render_path(path: Path) -> str:
    """`routes[0].targets[1].upstream`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean "x"?`, or the list of what there is, or nothing."""
    names: Sequence[str] = sorted(known)
    close = get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f'; did you mean "{close[0]}"?'
    return f"; known: {', '.join(names)}" if 0 < len(names) <= 30 else ""
