"""What callers pay for answers that cost nothing, and what limits do to those who share a call."""

import asyncio
from typing import Any

import pytest

from proxy.simulator import Behaviour, Simulator
from tests.cache.conftest import StartCached, calls, waiting
from tests.cache.crowd import STREAM, Crowd, Heard, Person, crowd, grow_older
from tests.cache.stage import END, STREAM_HEAD, Stage, event, whole
from tests.clock import Clock
from tests.conftest import Sidecar
from tests.waiting import until

ANN, BOB = (f"authorization: Bearer sk-{name}-sk" for name in ("ann", "bob"))
BOTH = pytest.mark.parametrize("fields", [{}, STREAM])


def callers(**limits: Any) -> dict[str, Any]:
    """Ann has limits; Bob has none."""
    return {"callers": [{"name": "ann", "key": "sk-ann-sk", "limits": limits}, {"name": "bob", "key": "sk-bob-sk"}]}


def stop_the_clock(sidecar: Sidecar) -> None:
    """Ann's buckets fill no more."""
    clock = Clock(asyncio.get_running_loop().time())
    sidecar.app.upstreams._clock = clock
    sidecar.app.upstreams.now.limited_callers["ann"]._clock = clock


async def left(sidecar: Sidecar, limit: str) -> float:
    """What Ann may still use."""
    return await sidecar.metric("octet_limit_remaining", scope="caller", limit=limit)


async def ask(people: Crowd, *headers: str, **fields: Any) -> Heard:
    return await (await people.ask(*(headers or (ANN,)), **fields)).hear()


@BOTH
async def test_a_hit_is_a_request(start_cached: StartCached, simulator: Simulator, fields: dict[str, Any]) -> None:
    """Of tokens it takes none, whether or not its body was known."""
    limits = callers(requests_per_minute=100, tokens_per_minute=100_000)
    sidecar = await start_cached(server=limits)
    stop_the_clock(sidecar)
    async with crowd(sidecar) as people:
        assert (await ask(people, **fields)).head["x-octet-cache"] == "miss"
        tokens = await left(sidecar, "tokens")
        assert tokens < 100_000
        for number in range(3):
            heard = await ask(people, **fields)
            assert (heard.head.status, heard.head["x-octet-cache"]) == (200, "memory"), heard.body
            assert await left(sidecar, "tokens") == tokens
            assert await left(sidecar, "requests") == 98 - number


@BOTH
async def test_a_hit_needs_no_tokens(start_cached: StartCached, simulator: Simulator, fields: dict[str, Any]) -> None:
    """A caller in debt gets what is kept; for what is not it has to wait."""
    sidecar = await start_cached(server=callers(requests_per_minute=100, tokens_per_minute=1000))
    stop_the_clock(sidecar)
    async with crowd(sidecar) as people:
        simulator.script("openai", Behaviour(tokens=2000))
        assert (await ask(people, **fields)).head.status == 200
        assert await left(sidecar, "tokens") < 0
        for _ in range(3):
            heard = await ask(people, **fields)
            assert (heard.head.status, heard.head["x-octet-cache"]) == (200, "memory"), heard.body
        assert (await ask(people, seed=1, **fields)).head.status == 429
    assert calls(simulator) == 1


async def test_hits_have_their_limit_too(start_cached: StartCached, simulator: Simulator) -> None:
    """Requests that are answered from what is kept are counted."""
    sidecar = await start_cached(server=callers(requests_per_minute=3))
    stop_the_clock(sidecar)
    async with crowd(sidecar) as people:
        heard = [await ask(people) for _ in range(4)]
    assert [each.head.status for each in heard] == [200, 200, 200, 429]
    assert heard[3].error["code"] == "rate_limit_exceeded"


@BOTH
async def test_joiners_pay_a_request(on_stage: StartCached, stage: Stage, fields: dict[str, Any]) -> None:
    """The starter is charged what the answer took; those who joined, in debt or not, nothing of it."""
    sidecar = await on_stage(server=callers(requests_per_minute=100, tokens_per_minute=1000))
    stop_the_clock(sidecar)
    async with crowd(sidecar) as people:
        starter, call = await people.start(stage, ANN, **fields)
        joiners = [await people.join(ANN, **fields) for _ in range(5)]
        call.say(answer_of(1500, stream=bool(fields)))
        for person in (starter, *joiners):
            assert (await person.hear()).head.status == 200
        await sidecar.lines.wait_for(6)
        assert await left(sidecar, "tokens") == 1000 - 1500
        assert await left(sidecar, "requests") == 94
        total = await sidecar.metric("octet_tokens_total", direction="completion", upstream="openai")
        assert total == 1490


def answer_of(tokens: int, *, stream: bool) -> bytes:
    """An answer that says that it took so many tokens."""
    usage = b'"usage":{"prompt_tokens":10,"completion_tokens":%d,"total_tokens":%d}' % (tokens - 10, tokens)
    if stream:
        told = b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[],%b}\n\n' % usage
        finish, _, done = END.partition(b"data: [DONE]")
        return STREAM_HEAD + event("a") + finish + told + b"data: [DONE]" + done
    head, _, body = whole(3).partition(b"\r\n\r\n")
    body = body[:-1] + b"," + usage + b"}"
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d" % len(body)
    return head + b"\r\n\r\n" + body


@BOTH
async def test_a_place_is_held_while_one_waits(on_stage: StartCached, stage: Stage, fields: dict[str, Any]) -> None:
    """A caller's `concurrent` counts those who have joined; when they go it is free again."""
    sidecar = await on_stage({"shared": True}, server=callers(concurrent=2, queue_seconds=0))
    async with crowd(sidecar) as people:
        starter, call = await people.start(stage, BOB, **fields)
        joined = [await people.join(ANN, **fields) for _ in range(2)]
        assert (await ask(people, ANN, **fields)).head.status == 429
        joined.pop().hang_up()
        await until(lambda: waiting(sidecar) == 1)
        joined.append(await people.join(ANN, **fields))
        call.say(answer_of(100, stream=bool(fields)))
        for person in (starter, *joined):
            assert (await person.hear()).head.status == 200
        assert len(stage.calls) == 1


@BOTH
async def test_a_starter_without_room_harms_nobody(on_stage: StartCached, stage: Stage, fields: dict[str, Any]) -> None:
    """Whoever is over its limit is told so; the same call of another caller is made."""
    sidecar = await on_stage({"shared": True}, server=callers(requests_per_minute=1, tokens_per_minute=1_000_000))
    stop_the_clock(sidecar)
    async with crowd(sidecar) as people:
        other, first = await people.start(stage, ANN, seed=9, **fields)
        first.say(answer_of(100, stream=bool(fields)))
        await other.hear()
        refused = await people.ask(ANN, **fields)
        served, call = await people.start(stage, BOB, **fields)
        call.say(answer_of(100, stream=bool(fields)))
        assert (await refused.hear()).head.status == 429
        assert (await served.hear()).head.status == 200


async def test_whose_key_is_refused_harms_nobody(on_stage: StartCached, stage: Stage) -> None:
    """Where answers are shared and callers' own keys go upstream, one's bad key is not another's failure."""
    upstreams = {"openai": {"base_url": stage.url, "credential": "caller", "api_key": None}}
    sidecar = await on_stage({"shared": True}, server=callers(), upstreams=upstreams)
    async with crowd(sidecar) as people:
        bad, call = await people.start(stage, "x-octet-key: sk-ann-sk", "authorization: Bearer sk-bad")
        good = await people.join("x-octet-key: sk-bob-sk", "authorization: Bearer sk-good")
        call.say(
            b"HTTP/1.1 401 no\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}"
        )
        assert (await bad.hear()).head.status == 401
        again = await stage.call(1)
        again.say(answer_of(100, stream=False))
        assert (await good.hear()).head.status == 200


async def test_an_old_answer_takes_no_tokens(start_cached: StartCached, simulator: Simulator) -> None:
    """What is given since all else failed is charged as what it is: a request."""
    rules = {"ttl_seconds": 10, "stale_if_error_seconds": 100}
    sidecar = await start_cached(rules, server=callers(requests_per_minute=100, tokens_per_minute=100_000))
    stop_the_clock(sidecar)
    async with crowd(sidecar) as people:
        await ask(people, max_tokens=500)
        grow_older(sidecar, 50)
        before = await left(sidecar, "tokens")
        simulator.script("openai", Behaviour(status=500))
        assert (await ask(people, max_tokens=500)).head["x-octet-cache"] == "memory"
        assert await left(sidecar, "tokens") == before


async def _tail(person: Person) -> bytes:
    return (await person.hear()).body
