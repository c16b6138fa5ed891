"""Locust, run for a test: what it ends with, what it says, what it writes."""

import asyncio
import csv
import os
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from dataclasses import dataclass
from pathlib import Path

from tests.load import programs
from tests.load.settings import PREFIX
from tests.programs import tool

CALLS = 12
QUICK = {
    "USERS": "3",
    "SPAWN_RATE": "100",
    "THINK_SECONDS": "0",
    "CALLS": str(CALLS),
    "SECONDS": "20",
    "MAX_TOKENS": "10",
}
EACH = "generation=1,streaming=1,health=1"


def locust() -> Path:
    """Where it is; the test is skipped without it, or fails where all must run."""
    return Path(tool("locust"))


@dataclass(frozen=True)
class Ran:
    """A run that has ended."""

    code: int
    told: str
    report: Path

    @property
    def broken(self) -> str:
        """The lines of what did not hold."""
        return "\n".join(line for line in self.told.splitlines() if line.startswith("NOT HELD"))

    def figures(self) -> dict[str, int]:
        """How often, by the names of the statistics."""
        with (self.report / "figures.csv").open() as file:
            return {row["Name"]: int(row["Request Count"]) for row in csv.DictReader(file)}


async def begin(report: Path, *arguments: str, **settings: str) -> Process:
    """`python -m tests.load`, with few users and few calls unless told otherwise."""
    locust()
    ours = {f"{PREFIX}{name}": text for name, text in {**QUICK, "REPORT": str(report), **settings}.items()}
    environ = {name: text for name, text in os.environ.items() if not name.startswith(PREFIX)} | ours
    command = (sys.executable, "-m", "tests.load", *arguments)
    return await asyncio.create_subprocess_exec(*command, cwd=programs.ROOT, env=environ, stdout=PIPE, stderr=STDOUT)


async def run(report: Path, *arguments: str, **settings: str) -> Ran:
    """The same, to its end."""
    process = await begin(report, *arguments, **settings)
    try:
        told, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    return Ran(process.returncode or 0, told.decode(), report)
