"""What every process of ours does with itself: its loop, its open files, its garbage."""

import asyncio
import contextlib
import gc
import resource
from collections.abc import Coroutine
from typing import Any

GARBAGE_THRESHOLD = 10_000  # objects; looking after every 700 costs 3 % of a call
MOST_FILES = 1 << 20


def run(work: Coroutine[Any, Any, int]) -> int:
    """On uvloop where there is one, with as many open files as the system lets us have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS calls it unlimited, and has a limit all the same
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, MOST_FILES)), hard))
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def settle() -> None:
    """What is loaded by now stays: it is none of the garbage collector's business, and calls make few cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD, 20, 50)
