"""A limiter takes everything at once or nothing, and nobody is charged for waiting in vain."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from proxy.call import NoRoom
from proxy.config import Limits
from proxy.limits.bucket import SOON
from proxy.limits.limiter import Held, Limiter
from tests.clock import Clock

NEVER = float("inf")
LONG = 1e6


def tokens(amount: int) -> Callable[[], int]:
    return lambda: amount


ONE = tokens(1)


def limiter(clock: Clock | None = None, **rules: Any) -> Limiter:
    return Limiter(Limits(**rules), clock or Clock())


def held(taken: Held | NoRoom) -> Held:
    assert isinstance(taken, Held)
    return taken


def left(one: Limiter, clock: Clock) -> dict[str, float]:
    """What is left of every limit."""
    found: dict[str, float] = {}
    if one.slots is not None:
        found["concurrent"] = one.slots.limit - one.slots.in_use
    for name, bucket in (("requests", one.requests), ("tokens", one.tokens)):
        if bucket is not None:
            found[name] = bucket.now(clock())
    return found


ALL = {"concurrent": 2, "requests_per_minute": 60, "tokens_per_minute": 600}
FULL = {"concurrent": 2, "requests": 60, "tokens": 600}


def test_room_is_taken_of_every_limit() -> None:
    """A place, a request, and the tokens of the estimate."""
    clock = Clock()
    one = limiter(clock, **ALL)
    assert one.refusal(tokens(100)) is None
    assert left(one, clock) == FULL
    assert held(one.take(tokens(100))).reserved == 100
    assert left(one, clock) == {"concurrent": 1, "requests": 59, "tokens": 500}


@pytest.mark.parametrize(
    ("used", "tokens_left"), [(40, 560), (100, 500), (0, 600), (None, 500), (550, 50), (900, -300)], ids=str
)
def test_a_call_is_settled_with_what_it_used(used: int | None, tokens_left: float) -> None:
    """The rest of the estimate comes back, or a debt is made; if nobody knows, the estimate stands."""
    clock = Clock()
    one = limiter(clock, **ALL)
    hold = held(one.take(tokens(100)))
    hold.settle(used)
    assert left(one, clock) == {"concurrent": 2, "requests": 59, "tokens": tokens_left}


def test_a_call_that_was_not_sent_has_used_nothing() -> None:
    """Not even a request."""
    clock = Clock()
    one = limiter(clock, **ALL)
    held(one.take(tokens(100))).cancel()
    assert left(one, clock) == FULL


@pytest.mark.parametrize("first", [lambda hold: hold.settle(0), lambda hold: hold.cancel()], ids=["settle", "cancel"])
def test_room_is_given_back_once(first: Callable[[Held], None]) -> None:
    """Whatever is said later."""
    clock = Clock()
    one = limiter(clock, **ALL)
    hold, other = held(one.take(tokens(100))), held(one.take(tokens(100)))
    first(hold)
    after = left(one, clock)
    hold.settle(0)
    hold.settle(500)
    hold.cancel()
    assert left(one, clock) == after
    assert other.reserved == 100


@pytest.mark.parametrize(
    ("rules", "limit", "wait"),
    [
        ({"concurrent": 1}, "concurrent", SOON),
        ({"concurrent": 1, "queue": 0}, "concurrent", NEVER),
        ({"requests_per_minute": 1}, "requests", 60.0),
        ({"tokens_per_minute": 100}, "tokens", 60.0),
        ({"requests_per_minute": 1, "tokens_per_minute": 600}, "requests", 60.0),
        ({"requests_per_minute": 60, "tokens_per_minute": 100}, "tokens", 60.0),
        ({"concurrent": 1, "requests_per_minute": 1}, "concurrent", SOON),
    ],
    ids=str,
)
def test_why_there_is_no_room(rules: dict[str, int], limit: str, wait: float) -> None:
    """The limit is named with the time until it is worth asking again; nothing is taken."""
    clock = Clock()
    one = limiter(clock, **rules)
    held(one.take(tokens(100)))
    before = left(one, clock)
    for _ in range(3):
        assert one.refusal(tokens(100)) == (limit, wait)
        assert one.take(tokens(100)) == (limit, wait)
    assert left(one, clock) == before


def test_of_two_waits_the_longer_is_told() -> None:
    """Coming again before that would be in vain."""
    clock = Clock()
    one = limiter(clock, requests_per_minute=1, tokens_per_minute=100)
    held(one.take(tokens(100)))
    clock.now += 30
    assert one.refusal(tokens(60)) == ("requests", 30.0)
    clock.now += 30
    held(one.take(tokens(100)))
    clock.now += 60
    held(one.take(tokens(100))).settle(150)
    assert one.refusal(tokens(100)) == ("tokens", 90.0)


def test_waits_are_honest() -> None:
    """After the wait that was told there is room, and not a moment before."""
    clock = Clock()
    one = limiter(clock, requests_per_minute=60, tokens_per_minute=600)
    held(one.take(tokens(600)))
    refusal = one.take(tokens(40))
    assert refusal == ("tokens", 4.0)
    clock.now += 3.75
    assert one.take(tokens(40)) == ("tokens", 0.25)
    clock.now += 0.25
    held(one.take(tokens(40)))


def test_estimates_are_made_where_tokens_are_limited() -> None:
    """Elsewhere nobody asks for one."""

    def never() -> int:
        raise AssertionError("no limit needs it")

    assert held(limiter(concurrent=5, requests_per_minute=5).take(never)).reserved == 0


async def begun(one: Limiter, amount: int = 1, *, caller: str = "a") -> "asyncio.Task[Held | NoRoom]":
    """A call that has begun to wait for room."""
    task = asyncio.create_task(one.hold(caller, tokens(amount), LONG))
    for _ in range(3):
        await asyncio.sleep(0)
    return task


async def test_a_call_waits_for_a_place() -> None:
    """And is charged when it gets it."""
    clock = Clock()
    one = limiter(clock, **(ALL | {"concurrent": 1, "queue_seconds": 3600}))
    first = held(await one.hold("a", tokens(100), 0))
    task = await begun(one, 50)
    assert left(one, clock) == {"concurrent": 0, "requests": 59, "tokens": 500}
    first.settle(100)
    assert held(await task).reserved == 50
    assert left(one, clock) == {"concurrent": 0, "requests": 58, "tokens": 450}


@pytest.mark.parametrize(("patience", "queue_seconds"), [(0, 3600), (LONG, 0)])
async def test_patience_of_call_and_queue(patience: float, queue_seconds: float) -> None:
    """The shorter one ends the wait; nothing was taken and nobody stands in the queue."""
    clock = Clock()
    one = limiter(clock, **(ALL | {"concurrent": 1, "queue_seconds": queue_seconds}))
    held(one.take(ONE))
    before = left(one, clock)
    assert await one.hold("a", ONE, patience) == ("concurrent", NEVER)
    assert left(one, clock) == before
    assert one.slots is not None
    assert one.slots.waiting == 0


async def test_a_full_queue_refuses_at_once() -> None:
    """Whatever the patience."""
    one = limiter(concurrent=1, queue=1, queue_seconds=3600)
    held(one.take(ONE))
    task = await begun(one)
    assert await one.hold("b", ONE, LONG) == ("concurrent", NEVER)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_nobody_queues_for_a_bucket() -> None:
    """Who has reached a limit per minute hears of it at once, also where a place would have to be waited for."""
    one = limiter(requests_per_minute=1)
    held(one.take(ONE))
    assert await one.hold("a", ONE, LONG) == ("requests", 60.0)
    one = limiter(concurrent=1, requests_per_minute=1, queue_seconds=3600)
    held(one.take(ONE))
    assert await one.hold("a", ONE, LONG) == ("requests", 60.0)


async def test_a_bucket_that_ran_dry_in_the_queue() -> None:
    """The call is refused and its place goes to the next, who can use it."""
    clock = Clock()
    one = limiter(clock, concurrent=1, tokens_per_minute=600, queue_seconds=3600)
    first = held(one.take(tokens(300)))
    big, small = await begun(one, 300), await begun(one, 20, caller="b")
    first.settle(560)
    assert await big == ("tokens", 26.0)
    assert held(await small).reserved == 20
    assert left(one, clock) == {"concurrent": 0, "tokens": 20}


async def test_who_is_cancelled_in_the_queue_is_not_charged() -> None:
    """Neither while waiting nor with the place just given."""
    clock = Clock()
    one = limiter(clock, **(ALL | {"concurrent": 1, "queue_seconds": 3600}))
    first = held(one.take(ONE))
    waiting = await begun(one)
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    given = await begun(one)
    first.cancel()
    given.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await given
    assert left(one, clock) == FULL | {"concurrent": 1}


def test_how_the_limits_stand_can_be_read() -> None:
    """Each that there is, with what is left of it."""
    clock = Clock()
    one = limiter(clock, **ALL)
    held(one.take(tokens(100)))
    assert one.describe() == {
        "concurrent": {"limit": 2, "in_use": 1, "waiting": 0},
        "requests_per_minute": {"limit": 60, "left": 59},
        "tokens_per_minute": {"limit": 600, "left": 500},
    }
    assert limiter(requests_per_minute=5).describe() == {"requests_per_minute": {"limit": 5, "left": 5}}
