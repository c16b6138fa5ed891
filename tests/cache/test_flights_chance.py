"""Flights under hundreds of random schedules: who stays gets everything, and in the end nothing is left."""

import asyncio
import gc
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest

from tests.cache.conftest import StartCached
from tests.cache.crowd import STREAM, WITH_USAGE, Crowd, Person, crowd
from tests.cache.stage import Stage, StagedCall, event
from tests.conftest import Sidecar
from tests.edge.wire import STREAM_HEAD, request
from tests.waiting import until

FORMS: tuple[dict[str, Any], ...] = (STREAM, STREAM, WITH_USAGE, {})
USAGE = b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[],"usage":{%b}}\n\n'
FINISH = event("", delta={}, finish_reason="stop")
TOKENS = USAGE % b'"prompt_tokens":2,"completion_tokens":5,"total_tokens":7'
DONE = b"data: [DONE]\n\n"
PARTS = (event("", delta={"role": "assistant"}), *(event(f"{each} ") for each in "abcde"))
CHUNKED_HEAD = STREAM_HEAD.replace(b"connection: close", b"transfer-encoding: chunked\r\nconnection: close")


def chunk(data: bytes) -> bytes:
    """A chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


@dataclass
class Scene:
    """One schedule: what is said upstream, who has come, and who has gone."""

    stage: Stage
    people: Crowd
    random: Random
    model: str
    came: list[tuple[Person, dict[str, Any]]] = field(default_factory=list)
    gone: int = 0
    said: dict[StagedCall, int] = field(default_factory=dict)

    async def come(self, *headers: str) -> None:
        fields = STREAM if not self.came else self.random.choice(FORMS)
        version = self.random.choice(("1.0", "1.1", "1.1")) if fields else "1.1"
        data = request(*headers, version=version, model=self.model, **fields)
        self.came.append((await self.people.call(data), fields))

    async def go(self) -> None:
        if self.came:
            person, _ = self.came.pop(self.random.randrange(len(self.came)))
            person.hang_up(reset=self.random.random() < 0.5)
            self.gone += 1

    async def speak(self) -> None:
        """Every upstream call that is open says one thing more."""
        for call in self.stage.calls:
            if call.left.is_set() or call.body["model"] != self.model:
                continue
            place = self.said.get(call, 0)
            parts = [CHUNKED_HEAD, *map(chunk, PARTS), chunk(FINISH + TOKENS + DONE) + chunk(b"")]
            if place < len(parts):
                call.say(parts[place])
                self.said[call] = place + 1

    async def turn(self) -> None:
        for _ in range(self.random.randrange(6)):
            await asyncio.sleep(0)


WANTED = {
    "events": b"".join(PARTS) + FINISH + DONE,
    "events_usage": b"".join(PARTS) + FINISH + TOKENS + DONE,
}


async def play(scene: Scene) -> list[asyncio.Task[Any]]:
    """Random acts, and in the end everything is said; those who have stayed listen."""
    await scene.come()
    for _ in range(scene.random.randrange(4, 30)):
        act = scene.random.choice((scene.come, scene.come, scene.go, scene.speak, scene.speak, scene.turn, scene.turn))
        await act()
    staying = [asyncio.create_task(person.hear()) for person, _ in scene.came]
    while not all(task.done() for task in staying):
        await scene.speak()
        await asyncio.sleep(0)
    return staying


def at_rest(sidecar: Sidecar) -> bool:
    return not sidecar.app.upstreams.starts and sidecar.app._data.answering == 0


@pytest.mark.parametrize("seed", range(12))
async def test_random_schedules(on_stage: StartCached, stage: Stage, seed: int) -> None:
    """Twenty-five of each seed: whole transcripts, one line per call, tokens counted once per call upstream."""
    sidecar, random = await on_stage(), Random(seed)
    lines = 0
    async with crowd(sidecar) as people:
        for number in range(25):
            scene = Scene(stage, people, random, f"m{number}")
            for task, (_, fields) in zip(await play(scene), scene.came, strict=True):
                heard = task.result()
                assert heard.head.status == 200, (seed, number, heard)
                if fields:
                    form = "events_usage" if fields is WITH_USAGE else "events"
                    assert heard.body == WANTED[form], (seed, number, heard.head)
                else:
                    assert b'"content":"a b c d e "' in heard.body, (seed, number)
            await until(lambda: at_rest(sidecar))
            lines += scene.gone + len(scene.came)
            for call in stage.calls:
                call.hang_up()
    told = await sidecar.lines.wait_for(1)
    assert len(told) <= lines, "those who went before they were heard have none"
    answered = sum(line["usage_source"] == "provider" for line in told)
    assert await sidecar.metric("octet_tokens_total", direction="completion", upstream="openai") == 5 * answered
    assert {line["outcome"] for line in told} <= {"ok", "hangup"}
    assert {line["cache"] for line in told} <= {"miss", "joined", "memory", "bypass"}
    assert all(line["usage_source"] is None for line in told if line["cache"] in ("joined", "memory"))
    assert sidecar.app._telemetry.watched.open_streams == 0


async def test_no_timer_is_left(on_stage: StartCached, stage: Stage) -> None:
    """When all have gone, nothing of their flights waits in the loop."""
    sidecar, random = await on_stage({"ttl_seconds": 0}), Random(5)
    loop: Any = asyncio.get_running_loop()
    async with crowd(sidecar) as people:
        for number in range(20):
            scene = Scene(stage, people, random, f"m{number}")
            for _ in range(4):
                await scene.come("x-octet-timeout: 3000")
            await stage.call(number)
            while scene.came:
                await scene.go()
                await scene.turn()
            await until(lambda: at_rest(sidecar))
    gc.collect()
    left = [timer for timer in loop._scheduled if not timer.cancelled() and "proxy.cache" in repr(timer)]
    assert not left
