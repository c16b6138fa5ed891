"""One call upstream, told to callers of every form as if each had been alone."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from proxy.simulator import Behaviour, Simulator
from tests.cache.conftest import StartCached, cached_routes, calls, waiting
from tests.cache.crowd import STREAM, WITH_USAGE, Heard, crowd, flight_of
from tests.cache.stage import END, STREAM_HEAD, Stage, event, whole
from tests.conftest import MODELS, Sidecar, Start
from tests.edge.wire import request
from tests.waiting import until

TEXT = "one two three four five six seven eight"
SLOW = Behaviour(text=TEXT, token_seconds=0.03)
FORMS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("1.1", "", {}),
    ("1.1", "", STREAM),
    ("1.1", "", WITH_USAGE),
    ("1.0", "", STREAM),
    ("1.0", "", WITH_USAGE),
    ("1.0", "connection: keep-alive", {}),
    ("1.1", "connection: close", STREAM),
    ("1.1", "connection: close", WITH_USAGE),
    ("1.1", "connection: close", {}),
)
HELLO = [{"role": "user", "content": "Hello"}]


def asks(model: str, form: tuple[str, str, dict[str, Any]]) -> bytes:
    """A call in one of the forms."""
    version, connection, fields = form
    headers = [connection] if connection else []
    return request(*headers, version=version, model=model, messages=HELLO, **fields)


def plain(heard: Heard) -> Any:
    """What was said, without what is another in every answer: id and time."""
    if not heard.body.startswith(b"data:"):
        return _told(_plain(json.loads(heard.body)))
    events = heard.body.decode().split("\n\n")
    return [_plain(json.loads(each[6:])) if each.startswith("data: {") else each for each in events]


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    left_out = {"id", "created", "system_fingerprint", "service_tier", "obfuscation"}
    return {name: each for name, each in value.items() if name not in left_out}


def _told(value: Any) -> Any:
    """A value without what holds nothing: no stream tells of it."""
    if isinstance(value, dict):
        return {name: _told(each) for name, each in value.items() if each not in (None, [], {})}
    return [_told(each) for each in value] if isinstance(value, list) else value


def head_of(heard: Heard) -> dict[str, str]:
    """The headers that a caller reads an answer by."""
    names = ("content-type", "connection", "transfer-encoding", "x-octet-route", "x-octet-upstream", "x-octet-model")
    return {"line": heard.head.line} | {name: "".join(heard.head.all(name)) for name in names}


@pytest.mark.parametrize("dialect", ["openai", "anthropic", "ollama", "vllm", "tgi"])
@pytest.mark.parametrize("renamed", [False, True])
async def test_everybody_as_if_alone(start: Start, simulator: Simulator, dialect: str, renamed: bool) -> None:
    """Two hundred callers of nine forms: one call upstream, and each gets what it gets where nothing is kept."""
    simulator.always(dialect, SLOW)
    targets = [{"upstream": dialect, "model": MODELS[dialect]} if renamed else {"upstream": dialect}]
    model = "another-name" if renamed else MODELS[dialect]
    route: dict[str, Any] = {"name": "all", "targets": targets}
    bare = await start(routes=[route])
    cached = await start(routes=[{**route, "cache": {"any_temperature": True}}])
    async with crowd(bare) as alone, crowd(cached) as people:
        wanted = [await (await alone.call(asks(model, form))).hear() for form in FORMS]
        before = calls(simulator)
        starter = await people.call(asks(model, FORMS[1]))
        await until(lambda: cached.app.upstreams.starts)
        crowded = [await people.call(asks(model, FORMS[number % len(FORMS)])) for number in range(199)]
        heard = await asyncio.gather(*(person.hear() for person in crowded))
        first = await starter.hear()
        assert calls(simulator) == before + 1
        assert plain(first) == plain(wanted[1])
        for number, each in enumerate(heard):
            expected = wanted[number % len(FORMS)]
            assert plain(each) == plain(expected), FORMS[number % len(FORMS)]
            assert head_of(each) == head_of(expected)
        assert {each.head["x-octet-cache"] for each in heard} <= {"joined", "memory"}
        assert len({each.body for each, form in zip(heard, FORMS * 23, strict=False) if form[2] is STREAM}) == 1


async def test_streams_do_not_wait_for_whole_answers(on_stage: StartCached, stage: Stage) -> None:
    """A stream is a call of its own beside a JSON call; a JSON caller who comes then joins a call of its own kind."""
    sidecar = await on_stage()
    async with crowd(sidecar) as people:
        first, call = await people.start(stage)
        second, other = await people.start(stage, **STREAM)
        third = await people.join()
        fourth = await people.join(**WITH_USAGE)
        call.say(whole(3))
        assert (await first.hear()).body == (await third.hear()).body
        other.say(STREAM_HEAD + event("a") + END)
        assert (await second.hear()).body == event("a") + END
        assert (await fourth.hear()).body.endswith(b"data: [DONE]\n\n")
        assert len(stage.calls) == 2


async def test_whole_answers_come_of_streams(on_stage: StartCached, stage: Stage) -> None:
    """JSON callers who join a stream wait for its end, and get one completion."""
    sidecar = await on_stage()
    async with crowd(sidecar) as people:
        starter, call = await people.start(stage, **STREAM)
        early = await people.join()
        call.say(STREAM_HEAD + event("a"))
        await starter.hear_head()
        late = await people.join()
        call.say(event("b") + END)
        answers = [await each.hear() for each in (early, late)]
        assert {each.body for each in answers} == {answers[0].body}
        message = json.loads(answers[0].body)["choices"][0]
        assert (message["message"]["content"], message["finish_reason"]) == ("ab", "stop")


@pytest.mark.parametrize("begun", range(7))
async def test_whenever_one_comes(on_stage: StartCached, stage: Stage, begun: int) -> None:
    """Before the head, before content, between any two events: all get the same stream."""
    sidecar = await on_stage()
    parts = [STREAM_HEAD, event("", delta={"role": "assistant"}), *(event(each) for each in "abcd")]
    async with crowd(sidecar) as people:
        starter, call = await people.start(stage, **STREAM)
        for part in parts[:begun]:
            call.say(part)
        if begun > 2:
            await until(lambda: flight_of(sidecar)._size >= sum(map(len, parts[1:begun])))
        late = [await people.join(**each) for each in (STREAM, WITH_USAGE, {}, STREAM)]
        for part in parts[begun:]:
            call.say(part)
        call.say(END)
        wanted = b"".join(parts[1:]) + END
        assert [(await each.hear()).body for each in (starter, late[0], late[3])] == [wanted] * 3
        assert json.loads((await late[2].hear()).body)["choices"][0]["message"]["content"] == "abcd"
        assert (await late[1].hear()).body == wanted


async def test_several_choices_of_an_upstream_that_makes_one(start: Start, simulator: Simulator) -> None:
    """`n` of anthropic is several calls, once for all who ask it; each caller gets all choices."""
    simulator.always("anthropic", SLOW)
    sidecar = await start(routes=cached_routes(any_temperature=True))
    body = {"model": MODELS["anthropic"], "messages": HELLO, "n": 3}
    async with aiohttp.ClientSession() as session:

        async def one(**fields: Any) -> bytes:
            async with session.post(f"{sidecar.url}/v1/chat/completions", json=body | fields) as response:
                assert response.status == 200
                return await response.read()

        streams = [asyncio.create_task(one(stream=True)) for _ in range(20)]
        await until(lambda: waiting(sidecar) == 19)
        wholes = [asyncio.create_task(one()) for _ in range(20)]
        told = {await each for each in streams}
        (whole_body,) = {await each for each in wholes}
    assert len(told) == 1
    assert calls(simulator) == 3
    choices = json.loads(whole_body)["choices"]
    assert [choice["message"]["content"] for choice in choices] == [TEXT] * 3


@pytest.mark.parametrize("dialect", ["openai", "vllm"])
async def test_the_older_completions(start: Start, simulator: Simulator, dialect: str) -> None:
    """They are shared and kept as chats are, in every form."""
    simulator.always(dialect, SLOW)
    cached, bare = await start(routes=cached_routes(any_temperature=True)), await start()
    body = {"model": MODELS[dialect], "prompt": "Hello"}

    async def one(sidecar: Sidecar, fields: dict[str, Any]) -> Any:
        async with sidecar.http.post(f"{sidecar.url}/v1/completions", json=body | fields) as response:
            assert response.status == 200, await response.text()
            head = await response.read()
            return plain(Heard(None, head))  # type: ignore[arg-type]

    forms: list[dict[str, Any]] = [STREAM, WITH_USAGE, {}]
    wanted = [await one(bare, form) for form in forms]
    before = calls(simulator)
    tasks = [asyncio.create_task(one(cached, STREAM))]
    await until(lambda: cached.app.upstreams.starts)
    tasks += [asyncio.create_task(one(cached, forms[number % 3])) for number in range(30)]
    assert await tasks[0] == wanted[0]
    for number, task in enumerate(tasks[1:]):
        assert await task == wanted[number % 3], forms[number % 3]
    assert [await one(cached, form) for form in forms] == wanted
    assert calls(simulator) == before + 1
