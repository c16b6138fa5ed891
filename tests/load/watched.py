"""`octet`, with one thing added: every few seconds it writes to a file how many asyncio tasks it has.

python -m tests.load.watched FILE serve CONFIG
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

import uvloop

from proxy.__main__ import main

EVERY_SECONDS = 2.0


def tell(loop: asyncio.AbstractEventLoop, file: Path) -> None:
    """Write the count now and again after a while."""
    file.write_text(str(len(asyncio.all_tasks(loop))))
    loop.call_later(EVERY_SECONDS, tell, loop, file)


def watch(file: Path) -> None:
    """Have every event loop tell."""
    make = uvloop.new_event_loop

    def made() -> Any:
        loop = make()
        loop.call_later(EVERY_SECONDS, tell, loop, file)  # when it has begun, and has its tasks
        return loop

    uvloop.new_event_loop = made


if __name__ == "__main__":
    watch(Path(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
