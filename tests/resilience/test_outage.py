"""An upstream fails, dies and comes back: callers see none of it, and the circuit keeps calls away meanwhile."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from proxy.resilience.circuit import Circuit, HalfOpened
from proxy.simulator import Behaviour, Simulator
from tests.clock import Clock
from tests.conftest import Sidecar, Start
from tests.edge.wire import call, connect, request, whole
from tests.waiting import until

OPEN_SECONDS, TRIALS, OPENING = 30.0, 3, 5  # the defaults; so many failures open a circuit whose window was all good
A, B = {"upstream": "openai", "model": "gpt-4o-mini"}, {"upstream": "anthropic", "model": "claude-haiku-4-5"}
PAIR = [{"name": "pair", "match": {"model": "*"}, "targets": [A, B]}]
ALONE = [{"name": "alone", "match": {"model": "*"}, "targets": [A], "retry": {"attempts": 1}}]
DEAD = Behaviour(status=503)
LONG = "one two three four five six seven eight nine ten"
FAILURES = [
    DEAD,
    Behaviour(status=500),
    Behaviour(cut="before_headers"),
    Behaviour(garbage="html"),
    Behaviour(cut="before_first_token"),
    Behaviour(error_after=0),
]
COUNTS = {"closed": 0.0, "half_open": 1.0, "open": 2.0}


async def begin(start: Start, routes: list[dict[str, Any]] = PAIR, **openai: Any) -> tuple[Sidecar, Circuit, Clock]:
    """A sidecar whose circuit of A is as by default, and goes by a clock that is turned by hand."""
    policy = {"window": 10, "minimum_calls": 5}
    sidecar = await start(upstreams={"openai": {"circuit": policy, **openai}}, routes=routes)
    (circuit,) = sidecar.app.upstreams.now.circuits.by_upstream["openai"]
    clock = Clock()
    circuit.clock = clock
    return sidecar, circuit, clock


async def ask(sidecar: Sidecar, **fields: Any) -> tuple[int, str]:
    """Status, and which upstream gave it, of one call."""
    head, _ = await call(sidecar, request(**fields))
    return head.status, "".join(head.all("x-octet-upstream"))


async def serve(sidecar: Sidecar, count: int, chance: random.Random) -> None:
    """So many calls one after the other, JSON and streams: each has a whole answer."""
    for _ in range(count):
        stream = chance.random() < 0.5
        head, body = await call(sidecar, request(stream=stream))
        assert head.status == 200, body
        assert b'"error"' not in body
        assert body.endswith(b"data: [DONE]\n\n") if stream else b'"finish_reason":"stop"' in body


async def told(sidecar: Sidecar) -> tuple[float, dict[str, float]]:
    """The state of A's circuit, and how often each state was entered, as the metrics tell."""
    entered = {
        state: await sidecar.metric("octet_circuit_transitions_total", upstream="openai", state=state)
        for state in COUNTS
    }
    return await sidecar.metric("octet_circuit_state", upstream="openai"), entered


async def test_a_day_of_outages(start: Start, simulator: Simulator) -> None:
    """A fails six times of ten, dies for hours and comes back: all calls are answered, and A is let be when dead."""
    sidecar, circuit, clock = await begin(start)
    chance, seen = random.Random(11), simulator.report.dialects["openai"]
    await serve(sidecar, 15, chance)
    assert seen.calls == 15

    simulator.script(
        "openai", *(chance.choice(FAILURES) if chance.random() < 0.6 else Behaviour() for _ in range(2000))
    )
    for _ in range(60):
        await serve(sidecar, 20, chance)
        clock.now += OPEN_SECONDS
    assert await sidecar.metric("octet_circuit_transitions_total", upstream="openai", state="open") > 1
    simulator.clear()
    await serve(sidecar, 20, chance)  # trials succeed, and the window is full of good calls
    assert circuit.is_closed
    opened = await sidecar.metric("octet_circuit_transitions_total", upstream="openai", state="open")

    simulator.always("openai", DEAD)
    before, periods = seen.calls, 20
    await serve(sidecar, 20, chance)
    assert seen.calls - before == OPENING
    for _ in range(periods):
        clock.now += OPEN_SECONDS
        await serve(sidecar, 37, chance)
    assert OPENING + periods <= seen.calls - before <= OPENING + periods * TRIALS
    again = await sidecar.metric("octet_circuit_transitions_total", upstream="openai", state="open")
    assert again - opened == 1 + periods

    simulator.clear()
    before = seen.calls
    await serve(sidecar, 5, chance)
    assert seen.calls == before  # not before its time
    clock.now += OPEN_SECONDS
    await serve(sidecar, 20, chance)
    assert seen.calls - before == 20
    assert (await sidecar.metric("octet_circuit_state", upstream="openai"), circuit.is_closed) == (0, True)
    assert len(sidecar.lines.kept) >= 2000
    assert {line["outcome"] for line in sidecar.lines.kept} == {"ok"}


async def test_many_at_once_while_it_is_dead(start: Start, simulator: Simulator) -> None:
    """Each open period lets no more than the trial calls through, however many callers come at once."""
    sidecar, _, clock = await begin(start)
    simulator.always("openai", DEAD)
    await serve(sidecar, OPENING, random.Random(1))
    seen = simulator.report.dialects["openai"]
    assert seen.calls == OPENING
    for period in range(1, 6):
        clock.now += OPEN_SECONDS
        answers = await asyncio.gather(*(call(sidecar, request()) for _ in range(20)))
        assert {head.status for head, _ in answers} == {200}
        assert period <= seen.calls - OPENING <= period * TRIALS


async def test_the_metrics_follow_the_circuit(start: Start, simulator: Simulator) -> None:
    """State and transitions go from closed to open, half-open, open again, half-open and closed, each counted once."""
    sidecar, _, clock = await begin(start)
    assert await told(sidecar) == (0, {"closed": 0, "half_open": 0, "open": 0})
    simulator.always("openai", Behaviour(status=503))
    for _ in range(OPENING):
        await ask(sidecar)
    assert await told(sidecar) == (2, {"closed": 0, "half_open": 0, "open": 1})
    clock.now += OPEN_SECONDS
    await ask(sidecar)
    assert await told(sidecar) == (2, {"closed": 0, "half_open": 1, "open": 2})
    clock.now += OPEN_SECONDS
    simulator.clear()
    for _ in range(TRIALS - 1):
        await ask(sidecar)
        assert await told(sidecar) == (1, {"closed": 0, "half_open": 2, "open": 2})
    await ask(sidecar)
    assert await told(sidecar) == (0, {"closed": 1, "half_open": 2, "open": 2})


class Gate:
    """An upstream that keeps every answer back until it is opened."""

    def __init__(self) -> None:
        self.asked, self.opened, self.url = 0, asyncio.Event(), ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.asked += 1
        await self.opened.wait()
        writer.write(whole(4).replace(b"\r\n", b"\r\nconnection: close\r\n", 1))
        writer.close()


@asynccontextmanager
async def gate() -> AsyncIterator[Gate]:
    made = Gate()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    yield made
    server.close()


async def test_fifty_calls_at_half_open(start: Start, simulator: Simulator) -> None:
    """Of 50 calls at once exactly three reach A; the 47 others are answered by B while A still thinks."""
    async with gate() as held:
        sidecar, circuit, clock = await begin(start, base_url=held.url)
        circuit.open()
        clock.now += OPEN_SECONDS
        calls = [asyncio.create_task(call(sidecar, request())) for _ in range(50)]
        await simulator.report.wait_for(lambda report: report.completed == 47)
        await until(lambda: held.asked >= TRIALS)  # connections take a thread, to learn where a name leads
        assert held.asked == TRIALS
        assert isinstance(circuit.current, HalfOpened)
        assert await sidecar.metric("octet_circuit_state", upstream="openai") == 1
        held.opened.set()
        heads = [head for head, _ in await asyncio.gather(*calls)]
    assert {head.status for head in heads} == {200}
    assert sorted(head["x-octet-upstream"] for head in heads) == ["anthropic"] * 47 + ["openai"] * 3
    assert {head["x-octet-attempts"] for head in heads} == {"1"}  # a circuit that is full is no attempt
    assert circuit.is_closed


async def test_trials_that_hang_up(start: Start, simulator: Simulator) -> None:
    """A trial call whose caller leaves tells nothing, and its place goes to the next call, over and over."""
    sidecar, circuit, clock = await begin(start)
    circuit.open()
    clock.now += OPEN_SECONDS
    simulator.always("openai", Behaviour(stall="before_headers"))
    for turn in range(1, 5):
        writers = [(await connect(sidecar))[1] for _ in range(TRIALS)]
        for writer in writers:
            writer.write(request(stream=turn % 2 == 0))
        await simulator.report.wait_for(lambda report: report.dialects["openai"].open_calls == TRIALS)
        assert await ask(sidecar) == (200, "anthropic")
        for writer in writers:
            writer.transport.abort()
        await sidecar.lines.wait_for(turn * (TRIALS + 1))
    assert isinstance(circuit.current, HalfOpened)
    simulator.clear()
    for _ in range(TRIALS):
        assert await ask(sidecar) == (200, "openai")
    assert circuit.is_closed


@pytest.mark.parametrize("stream", [False, True])
async def test_nobody_else_is_left(start: Start, simulator: Simulator, stream: bool) -> None:
    """Where A is the only target its open circuit gives 503 circuit_open and when to come again; A is not called."""
    sidecar, circuit, clock = await begin(start, ALONE)
    circuit.open()
    for passed in (0, 10):
        clock.now += passed
        head, body = await call(sidecar, request(stream=stream))
        assert head.status == 503
        assert json.loads(body)["error"]["code"] == "circuit_open"
        assert head["retry-after"] == str(30 - passed)
        assert head["retry-after-ms"] == str((30 - passed) * 1000)
        assert "x-octet-attempts" not in head
    assert simulator.report.calls == 0
    clock.now += 20
    assert await ask(sidecar, stream=stream) == (200, "openai")
