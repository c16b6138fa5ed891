"""Callers' limits, with a real sidecar: who waits, who is refused and told when to come again, and who pays."""

import asyncio
import json
from typing import Any

import pytest

from proxy.simulator import Behaviour, Simulator
from tests.clock import Clock
from tests.conftest import Sidecar, Start
from tests.edge.wire import Head, call, connect, read_answer, request

KEY, OTHER = "authorization: Bearer sk-search", "authorization: Bearer sk-other"
SEARCH = {"scope": "caller"}  # the only one that has limits
LONG = "one two three four five six seven eight nine ten " * 4
STALLED = Behaviour(stall="before_headers")
both_modes = pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])


async def limited(start: Start, **limits: Any) -> Sidecar:
    """A sidecar with a caller that has limits, and another one that has none."""
    callers = [{"name": "search", "key": "sk-search", "limits": limits}, {"name": "other", "key": "sk-other"}]
    return await start(server={"callers": callers})


def turned_by_hand(sidecar: Sidecar) -> Clock:
    """The clock of the caller's buckets and of what the metrics say of them."""
    clock = Clock(asyncio.get_running_loop().time())
    sidecar.app.upstreams._clock = clock
    sidecar.app.upstreams.now.limited_callers["search"]._clock = clock
    return clock


async def ask(sidecar: Sidecar, *headers: str, **fields: Any) -> tuple[Head, Any]:
    head, body = await call(sidecar, request(*(headers or (KEY,)), **fields))
    return head, None if fields.get("stream") and head.status == 200 else json.loads(body)


async def begin(sidecar: Sidecar, *headers: str, **fields: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A call under way."""
    reader, writer = await connect(sidecar)
    writer.write(request(*(headers or (KEY,)), **fields))
    return reader, writer


async def metric_is(sidecar: Sidecar, name: str, wanted: float) -> None:
    """Returns when it is; asks again and again."""
    async with asyncio.timeout(5):
        while await sidecar.metric(name, **SEARCH) != wanted:
            pass


async def left(sidecar: Sidecar, limit: str) -> float:
    return await sidecar.metric("octet_limit_remaining", **SEARCH, limit=limit)


def check(head: Head, error: Any) -> None:
    """A 429 of ours."""
    assert head.status == 429
    assert error["error"]["code"] == "rate_limit_exceeded"
    assert error["error"]["type"] == "rate_limit_error"
    assert int(head["retry-after"]) >= 1
    assert int(head["retry-after-ms"]) >= 0
    assert "x-should-retry" not in head
    assert "x-octet-attempts" not in head


@both_modes
async def test_calls_at_once(start: Start, simulator: Simulator, stream: bool) -> None:
    """Above `concurrent` a call waits and then gets its place; above `queue` it is 429; others notice nothing."""
    sidecar = await limited(start, concurrent=1, queue=1)
    simulator.script("openai", STALLED)
    _, holder = await begin(sidecar, stream=stream)
    await simulator.report.wait_for(lambda report: report.open_calls == 1)
    reader, waiting = await begin(sidecar, stream=stream)
    await metric_is(sidecar, "octet_queue_length", 1)
    assert await sidecar.metric("octet_slots_in_use", **SEARCH) == 1
    check(*await ask(sidecar, stream=stream))
    assert await sidecar.metric("octet_limited_total", **SEARCH, limit="concurrent") == 2  # who waits counts too
    assert (await ask(sidecar, OTHER, stream=stream))[0].status == 200
    assert simulator.report.calls == 2
    holder.transport.abort()
    head, _ = await read_answer(reader)
    assert head.status == 200
    waiting.close()
    await metric_is(sidecar, "octet_slots_in_use", 0)
    assert await sidecar.metric("octet_queue_length", **SEARCH) == 0
    assert await sidecar.metric("octet_queue_seconds_count", **SEARCH) == 2


@both_modes
@pytest.mark.parametrize("seconds", [0, 0.1])
async def test_nobody_waits_for_ever(start: Start, simulator: Simulator, seconds: float, stream: bool) -> None:
    """After `queue_seconds` in the queue a call is 429, was not sent, and is in the queue no more."""
    sidecar = await limited(start, concurrent=1, queue_seconds=seconds)
    simulator.script("openai", STALLED)
    _, holder = await begin(sidecar)
    await simulator.report.wait_for(lambda report: report.open_calls == 1)
    check(*await ask(sidecar, stream=stream))
    assert await sidecar.metric("octet_limited_total", **SEARCH, limit="concurrent") == 1
    assert await sidecar.metric("octet_queue_length", **SEARCH) == 0
    assert simulator.report.calls == 1
    (line,) = sidecar.lines.kept
    assert (line["outcome"], line["reason"], line["caller"]) == ("limited", "LimitReached.concurrent", "search")
    holder.transport.abort()
    await sidecar.lines.wait_for(2)
    assert (await ask(sidecar, stream=stream))[0].status == 200


@both_modes
async def test_requests_per_minute(start: Start, simulator: Simulator, stream: bool) -> None:
    """What a minute allows may be used at once; then 429 until the told time, which is enough."""
    sidecar = await limited(start, requests_per_minute=4)
    clock = turned_by_hand(sidecar)
    for count in range(4):
        assert await left(sidecar, "requests") == 4 - count
        assert (await ask(sidecar, stream=stream))[0].status == 200
    for _ in range(3):  # asking in vain costs nothing
        head, error = await ask(sidecar, stream=stream)
        check(head, error)
        assert (head["retry-after"], head["retry-after-ms"]) == ("15", "15000")
    assert "requests_per_minute" in error["error"]["message"]
    async with sidecar.http.get(f"{sidecar.admin_url}/metrics") as response:
        assert 'octet_limited_total{limit="requests",name="search",scope="caller"} 3.0' in await response.text()
    assert await sidecar.metric("octet_limited_total", **SEARCH, limit="requests") == 3
    assert (await ask(sidecar, OTHER, stream=stream))[0].status == 200
    clock.now += 14.9
    assert (await ask(sidecar, stream=stream))[0].status == 429
    clock.now += 0.1001
    assert (await ask(sidecar, stream=stream))[0].status == 200
    assert (await ask(sidecar, stream=stream))[0].status == 429
    clock.now += 3600
    assert await left(sidecar, "requests") == 4
    assert simulator.report.calls == 6


@both_modes
async def test_tokens_are_settled(start: Start, simulator: Simulator, stream: bool) -> None:
    """An estimate is reserved while a call lasts; afterwards the bucket has lost what the upstream says was used."""
    sidecar = await limited(start, tokens_per_minute=10_000)
    turned_by_hand(sidecar)
    simulator.script("openai", Behaviour(text=LONG, stall=3) if stream else STALLED)
    _, holder = await begin(sidecar, max_tokens=4000, stream=stream)
    await simulator.report.wait_for(lambda report: report.open_calls == 1)
    during = await left(sidecar, "tokens")
    assert 5900 < during < 6000
    holder.transport.abort()
    await sidecar.lines.wait_for(1)
    before = await left(sidecar, "tokens")
    assert (await ask(sidecar, max_tokens=4000, stream=stream))[0].status == 200
    line = (await sidecar.lines.wait_for(2))[1]
    used = line["prompt_tokens"] + line["completion_tokens"]
    assert used > 0
    assert await left(sidecar, "tokens") == before - used


async def test_tokens_per_minute(start: Start, simulator: Simulator) -> None:
    """A call whose estimate is not there is 429; after the told seconds it is answered, and not before."""
    sidecar = await limited(start, tokens_per_minute=1000)
    clock = turned_by_hand(sidecar)
    simulator.always("openai", Behaviour(tokens=400))
    while (answer := await ask(sidecar, max_tokens=900))[0].status == 200:
        pass
    head, error = answer
    check(head, error)
    assert "tokens_per_minute" in error["error"]["message"]
    assert await sidecar.metric("octet_limited_total", **SEARCH, limit="tokens") == 1
    seconds = int(head["retry-after"])
    clock.now += seconds - 1.1
    assert (await ask(sidecar, max_tokens=900))[0].status == 429
    clock.now += 1.1
    assert (await ask(sidecar, max_tokens=900))[0].status == 200


async def test_a_call_above_the_limit_itself(start: Start, simulator: Simulator) -> None:
    """A call that wants more tokens than a minute has is answered when the bucket is full, and leaves it below zero."""
    sidecar = await limited(start, tokens_per_minute=100)
    clock = turned_by_hand(sidecar)
    simulator.always("openai", Behaviour(tokens=150))
    assert (await ask(sidecar, max_tokens=5000))[0].status == 200
    assert await left(sidecar, "tokens") < 0
    check(*await ask(sidecar, max_tokens=1))
    clock.now += 600
    assert (await ask(sidecar, max_tokens=5000))[0].status == 200


@pytest.mark.parametrize("per_minute", [7, 11, 13])
async def test_the_told_milliseconds_are_enough(start: Start, simulator: Simulator, per_minute: int) -> None:
    """Who comes again after retry-after-ms, as the SDKs do, is answered."""
    sidecar = await limited(start, requests_per_minute=per_minute)
    clock = turned_by_hand(sidecar)
    for _ in range(per_minute):
        assert (await ask(sidecar))[0].status == 200
    head, _ = await ask(sidecar)
    clock.now += int(head["retry-after-ms"]) / 1000 + 1e-6  # so that no rounding of floats decides
    assert (await ask(sidecar))[0].status == 200


FAILING = [
    pytest.param(Behaviour(status=503), False, id="503"),
    pytest.param(Behaviour(status=400), False, id="400"),
    pytest.param(Behaviour(garbage="html"), False, id="html"),
    pytest.param(Behaviour(cut="before_first_token"), True, id="cut"),
    pytest.param(Behaviour(error_after=0), True, id="error event"),
]


@pytest.mark.parametrize(("behaviour", "stream"), FAILING)
async def test_a_failed_call_gives_its_tokens_back(
    start: Start, simulator: Simulator, behaviour: Behaviour, stream: bool
) -> None:
    """A call without an answer has used no tokens; it was a request all the same."""
    sidecar = await limited(start, tokens_per_minute=1000, requests_per_minute=10, concurrent=2)
    turned_by_hand(sidecar)
    simulator.always("openai", behaviour)
    for count in range(1, 4):
        assert (await ask(sidecar, max_tokens=900, stream=stream))[0].status >= 400
        assert (await left(sidecar, "tokens"), await left(sidecar, "requests")) == (1000, 10 - count)
    assert await sidecar.metric("octet_slots_in_use", **SEARCH) == 0


@both_modes
async def test_who_leaves_the_queue_pays_nothing(start: Start, simulator: Simulator, stream: bool) -> None:
    """A hang-up in the queue leaves every bucket as it was, and the queue empty."""
    sidecar = await limited(start, concurrent=1, requests_per_minute=10, tokens_per_minute=1000, queue_seconds=30)
    turned_by_hand(sidecar)
    simulator.script("openai", STALLED)
    _, holder = await begin(sidecar, max_tokens=100)
    await simulator.report.wait_for(lambda report: report.open_calls == 1)
    before = await left(sidecar, "requests"), await left(sidecar, "tokens")
    for count in range(1, 6):
        _, writer = await begin(sidecar, max_tokens=100, stream=stream)
        await metric_is(sidecar, "octet_queue_length", 1)
        writer.transport.abort()
        lines = await sidecar.lines.wait_for(count)
        assert lines[-1]["outcome"] == "hangup"
        assert await sidecar.metric("octet_queue_length", **SEARCH) == 0
    assert (await left(sidecar, "requests"), await left(sidecar, "tokens")) == before
    assert await sidecar.metric("octet_hangups_total", phase="queue") == 5
    assert simulator.report.calls == 1
    holder.transport.abort()
    await sidecar.lines.wait_for(6)
    assert await sidecar.metric("octet_slots_in_use", **SEARCH) == 0
