"""Fuzzing for as long as one likes (`make fuzz`): rounds of the folder's tests, each drawn anew.

The seed of each round is printed: with it, and the same factor, a round is the same again.
"""

import argparse
import os
import random
import subprocess
import sys
import time
from pathlib import Path

from tests.fuzz.effort import FACTOR

FOLDER = Path(__file__).parent
LONGEST_SECONDS = 3600  # of one test; a hang is told after it


def round_of(seed: int, factor: int, chosen: list[str]) -> int:
    """One round; pytest's exit status."""
    command = [
        sys.executable, "-m", "pytest", *(chosen or [str(FOLDER)]), "-q", "--no-header", "-p", "no:cacheprovider",
        "-o", f"timeout={LONGEST_SECONDS}", f"--hypothesis-seed={seed}", "--tb=short",
    ]  # fmt: skip
    environ = {**os.environ, FACTOR: str(factor)}
    return subprocess.run(command, cwd=FOLDER.parents[1], env=environ, check=False).returncode


def tell(line: str) -> None:
    """A line, at once: the rounds are written by other processes."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Rounds until the time is over, or one fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10, help="begin no further round after so long")
    parser.add_argument("--seed", type=int, help="this round, and no other")
    parser.add_argument("--factor", type=int, default=10, help="so many times the suite's cases a round")
    parser.add_argument("chosen", nargs="*", help="files, or tests as pytest names them; default: the folder")
    options = parser.parse_args()
    until, rounds = time.monotonic() + options.minutes * 60, 0
    while options.seed is None or not rounds:
        seed = random.randrange(2**32) if options.seed is None else options.seed
        tell(f"round {rounds + 1}: seed {seed}, factor {options.factor}")
        status = round_of(seed, options.factor, options.chosen)
        rounds += 1
        if status:
            again = f"{Path(sys.executable).name} -m tests.fuzz --seed {seed} --factor {options.factor}"
            tell(f"fuzz: a round failed; again: {again}")
            return 1
        if time.monotonic() > until:
            break
    tell(f"fuzz: {rounds} rounds, nothing found")
    return 0


if __name__ == "__main__":
    sys.exit(main())
