"""Deadlines of calls that share one upstream call: each caller is told at its own time."""

from typing import Any

import pytest

from tests.cache.conftest import StartCached, waiting
from tests.cache.crowd import STREAM, Person, crowd, flight_of
from tests.cache.stage import END, STREAM_HEAD, Stage, event, whole
from tests.conftest import Sidecar
from tests.edge.wire import request
from tests.waiting import until

BOTH = pytest.mark.parametrize("fields", [{}, STREAM])
SOON = "x-octet-timeout: 0.4"
GOOD = {False: whole(3), True: STREAM_HEAD + event("a") + event("b") + END}


def answer(fields: dict[str, Any]) -> bytes:
    """What the upstream says in the end."""
    return GOOD[bool(fields)]


async def told(person: Person) -> tuple[int, str]:
    """The status, and the error's code, that somebody is told."""
    heard = await person.hear()
    return heard.head.status, heard.error["code"]


async def lines_of(sidecar: Sidecar, count: int) -> list[tuple[str, int, str | None]]:
    """What the access log says of calls, in the order of their ends."""
    return [(line["outcome"], line["status"], line["reason"]) for line in await sidecar.lines.wait_for(count)]


@BOTH
async def test_a_starter_with_less_time(on_stage: StartCached, stage: Stage, fields: dict[str, Any]) -> None:
    """It is told 504 at its time, once, and its connection is closed; who joined gets the answer of that very call."""
    sidecar = await on_stage()
    async with crowd(sidecar) as people:
        starter, call = await people.start(stage, SOON, **fields)
        joiner = await people.join(**fields)
        head = await starter.hear_head()
        assert head.status == 504
        assert b"timeout" in await starter.hear_body(head)
        assert await starter.hear_end() == b""
        call.say(answer(fields))
        assert (await joiner.hear()).head.status == 200
        assert len(stage.calls) == 1


@BOTH
async def test_it_is_told_as_if_it_were_alone(on_stage: StartCached, stage: Stage, fields: dict[str, Any]) -> None:
    """A dismissed starter's answer has the headers and the body that it has when nobody has joined."""
    sidecar = await on_stage()
    async with crowd(sidecar) as people:
        alone, _ = await people.start(stage, SOON, "x-request-id: same", **fields)
        wanted = await alone.hear()
        starter, call = await people.start(stage, SOON, "x-request-id: same", **fields)
        joiner = await people.join(**fields)
        heard = await starter.hear()
        call.say(answer(fields))
        await joiner.hear()
        assert heard.body == wanted.body
        names = [{name for name, _ in each.head.headers} - {"connection"} for each in (heard, wanted)]
        assert names[0] == names[1]
        assert heard.head.line == wanted.head.line


@BOTH
async def test_the_log_says_so_too(on_stage: StartCached, stage: Stage, fields: dict[str, Any]) -> None:
    """The line of a dismissed starter is that of one that was alone, whatever became of the call afterwards."""
    sidecar = await on_stage()
    async with crowd(sidecar) as people:
        alone, _ = await people.start(stage, SOON, **fields)
        await alone.hear()
        (wanted,) = await lines_of(sidecar, 1)
        starter, call = await people.start(stage, SOON, **fields)
        joiner = await people.join(**fields)
        await starter.hear_end()
        call.say(answer(fields))
        await joiner.hear()
        assert sorted((await lines_of(sidecar, 3))[1:]) == sorted([wanted, ("ok", 200, None)])


async def test_the_log_of_a_stream_that_had_begun(on_stage: StartCached, stage: Stage) -> None:
    """The line of a starter that was dismissed after first content is that of one that was alone."""
    sidecar = await on_stage()
    async with crowd(sidecar) as people:
        alone, call = await people.start(stage, SOON, **STREAM)
        call.say(STREAM_HEAD + event("a"))
        told_alone = await alone.hear()
        (wanted,) = await lines_of(sidecar, 1)
        starter, call = await people.start(stage, SOON, **STREAM)
        call.say(STREAM_HEAD + event("a"))
        head = await starter.hear_head()
        joiner = await people.join(**STREAM)
        body = await starter.hear_body(head)
        assert body.startswith(event("a"))
        assert body.partition(b'"error"')[2][:40] == told_alone.body.partition(b'"error"')[2][:40]
        assert b"[DONE]" not in body
        assert await starter.hear_end() == b""
        call.say(event("b") + END)
        assert (await joiner.hear()).body == event("a") + event("b") + END
        assert sorted((await lines_of(sidecar, 3))[1:]) == sorted([wanted, ("ok", 200, None)])


@BOTH
async def test_a_joiner_with_less_time(on_stage: StartCached, stage: Stage, fields: dict[str, Any]) -> None:
    """It is told 504 at its time, alone; the starter gets its answer."""
    sidecar = await on_stage()
    async with crowd(sidecar) as people:
        starter, call = await people.start(stage, **fields)
        joiner = await people.join(SOON, **fields)
        assert await told(joiner) == (504, "upstream_timeout")
        assert not waiting(sidecar)
        call.say(answer(fields))
        assert (await starter.hear()).head.status == 200
        assert len(stage.calls) == 1
        assert ("upstream_error", 504, "TooSlow.deadline") in await lines_of(sidecar, 2)


@pytest.mark.parametrize("name", ["x-stainless-read-timeout", "x-stainless-timeout"])
@BOTH
async def test_a_client_with_less_patience(
    on_stage: StartCached, stage: Stage, fields: dict[str, Any], name: str
) -> None:
    """What its SDK says bounds its wait for content, too: it is told once, and has joined once."""
    sidecar = await on_stage()
    async with crowd(sidecar) as people:
        starter, call = await people.start(stage, **fields)
        joiner = await people.join(f"{name}: 0.4", **fields)
        assert await told(joiner) == (504, "upstream_timeout")
        assert await sidecar.metric("octet_flights_joined_total", route="staged") == 1
        call.say(answer(fields))
        assert (await starter.hear()).head.status == 200


async def test_a_joiner_with_less_time_in_the_middle(on_stage: StartCached, stage: Stage) -> None:
    """Of a stream that it reads: the error is its last event; the others read on."""
    sidecar = await on_stage()
    async with crowd(sidecar) as people:
        starter, call = await people.start(stage, **STREAM)
        call.say(STREAM_HEAD + event("a"))
        joiner = await people.join(SOON, **STREAM)
        heard = await joiner.hear()
        assert heard.body.startswith(event("a"))
        assert heard.error["code"] == "upstream_timeout"
        assert await joiner.hear_end() == b""
        call.say(event("b") + END)
        assert (await starter.hear()).body == event("a") + event("b") + END


@BOTH
async def test_all_have_had_their_time(on_stage: StartCached, stage: Stage, fields: dict[str, Any]) -> None:
    """When the last one has been told, the upstream is let go of."""
    sidecar = await on_stage()
    async with crowd(sidecar) as people:
        starter, call = await people.start(stage, SOON, **fields)
        joiner = await people.join("x-octet-timeout: 0.8", **fields)
        assert (await starter.hear_head()).status == 504
        assert await told(joiner) == (504, "upstream_timeout")
        await until(call.left.is_set)
        await until(lambda: not sidecar.app.upstreams.starts)
        assert {outcome for outcome, _, _ in await lines_of(sidecar, 2)} == {"upstream_error"}


async def test_a_dismissed_starter_of_the_old_kind(on_stage: StartCached, stage: Stage) -> None:
    """HTTP/1.0: one answer, and the end of the connection."""
    sidecar = await on_stage()
    async with crowd(sidecar) as people:
        starter = await people.call(request(SOON, version="1.0", **STREAM))
        call = await stage.call()
        joiner = await people.join(**STREAM)
        assert (await starter.hear_end()).startswith(b"HTTP/1.0 504 ")
        call.say(answer(STREAM))
        assert (await joiner.hear()).body.endswith(b"data: [DONE]\n\n")


async def test_a_dismissed_starter_with_more_to_ask(on_stage: StartCached, stage: Stage) -> None:
    """What it has sent behind its call on the same connection is not answered, nor sent upstream."""
    sidecar = await on_stage()
    async with crowd(sidecar) as people:
        other = request(model="other")
        starter = await people.call(request(SOON) + other)
        call = await stage.call()
        joiner = await people.join()
        text = await starter.hear_end()
        assert text.startswith(b"HTTP/1.1 504 ")
        assert text.count(b"HTTP/1.1") == 1
        call.say(answer({}))
        assert (await joiner.hear()).head.status == 200
        await sidecar.lines.wait_for(2)
        assert len(stage.calls) == 1


async def test_kept_waiting_by_comments(on_stage: StartCached, stage: Stage) -> None:
    """A stream that was opened by a comment ends with the error as its event, and is logged as it was answered."""
    sidecar = await on_stage(server={"keep_alive_seconds": 0.1})
    async with crowd(sidecar) as people:
        starter, call = await people.start(stage, SOON, **STREAM)
        joiner = await people.join(**STREAM)
        heard = await starter.hear()
        assert heard.head.status == 200
        assert heard.error["code"] == "upstream_timeout"
        call.say(answer(STREAM))
        assert (await joiner.hear()).body.endswith(event("a") + event("b") + END)
        assert sorted(await lines_of(sidecar, 2)) == [("ok", 200, None), ("upstream_error", 200, "TooSlow.deadline")]
        assert not sidecar.app.upstreams.starts or flight_of(sidecar).is_over
