"""Hedging: a second attempt when the first lets wait; one answer, and nothing of the other is left."""

from typing import Any

import pytest

from proxy.simulator import Behaviour, Simulator
from tests.conftest import STEADY, Sidecar, Start

TARGETS = [{"upstream": "openai", "model": "gpt-4o-mini"}, {"upstream": "anthropic", "model": "claude-haiku-4-5"}]
STALLS = {False: Behaviour(stall="before_headers"), True: Behaviour(stall="before_first_token")}


def hedged(targets: list[Any] = TARGETS, **hedge: Any) -> list[dict[str, Any]]:
    """A route whose second attempts begin as soon as the first has had a turn, for every call."""
    return [{"name": "hedged", "targets": targets, "hedge": {"after_seconds": 0.01, "budget": 1.0, **hedge}}]


@pytest.fixture
async def sidecar(start: Start) -> Sidecar:
    return await start(routes=hedged())


async def outcomes(sidecar: Sidecar, name: str = "hedged") -> dict[str, float]:
    return {
        outcome: await sidecar.metric("octet_hedges_total", route=name, outcome=outcome)
        for outcome in ("won", "lost", "failed")
    }


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
async def test_the_second_attempt_wins(sidecar: Sidecar, simulator: Simulator, stream: bool) -> None:
    """The caller gets the other target's answer, told as such; the stalled attempt's connection is closed at once."""
    simulator.always("openai", STALLS[stream])
    response = await sidecar.chat("any", stream=stream)
    assert response.status == 200
    assert response.headers["x-octet-upstream"] == "anthropic"
    assert response.headers["x-octet-attempts"] == "2"
    assert '"model":"any"' in await response.text()
    await simulator.report.wait_for(lambda report: report.dialects["openai"].open_calls == 0)
    assert simulator.report.dialects["openai"].aborted == 1
    assert await outcomes(sidecar) == {"won": 1, "lost": 0, "failed": 0}
    assert await sidecar.metric("octet_attempts_total", upstream="openai", outcome="lost") == 1
    assert await sidecar.metric("octet_hedge_wasted_tokens_total", upstream="openai") > 0
    assert await sidecar.metric("octet_circuit_transitions_total", upstream="openai") == 0
    (line,) = await sidecar.lines.wait_for(1)
    assert (line["upstream"], line["attempts"], line["outcome"]) == ("anthropic", 2, "ok")


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
async def test_the_first_attempt_wins(sidecar: Sidecar, simulator: Simulator, stream: bool) -> None:
    """When the first target answers after all, the second attempt is the one that is cancelled."""
    simulator.always("openai", Behaviour(delay_seconds=0.1))
    simulator.always("anthropic", STALLS[stream])
    response = await sidecar.chat("any", stream=stream)
    assert response.headers["x-octet-upstream"] == "openai"
    await response.read()
    await simulator.report.wait_for(lambda report: report.open_calls == 0)
    assert simulator.report.dialects["anthropic"].aborted == 1
    assert await outcomes(sidecar) == {"won": 0, "lost": 1, "failed": 0}
    assert await sidecar.metric("octet_attempts_total", upstream="anthropic", outcome="lost") == 1


async def test_a_quick_answer_needs_no_second_attempt(start: Start, simulator: Simulator) -> None:
    """Nothing more is sent than without hedging."""
    sidecar = await start(routes=hedged(after_seconds=5.0))
    assert (await sidecar.chat("any")).headers["x-octet-attempts"] == "1"
    assert simulator.report.calls == 1


async def test_the_first_fails_and_the_second_answers(sidecar: Sidecar, simulator: Simulator) -> None:
    """A failure while two attempts run is not the end: the other one may still answer."""
    simulator.always("openai", Behaviour(delay_seconds=0.05, status=500))
    simulator.always("anthropic", Behaviour(delay_seconds=0.15))
    response = await sidecar.chat("any")
    assert (response.status, response.headers["x-octet-upstream"]) == (200, "anthropic")
    assert await outcomes(sidecar) == {"won": 1, "lost": 0, "failed": 0}


async def test_both_fail(sidecar: Sidecar, simulator: Simulator) -> None:
    """Then the call goes on as after any failure: a repeat is the third attempt, and the last."""
    simulator.always("openai", Behaviour(delay_seconds=0.05, status=500))
    simulator.always("anthropic", Behaviour(delay_seconds=0.05, status=503))
    response = await sidecar.chat("any")
    assert response.status in (502, 503)
    assert response.headers["x-octet-attempts"] == "3"
    assert response.headers["x-should-retry"] == "false"
    assert simulator.report.calls == 3


async def test_the_callers_fault_ends_the_race(sidecar: Sidecar, simulator: Simulator) -> None:
    """Nobody else needs to be asked: the other attempt is cancelled, and the refusal is told."""
    simulator.always("openai", Behaviour(delay_seconds=0.05, status=400))
    simulator.always("anthropic", STALLS[False])
    assert (await sidecar.chat("any")).status == 400
    await simulator.report.wait_for(lambda report: report.open_calls == 0)


async def test_a_second_target_that_cannot_carry_the_call(sidecar: Sidecar, simulator: Simulator) -> None:
    """It is as if there were none."""
    simulator.always("openai", Behaviour(delay_seconds=0.05))
    response = await sidecar.chat("any", logprobs=True)
    assert (response.status, response.headers["x-octet-upstream"]) == (200, "openai")
    assert simulator.report.dialects["anthropic"].calls == 0


async def test_no_more_than_the_budget(start: Start, simulator: Simulator) -> None:
    """With a tenth as budget, 30 calls that all let wait make 3 second attempts."""
    sidecar = await start(routes=hedged(budget=0.1))
    simulator.always("openai", Behaviour(delay_seconds=0.03))
    for _ in range(30):
        assert (await sidecar.chat("any")).status == 200
    assert simulator.report.dialects["anthropic"].calls == 3


async def test_the_learned_wait(start: Start, simulator: Simulator) -> None:
    """Without `after_seconds` nothing is hedged until 20 times are known; then what takes much longer is."""
    sidecar = await start(routes=hedged(after_seconds=None))
    for _ in range(20):
        await sidecar.chat("any")
    assert simulator.report.dialects["anthropic"].calls == 0
    simulator.always("openai", STALLS[False])
    assert (await sidecar.chat("any")).headers["x-octet-upstream"] == "anthropic"


async def test_never_with_a_circuit_that_is_being_tried(start: Start, simulator: Simulator) -> None:
    """Trial calls are not hedged, nor is a half-open upstream used for a second attempt."""
    settings = {"openai": {"circuit": {"open_seconds": 60}}, "anthropic": {"circuit": STEADY}}
    sidecar = await start(routes=hedged(), upstreams=settings)
    circuits = sidecar.app.upstreams.now.circuits
    circuits.by_upstream["openai"][0].half_open()
    simulator.always("openai", Behaviour(delay_seconds=0.05))
    assert (await sidecar.chat("any")).headers["x-octet-upstream"] == "openai"
    circuits.by_upstream["openai"][0].reset()
    circuits.by_upstream["anthropic"][0].half_open()
    assert (await sidecar.chat("any")).headers["x-octet-upstream"] == "openai"
    assert simulator.report.dialects["anthropic"].calls == 0


async def test_a_hang_up_ends_both(sidecar: Sidecar, simulator: Simulator) -> None:
    """The caller leaves while two attempts run: both upstreams see it, and no place is kept."""
    simulator.always("*", STALLS[True])
    client = sidecar.openai(timeout=0.2)
    with pytest.raises(Exception, match="timed out"):
        await client.chat.completions.create(model="any", stream=True, messages=[{"role": "user", "content": "x"}])
    await simulator.report.wait_for(lambda report: report.open_calls == 0 and report.aborted == 2)


async def test_a_bug_of_ours_keeps_no_place(
    start: Start, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the second attempt fails on a fault of our own, the call fails, and both places are free again."""
    limits = {"openai": {"limits": {"concurrent": 1}}, "anthropic": {"limits": {"concurrent": 1}}}
    sidecar = await start(routes=hedged(), upstreams=limits)
    simulator.script("openai", STALLS[False])

    def broken(*arguments: object) -> None:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(sidecar.app.upstreams.now.endpoints["anthropic"], "dress", broken)
        assert (await sidecar.chat("any")).status == 500
    await simulator.report.wait_for(lambda report: report.open_calls == 0)
    for name in limits:
        limiter: Any = sidecar.app.upstreams.now.standings[name].limiter
        assert limiter.slots.in_use == 0
    assert (await sidecar.chat("any")).status == 200
