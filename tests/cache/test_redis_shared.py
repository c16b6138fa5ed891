"""What one sidecar was answered, others get: over a real Redis, in every form, and after a restart."""

import json
import time
from typing import Any

import pytest

from proxy.simulator import Behaviour, Simulator
from tests.cache.conftest import Fleet, StartCached, body_of, calls
from tests.cache.in_redis import (
    behind,
    change_entry,
    counted,
    names,
    no_connections,
    only_name,
    read_entry,
    written,
)
from tests.conftest import DIALECTS, MODELS, Sidecar
from tests.redis_server import RedisServer

STREAM: dict[str, Any] = {"stream": True}
WITH_USAGE: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
FORMS: list[dict[str, Any]] = [{}, STREAM, WITH_USAGE]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("asked", FORMS)
@pytest.mark.parametrize("kept", FORMS)
async def test_another_sidecar_gets_it_in_any_form(
    fleet: Fleet, simulator: Simulator, dialect: str, kept: dict[str, Any], asked: dict[str, Any]
) -> None:
    """From Redis the first time, then from memory; to the byte as the sidecar that has asked would tell it."""
    one, other = await fleet()
    first = await one.chat(MODELS[dialect], **kept)
    live = await body_of(first)
    await written(one)
    own = await body_of(await one.chat(MODELS[dialect], **asked))
    answers = [await other.chat(MODELS[dialect], **asked) for _ in range(2)]
    assert [await body_of(each) for each in answers] == [own, own]
    assert asked != kept or own == live
    assert calls(simulator) == 1
    assert [each.headers["x-octet-cache"] for each in answers] == ["redis", "memory"]
    for name in ("x-octet-route", "x-octet-upstream", "x-octet-model", "x-octet-cache-key"):
        assert {each.headers[name] for each in answers} == {first.headers[name]}
    assert {each.headers["age"] for each in answers} <= {"0", "1", "2"}
    assert {each.headers["x-octet-attempts"] for each in answers} == {"0"}
    assert counted(other, "lookups") == {"hit": 1}


async def test_what_is_asked_otherwise_is_not_found(fleet: Fleet, simulator: Simulator) -> None:
    """Another prompt, or another temperature, is a miss at the other sidecar."""
    one, other = await fleet()
    await body_of(await one.chat(temperature=0))
    await written(one)
    for fields in ({"temperature": 1}, {"temperature": 0, "messages": [{"role": "user", "content": "Hello!"}]}):
        assert (await other.chat(**fields)).headers["x-octet-cache"] == "miss"
    assert counted(other, "lookups") == {"miss": 2}
    assert calls(simulator) == 3


async def test_tools_reasoning_and_logprobs_survive(fleet: Fleet, simulator: Simulator) -> None:
    """All parts of an answer come back from Redis, streamed and whole."""
    simulator.always(
        "anthropic", Behaviour(reasoning="well", tool_calls=({"name": "look", "arguments": {"at": "é\u2028中"}},))
    )
    one, other = await fleet()
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    fields: dict[str, Any] = {"tools": [tool]}
    await body_of(await one.chat(MODELS["anthropic"], stream=True, **fields))
    await written(one)
    told = json.loads(await body_of(await other.chat(MODELS["anthropic"], **fields)))
    (choice,) = told["choices"]
    (tool_call,) = choice["message"]["tool_calls"]
    assert json.loads(tool_call["function"]["arguments"]) == {"at": "é\u2028中"}
    assert choice["finish_reason"] == "tool_calls"
    assert told["usage"]["total_tokens"] > 0


async def test_hits_outlive_the_sidecar(fleet: Fleet, simulator: Simulator, redis: RedisServer) -> None:
    """One that is started again finds what was kept before; of the first one no connection is left."""
    (before,) = await fleet(1)
    live = await body_of(await before.chat(**STREAM))
    await before.close()
    await no_connections(redis)
    (after,) = await fleet(1)
    again = await after.chat(**STREAM)
    assert (await body_of(again), again.headers["x-octet-cache"]) == (live, "redis")
    assert calls(simulator) == 1


async def test_what_is_being_written_is_written_before_the_end(fleet: Fleet, redis: RedisServer) -> None:
    """A sidecar that stops right after its answers leaves all of them in Redis."""
    (sidecar,) = await fleet(1)
    for number in range(20):
        await body_of(await sidecar.chat(seed=number))
    await sidecar.close()
    assert len(await names(redis, "octet:answer:*")) == 20


async def test_age_is_counted_from_the_answer(fleet: Fleet, redis: RedisServer) -> None:
    """Whichever sidecar it came to, and also from memory; `max-age` goes by it."""
    one, other = await fleet()
    await body_of(await one.chat())
    await written(one)
    name = await only_name(redis)
    await change_entry(redis, name, made=time.time() - 1000)
    ages = [int((await other.chat()).headers["age"]) for _ in range(2)]
    elapsed = time.time() - (await read_entry(redis, name)).made
    assert 1000 <= ages[0] <= ages[1] <= elapsed
    for most, found in ((2000, "memory"), (500, "miss")):
        async with other.http.post(
            f"{other.url}/v1/chat/completions",
            json={"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]},
            headers={"cache-control": f"max-age={most}"},
        ) as response:
            assert response.headers["x-octet-cache"] == found


async def test_a_clock_that_is_behind(fleet: Fleet, redis: RedisServer) -> None:
    """An answer from the future is new, and no older than that."""
    one, other = await fleet()
    await body_of(await one.chat())
    await written(one)
    await change_entry(redis, await only_name(redis), made=time.time() + 86_400)
    answer = await other.chat()
    assert (answer.headers["x-octet-cache"], answer.headers["age"]) == ("redis", "0")


async def test_past_its_time_it_is_no_answer(fleet: Fleet, simulator: Simulator, redis: RedisServer) -> None:
    """Although Redis has it still, as it would with clocks that differ."""
    one, other = await fleet()
    await body_of(await one.chat())
    await written(one)
    await change_entry(redis, await only_name(redis), made=time.time() - 2 * 86_400)
    assert (await other.chat()).headers["x-octet-cache"] == "miss"
    assert calls(simulator) == 2


async def test_a_stale_answer_of_another_sidecar_serves_when_all_fails(
    fleet: Fleet, simulator: Simulator, redis: RedisServer
) -> None:
    """Within `stale_if_error_seconds`, also when this sidecar has never seen it."""
    one, other = await fleet(rules={"ttl_seconds": 100, "stale_if_error_seconds": 1000})
    live = await body_of(await one.chat())
    await written(one)
    await change_entry(redis, await only_name(redis), made=time.time() - 500)
    simulator.always("openai", Behaviour(status=500))
    answer = await other.chat()
    assert await body_of(answer) == live
    assert int(answer.headers["age"]) >= 500


async def test_a_key_tells_nothing(start_cached: StartCached, redis: RedisServer) -> None:
    """Neither the prompt nor a credential stands in it, nor a credential in the value, also of callers' own keys."""
    secret, organization = "sk-very-secret-of-a-caller", "org-of-a-caller"
    upstreams = {"openai": {"api_key": None, "credential": "caller"}}
    sidecar = await start_cached(upstreams=upstreams, **behind(redis.url))
    client = sidecar.openai(api_key=secret, organization=organization)
    prompt = "a prompt that is nobody's business"
    await client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": prompt}])
    await written(sidecar)
    name = await only_name(redis)
    entry = await read_entry(redis, name)
    for told in (name, str(entry)):
        assert not any(each in told for each in (secret, organization, "sk-ours", "octet-key"))
    assert not any(word in name for word in ("prompt", "business"))
    route, tenant, digest = name.removeprefix("octet:answer:").split(":")
    assert (route, len(digest)) == ("openai", 64)
    assert tenant == entry.tenant != "-"


async def test_callers_do_not_get_each_others_answers(start_cached: StartCached, redis: RedisServer) -> None:
    """Each has keys of its own in Redis; the same caller at another sidecar is served."""
    callers = [{"name": name, "key": f"key-of-{name}"} for name in ("ann", "bob")]
    one, other = [await start_cached(server={"callers": callers}, **behind(redis.url)) for _ in range(2)]

    async def ask(sidecar: Sidecar, caller: str) -> str:
        headers = {"authorization": f"Bearer key-of-{caller}"}
        body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}
        async with sidecar.http.post(f"{sidecar.url}/v1/chat/completions", json=body, headers=headers) as response:
            assert response.status == 200
            return response.headers["x-octet-cache"]

    assert [await ask(one, "ann"), await ask(one, "bob")] == ["miss", "miss"]
    await written(one, 2)
    assert [await ask(other, "ann"), await ask(other, "bob")] == ["redis", "redis"]
    assert [name.split(":")[3] for name in await names(redis, "octet:answer:*")] == ["ann", "bob"]
