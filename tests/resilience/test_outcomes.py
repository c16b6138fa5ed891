"""What a circuit counts: failures of the upstream, and nothing that is its callers' doing."""

from collections.abc import Callable
from typing import Any

import pytest

from proxy.simulator import Behaviour, Report, Simulator
from tests.conftest import Sidecar, Start
from tests.edge.wire import call, connect, request

OPENING = 5  # failures that open a circuit, by default
ROUTES = [
    {
        "name": "alone",
        "match": {"model": "*"},
        "targets": [{"upstream": "openai", "model": "gpt-4o-mini"}],
        "retry": {"attempts": 1},
    }
]
LONG = "one two three four five six seven eight nine ten"


async def begin(start: Start, **openai: Any) -> Sidecar:
    """A sidecar whose circuit is as by default."""
    policy = {"window": 10, "minimum_calls": 5}
    return await start(upstreams={"openai": {"circuit": policy, **openai}}, routes=ROUTES)


async def noted(sidecar: Sidecar) -> tuple[int, int] | str:
    """Calls and failures in the circuit's window, as operators see them; or its state, if it is not closed."""
    async with sidecar.http.get(f"{sidecar.admin_url}/admin/upstreams") as response:
        told = (await response.json())["upstreams"]
    (circuit,) = next(upstream for upstream in told if upstream["name"] == "openai")["circuits"]
    return (circuit["calls"], circuit["failures"]) if circuit["state"] == "closed" else circuit["state"]


async def ask(sidecar: Sidecar, **fields: Any) -> int:
    """The status of one call."""
    return (await call(sidecar, request(**fields)))[0].status


async def transitions(sidecar: Sidecar) -> float:
    return await sidecar.metric("octet_circuit_transitions_total", upstream="openai")


async def slots_in_use(sidecar: Sidecar) -> float:
    async with sidecar.http.get(f"{sidecar.admin_url}/metrics") as response:
        (line,) = [each for each in (await response.text()).splitlines() if each.startswith("octet_slots_in_use{")]
    return float(line.rpartition(" ")[2])


BATCH = 42
PHASES: list[tuple[Behaviour, Callable[[Report], bool]]] = [
    (Behaviour(stall="before_headers"), lambda report: report.open_calls == BATCH),
    (Behaviour(stall="before_first_token"), lambda report: report.open_calls == BATCH),
    (Behaviour(text=LONG, stall=3), lambda report: report.frames >= 3 * BATCH),
]


async def test_five_hundred_hang_ups(start: Start, simulator: Simulator) -> None:
    """Callers that leave, 500 in a row and in every phase, leave the circuit closed and hold no place afterwards."""
    sidecar = await begin(start, limits={"concurrent": 50})
    left = 0
    for behaviour, reached in PHASES * 4:
        simulator.always("openai", behaviour)
        simulator.report.reset()
        opened = [await connect(sidecar) for _ in range(BATCH)]
        for _, writer in opened:
            writer.write(request(stream=behaviour.stall != "before_headers"))
        await simulator.report.wait_for(reached)
        for reader, writer in opened:
            if behaviour.text is not None:
                await reader.readuntil(b"data: ")
            writer.transport.abort()
        left += BATCH
        await sidecar.lines.wait_for(left)
    assert left > 500
    assert {line["outcome"] for line in sidecar.lines.kept} == {"hangup"}
    assert await noted(sidecar) == (10, 0)  # streams that had content were good ones
    assert (await sidecar.metric("octet_circuit_state", upstream="openai"), await transitions(sidecar)) == (0, 0)
    assert await slots_in_use(sidecar) == 0
    simulator.clear()
    assert await ask(sidecar) == 200


JUDGED = [
    (Behaviour(status=400), False),
    (Behaviour(status=422), False),
    (Behaviour(error="context_length_exceeded"), False),
    (Behaviour(error="model_not_found"), False),
    (Behaviour(status=403), False),
    (Behaviour(status=429, retry_after=0), False),
    (Behaviour(status=401), True),
    (Behaviour(status=402), True),
    (Behaviour(error="insufficient_quota"), True),
    (Behaviour(status=408), True),
    (Behaviour(status=503), True),
    (Behaviour(cut="before_headers"), True),
    (Behaviour(garbage="html"), True),
]


@pytest.mark.parametrize(("behaviour", "counts"), JUDGED, ids=lambda value: str(value)[:50])
async def test_what_counts(start: Start, simulator: Simulator, behaviour: Behaviour, counts: bool) -> None:
    """What is the caller's fault, a missing permission or a rate limit opens nothing; a refused key and failures do."""
    sidecar = await begin(start)
    simulator.always("openai", behaviour)
    for _ in range(12):
        assert await ask(sidecar) >= 400
    assert (await sidecar.metric("octet_circuit_state", upstream="openai") == 2) == counts
    assert simulator.report.calls == (OPENING if counts else 12)


@pytest.mark.parametrize(
    "behaviour",
    [Behaviour(text=LONG, cut=3), Behaviour(text=LONG, error_after=3), Behaviour(text=LONG, cut=3, clean_cut=True)],
    ids=["reset", "error event", "end without an end"],
)
async def test_streams_that_break_after_content(start: Start, simulator: Simulator, behaviour: Behaviour) -> None:
    """A stream that breaks after its first content was no success: five in a row open the circuit."""
    sidecar = await begin(start)
    simulator.always("openai", behaviour)
    seen = []
    for _ in range(OPENING):
        _, body = await call(sidecar, request(stream=True))
        assert b'"error"' in body
        seen.append(await noted(sidecar))
    assert seen == [(1, 1), (2, 2), (3, 3), (4, 4), "open"]
    assert await ask(sidecar, stream=True) == 503
    assert simulator.report.calls == OPENING


async def test_a_few_streams_that_break(start: Start, simulator: Simulator) -> None:
    """Where every third stream breaks the circuit stays closed: less than half of the calls have failed."""
    sidecar = await begin(start)
    for turn in range(30):
        simulator.script("openai", Behaviour(text=LONG, cut=3) if turn % 3 == 0 else Behaviour())
        assert await ask(sidecar, stream=True) == 200
    assert await noted(sidecar) == (10, 3)


async def test_a_pool_that_is_full(start: Start, simulator: Simulator) -> None:
    """That all of our own connections are in use says nothing of the upstream: its circuit stays as it is."""
    settings = {"max_connections": 1, "timeouts": {"connect_seconds": 0.02}}
    sidecar = await begin(start, **settings)
    simulator.script("openai", Behaviour(stall="before_headers"))
    _, writer = await connect(sidecar)
    writer.write(request())
    await simulator.report.wait_for(lambda report: report.open_calls == 1)
    for _ in range(2 * OPENING):
        assert await ask(sidecar) == 503
    assert await noted(sidecar) == (0, 0)
    assert simulator.report.calls == 1
    writer.transport.abort()
    await simulator.report.wait_for(lambda report: report.open_calls == 0)
    assert await ask(sidecar) == 200
