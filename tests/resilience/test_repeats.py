"""Repeats: how often, where, after what wait, and when not."""

import asyncio
from email.utils import formatdate
from typing import Any

import openai
import pytest

from proxy.simulator import Behaviour, Simulator
from tests.conftest import Sidecar, Start
from tests.edge.wire import Head, call, connect, request

A, B = {"upstream": "openai", "model": "gpt-4o-mini"}, {"upstream": "anthropic", "model": "claude-haiku-4-5"}
MESSAGES: Any = [{"role": "user", "content": "Hello"}]
SOON = {"first_wait_seconds": 0.001}
NOW = 1_900_000_000
BROKEN = [
    Behaviour(status=503),
    Behaviour(status=500),
    Behaviour(status=504),
    Behaviour(cut="before_headers", headers={"connection": "close"}),
    Behaviour(garbage="html"),
    Behaviour(status=503, headers={"x-should-retry": "true"}),
]
both_modes = pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])


def route(*targets: dict[str, str], **retry: Any) -> list[dict[str, Any]]:
    return [{"name": "one", "match": {"model": "*"}, "targets": list(targets), "retry": SOON | retry}]


def order(simulator: Simulator) -> list[str]:
    """Who was called, one after the other."""
    return [seen.dialect for seen in simulator.report.requests if seen.method == "POST"]


async def ask(sidecar: Sidecar, **fields: Any) -> Head:
    """The head of one call's answer."""
    return (await call(sidecar, request(**fields)))[0]


@both_modes
@pytest.mark.parametrize("attempts", [1, 2, 4])
async def test_the_sdk_does_not_multiply(start: Start, simulator: Simulator, attempts: int, stream: bool) -> None:
    """Where everything fails, an SDK that would try six times is told not to: our attempts are all that are made."""
    sidecar = await start(routes=route(A, attempts=attempts))
    simulator.always("openai", Behaviour(status=503))
    with pytest.raises(openai.InternalServerError) as caught:
        await sidecar.openai(max_retries=5).chat.completions.create(
            model="gpt-4o-mini", messages=MESSAGES, stream=stream
        )
    assert caught.value.status_code == 503
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert caught.value.response.headers["x-octet-attempts"] == str(attempts)
    assert simulator.report.calls == attempts
    assert await sidecar.metric("octet_retries_total", upstream="openai", reason="Overloaded") == attempts - 1


@both_modes
@pytest.mark.parametrize("behaviour", BROKEN, ids=lambda value: str(value)[:50])
async def test_every_failure_is_bounded(start: Start, simulator: Simulator, behaviour: Any, stream: bool) -> None:
    """Whatever a failure is, over all targets there are never more calls upstream than the route's attempts."""
    sidecar = await start(routes=route(A, B, attempts=3))
    simulator.always("*", behaviour)
    with pytest.raises(openai.InternalServerError):
        await sidecar.openai(max_retries=5).chat.completions.create(
            model="gpt-4o-mini", messages=MESSAGES, stream=stream
        )
    assert order(simulator)[:2] == ["openai", "anthropic"]
    assert simulator.report.calls == 3
    assert len(sidecar.lines.kept) == 1


@both_modes
async def test_no_target_again_before_all_were_tried(start: Start, simulator: Simulator, stream: bool) -> None:
    """The next untried target comes first; the same ones again only when none is left, in their order."""
    sidecar = await start(routes=route(A, B, {"upstream": "ollama", "model": "qwen3"}, attempts=5))
    simulator.script("*", *[Behaviour(status=503)] * 4)
    head = await ask(sidecar, stream=stream)
    assert (head.status, head["x-octet-attempts"], head["x-octet-upstream"]) == (200, "5", "anthropic")
    assert order(simulator) == ["openai", "anthropic", "ollama", "openai", "anthropic"]
    assert await sidecar.metric("octet_failovers_total", route="one", upstream="openai") == 1
    assert await sidecar.metric("octet_retries_total", upstream="openai") == 1
    assert await sidecar.metric("octet_retries_total", upstream="ollama") == 0


FLOORS = [
    {"retry-after": "7"},
    {"retry-after": formatdate(NOW + 7, usegmt=True), "date": formatdate(NOW, usegmt=True)},
    {"retry-after-ms": "7000"},
    {"retry-after-ms": "7000", "retry-after": "1"},
]


@pytest.mark.parametrize("headers", FLOORS, ids=["seconds", "date", "milliseconds", "both"])
@pytest.mark.parametrize("status", [500, 503, 429])
async def test_a_wait_that_is_too_long(start: Start, simulator: Simulator, status: int, headers: Any) -> None:
    """A Retry-After above longest_wait_seconds is not waited for; where it has a meaning the caller is told it."""
    sidecar = await start(routes=route(A, attempts=3, longest_wait_seconds=6.9))
    simulator.always("openai", Behaviour(status=status, headers=headers))
    head = await ask(sidecar)
    assert simulator.report.calls == 1
    if status == 500:
        assert head.status == 502
    else:
        assert (head.status, head["retry-after"], head["retry-after-ms"]) == (status, "7", "7000")


@pytest.mark.parametrize("headers", FLOORS, ids=["seconds", "date", "milliseconds", "both"])
async def test_a_wait_is_a_floor(start: Start, simulator: Simulator, headers: Any) -> None:
    """Of two failed targets the one that may be asked sooner is repeated, although the other comes first."""
    sidecar = await start(routes=route(A, B, attempts=4, longest_wait_seconds=60))
    simulator.script("openai", Behaviour(status=503, headers=headers))
    simulator.script("anthropic", Behaviour(status=529), Behaviour(status=529))
    assert (await ask(sidecar)).status == 200
    assert order(simulator) == ["openai", "anthropic", "anthropic", "anthropic"]


async def test_a_short_wait_is_waited(start: Start, simulator: Simulator) -> None:
    """An upstream that asks for 30 ms gets them, and then the call."""
    sidecar = await start(routes=route(A, attempts=2))
    simulator.script("openai", Behaviour(status=503, headers={"retry-after-ms": "30"}))
    head = await ask(sidecar)
    assert (head.status, head["x-octet-attempts"]) == (200, "2")


@pytest.mark.parametrize("value", ["-1", "tomorrow", "", "nan", "-inf", "0", "Fri, 99 Foo 2026 00:00:00 GMT"])
async def test_a_wait_that_is_none(start: Start, simulator: Simulator, value: str) -> None:
    """What is no time to come does not keep a repeat from being made."""
    sidecar = await start(routes=route(A, attempts=2))
    simulator.script("openai", Behaviour(status=503, headers={"retry-after": value}))
    head = await ask(sidecar)
    assert (head.status, head["x-octet-attempts"]) == (200, "2")


@pytest.mark.parametrize("value", ["1e9", "86400", "99999999999999999999"])
@pytest.mark.parametrize("status", [429, 503])
async def test_a_wait_without_end(start: Start, simulator: Simulator, status: int, value: str) -> None:
    """A day or a lifetime is not waited for, and the caller is told a minute, the longest that SDKs believe."""
    sidecar = await start(routes=route(A, attempts=3))
    simulator.always("openai", Behaviour(status=status, headers={"retry-after": value}))
    head = await ask(sidecar)
    assert (head.status, head["retry-after"], head["retry-after-ms"]) == (status, "60", "60000")
    assert simulator.report.calls == 1


async def test_nothing_is_billed_twice(start: Start, simulator: Simulator) -> None:
    """After a first-token clock the same target is not asked again, though its attempts are not spent; others are."""
    slow = {"timeouts": {"first_token_seconds": 0.1}}
    sidecar = await start(upstreams={"openai": slow}, routes=route(A, attempts=3))
    simulator.always("openai", Behaviour(stall="before_first_token"))
    head = await ask(sidecar, stream=True)
    assert (head.status, head["x-should-retry"]) == (504, "false")
    await simulator.report.wait_for(lambda report: report.aborted == 1)
    assert simulator.report.calls == 1

    other = await start(upstreams={"openai": slow}, routes=route(A, B, attempts=4))
    simulator.report.reset()
    simulator.script("anthropic", *[Behaviour(status=529)] * 2)
    assert (await ask(other, stream=True)).status == 200
    assert order(simulator) == ["openai", "anthropic", "anthropic", "anthropic"]


async def test_the_budget_of_repeats(start: Start, simulator: Simulator) -> None:
    """Three repeats in ten seconds are possible, then only the budget's share: a failing upstream is not flooded."""
    sidecar = await start(routes=route(A, attempts=10, budget=0))
    simulator.always("openai", Behaviour(status=503))
    head = await ask(sidecar)
    assert (head.status, head["x-should-retry"]) == (503, "false")
    assert simulator.report.calls == 1 + 3
    for count in range(1, 6):
        assert await sidecar.metric("octet_retry_budget_exhausted_total", upstream="openai") == count
        assert (await ask(sidecar)).status == 503
        assert simulator.report.calls == 4 + count
    assert await sidecar.metric("octet_retries_total", upstream="openai", reason="Overloaded") == 3


async def test_failing_over_needs_no_budget(start: Start, simulator: Simulator) -> None:
    """Where the budget of repeats is used up, calls still go on to the next target."""
    sidecar = await start(routes=route(A, B, attempts=10, budget=0))
    simulator.always("openai", Behaviour(status=503))
    simulator.script("anthropic", *[Behaviour(status=529)] * 20)
    while not await sidecar.metric("octet_retry_budget_exhausted_total"):
        assert (await ask(sidecar)).status == 503
    simulator.clear()
    simulator.always("openai", Behaviour(status=503))
    for _ in range(10):
        head = await ask(sidecar)
        assert (head.status, head["x-octet-upstream"]) == (200, "anthropic")


@both_modes
async def test_an_upstream_that_wants_no_repeat(start: Start, simulator: Simulator, stream: bool) -> None:
    """Its x-should-retry: false is honoured: the next target is tried, and never the same one again."""
    no = Behaviour(status=503, headers={"x-should-retry": "false"})
    sidecar = await start(routes=route(A, attempts=3))
    simulator.always("openai", no)
    assert (await ask(sidecar, stream=stream)).status == 503
    assert simulator.report.calls == 1

    other = await start(routes=route(A, B, attempts=5))
    simulator.report.reset()
    simulator.script("anthropic", *[Behaviour(status=529)] * 2)
    assert (await ask(other, stream=stream)).status == 200
    assert order(simulator) == ["openai", "anthropic", "anthropic", "anthropic"]


EARLY = [Behaviour(error_after=0), Behaviour(status=500, quirks=["error_in_200"])]


@pytest.mark.parametrize("behaviour", EARLY, ids=["event", "quirk"])
async def test_a_stream_that_begins_with_an_error(start: Start, simulator: Simulator, behaviour: Behaviour) -> None:
    """A 200 whose first event is an error was no answer: the SDK reads the next target's stream and nothing else."""
    sidecar = await start(routes=route(A, B))
    simulator.script("openai", behaviour)
    simulator.script("anthropic", Behaviour(text="from the other one"))
    stream = await sidecar.openai().chat.completions.create(model="any", messages=MESSAGES, stream=True)
    text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert text == "from the other one"
    assert order(simulator) == ["openai", "anthropic"]


async def test_a_limited_target_is_skipped(start: Start, simulator: Simulator) -> None:
    """After its 429 an upstream is left alone until its Retry-After: the next calls begin with the next target."""
    sidecar = await start(routes=route(A, B))
    simulator.script("openai", Behaviour(status=429, retry_after=30))
    heads = [await ask(sidecar) for _ in range(4)]
    assert [head["x-octet-attempts"] for head in heads] == ["2", "1", "1", "1"]
    assert {head["x-octet-upstream"] for head in heads} == {"anthropic"}
    assert order(simulator) == ["openai"] + ["anthropic"] * 4
    assert await sidecar.metric("octet_circuit_state", upstream="openai") == 0


async def test_a_limited_target_is_waited_for(start: Start, simulator: Simulator) -> None:
    """Where no other is left, a call waits for a Retry-After that is short, and is answered; a long one is told."""
    sidecar = await start(routes=route(A, attempts=1))
    simulator.script("openai", Behaviour(status=429, headers={"retry-after-ms": "150"}))
    assert (await ask(sidecar)).status == 429
    head = await ask(sidecar)
    assert (head.status, head["x-octet-attempts"]) == (200, "1")
    simulator.script("openai", Behaviour(status=429, headers={"retry-after": "40"}))
    assert (await ask(sidecar)).status == 429
    calls = simulator.report.calls
    head = await ask(sidecar)
    assert head.status == 429
    assert 1 <= int(head["retry-after"]) <= 40
    assert "x-should-retry" not in head
    assert simulator.report.calls == calls


@both_modes
@pytest.mark.parametrize(
    ("status", "outcome", "phase"),
    [(503, "Overloaded", "back_off"), (429, "Limited", "queue")],
    ids=["failed", "limited"],
)
async def test_who_leaves_while_waiting(
    start: Start, simulator: Simulator, status: int, outcome: str, phase: str, stream: bool
) -> None:
    """A caller who leaves during a back-off, or while a limited upstream is waited for, causes no further call."""
    sidecar = await start(routes=route(A, attempts=1 if phase == "queue" else 3))
    simulator.always("openai", Behaviour(status=status, retry_after=4))
    if phase == "queue":
        assert (await ask(sidecar)).status == 429
    _, writer = await connect(sidecar)
    writer.write(request(stream=stream))
    async with asyncio.timeout(5):  # a failed attempt has been counted, and the call is there
        while not (await sidecar.metric("octet_attempts_total", outcome=outcome) and sidecar.app._data.answering):
            pass
        await sidecar.metric("octet_attempts_total")
    writer.transport.abort()
    line = (await sidecar.lines.wait_for(2 if phase == "queue" else 1))[-1]
    assert line["outcome"] == "hangup"
    assert await sidecar.metric("octet_hangups_total", phase=phase) == 1
    assert simulator.report.calls == 1
    assert await sidecar.metric("octet_retries_total", upstream="openai") == 0
