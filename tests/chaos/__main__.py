"""Faults of every kind under load, and an account of every call: `make chaos`."""

import argparse
import asyncio
import json
import random
import secrets
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import uvloop

from tests.chaos.account import Account, told
from tests.chaos.faults import FAULTS
from tests.chaos.nouns import Story
from tests.chaos.play import Play
from tests.chaos.stage import Stage

RATE = 50.0  # calls a second
LANES: Mapping[tuple[str, ...], float] = {  # faults that come one after another, and seconds between two
    ("upstream",): 1.0,
    ("redis", "config"): 1.0,
    ("sidecar",): 5.0,
}


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


async def run(folder: Path, seed: int, seconds: float, rate: float) -> Account:
    """All of it."""
    chance = random.Random(seed)
    async with Stage(folder) as stage:
        play = Play(stage, chance, say)
        await play.begin()
        until = time.monotonic() + seconds
        load = asyncio.create_task(play.callers.load(rate, lambda: time.monotonic() > until))
        lanes = [([each for each in FAULTS if each.lane in names], rest) for names, rest in LANES.items()]
        await asyncio.gather(load, *(play.lane(faults, seconds - 2.0, rest) for faults, rest in lanes))
        return await play.finish()


def write(story: Story, path: Path) -> None:
    """All that is known, for who wants to look into something."""
    whole = asdict(story)
    path.write_text(json.dumps({name: whole[name] for name in ("calls", "windows", "executions")}, indent=1))


def main() -> int:
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=150.0, help="of load and faults (150)")
    parser.add_argument(
        "--seed", type=int, default=None, help="of the faults' order, and of the calls; default: a new one"
    )
    parser.add_argument("--rate", type=float, default=RATE, help=f"calls a second ({RATE:g})")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where logs are left; default: nowhere")
    options = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if options.seed is None else options.seed
    say(f"seed {seed}, {options.seconds:g} s, {options.rate:g} calls a second")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            account = runner.run(run(folder, seed, options.seconds, options.rate))
        write(account.story, folder / "story.json")
    for line in told(account):
        say(line)
    say(f"seed {seed}: {'every call is accounted for' if account.good else 'NOT EVERYTHING IS EXPLAINED'}")
    return 0 if account.good else 1


if __name__ == "__main__":
    sys.exit(main())
