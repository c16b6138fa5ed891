"""A caller's limits are held while its call lasts, and settled with what the call's record says."""

import asyncio
import contextlib
from typing import Any

import pytest

from proxy.call import Call, Caller, Facts
from proxy.config import Limits
from proxy.errors import LimitReached, TooSlow
from proxy.limits.callers import CallerLimits
from proxy.limits.limiter import Limiter
from proxy.openai_format.estimate import Estimate
from proxy.telemetry import CallRecord, Telemetry
from tests.clock import Clock

NEVER = float("inf")
RULES: dict[str, Any] = {"concurrent": 1, "requests_per_minute": 60, "tokens_per_minute": 6000, "queue_seconds": 3600}


class Scene:
    """One caller, `search`, with limits."""

    def __init__(self, **rules: Any) -> None:
        self.telemetry = Telemetry(id)
        self.limiter = Limiter(Limits(**(RULES | rules)), Clock())
        self.limits = CallerLimits({"search": self.limiter}, self.telemetry)

    def room(self, record: CallRecord, *, caller: str | None = "search", until: float = NEVER) -> Any:
        call = Call("id", 0.0, b"x" * 400, {}, "any", False, False, Caller(caller))
        return self.limits.room(call.caller, record, until, Estimate(call))

    @property
    def left(self) -> tuple[int, float, float]:
        """Places, requests and tokens."""
        limiter = self.limiter
        assert limiter.slots is not None
        assert limiter.requests is not None
        assert limiter.tokens is not None
        return limiter.slots.limit - limiter.slots.in_use, limiter.requests.level, limiter.tokens.level

    def metric(self, name: str, **labels: str) -> float:
        return self.telemetry.registry.get_sample_value(name, {"scope": "caller", "name": "search"} | labels) or 0.0


ESTIMATE = 100 + 256
FULL = (1, 60.0, 6000.0)


def record(**fields: Any) -> CallRecord:
    return CallRecord("id", 0.0, **fields)


@pytest.mark.parametrize("caller", [None, "other", ""])
async def test_callers_without_limits_are_not_bothered(caller: str | None) -> None:
    """Who has none, and who is nobody."""
    scene = Scene()
    assert scene.room(record(), caller=caller) is None
    nobody = CallerLimits({}, scene.telemetry)
    call = Call("id", 0.0, b"", {}, "any", False, False)
    assert nobody.room(call.caller, record(), NEVER, Estimate(call)) is None
    assert scene.left == FULL


async def test_room_is_held_while_the_call_lasts() -> None:
    """A place, a request and the estimate; without having waited nothing is said of a queue."""
    scene, told = Scene(), record()
    async with scene.room(told):
        assert scene.left == (0, 59.0, 6000.0 - ESTIMATE)
    assert scene.left[0] == 1
    assert (told.phase, told.waited_seconds) == ("admission", 0.0)
    assert scene.metric("octet_queue_seconds_count") == 0


@pytest.mark.parametrize(
    ("fields", "left"),
    [
        ({}, FULL),  # nothing was sent
        ({"attempts": 2}, (1, 59.0, 6000.0)),  # nothing came back
        ({"attempts": 1, "first_token": 1.0}, (1, 59.0, 6000.0 - ESTIMATE)),  # nobody said what it used
        ({"attempts": 1, "first_token": 1.0, "facts": Facts(usage={"total_tokens": 40})}, (1, 59.0, 5960.0)),
        ({"attempts": 1, "first_token": 1.0, "facts": Facts(usage={"total_tokens": 7000})}, (1, 59.0, -1000.0)),
        (
            {"attempts": 1, "first_token": 1.0, "facts": Facts(usage={"total_tokens": "9"})},
            (1, 59.0, 6000.0 - ESTIMATE),
        ),
    ],
    ids=str,
)
@pytest.mark.parametrize("end", [None, ValueError, asyncio.CancelledError])
async def test_a_call_is_settled_by_its_record(
    fields: dict[str, Any], left: tuple[int, float, float], end: type[BaseException] | None
) -> None:
    """However it ended: what it used, or nothing where nothing was answered, or the estimate."""
    scene, told = Scene(), record()
    with contextlib.suppress(ValueError, asyncio.CancelledError):
        async with scene.room(told):
            for name, value in fields.items():
                setattr(told, name, value)
            if end is not None:
                raise end
    assert scene.left == left


@pytest.mark.parametrize(
    ("rules", "limit", "wait"),
    [
        ({"concurrent": 5, "requests_per_minute": 1}, "requests", 60.0),
        ({"concurrent": 5, "tokens_per_minute": 400}, "tokens", 46.8),
        ({"queue": 0}, "concurrent", 1.0),
        ({"queue_seconds": 0}, "concurrent", 1.0),
    ],
    ids=str,
)
async def test_a_limit_is_reached(rules: dict[str, int], limit: str, wait: float) -> None:
    """429 with the limit's name and when to come again, which is a guess where nobody can tell; it is counted."""
    scene = Scene(**rules)
    async with scene.room(record()):
        before = scene.left
        with pytest.raises(LimitReached) as caught:
            async with scene.room(record()):
                raise AssertionError("there is no room")
        assert scene.left == before
    error = caught.value
    assert (error.status, error.limit) == (429, limit)
    assert error.retry_after == pytest.approx(wait)
    assert f"limits.{limit}" in error.message
    assert scene.metric("octet_limited_total", limit=limit) == 1
    assert scene.metric("octet_queue_seconds_count") == 1


async def test_a_call_whose_time_is_over_does_not_wait() -> None:
    """Its own bound is shorter than the queue's patience, and that is what it is told."""
    scene = Scene()
    async with scene.room(record()):
        before = scene.left
        with pytest.raises(TooSlow) as caught:
            await scene.room(record(), until=asyncio.get_running_loop().time() - 1).__aenter__()
        assert scene.left == before
    assert caught.value.reason == "TooSlow.deadline"
    assert scene.metric("octet_limited_total", limit="concurrent") == 1


async def wait_for_room(scene: Scene, told: CallRecord) -> None:
    async with scene.room(told):
        told.attempts = 1


async def begun(scene: Scene, told: CallRecord) -> "asyncio.Task[None]":
    task = asyncio.create_task(wait_for_room(scene, told))
    for _ in range(3):
        await asyncio.sleep(0)
    return task


async def test_a_call_waits_in_the_queue() -> None:
    """Its phase says so, and the wait is counted."""
    scene, told = Scene(), record()
    async with scene.room(record()):
        task = await begun(scene, told)
        assert told.phase == "queue"
        assert scene.limiter.slots is not None
        assert scene.limiter.slots.waiting == 1
    await task
    assert told.waited_seconds > 0
    assert scene.metric("octet_queue_seconds_count") == 1
    assert scene.metric("octet_limited_total", limit="concurrent") == 1
    assert scene.left == (1, 59.0, 6000.0)


async def test_who_hangs_up_in_the_queue_is_not_charged() -> None:
    """And stands there no longer."""
    scene, told = Scene(), record()
    async with scene.room(record()):
        task = await begun(scene, told)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert scene.limiter.slots is not None
        assert scene.limiter.slots.waiting == 0
    assert scene.left == FULL
    assert scene.metric("octet_queue_seconds_count") == 1
