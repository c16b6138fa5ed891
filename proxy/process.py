"""What every process of ours does with itself: its loop, its open files, its garbage."""

import asyncio
import contextlib
import gc
import resource
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

GARBAGE_THRESHOLD = 10_000  # objects; looking after every 700 costs 3 % of a call
MOST_FILES = 1 << 20

Result = TypeVar("Result")


async def aside(work: Callable[[], Result]) -> Result:
    """Do something that may let wait, in a thread of its own; when nobody waits any more, nobody waits at the exit."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Result] = loop.create_future()

    def tell(set_it: Callable[[Any], None], found: Any) -> None:
        if not done.done():
            set_it(found)

    def do() -> None:
        try:
            told = done.set_result, work()
        except BaseException as error:  # noqa: BLE001  # whoever waits has it
            told = done.set_exception, error  # type: ignore[assignment]
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(tell, *told)

    threading.Thread(target=do, name="aside", daemon=True).start()
    return await done


def run(work: Coroutine[Any, Any, int]) -> int:
    """On uvloop where there is one, with as many open files as the system lets us have, and garbage collected."""
    gc.enable()
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
