"""Copies of calls: behind the callers' backs, within bounds, and of no consequence to anybody."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from proxy.simulator import Behaviour, Simulator
from proxy.simulator.report import SeenRequest
from tests.conftest import Sidecar, Start

MODEL = "qwen3"
both_modes = pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])


def mirrored(rule: dict[str, Any] | None = None, **mirror: Any) -> list[dict[str, Any]]:
    """A route to OpenAI whose calls are copied to Ollama."""
    copied = {"upstream": "ollama", "model": MODEL, **mirror}
    return [{"name": "r", "targets": [{"upstream": "openai"}], "mirror": copied, **(rule or {})}]


def seen(simulator: Simulator, dialect: str) -> list[SeenRequest]:
    return [each for each in simulator.report.requests if each.method == "POST" and each.dialect == dialect]


async def counted(sidecar: Sidecar, outcome: str, count: int) -> None:
    """Return when so many copies have ended so, and no more."""
    async with asyncio.timeout(5):
        while await sidecar.metric("octet_mirrored_total", route="r", upstream="ollama", outcome=outcome) < count:
            pass
    assert await sidecar.metric("octet_mirrored_total", route="r", upstream="ollama", outcome=outcome) == count


async def answered(sidecar: Sidecar, **fields: Any) -> bytes:
    """The body of a call's good answer, which came from the route's own target."""
    response = await sidecar.chat(**fields)
    body = await response.read()
    assert response.status == 200, body
    assert response.headers["x-octet-upstream"] == "openai"
    assert response.headers["x-octet-attempts"] == "1"
    return body


@both_modes
async def test_a_copy_is_sent(start: Start, simulator: Simulator, stream: bool) -> None:
    """The same call under the mirror's model and with its changes; its answer is read to the end and thrown away."""
    changes: dict[str, Any] = {"set": {"temperature": 0.25}, "remove": ["top_p"], "headers": {"x-copy": "yes"}}
    sidecar = await start(routes=mirrored(**changes))
    simulator.always("openai", Behaviour(text="from the target"))
    body = await answered(sidecar, stream=stream, top_p=0.5, temperature=1)
    assert b"target" in body
    await counted(sidecar, "ok", 1)
    (own,), (copy,) = seen(simulator, "openai"), seen(simulator, "ollama")
    sent, copied = json.loads(own.body), json.loads(copy.body)
    assert (sent["temperature"], sent["top_p"], "x-copy" in own.headers) == (1, 0.5, False)
    assert copied["model"] == MODEL
    assert copied["messages"] == sent["messages"]
    assert copied["stream"] is stream
    assert copied["options"]["temperature"] == 0.25
    assert "top_p" not in copied["options"]
    assert copy.headers["x-copy"] == "yes"
    assert simulator.report.dialects["ollama"].completed == 1


async def test_a_copy_writes_no_line(start: Start) -> None:
    """The access log tells of calls, and not of their copies; neither do the counts of calls."""
    sidecar = await start(routes=mirrored())
    for _ in range(3):
        await answered(sidecar)
    await counted(sidecar, "ok", 3)
    lines = await sidecar.lines.wait_for(3)
    assert [line["upstream"] for line in lines] == ["openai"] * 3
    assert not any(line["request_id"].endswith("-copy") for line in lines)
    assert await sidecar.metric("octet_calls_total", route="r", upstream="ollama", outcome="ok") == 0


async def test_a_share_of_the_calls(start: Start, simulator: Simulator) -> None:
    """Chance decides for each call, at the odds of the share."""
    sidecar = await start(routes=mirrored(share=0.25))
    chances: Iterator[float] = iter([0.0, 0.25, 0.24, 0.9, 0.999])
    sidecar.app.pipeline.snapshot.means.chance = lambda: next(chances)
    for _ in range(5):
        await answered(sidecar)
    await counted(sidecar, "ok", 2)
    assert len(seen(simulator, "ollama")) == 2


@both_modes
async def test_a_mirror_that_hangs_delays_nobody(start: Start, simulator: Simulator, stream: bool) -> None:
    """Callers are answered while their copies wait; above the bound there are no more copies, and that is counted."""
    sidecar = await start(routes=mirrored(concurrent=2))
    simulator.always("ollama", Behaviour(stall="before_headers"))
    for _ in range(5):
        await answered(sidecar, stream=stream)
    await counted(sidecar, "dropped", 3)
    await simulator.report.wait_for(lambda report: report.dialects["ollama"].open_calls == 2)
    assert simulator.report.dialects["ollama"].calls == 2


async def test_there_is_room_again_when_copies_end(start: Start, simulator: Simulator) -> None:
    """Also after those that failed."""
    sidecar = await start(routes=mirrored(concurrent=1))
    for status, outcome, count in ((200, "ok", 1), (500, "Broken", 1), (200, "ok", 2)):
        simulator.script("ollama", Behaviour(status=status))
        await answered(sidecar)
        await counted(sidecar, outcome, count)
    await counted(sidecar, "dropped", 0)


@both_modes
@pytest.mark.parametrize(
    ("behaviour", "outcome"),
    [
        (Behaviour(status=500), "Broken"),
        (Behaviour(status=400), "RequestRefused"),
        (Behaviour(status=429), "Limited"),
        (Behaviour(status=503), "Overloaded"),
        (Behaviour(garbage="html"), "Broken"),
        (Behaviour(cut="before_headers"), "Unreachable"),
    ],
)
async def test_a_mirror_that_fails_is_nobodys_failure(
    start: Start, simulator: Simulator, behaviour: Behaviour, outcome: str, stream: bool
) -> None:
    """The caller has a good answer; the copy is made once, and its failure is counted by its reason."""
    sidecar = await start(routes=mirrored())
    simulator.always("ollama", behaviour)
    await answered(sidecar, stream=stream)
    await counted(sidecar, outcome, 1)
    assert len(seen(simulator, "ollama")) == 1
    assert await sidecar.metric("octet_failovers_total", route="r", upstream="ollama") == 0


async def test_a_stream_that_breaks_behind_the_callers_back(start: Start, simulator: Simulator) -> None:
    """A copy that is cut in its middle has failed, and the caller's own stream has not."""
    sidecar = await start(routes=mirrored())
    simulator.always("ollama", Behaviour(text="one two three", cut=2))
    assert (await answered(sidecar, stream=True)).endswith(b"data: [DONE]\n\n")
    await counted(sidecar, "CutShort", 1)


async def test_what_the_mirror_cannot_carry(start: Start, simulator: Simulator) -> None:
    """A call that its dialect cannot say is not copied, and that is counted; the caller does not hear of it."""
    sidecar = await start(routes=mirrored({"targets": [{"upstream": "openai"}]}, upstream="anthropic"))
    await answered(sidecar, logprobs=True)
    async with asyncio.timeout(5):
        while not await sidecar.metric("octet_mirrored_total", route="r", outcome="UnsupportedParameter"):
            pass
    assert not seen(simulator, "anthropic")


async def test_a_mirrors_circuit_is_honoured(start: Start, simulator: Simulator) -> None:
    """When the upstream has failed too often it gets no copies; its failures count, whoever they happen to."""
    circuit = {"window": 2, "minimum_calls": 2, "open_seconds": 3600}
    sidecar = await start(routes=mirrored(), upstreams={"ollama": {"circuit": circuit}})
    simulator.always("ollama", Behaviour(status=500))
    for number in range(1, 3):
        await answered(sidecar)
        await counted(sidecar, "Broken", number)
    for number in range(1, 4):
        await answered(sidecar)
        await counted(sidecar, "CircuitsOpen", number)
    assert len(seen(simulator, "ollama")) == 2
    assert await sidecar.metric("octet_circuit_transitions_total", upstream="ollama", state="open") == 1


@pytest.mark.parametrize("limits", [{"requests_per_minute": 1}, {"concurrent": 1}])
async def test_a_mirrors_limits_are_honoured(start: Start, simulator: Simulator, limits: dict[str, int]) -> None:
    """A copy for which the upstream's own limits leave no room is not sent, and does not wait for it."""
    sidecar = await start(routes=mirrored(), upstreams={"ollama": {"limits": limits}})
    if "concurrent" in limits:
        simulator.always("ollama", Behaviour(stall="before_headers"))
    await answered(sidecar)
    await simulator.report.wait_for(lambda report: report.dialects["ollama"].calls == 1)
    await answered(sidecar)
    await answered(sidecar)
    await counted(sidecar, f"LimitReached.{next(iter(limits)).partition('_')[0]}", 2)
    assert len(seen(simulator, "ollama")) == 1


async def test_kept_answers_are_not_copied(start: Start, simulator: Simulator) -> None:
    """Only what goes upstream is; an answer from the cache goes nowhere."""
    sidecar = await start(routes=mirrored({"cache": {"any_temperature": True}}))
    assert len({await answered(sidecar)}) == 1
    for _ in range(3):
        response = await sidecar.chat()
        assert response.headers["x-octet-cache"] == "memory"
    await counted(sidecar, "ok", 1)
    assert len(seen(simulator, "ollama")) == 1


async def test_joined_calls_are_not_copied(start: Start, simulator: Simulator) -> None:
    """Of many calls that wait for the same answer one is copied."""
    sidecar = await start(routes=mirrored({"cache": {"any_temperature": True}}))
    simulator.always("openai", Behaviour(first_token_seconds=0.3))
    responses = await asyncio.gather(*(sidecar.chat(stream=True) for _ in range(10)))
    told = [response.headers["x-octet-cache"] for response in responses]
    for response in responses:
        await response.read()
    assert "joined" in told
    await counted(sidecar, "ok", told.count("miss"))
    assert len(seen(simulator, "ollama")) == len(seen(simulator, "openai")) == 1


async def test_copies_end_when_the_sidecar_stops(start: Start, simulator: Simulator) -> None:
    """Those under way are given up, and their connections closed; `start` looks for tasks that are left."""
    sidecar = await start(routes=mirrored())
    simulator.always("ollama", Behaviour(stall="before_headers"))
    for stream in (False, True):
        await answered(sidecar, stream=stream)
    await simulator.report.wait_for(lambda report: report.dialects["ollama"].open_calls == 2)
    await sidecar.close()
    await simulator.report.wait_for(lambda report: report.dialects["ollama"].open_calls == 0)
    assert simulator.report.dialects["ollama"].aborted == 2


async def test_a_copy_outlives_its_call(start: Start, simulator: Simulator) -> None:
    """When the caller hangs up, the copy goes on to its end."""
    sidecar = await start(routes=mirrored())
    simulator.always("openai", Behaviour(stall="before_headers"))
    simulator.always("ollama", Behaviour(first_token_seconds=0.05))
    asking = asyncio.create_task(sidecar.chat())
    await simulator.report.wait_for(lambda _: len(seen(simulator, "ollama")) == len(seen(simulator, "openai")) == 1)
    asking.cancel()
    await simulator.report.wait_for(lambda report: report.dialects["openai"].aborted == 1)
    await counted(sidecar, "ok", 1)
