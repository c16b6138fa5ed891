"""The Dockerfile and the .dockerignore, read."""

import json
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "Dockerfile"


class Step(NamedTuple):
    """One instruction; its continued lines are one."""

    word: str
    rest: str


def stages(text: str) -> tuple[list[Step], list[list[Step]]]:
    """The instructions before the first FROM, and those of each stage."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    steps = [
        Step(*line.strip().split(" ", 1))
        for line in re.sub(r"\s*\\\n\s*", " ", "\n".join(lines)).splitlines()
        if line.strip()
    ]
    starts = [number for number, step in enumerate(steps) if step.word == "FROM"]
    return steps[: starts[0]], [steps[at:end] for at, end in zip(starts, [*starts[1:], len(steps)], strict=True)]


def only(steps: Sequence[Step], word: str) -> str:
    """The rest of the one instruction of a kind."""
    (found,) = [step.rest for step in steps if step.word == word]
    return found


def form(steps: Sequence[Step], word: str) -> Any:
    """The list in the exec form of the one instruction of a kind.

    Raises:
        json.JSONDecodeError: it has another form, which needs a shell.
    """
    return json.loads(only(steps, word).rpartition("CMD ")[2])


def reaches_the_build(path: str, ignore: str) -> bool:
    """Whether a .dockerignore lets a file through: the last line that matches it, or a folder above it, decides.

    Source: Docker documentation, build context, .dockerignore files.
    """
    passes = True
    for line in ignore.splitlines():
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        wanted = pattern.removeprefix("!")
        places = [path, *map(str, list(PurePosixPath(path).parents)[:-1])]
        if any(_matches(place, wanted) for place in places):
            passes = pattern.startswith("!")
    return passes


def _matches(path: str, pattern: str) -> bool:
    parts, wanted = path.split("/"), pattern.split("/")
    if wanted[0] == "**":
        return any(_matches("/".join(parts[at:]), "/".join(wanted[1:])) for at in range(len(parts)))
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))
