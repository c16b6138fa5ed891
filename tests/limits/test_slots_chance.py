"""Whatever waits, gives, leaves and loses patience, and in whatever order: no place is ever lost."""

import asyncio
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.limits.slots import Slots

LONG = 1e6
LIMIT = 2

joins = st.tuples(st.just("join"), st.sampled_from("abc"), st.sampled_from([LONG, LONG, 0.0]))
cancels = st.tuples(st.just("cancel"), st.integers(0, 20))
gives = st.just(("give",))
turns = st.just(("turn",))
resizes = st.tuples(st.just("resize"), st.integers(0, 4))
STEPS = st.lists(joins | cancels | gives | turns | resizes, max_size=60)


class Crowd:
    """Calls that wait, hold places, and leave."""

    def __init__(self) -> None:
        self.slots = Slots(LIMIT, 1000)
        self.held = 0
        self.waiting: list[asyncio.Task[bool]] = []
        self.most = LIMIT  # places that there have been at most

    async def step(self, name: str, *rest: Any) -> None:
        """One thing happens."""
        if name == "join":
            self.waiting.append(asyncio.create_task(self._join(*rest)))
        elif name == "cancel" and self.waiting:
            self.waiting[rest[0] % len(self.waiting)].cancel()
        elif name == "give" and self.held:
            self.held -= 1
            self.slots.give()
        elif name == "turn":
            await asyncio.sleep(0)
        elif name == "resize":
            self.most = max(self.most, *rest)
            self.slots.resize(*rest)
        self._look()

    async def _join(self, caller: str, patience: float) -> bool:
        if self.slots.free:
            self.slots.take()
            return True
        return await self.slots.wait(caller, patience)

    def _look(self) -> None:
        """Calls that got a place have it, and can give it back from now on."""
        for task in [each for each in self.waiting if each.done()]:
            self.waiting.remove(task)
            if not task.cancelled():
                self.held += task.result()
        assert self.held <= self.slots.in_use <= self.most
        assert 0 <= self.slots.waiting <= len(self.waiting)

    async def settle(self) -> None:
        for _ in range(6):
            await self.step("turn")

    async def end(self) -> None:
        """Everybody who still waits gets a place, and gives it back."""
        self.slots.resize(max(self.slots.limit, 1))
        await self.settle()
        assert self.slots.in_use == self.held
        while self.held:
            await self.step("give")
            await self.settle()
        assert self.waiting == []
        assert (self.slots.in_use, self.slots.waiting, self.slots._queues) == (0, 0, {})


async def play(steps: list[tuple[Any, ...]], *, calmly: bool) -> None:
    """All of it happens.

    Args:
        calmly: the loop goes round a few times after each step.
    """
    crowd = Crowd()
    try:
        for step in steps:
            await crowd.step(*step)
            if calmly:
                await crowd.settle()
        await crowd.end()
    finally:
        for task in crowd.waiting:
            task.cancel()
        await asyncio.gather(*crowd.waiting, return_exceptions=True)


@settings(max_examples=200)
@given(STEPS)
def test_one_thing_after_the_other(steps: list[tuple[Any, ...]]) -> None:
    """Where each step has its effects before the next."""
    asyncio.run(play(steps, calmly=True))


@example([("join", "a", LONG)] * 3 + [("turn",), ("cancel", 0), ("give",)])
@settings(max_examples=400)
@given(STEPS)
def test_all_at_once(steps: list[tuple[Any, ...]]) -> None:
    """Where several steps fall into one turn of the loop."""
    asyncio.run(play(steps, calmly=False))


@settings(max_examples=100)
@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=30))
def test_nobody_waits_for_more_than_one_round(callers: list[str]) -> None:
    """Between two places of a caller who waits, no other caller gets two."""

    async def serve() -> list[str]:
        slots, served = Slots(1, 1000), list[str]()
        slots.take()

        async def wait(caller: str) -> None:
            await slots.wait(caller, LONG)
            served.append(caller)

        tasks = [asyncio.create_task(wait(caller)) for caller in callers]
        await asyncio.sleep(0)
        for _ in callers:
            slots.give()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        return served

    served = asyncio.run(serve())
    assert sorted(served) == sorted(callers)
    left = {caller: callers.count(caller) for caller in callers}
    since: dict[str, set[str]] = {caller: set() for caller in left}  # who was served since this caller was
    for caller in served:
        since[caller] = set()
        left[caller] -= 1
        for other, seen in since.items():
            if other != caller and left[other]:
                assert caller not in seen
                seen.add(caller)
