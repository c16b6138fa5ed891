"""Only whole, good answers from where the route wanted them are kept."""

import asyncio
import json
from typing import Any

import pytest

from proxy.simulator import Behaviour, Simulator
from tests.cache.conftest import StartCached, body_of, calls
from tests.cache.crowd import STREAM, crowd, flight_of
from tests.cache.stage import END, STREAM_HEAD, Stage, StagedCall, event, whole
from tests.conftest import MODELS, Sidecar
from tests.edge.wire import request
from tests.waiting import until

BOTH = pytest.mark.parametrize("fields", [{}, STREAM])
NOT_FOUND = b"HTTP/1.1 500 no\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}"

CLOSING = whole(3000).replace(b"\r\n", b"\r\nconnection: close\r\n", 1)


def cut(call: StagedCall) -> None:
    call.hang_up()


def end_early(call: StagedCall) -> None:
    call._transport.close()


def complain(call: StagedCall) -> None:
    call.say(b'data: {"error":{"message":"overloaded","type":"server_error"}}\n\n')


def rave(call: StagedCall) -> None:
    call.say(b"data: {not json\n\n")


@pytest.mark.parametrize("fault", [cut, end_early, complain, rave])
async def test_broken_streams(on_stage: StartCached, stage: Stage, fault: Any) -> None:
    """All who share one get what came, and the error with their own request id; the next call tries again."""
    sidecar = await on_stage()
    async with crowd(sidecar) as people:
        starter, call = await people.start(stage, "x-request-id: id-0", **STREAM)
        joined = [await people.join(f"x-request-id: id-{number}", **STREAM) for number in (1, 2)]
        whole_wanted = await people.join("x-request-id: id-3")
        call.say(STREAM_HEAD + event("a"))
        head = await starter.hear_head()
        late = await people.join("x-request-id: id-4", **STREAM)
        await until(lambda: flight_of(sidecar)._size)
        fault(call)
        bodies = [await starter.hear_body(head), *[(await each.hear()).body for each in (*joined, late)]]
        for number, body in zip((0, 1, 2, 4), bodies, strict=True):
            assert body.startswith(event("a")), body
            assert b"[DONE]" not in body
            assert json.loads(body.rpartition(b"data: ")[2])["error"]["message"].endswith(f"(request id: id-{number})")
        heard = await whole_wanted.hear()
        assert heard.head.status == 502
        assert "id-3" in heard.error["message"]
        again, other = await people.start(stage, **STREAM)
        other.say(STREAM_HEAD + event("b") + END)
        assert (await again.hear()).body == event("b") + END


@BOTH
async def test_failures_before_content(on_stage: StartCached, stage: Stage, fields: dict[str, Any]) -> None:
    """Everybody gets the error with its own id; the next call tries again."""
    sidecar = await on_stage()
    async with crowd(sidecar) as people:
        starter, call = await people.start(stage, "x-request-id: id-0", **fields)
        people_there = [starter, *[await people.join(f"x-request-id: id-{number}", **fields) for number in (1, 2, 3)]]
        call.say(NOT_FOUND)
        for number, person in enumerate(people_there):
            heard = await person.hear()
            assert heard.head.status == 502
            assert heard.head["x-request-id"] == f"id-{number}"
            assert f"id-{number}" in heard.error["message"]
        _, again = await people.start(stage, **fields)
        assert again is stage.calls[1]


async def test_the_starter_has_gone_and_the_stream_breaks(on_stage: StartCached, stage: Stage) -> None:
    """The circuit hears of it as if the starter were there, and the starter's line says that it hung up."""
    circuit = {"window": 4, "minimum_calls": 2, "failure_rate": 0.5, "open_seconds": 60}
    sidecar = await on_stage(upstreams={"openai": {"base_url": stage.url, "circuit": circuit}})
    async with crowd(sidecar) as people:
        for number in range(4):
            starter, call = await people.start(stage, seed=number, **STREAM)
            call.say(STREAM_HEAD + event("a"))
            await starter.hear_head()
            joiner = await people.join(seed=number, **STREAM)
            starter.hang_up()
            await until(lambda: not flight_of(sidecar)._present)
            call.hang_up()
            assert b"error" in (await joiner.hear()).body
            lines = await sidecar.lines.wait_for(2 * number + 2)
            assert sorted(line["outcome"] for line in lines[-2:]) == ["cut", "hangup"]
            if await sidecar.metric("octet_circuit_state", upstream="openai") == 2:
                return
        assert await sidecar.metric("octet_circuit_state", upstream="openai") == 2


@BOTH
async def test_the_starter_has_gone_and_the_call_fails(
    on_stage: StartCached, stage: Stage, fields: dict[str, Any]
) -> None:
    """Before content: who has joined is told, and the starter's line says that it hung up."""
    sidecar = await on_stage()
    async with crowd(sidecar) as people:
        starter, call = await people.start(stage, **fields)
        joiner = await people.join(**fields)
        starter.hang_up()
        await until(lambda: not flight_of(sidecar)._present)
        call.say(NOT_FOUND)
        assert (await joiner.hear()).head.status == 502
        lines = await sidecar.lines.wait_for(2)
        assert sorted((line["cache"], line["outcome"]) for line in lines) == [
            ("joined", "upstream_error"),
            ("miss", "hangup"),
        ]


@BOTH
async def test_too_large(on_stage: StartCached, stage: Stage, fields: dict[str, Any]) -> None:
    """It is given to all who came before it was, in every form, and is not kept."""
    sidecar = await on_stage(cache={"max_entry_bytes": 2000})
    async with crowd(sidecar) as people:
        starter, call = await people.start(stage, **fields)
        joiners = [await people.join(**fields) for _ in range(3)]
        wholes = [await people.join() for _ in range(2)]
        text = event("x" * 3000)
        if fields:
            (flying,) = sidecar.app.upstreams.starts.values()
            call.say(STREAM_HEAD + text)
            await until(lambda: not flying.joinable)
        call.say(END if fields else CLOSING)
        answers = [await each.hear() for each in (starter, *joiners)]
        assert len({each.body for each in answers}) == 1
        if fields:
            assert answers[0].body == text + END
            (await stage.call(1)).say(CLOSING)
        for each in wholes:
            assert b"x" * 3000 in (await each.hear()).body
        number = len(stage.calls)
        await people.start(stage, **fields)
        assert len(stage.calls) == number + 1


@BOTH
async def test_what_a_filter_stopped(start_cached: StartCached, simulator: Simulator, fields: dict[str, Any]) -> None:
    """It is given, and kept only where the route says so."""
    simulator.always("openai", Behaviour(finish="content_filter"))
    sidecar, keeping = await start_cached(), await start_cached({"store_filtered": True})
    for each, wanted in ((sidecar, ["miss", "miss"]), (keeping, ["miss", "memory"])):
        told = []
        for _ in range(2):
            response = await each.chat(**fields)
            await body_of(response)
            told.append(response.headers["x-octet-cache"])
        assert told == wanted


@pytest.mark.parametrize("spelling", [b'"finish_reason" : "content_filter"', b'"finish_reason":\n"content_filter"'])
@BOTH
async def test_a_filter_that_spells_its_own_way(
    on_stage: StartCached, stage: Stage, spelling: bytes, fields: dict[str, Any]
) -> None:
    """JSON with other blanks is the same JSON."""
    sidecar = await on_stage()
    old = b'"finish_reason": "stop"'
    if fields:
        answer = STREAM_HEAD + event("a") + END.replace(old, spelling.replace(b"\n", b"  "))
    else:
        head, _, body = whole(3).partition(b"\r\n\r\n")
        body = body.replace(old, spelling)
        head = head[: head.rindex(b":")] + b": %d" % len(body)
        answer = head + b"\r\nconnection: close\r\n\r\n" + body
    async with crowd(sidecar) as people:
        for _ in range(2):
            person, call = await people.start(stage, **fields)
            call.say(answer)
            assert (await person.hear()).head["x-octet-cache"] == "miss"


@BOTH
async def test_what_the_upstream_is_to_store(cached: Sidecar, simulator: Simulator, fields: dict[str, Any]) -> None:
    """`store: true` wants something done, each time."""
    for _ in range(2):
        response = await cached.chat(store=True, **fields)
        await body_of(response)
        assert response.headers["x-octet-cache"] == "bypass"
    await body_of(await cached.chat(store=False, **fields))
    await body_of(await cached.chat(**fields))
    assert calls(simulator) == 3


@BOTH
async def test_fallbacks(start_cached: StartCached, simulator: Simulator, fields: dict[str, Any]) -> None:
    """The answer of a fallback is given to all who wait, and not kept; a target's own is, after retries too."""
    route = {
        "name": "all",
        "targets": [{"upstream": "openai"}],
        "fallback": [{"upstream": "vllm", "model": MODELS["vllm"]}],
        "retry": {"attempts": 2},
        "cache": {"any_temperature": True},
    }
    sidecar = await start_cached(routes=[route])
    simulator.script("openai", Behaviour(status=500))
    simulator.script("vllm", Behaviour(first_token_seconds=0.2))
    answers = await asyncio.gather(*(sidecar.chat(**fields) for _ in range(9)))
    assert len({await body_of(answer) for answer in answers}) == 1
    assert {answer.headers["x-octet-upstream"] for answer in answers} == {"vllm"}
    assert calls(simulator) == 2
    simulator.always("openai", Behaviour())
    told = []
    for _ in range(3):
        response = await sidecar.chat(**fields)
        await body_of(response)
        told.append((response.headers["x-octet-upstream"], response.headers["x-octet-cache"]))
    assert told == [("openai", "miss"), ("openai", "memory"), ("openai", "memory")]


@BOTH
async def test_hedged_routes(start_cached: StartCached, simulator: Simulator, fields: dict[str, Any]) -> None:
    """Whichever attempt wins, all get its answer, and it is kept."""
    targets = [{"upstream": "openai"}, {"upstream": "vllm", "model": MODELS["vllm"]}]
    hedge = {"after_seconds": 0.05, "budget": 1.0}
    route = {"name": "all", "targets": targets, "hedge": hedge, "cache": {"any_temperature": True}}
    sidecar = await start_cached(routes=[route])
    simulator.always("openai", Behaviour(stall="before_headers"))
    answers = await asyncio.gather(*(sidecar.chat(**fields) for _ in range(9)))
    assert len({await body_of(answer) for answer in answers}) == 1
    again = await sidecar.chat(**fields)
    assert again.headers["x-octet-cache"] == "memory"
    assert calls(simulator) == 2


async def test_embeddings(cached: Sidecar, simulator: Simulator) -> None:
    """They are kept, byte for byte, whatever stands in the body beside."""
    body = {"model": MODELS["openai"], "input": ["Hello"]}
    url = f"{cached.url}/v1/embeddings"
    answers = [await cached.http.post(url, json=body | more) for more in ({}, {}, {"user": "me"}, {"input": "Hello"})]
    bodies = [await body_of(answer) for answer in answers]
    assert [answer.headers["x-octet-cache"] for answer in answers] == ["miss", "memory", "memory", "miss"]
    assert bodies[0] == bodies[1] == bodies[2]


async def test_paced(start_cached: StartCached, simulator: Simulator) -> None:
    """An answer told at the pace at which it came has the same events in the same order; who leaves leaves nothing."""
    simulator.always("openai", Behaviour(text="one two three four", token_seconds=0.02))
    sidecar = await start_cached({"replay": "paced"})
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    live = await body_of(await sidecar.chat(stream=True))
    async with crowd(sidecar) as people:
        ask = request(messages=[{"role": "user", "content": "Hello"}], **STREAM)
        leaving = [await people.call(ask) for _ in range(5)]
        for person in leaving:
            await person.hear_head()
            person.hang_up()
        staying = [await people.call(ask) for _ in range(5)]
        assert {(await person.hear()).body for person in staying} == {live}
    await until(lambda: sidecar.app._data.answering == 0)
    assert not faults
    assert calls(simulator) == 1


async def test_at_the_end_of_the_sidecar(on_stage: StartCached, stage: Stage) -> None:
    """Everybody in a flight is told that the sidecar is shutting down, also when its starter has gone."""
    sidecar = await on_stage(server={"drain_seconds": 0.2})
    async with crowd(sidecar) as people:
        starter, call = await people.start(stage, **STREAM)
        call.say(STREAM_HEAD + event("a"))
        await starter.hear_head()
        joined = [await people.join(**STREAM) for _ in range(3)]
        whole_wanted = await people.join()
        other, _ = await people.start(stage, seed=1)
        beside = await people.ask(seed=1)
        await until(lambda: sidecar.app._data.answering == 7)
        starter.hang_up()
        await until(lambda: sidecar.app._data.answering == 7)
        await sidecar.close()
        told = [(await each.hear()).error["code"] for each in (*joined, whole_wanted, other, beside)]
        assert set(told) == {"shutting_down"}
        await until(call.left.is_set)
        assert not sidecar.app.upstreams.starts
