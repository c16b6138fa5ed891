"""A call whose limiter has only a share of a fleet's limit waits once for more, and takes nothing in vain."""

import asyncio
import contextlib
from collections.abc import Callable

import pytest

from proxy.call import NoRoom
from proxy.config import Limits
from proxy.limits.limiter import Held, Limiter
from tests.clock import Clock
from tests.waiting import until

LONG = 1e6


def tokens(amount: int) -> Callable[[], int]:
    return lambda: amount


ONE = tokens(1)


def held(taken: Held | NoRoom) -> Held:
    assert isinstance(taken, Held)
    return taken


async def begun(one: Limiter, amount: int) -> "asyncio.Task[Held | NoRoom]":
    """A call that has begun to wait for room."""
    task = asyncio.create_task(one.hold("a", tokens(amount), LONG))
    for _ in range(3):
        await asyncio.sleep(0)
    return task


class Share:
    """A fleet, scripted: what it answers is done by the test."""

    def __init__(self, answer: "asyncio.Future[None] | None") -> None:
        self.answer = answer
        self.asked = self.changes = self.delays = 0

    def ask(self) -> "asyncio.Future[None] | None":
        self.asked += 1
        return self.answer

    def queued(self) -> None:
        """Nothing comes by itself here."""

    def late(self) -> None:
        self.delays += 1

    def used(self) -> None:
        self.changes += 1


async def test_a_call_waits_once_for_its_fleets_share() -> None:
    """While it waits, what it wants can be seen; when there is more, it goes on."""
    clock = Clock()
    one = Limiter(Limits(tokens_per_minute=600), clock, share_seconds=LONG)
    bucket = one.tokens
    assert bucket is not None
    bucket.lease(0.0, clock.now)
    one.share = share = Share(asyncio.get_running_loop().create_future())
    task = await begun(one, 70)
    assert (one.calls_asking, one.asked) == (1, 70)
    bucket.lease(100.0, clock.now)
    assert share.answer is not None
    share.answer.set_result(None)
    assert held(await task).reserved == 70
    assert (one.calls_asking, one.asked, share.asked, share.delays) == (0, 0, 1, 0)
    assert bucket.now(clock()) == 30.0


@pytest.mark.parametrize("patience", [LONG, 0.0])
async def test_a_share_that_does_not_come(patience: float) -> None:
    """The call is refused after `share_seconds`, whatever its own patience, and the share is told that it is late."""
    one = Limiter(Limits(requests_per_minute=60), Clock(), share_seconds=0.0)
    assert one.requests is not None
    one.requests.lease(0.0, 1000.0)
    one.requests.ready_at = 1004.0
    one.share = share = Share(asyncio.get_running_loop().create_future())
    assert await one.hold("a", ONE, patience) == ("requests", 4.0)
    assert (one.calls_asking, share.asked) == (0, 1)
    assert share.delays == 1
    assert share.answer is not None
    assert not share.answer.done(), "others wait for it too"


async def test_who_was_overtaken_asks_again() -> None:
    """A call that finds its share gone to quicker ones is not refused where more is at hand."""
    clock = Clock()
    one = Limiter(Limits(requests_per_minute=60), clock, share_seconds=LONG)
    bucket = one.requests
    assert bucket is not None
    bucket.lease(0.0, clock.now)
    bucket.ready_at = clock.now
    first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    one.share = share = Share(first)
    task = await begun(one, 1)
    first.set_result(None)  # the others have taken what came
    share.answer = second = asyncio.get_running_loop().create_future()
    await until(lambda: share.asked == 2)
    bucket.lease(1.0, clock.now)
    second.set_result(None)
    held(await task)


@pytest.mark.parametrize("wait", [0.0, 4.0])
async def test_nobody_asks_for_ever(wait: float) -> None:
    """Nor again, where the answer says that there is no more for now."""
    clock = Clock()
    one = Limiter(Limits(requests_per_minute=60), clock, share_seconds=LONG)
    assert one.requests is not None
    one.requests.lease(0.0, clock.now)
    one.requests.ready_at = clock.now + wait
    one.share = share = Share(asyncio.get_running_loop().create_future())
    assert share.answer is not None
    share.answer.set_result(None)
    assert isinstance(await one.hold("a", ONE, LONG), NoRoom)
    assert share.asked == (1 if wait else 3)


async def test_who_is_cancelled_while_asking_wants_nothing_more() -> None:
    """And takes nothing."""
    one = Limiter(Limits(tokens_per_minute=600), Clock(), share_seconds=LONG)
    assert one.tokens is not None
    one.tokens.lease(0.0, 1000.0)
    one.share = Share(asyncio.get_running_loop().create_future())
    task = await begun(one, 70)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert (one.calls_asking, one.asked, one.tokens.used) == (0, 0, 0)


async def test_a_fleet_is_told_of_use() -> None:
    """When something is taken, and when it is given back; a refusal is no use."""
    one = Limiter(Limits(requests_per_minute=1), Clock())
    one.share = share = Share(None)
    hold = held(one.take(ONE))
    assert share.changes == 1
    assert await one.hold("a", ONE, LONG) == ("requests", 60.0)
    assert share.changes == 1
    hold.settle(None)
    assert share.changes == 2


async def test_who_gets_a_place_asks_for_the_rest() -> None:
    """A call that queued finds what it would have paid with gone, and asks for it; the place is kept meanwhile."""
    clock = Clock()
    one = Limiter(Limits(concurrent=1, queue=1, queue_seconds=3600, requests_per_minute=60), clock, share_seconds=LONG)
    bucket, slots = one.requests, one.slots
    assert bucket is not None
    assert slots is not None
    bucket.lease(2.0, clock.now)
    bucket.ready_at = clock.now
    one.share = share = Share(None)
    first = held(one.take(ONE))
    task = await begun(one, 1)
    assert (slots.waiting, share.asked) == (1, 1)
    bucket.lease(0.0, clock.now)
    share.answer = more = asyncio.get_running_loop().create_future()
    first.settle(None)
    await until(lambda: share.asked == 2)
    assert slots.in_use == 1
    bucket.lease(1.0, clock.now)
    more.set_result(None)
    held(await task).settle(None)
    assert slots.in_use == 0
