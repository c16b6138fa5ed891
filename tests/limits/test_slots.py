"""Places go round among the callers who wait, in order, and none of them is ever lost."""

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

import pytest

from proxy.limits.slots import Slots

LONG = 1e6  # seconds; nobody waits for them here


async def turns(count: int = 5) -> None:
    """Let the loop go round so often."""
    for _ in range(count):
        await asyncio.sleep(0)


def begin(wait: Coroutine[Any, Any, bool]) -> asyncio.Task[bool]:
    """A wait of its own; how it fails is looked at, also where the test has failed before."""
    task = asyncio.create_task(wait)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task


class Queue:
    """Calls that wait, and in which order they got their places."""

    def __init__(self, limit: int, most_waiting: int = 100) -> None:
        self.slots = Slots(limit, most_waiting)
        for _ in range(limit):
            self.slots.take()
        self.served: list[str] = []

    async def join(self, caller: str, patience: float = LONG) -> asyncio.Task[bool]:
        """A call begins to wait; it gives nothing back by itself."""

        async def wait() -> bool:
            got = await self.slots.wait(caller, patience)
            if got:
                self.served.append(caller)
            return got

        task = begin(wait())
        await turns(1)
        return task

    async def give(self) -> None:
        self.slots.give()
        await turns()


async def ended(task: asyncio.Task[bool]) -> bool | None:
    """What came of a wait: whether it got a place; None: it was cancelled."""
    with contextlib.suppress(asyncio.CancelledError):
        return await task
    return None


def state(slots: Slots) -> tuple[int, int]:
    assert bool(slots._queues) == bool(slots.waiting)
    return slots.in_use, slots.waiting


def test_so_many_at_once() -> None:
    """Places are free until all are taken, and again when one is given back."""
    slots = Slots(2, 0)
    slots.take()
    assert (slots.in_use, slots.free, slots.full) == (1, True, False)
    slots.take()
    assert (slots.in_use, slots.free, slots.full) == (2, False, True), "nobody may wait"
    slots.give()
    assert (slots.in_use, slots.free, slots.full) == (1, True, False)


async def test_the_queue_is_bounded() -> None:
    """It is full when as many wait as may."""
    queue = Queue(1, most_waiting=2)
    is_full, tasks = [queue.slots.full], []
    for caller in "ab":
        tasks.append(await queue.join(caller))
        is_full.append(queue.slots.full)
    assert is_full == [False, False, True]
    for task in tasks:
        task.cancel()
    await turns()
    assert not queue.slots.full


@pytest.mark.parametrize(
    ("joined", "served"),
    [
        ("aaa", "aaa"),
        ("aaabbc", "abcaba"),
        ("aaaab", "abaaa"),
        ("abcabc", "abcabc"),
        ("cab", "cab"),
    ],
)
async def test_places_go_round_among_callers(joined: str, served: str) -> None:
    """However many calls one of them has queued, each caller is next in turn."""
    queue = Queue(1)
    for caller in joined:
        await queue.join(caller)
    for _ in joined:
        await queue.give()
    assert "".join(queue.served) == served
    assert state(queue.slots) == (1, 0)


async def test_first_come_first_served_within_a_caller() -> None:
    """Its oldest call is next."""
    queue = Queue(1)
    tasks = [await queue.join("a") for _ in range(4)]
    for number in range(4):
        await queue.give()
        assert [task.done() for task in tasks] == [each <= number for each in range(4)]


async def test_who_was_served_stands_behind() -> None:
    """A caller that comes again, or has more calls, waits for the others."""
    queue = Queue(1)
    for caller in "aab":
        await queue.join(caller)
    await queue.give()
    for caller in "ca":
        await queue.join(caller)
    for _ in range(4):
        await queue.give()
    assert "".join(queue.served) == "abaca"


async def test_nobody_overtakes() -> None:
    """A place that is handed on is not free, not even before its new owner knows of it."""
    queue = Queue(1)
    task = await queue.join("a")
    queue.slots.give()
    assert not task.done()
    assert not queue.slots.free
    assert state(queue.slots) == (1, 0)
    assert await ended(task)
    assert not queue.slots.free


async def test_who_leaves_the_queue_takes_nothing() -> None:
    """Cancelled while waiting: the others keep their order, and the next gets the place."""
    queue = Queue(1)
    first, second, other, third = [await queue.join(caller) for caller in "aaba"]
    first.cancel()
    other.cancel()
    await turns()
    assert state(queue.slots) == (1, 2)
    for _ in range(2):
        await queue.give()
    assert (await ended(first), await ended(other)) == (None, None)
    assert await ended(second)
    assert await ended(third)
    assert state(queue.slots) == (1, 0)


async def test_cancelled_before_it_began() -> None:
    """A wait that never ran is in no queue."""
    queue = Queue(1)
    task = begin(queue.slots.wait("a", LONG))
    task.cancel()
    assert await ended(task) is None
    assert state(queue.slots) == (1, 0)


async def test_patience_runs_out() -> None:
    """Who waits in vain is told, leaves the queue, and has taken nothing."""
    queue = Queue(1)
    assert await queue.slots.wait("a", 0) is False
    assert state(queue.slots) == (1, 0)
    queue.slots.give()
    assert state(queue.slots) == (0, 0)
    assert queue.slots.free


async def test_cancelled_just_after_the_place_came() -> None:
    """In the same turn of the loop: the place goes on to the next, or is free."""
    queue = Queue(1)
    first, second = await queue.join("a"), await queue.join("b")
    queue.slots.give()
    first.cancel()
    await turns()
    assert await ended(first) is None
    assert await ended(second)
    assert state(queue.slots) == (1, 0)
    queue.slots.give()
    last = begin(queue.slots.wait("a", LONG))
    assert queue.slots.free
    last.cancel()
    assert await ended(last) is None


async def test_cancelled_just_before_the_place_came() -> None:
    """In the same turn of the loop: the place goes to who still wants it, and whoever gives it is not disturbed."""
    queue = Queue(1)
    first, second = await queue.join("a"), await queue.join("b")
    first.cancel()
    queue.slots.give()
    assert await ended(first) is None
    await turns()
    assert await ended(second)
    assert state(queue.slots) == (1, 0)


async def test_resized_just_after_a_cancellation() -> None:
    """A place more is not given to who has just left."""
    queue = Queue(1)
    first, second = await queue.join("a"), await queue.join("b")
    first.cancel()
    queue.slots.resize(2)
    assert await ended(first) is None
    await turns()
    assert await ended(second)
    assert state(queue.slots) == (2, 0)


async def test_the_place_comes_as_patience_runs_out() -> None:
    """At whatever turn of the loop: it is taken or it is not, and never lost."""
    for moment in range(7):
        queue = Queue(1)
        task = begin(queue.slots.wait("a", 0))
        await turns(moment)
        queue.slots.give()
        await turns()
        got = await ended(task)
        assert state(queue.slots) == (1 if got else 0, 0)


@pytest.mark.parametrize("moment", range(4))
async def test_cancelled_as_patience_runs_out(moment: int) -> None:
    """At whatever turn of the loop: nobody waits any more, and the place is as it was."""
    queue = Queue(1)
    task = begin(queue.slots.wait("a", 0))
    await turns(moment)
    task.cancel()
    await turns()
    assert await ended(task) in (None, False)
    assert state(queue.slots) == (1, 0)


async def test_more_places_go_to_who_waits() -> None:
    """At once, and the rest is free."""
    queue = Queue(1)
    for caller in "aab":
        await queue.join(caller)
    queue.slots.resize(3)
    await turns()
    assert "".join(queue.served) == "ab"
    assert state(queue.slots) == (3, 1)
    queue.slots.resize(5)
    await turns()
    assert state(queue.slots) == (4, 0)
    assert queue.slots.free


@pytest.mark.parametrize("limit", [0, 1])
async def test_fewer_places(limit: int) -> None:
    """Calls that have one keep it; nobody gets one until there are fewer calls than places."""
    queue = Queue(3)
    await queue.join("a")
    queue.slots.resize(limit)
    for left in range(2, limit - 1, -1):
        await queue.give()
        assert queue.served == ([] if left >= limit else ["a"])
        assert state(queue.slots) == ((left, 1) if left >= limit else (limit, 0))
    assert not queue.slots.free
