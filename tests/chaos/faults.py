"""Every fault there is: applied, held, lifted."""

import asyncio
import random
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from email.utils import formatdate
from typing import Any, NamedTuple

from tests.chaos.nouns import Window
from tests.chaos.settings import BROKEN, DIALECTS, ECHOES
from tests.chaos.stage import Stage

Act = Callable[[Stage, random.Random], AbstractAsyncContextManager[None]]
SIMULATED = tuple(DIALECTS)
CLOCK_SECONDS = 86_400.0  # that an upstream's clock is wrong by


class Fault(NamedTuple):
    """One fault: entering `act` applies it, leaving lifts it."""

    lane: str
    name: str
    targets: tuple[str, ...]
    act: Act


FAULTS: list[Fault] = []


def fault(
    lane: str, name: str, *targets: str
) -> Callable[[Callable[[Stage, random.Random], AsyncIterator[None]]], Act]:
    """Add what follows to the faults."""

    def added(function: Callable[[Stage, random.Random], AsyncIterator[None]]) -> Act:
        act = asynccontextmanager(function)
        FAULTS.append(Fault(lane, name, targets, act))
        return act

    return added


@asynccontextmanager
async def applied(stage: Stage, each: Fault, chance: random.Random) -> AsyncIterator[Window]:
    """The fault is in force, and written down with its times."""
    window = Window(each.lane, each.name, each.targets, time.time())
    stage.windows.append(window)
    async with each.act(stage, chance):
        yield window
    window.ended = time.time()


# Upstreams.


@fault("upstream", "echo-a is killed", "echo-a")
async def _(stage: Stage, chance: random.Random) -> AsyncIterator[None]:
    await stage.echoes["echo-a"].kill()
    yield
    await stage.echoes["echo-a"].start()


@fault("upstream", "both echoes are killed", *ECHOES)
async def _(stage: Stage, chance: random.Random) -> AsyncIterator[None]:
    await asyncio.gather(*(echo.kill() for echo in stage.echoes.values()))
    yield
    await asyncio.gather(*(echo.start() for echo in stage.echoes.values()))


@fault("upstream", "the simulator is killed", *SIMULATED)
async def _(stage: Stage, chance: random.Random) -> AsyncIterator[None]:
    await stage.simulator.kill()
    yield
    await stage.simulator.start()


@fault("upstream", "echo-b is frozen", "echo-b")
async def _(stage: Stage, chance: random.Random) -> AsyncIterator[None]:
    stage.echoes["echo-b"].signal(signal.SIGSTOP)
    yield
    stage.echoes["echo-b"].signal(signal.SIGCONT)


@fault("upstream", "the simulator is frozen", *SIMULATED)
async def _(stage: Stage, chance: random.Random) -> AsyncIterator[None]:
    stage.simulator.signal(signal.SIGSTOP)
    yield
    stage.simulator.signal(signal.SIGCONT)


@asynccontextmanager
async def _disturbed(stage: Stage, upstreams: tuple[str, ...], **behaviour: Any) -> AsyncIterator[None]:
    for name in upstreams:
        await stage.disturb(name, **behaviour)
    yield
    for name in upstreams:
        await stage.disturb(name)


def _disturbs(name: str, upstreams: tuple[str, ...], *, harms: bool = True, **behaviour: Any) -> None:
    """A fault of these upstreams; `harms`: calls may fail of it."""

    def act(stage: Stage, chance: random.Random) -> AbstractAsyncContextManager[None]:
        made = {key: value() if callable(value) else value for key, value in behaviour.items()}
        return _disturbed(stage, upstreams, **made)

    FAULTS.append(Fault("upstream", name, upstreams if harms else (), act))


def _dated(seconds: float) -> dict[str, str]:
    """Headers of an upstream whose clock is wrong by so much."""
    now = time.time() + seconds
    return {"date": formatdate(now, usegmt=True), "retry-after": formatdate(now + 1, usegmt=True)}


_disturbs("echo-a answers 503", ("echo-a",), kind="status", status=503, share=0.7)
_disturbs("both echoes answer 500", ECHOES, kind="status", status=500, share=0.8)
_disturbs("echo-a throttles", ("echo-a",), kind="status", status=429, headers={"retry-after": "2"})
_disturbs("echo-b throttles, its clock a day late", ("echo-b",), kind="status", status=429, share=0.5,
          headers=lambda: _dated(-CLOCK_SECONDS))  # fmt: skip
_disturbs("echo-a throttles, its clock a day early", ("echo-a",), kind="status", status=429, share=0.5,
          headers=lambda: _dated(CLOCK_SECONDS))  # fmt: skip
_disturbs("the clocks of the echoes are a year off", ECHOES, harms=False, skew=-365 * CLOCK_SECONDS,
          headers=lambda: {"date": formatdate(time.time() - 365 * CLOCK_SECONDS, usegmt=True)})  # fmt: skip
_disturbs("echo-a stalls before its answer", ("echo-a",), kind="stall", share=0.5)
_disturbs("both echoes stall in their streams", ECHOES, kind="stall", after=3, share=0.4)
_disturbs("both echoes cut their streams", ECHOES, kind="cut", after=2, share=0.4)
_disturbs("echo-a breaks off at once", ("echo-a",), kind="cut", share=0.7)
_disturbs("both echoes end their streams early", ECHOES, kind="short", after=2, share=0.4)
_disturbs("both echoes send error events", ECHOES, kind="error", after=2, share=0.4)
_disturbs("both echoes send frames that are no JSON", ECHOES, kind="frames", after=1, share=0.4)
_disturbs("echo-b sends HTML", ("echo-b",), kind="garbage", share=0.7)
_disturbs("claude answers 529", ("sim-anthropic",), status=529)
_disturbs("llama throttles", ("sim-vllm",), status=429, retry_after=1)
_disturbs("all dialects cut their streams", SIMULATED, cut=3)
_disturbs("all dialects send error events", SIMULATED, error_after=2)
_disturbs("all dialects stall", SIMULATED, stall=1)
_disturbs("claude and llama send HTML", ("sim-anthropic", "sim-vllm"), garbage="html")
_disturbs("claude and llama stall before their answer", ("sim-anthropic", "sim-vllm"), stall="before_headers")


@fault("upstream", "the wire resets connections", "echo-a")
async def _(stage: Stage, chance: random.Random) -> AsyncIterator[None]:
    stage.wire.break_with("reset", chance.choice((0, 10, 200, 700, 1500)))
    yield
    stage.wire.break_with("")


@fault("upstream", "the wire is a hole", "echo-a")
async def _(stage: Stage, chance: random.Random) -> AsyncIterator[None]:
    stage.wire.break_with("hole")
    yield
    stage.wire.break_with("")


@fault("upstream", "the wire drips", "wire")  # which harms nobody
async def _(stage: Stage, chance: random.Random) -> AsyncIterator[None]:
    stage.wire.break_with("drip")
    yield
    stage.wire.break_with("")


# Redis, and the configuration.


@fault("redis", "Redis is killed", "redis")
async def _(stage: Stage, chance: random.Random) -> AsyncIterator[None]:
    await stage.redis.kill()
    yield
    await stage.redis.start()


@fault("redis", "Redis is frozen", "redis")
async def _(stage: Stage, chance: random.Random) -> AsyncIterator[None]:
    stage.redis.freeze()
    yield
    stage.redis.thaw()


@fault("redis", "Redis is flushed", "redis")
async def _(stage: Stage, chance: random.Random) -> AsyncIterator[None]:
    await stage.redis.tell("FLUSHALL")
    yield
    await stage.redis.tell("SCRIPT FLUSH")


@fault("redis", "Redis has no memory", "redis")
async def _(stage: Stage, chance: random.Random) -> AsyncIterator[None]:
    await stage.redis.tell("CONFIG SET", "maxmemory", "1")
    yield
    await stage.redis.tell("CONFIG SET", "maxmemory", "0")


@fault("redis", "Redis drops its clients", "redis")
async def _(stage: Stage, chance: random.Random) -> AsyncIterator[None]:
    for _each in range(3):
        await stage.redis.tell("CLIENT KILL", "TYPE", "normal", "SKIPME", "yes")
    yield


@fault("config", "the configuration is edited", "config")
async def _(stage: Stage, chance: random.Random) -> AsyncIterator[None]:
    stage.edits += 1
    stage.edit = stage.edits
    stage.write(stage.text())
    yield


@fault("config", "the configuration is spoilt, and mended", "config")
async def _(stage: Stage, chance: random.Random) -> AsyncIterator[None]:
    async with stage.good_file:
        stage.write(BROKEN[chance.choice(sorted(BROKEN))](stage.text()))
        yield
        stage.write(stage.text())


# Sidecars; the first one lives through it all.


@fault("sidecar", "sidecar-1 is killed", "sidecar-1")
async def _(stage: Stage, chance: random.Random) -> AsyncIterator[None]:
    await stage.sidecars[1].kill()
    yield
    async with stage.good_file:
        await stage.sidecars[1].start()


@fault("sidecar", "sidecar-2 is stopped, and drains", "sidecar-2")
async def _(stage: Stage, chance: random.Random) -> AsyncIterator[None]:
    await stage.sidecars[2].drain()
    yield
    async with stage.good_file:
        await stage.sidecars[2].start()
