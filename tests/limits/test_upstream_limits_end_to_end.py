"""Upstreams' limits, ours and their own: the next target instead, a place in the queue, or an honest 429."""

import asyncio
import json
from typing import Any

import pytest

from proxy.simulator import Behaviour, Simulator
from tests.clock import Clock
from tests.conftest import Sidecar, Start
from tests.edge.wire import Head, call, connect, read_answer, request

A, B = {"upstream": "openai", "model": "gpt-4o-mini"}, {"upstream": "anthropic", "model": "claude-haiku-4-5"}
UPSTREAM = {"scope": "upstream"}  # the only one that has limits
STALLED = Behaviour(stall="before_headers")
both_modes = pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])


async def limited(start: Start, *targets: dict[str, str], **limits: Any) -> Sidecar:
    """A sidecar with one route, and limits of its first target."""
    routes = [{"name": "one", "match": {"model": "*"}, "targets": list(targets)}]
    return await start(upstreams={"openai": {"limits": limits}}, routes=routes)


def turned_by_hand(sidecar: Sidecar) -> Clock:
    """The clock of A's buckets and of what the metrics say of them."""
    clock = Clock(asyncio.get_running_loop().time())
    limiter: Any = sidecar.app.upstreams.now.standings["openai"].limiter
    sidecar.app.upstreams._clock = limiter._clock = clock
    return clock


async def ask(sidecar: Sidecar, *headers: str, **fields: Any) -> tuple[Head, bytes]:
    return await call(sidecar, request(*headers, **fields))


async def served_by(sidecar: Sidecar, **fields: Any) -> tuple[str, str]:
    """Who answered a call, and with which attempt."""
    head, body = await ask(sidecar, **fields)
    assert head.status == 200, body
    return head["x-octet-upstream"], head["x-octet-attempts"]


async def begin(sidecar: Sidecar, **fields: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A call under way."""
    reader, writer = await connect(sidecar)
    writer.write(request(**fields))
    return reader, writer


async def occupied(sidecar: Sidecar, simulator: Simulator, **fields: Any) -> asyncio.StreamWriter:
    """A call that stands still at A, and holds its place for as long as its connection lives."""
    simulator.script("openai", STALLED)
    _, writer = await begin(sidecar, **fields)
    await simulator.report.wait_for(lambda report: report.dialects["openai"].open_calls == 1)
    return writer


async def metric_is(sidecar: Sidecar, name: str, wanted: float) -> None:
    """Returns when it is; asks again and again."""
    async with asyncio.timeout(5):
        while await sidecar.metric(name, **UPSTREAM) != wanted:
            pass


async def left(sidecar: Sidecar, limit: str) -> float:
    return await sidecar.metric("octet_limit_remaining", **UPSTREAM, limit=limit)


def check(head: Head, body: bytes, text: str) -> None:
    """A 429 for which nobody upstream was asked."""
    error = json.loads(body)["error"]
    assert (head.status, error["code"], error["type"]) == (429, "rate_limit_exceeded", "rate_limit_error")
    assert text in error["message"]
    assert int(head["retry-after"]) >= 1
    assert int(head["retry-after-ms"]) >= 0
    assert "x-octet-attempts" not in head
    assert "x-should-retry" not in head


@both_modes
async def test_a_full_upstream_is_passed_by(start: Start, simulator: Simulator, stream: bool) -> None:
    """While all places of A are taken its calls go to B at once, as a first attempt; then to A again."""
    sidecar = await limited(start, A, B, concurrent=1)
    holder = await occupied(sidecar, simulator)
    for _ in range(3):
        assert await served_by(sidecar, stream=stream) == ("anthropic", "1")
    assert await sidecar.metric("octet_limited_total", **UPSTREAM, limit="concurrent") == 3
    assert await sidecar.metric("octet_slots_in_use", **UPSTREAM) == 1
    assert await sidecar.metric("octet_queue_length", **UPSTREAM) == 0
    holder.transport.abort()
    await sidecar.lines.wait_for(4)
    assert await sidecar.metric("octet_slots_in_use", **UPSTREAM) == 0
    assert await served_by(sidecar, stream=stream) == ("openai", "1")


@both_modes
async def test_waiting_for_an_upstream(start: Start, simulator: Simulator, stream: bool) -> None:
    """Where A is the only target a call waits for its place and gets it; above `queue` it is 429."""
    sidecar = await limited(start, A, concurrent=1, queue=1)
    holder = await occupied(sidecar, simulator)
    reader, writer = await begin(sidecar, stream=stream)
    await metric_is(sidecar, "octet_queue_length", 1)
    check(*await ask(sidecar, stream=stream), "concurrent")
    assert simulator.report.calls == 1
    holder.transport.abort()
    head, _ = await read_answer(reader)
    assert (head.status, head["x-octet-attempts"]) == (200, "1")
    writer.close()
    await metric_is(sidecar, "octet_slots_in_use", 0)
    assert await sidecar.metric("octet_queue_length", **UPSTREAM) == 0


@both_modes
async def test_nobody_waits_for_ever(start: Start, simulator: Simulator, stream: bool) -> None:
    """After `queue_seconds` in A's queue a call is 429, unsent, and counted as limited."""
    sidecar = await limited(start, A, concurrent=1, queue_seconds=0.1)
    holder = await occupied(sidecar, simulator)
    check(*await ask(sidecar, stream=stream), "concurrent")
    assert await sidecar.metric("octet_limited_total", **UPSTREAM, limit="concurrent") == 1
    assert await sidecar.metric("octet_queue_length", **UPSTREAM) == 0
    assert simulator.report.calls == 1
    holder.transport.abort()
    await sidecar.lines.wait_for(2)
    assert await served_by(sidecar, stream=stream) == ("openai", "1")


@both_modes
async def test_requests_per_minute(start: Start, simulator: Simulator, stream: bool) -> None:
    """What is above A's requests per minute goes to B, as a first attempt, until there is room again."""
    sidecar = await limited(start, A, B, requests_per_minute=2)
    clock = turned_by_hand(sidecar)
    assert [(await served_by(sidecar, stream=stream))[0] for _ in range(5)] == ["openai"] * 2 + ["anthropic"] * 3
    assert await left(sidecar, "requests") == 0
    clock.now += 30
    assert [await served_by(sidecar, stream=stream) for _ in range(2)] == [("openai", "1"), ("anthropic", "1")]


async def test_tokens_per_minute(start: Start, simulator: Simulator) -> None:
    """A call whose estimate is not left at A goes to B; a small one still goes to A."""
    sidecar = await limited(start, A, B, tokens_per_minute=2000)
    turned_by_hand(sidecar)
    simulator.script("openai", Behaviour(tokens=700))
    assert await served_by(sidecar, max_tokens=1500) == ("openai", "1")
    (line,) = await sidecar.lines.wait_for(1)
    assert await left(sidecar, "tokens") == 2000 - line["prompt_tokens"] - line["completion_tokens"]
    assert await served_by(sidecar, max_tokens=1500) == ("anthropic", "1")
    assert await served_by(sidecar, max_tokens=100) == ("openai", "1")


LIMITS = [("requests", {"requests_per_minute": 1}), ("tokens", {"tokens_per_minute": 300})]


@both_modes
@pytest.mark.parametrize(("limit", "limits"), LIMITS, ids=["requests", "tokens"])
async def test_nobody_else_is_left(start: Start, simulator: Simulator, limit: str, limits: Any, stream: bool) -> None:
    """Where A is the only target and its minute is used up a call is 429 at once; after the told time it is served."""
    sidecar = await limited(start, A, **limits)
    clock = turned_by_hand(sidecar)
    simulator.always("openai", Behaviour(tokens=200))
    assert await served_by(sidecar, max_tokens=250, stream=stream) == ("openai", "1")
    head, body = await ask(sidecar, max_tokens=250, stream=stream)
    check(head, body, f"{limit}_per_minute")
    clock.now += int(head["retry-after"]) - 6
    assert (await ask(sidecar, max_tokens=250, stream=stream))[0].status == 429
    assert simulator.report.calls == 1
    clock.now += 6
    assert await served_by(sidecar, max_tokens=250, stream=stream) == ("openai", "1")


@pytest.mark.parametrize(("limit", "limits"), LIMITS, ids=["requests", "tokens"])
async def test_what_is_refused_is_counted(start: Start, simulator: Simulator, limit: str, limits: Any) -> None:
    """A call that is answered 429 for want of an upstream's requests or tokens is in octet_limited_total."""
    sidecar = await limited(start, A, **limits)
    simulator.always("openai", Behaviour(tokens=290))
    assert await served_by(sidecar, max_tokens=250) == ("openai", "1")
    check(*await ask(sidecar, max_tokens=250), f"{limit}_per_minute")
    assert await sidecar.metric("octet_limited_total", **UPSTREAM, limit=limit) == 1


async def test_a_full_queue_is_counted(start: Start, simulator: Simulator) -> None:
    """A call that finds an upstream's queue full is in octet_limited_total."""
    sidecar = await limited(start, A, concurrent=1, queue=0)
    holder = await occupied(sidecar, simulator)
    check(*await ask(sidecar), "concurrent")
    holder.transport.abort()
    await sidecar.lines.wait_for(2)
    assert await sidecar.metric("octet_limited_total", **UPSTREAM, limit="concurrent") == 1


@pytest.mark.parametrize("behaviour", [Behaviour(status=503), Behaviour(status=429), Behaviour(cut="before_headers")])
async def test_a_failed_attempt_gives_its_tokens_back(start: Start, simulator: Simulator, behaviour: Behaviour) -> None:
    """An attempt without an answer was a request of A, and used none of its tokens; its place is free."""
    sidecar = await limited(start, A, B, tokens_per_minute=1000, requests_per_minute=10, concurrent=1)
    turned_by_hand(sidecar)
    simulator.script("openai", behaviour)
    assert await served_by(sidecar, max_tokens=800) == ("anthropic", "2")
    assert (await left(sidecar, "tokens"), await left(sidecar, "requests")) == (1000, 9)
    assert await sidecar.metric("octet_slots_in_use", **UPSTREAM) == 0


async def test_a_target_that_cannot_carry_the_call(start: Start, simulator: Simulator) -> None:
    """A call that cannot be put into A's dialect is not sent, and costs A's buckets nothing."""
    targets = [{"upstream": "anthropic", "model": "claude-haiku-4-5"}]
    limits = {"requests_per_minute": 10, "tokens_per_minute": 1000}
    sidecar = await start(
        upstreams={"anthropic": {"limits": limits}}, routes=[{"match": {"model": "*"}, "targets": targets}]
    )
    head, _ = await ask(sidecar, logprobs=True)
    assert (head.status, simulator.report.calls) == (400, 0)
    assert round(await left(sidecar, "tokens")) == 1000
    assert round(await left(sidecar, "requests")) == 10


@both_modes
async def test_who_leaves_the_queue_pays_nothing(start: Start, simulator: Simulator, stream: bool) -> None:
    """A hang-up in A's queue leaves A's buckets as they were, and the queue empty."""
    sidecar = await limited(start, A, concurrent=1, requests_per_minute=10, tokens_per_minute=1000, queue_seconds=30)
    turned_by_hand(sidecar)
    holder = await occupied(sidecar, simulator, max_tokens=100)
    before = await left(sidecar, "requests"), await left(sidecar, "tokens")
    for count in range(1, 6):
        _, writer = await begin(sidecar, max_tokens=100, stream=stream)
        await metric_is(sidecar, "octet_queue_length", 1)
        writer.transport.abort()
        assert (await sidecar.lines.wait_for(count))[-1]["outcome"] == "hangup"
        assert await sidecar.metric("octet_queue_length", **UPSTREAM) == 0
    assert (await left(sidecar, "requests"), await left(sidecar, "tokens")) == before
    assert simulator.report.calls == 1
    holder.transport.abort()


NOTHING_LEFT = [
    {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "30s", "x-ratelimit-limit-requests": "1"},
    {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s", "x-ratelimit-limit-requests": "10"},
    {"x-ratelimit-remaining-tokens": "20", "x-ratelimit-reset-tokens": "45s", "x-ratelimit-limit-tokens": "100"},
]


@both_modes
@pytest.mark.parametrize("headers", NOTHING_LEFT, ids=["requests", "requests of ten", "tokens"])
async def test_what_an_upstream_says_is_left(start: Start, simulator: Simulator, headers: Any, stream: bool) -> None:
    """An upstream that says it has nothing left is not asked: the next calls go to the next target, without failing."""
    sidecar = await limited(start, A, B)
    simulator.always("openai", Behaviour(headers=headers))
    heads = [(await ask(sidecar, stream=stream))[0] for _ in range(3)]
    assert {head.status for head in heads} == {200}
    assert [head["x-octet-upstream"] for head in heads] == ["openai", "anthropic", "anthropic"]
    assert {head["x-octet-attempts"] for head in heads} == {"1"}
    for name, value in headers.items():
        assert heads[0][name] == value
    assert simulator.report.dialects["openai"].calls == 1


async def test_what_is_left_is_counted_down(start: Start, simulator: Simulator) -> None:
    """Calls under way are taken off what an upstream said to have left, before it says so again."""
    sidecar = await limited(start, A, B)
    told = {**NOTHING_LEFT[0], "x-ratelimit-remaining-requests": "2", "x-ratelimit-limit-requests": "3"}
    simulator.script("openai", Behaviour(headers=told), STALLED, STALLED)
    assert await served_by(sidecar) == ("openai", "1")
    writers = [(await begin(sidecar))[1] for _ in range(2)]
    await simulator.report.wait_for(lambda report: report.dialects["openai"].open_calls == 2)
    assert await served_by(sidecar) == ("anthropic", "1")
    for writer in writers:
        writer.transport.abort()


async def test_nothing_left_and_nobody_else(start: Start, simulator: Simulator) -> None:
    """Where A is the only target and says it has nothing left, the caller hears 429 and when; A is spared."""
    sidecar = await limited(start, A)
    simulator.always("openai", Behaviour(headers=NOTHING_LEFT[0]))
    assert await served_by(sidecar) == ("openai", "1")
    head, body = await ask(sidecar)
    check(head, body, "rate limit")
    assert 20 < int(head["retry-after"]) <= 30
    assert simulator.report.calls == 1


async def test_embeddings_count_too(start: Start, simulator: Simulator) -> None:
    """They hold a place, are charged what they used, and go elsewhere when tokens or places are used up."""
    targets = [{"upstream": "openai", "model": "text-embedding-3-small"}, {"upstream": "ollama", "model": "nomic"}]
    sidecar = await limited(start, *targets, tokens_per_minute=1_000, concurrent=1)
    clock = turned_by_hand(sidecar)
    client = sidecar.openai().embeddings.with_raw_response

    async def embedded_by(text: str) -> tuple[str, int]:
        answer = await client.create(model="any", input=text)
        return answer.headers["x-octet-upstream"], answer.parse().usage.total_tokens

    long = "word " * 700  # some 900 tokens by our estimate
    upstream, used = await embedded_by(long)
    limiter: Any = sidecar.app.upstreams.now.standings["openai"].limiter
    left = limiter.describe()
    assert (upstream, left["tokens_per_minute"]["left"]) == ("openai", 1_000 - used)
    assert left["concurrent"]["in_use"] == 0
    assert (await embedded_by(long))[0] == "ollama", "no tokens are left for it"
    clock.now += 60
    simulator.script("openai", STALLED)
    stalled = asyncio.create_task(embedded_by("one"))
    await simulator.report.wait_for(lambda report: report.dialects["openai"].open_calls == 1)
    assert (await embedded_by("two"))[0] == "ollama", "the place is taken"
    stalled.cancel()
    await asyncio.wait([stalled])
