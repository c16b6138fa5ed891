"""Whose answers are whose."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from proxy.simulator import Simulator
from tests.cache.conftest import StartCached, calls
from tests.cache.stage import Stage, whole
from tests.conftest import Sidecar

CALLERS = [{"name": name, "key": f"sk-{name}-sk-{name}"} for name in ("ann", "bob")]
FIELDS: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}


def _closing(body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
    return head % len(body) + body


_TEXT = {"index": 0, "text": "kept", "logprobs": None, "finish_reason": "stop"}
_TEXTS = {"id": "c", "object": "text_completion", "created": 1, "model": "gpt-4o-mini", "choices": [_TEXT]}
ANSWERS = (_closing(whole(3).partition(b"\r\n\r\n")[2]), _closing(json.dumps(_TEXTS).encode()))


async def ask(sidecar: Sidecar, key: str | None, path: str = "/v1/chat/completions", **headers: str) -> str:
    """Where the answer to somebody came from."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if key is not None:
        named["authorization"] = f"Bearer {key}"
    return cache_of(await sidecar.http.post(sidecar.url + path, json=FIELDS, headers=named))


def cache_of(response: aiohttp.ClientResponse) -> str:
    return response.headers["x-octet-cache"] if response.status == 200 else str(response.status)


async def test_callers_are_strangers(start_cached: StartCached, simulator: Simulator) -> None:
    """Two callers' same calls are two, however often their bodies have been seen."""
    sidecar = await start_cached(server={"callers": CALLERS})
    ann, bob = (caller["key"] for caller in CALLERS)
    told = [await ask(sidecar, key) for key in (ann, ann, ann, bob, bob, bob, ann)]
    assert told == ["miss", "memory", "memory", "miss", "memory", "memory", "memory"]
    assert await ask(sidecar, "sk-nobody") == "401"
    assert await ask(sidecar, None) == "401"
    assert calls(simulator) == 2


async def test_they_may_share(start_cached: StartCached, simulator: Simulator) -> None:
    """`shared: true` makes one of them, for those who may call at all."""
    sidecar = await start_cached({"shared": True}, server={"callers": CALLERS})
    ann, bob = (caller["key"] for caller in CALLERS)
    assert [await ask(sidecar, key) for key in (ann, bob, bob)] == ["miss", "memory", "memory"]
    assert await ask(sidecar, "sk-nobody") == "401"
    assert calls(simulator) == 1


async def test_who_may_not_use_a_model_gets_no_answer_of_it(start_cached: StartCached, simulator: Simulator) -> None:
    """Also where it is kept and shared."""
    callers = [CALLERS[0], {**CALLERS[1], "models": ["claude-*"]}]
    sidecar = await start_cached({"shared": True}, server={"callers": callers})
    ann, bob = (caller["key"] for caller in CALLERS)
    assert [await ask(sidecar, key) for key in (ann, ann, ann, bob)] == ["miss", "memory", "memory", "403"]


async def test_keys_of_callers_own(start_cached: StartCached, simulator: Simulator) -> None:
    """Where they go upstream, each key, organisation and project has its own answers."""
    sidecar = await start_cached(upstreams={"openai": {"credential": "caller", "api_key": None}})
    people: list[tuple[str, dict[str, str]]] = [
        ("sk-one", {}),
        ("sk-two", {}),
        ("sk-one", {"openai_organization": "a"}),
        ("sk-one", {"openai_project": "a"}),
        ("sk-one", {"openai_organization": "b"}),
    ]
    for told in ("miss", "memory", "memory"):
        assert [await ask(sidecar, key, **headers) for key, headers in people] == [told] * len(people)
    assert calls(simulator) == len(people)


async def test_our_own_key_is_everybodys(start_cached: StartCached, simulator: Simulator) -> None:
    """Without callers nobody tells people apart: whatever key they show, they get the same answers."""
    sidecar = await start_cached()
    assert [await ask(sidecar, key) for key in ("sk-one", "sk-two", None)] == ["miss", "memory", "memory"]
    assert calls(simulator) == 1


def routed(*matches: dict[str, Any]) -> list[dict[str, Any]]:
    """Routes of these matches, all to the same upstream, all with a cache."""
    return [
        {"name": f"r{number}", "match": match, "targets": [{"upstream": "openai"}], "cache": {"any_temperature": True}}
        for number, match in enumerate(matches)
    ]


async def test_routes_are_strangers(start_cached: StartCached, simulator: Simulator) -> None:
    """A header that leads elsewhere leads to other answers, however often the body has been seen."""
    matches: list[dict[str, Any]] = [{"model": "gpt-*", "headers": {"x-team": "red*"}}, {"model": "gpt-*"}]
    sidecar = await start_cached(routes=routed(*matches))
    for told in ("miss", "memory", "memory"):
        assert await ask(sidecar, None, x_team="red") == told
        assert await ask(sidecar, None) == told
    assert await ask(sidecar, None, x_team="blue") == "memory"
    assert await ask(sidecar, None, x_team="red-2") == "memory"
    assert calls(simulator) == 2


async def test_paths_are_strangers(on_stage: StartCached, stage: Stage) -> None:
    """The same bytes at another endpoint are another call; with and without `/v1` they are the same."""
    sidecar = await on_stage()
    both = {**FIELDS, "prompt": "Hello"}

    async def told(path: str) -> str:
        return cache_of(await sidecar.http.post(sidecar.url + path, json=both))

    for number, path in enumerate(("/v1/chat/completions", "/v1/completions")):
        asking = asyncio.create_task(told(path))
        (await stage.call(number)).say(ANSWERS[number])
        assert await asking == "miss"
        assert [await told(path) for _ in range(2)] == ["memory", "memory"]
        assert await told(path.removeprefix("/v1")) == "memory"
    assert [await told(path) for path in ("/v1/chat/completions", "/v1/completions")] == ["memory", "memory"]
    assert len(stage.calls) == 2


async def test_model_names_are_not_mixed_up(start_cached: StartCached, simulator: Simulator) -> None:
    """Two names for one target are two answers, each naming what was asked for."""
    target = {"upstream": "openai", "model": "gpt-4o-mini"}
    routes = [{"name": "all", "targets": [target], "cache": {"any_temperature": True}}]
    sidecar = await start_cached(routes=routes)
    for _ in range(3):
        for name in ("one", "two", "x/y"):
            for fields in ({}, {"stream": True}):
                response = await sidecar.chat(name, **fields)
                text = await response.text()
                assert response.status == 200
                assert f'"model":"{name}"' in text.replace('": "', '":"')
    assert calls(simulator) == 3


@pytest.mark.parametrize("count", [10_000])
async def test_many_names(start_cached: StartCached, count: int) -> None:
    """Invented names and bodies do not grow what is remembered."""
    routes = [{"name": "all", "targets": [{"upstream": "openai"}], "cache": {"any_temperature": True}}]
    sidecar = await start_cached(routes=routes, cache={"memory": {"max_bytes": "64KiB"}})
    answers = sidecar.app.pipeline.snapshot.answers
    assert answers is not None
    for number in range(count // 20):
        await ask_quickly(sidecar, f"m{number}")
    assert answers.shelf.memory.bytes <= 64 * 1024
    assert max(len(answers._known), len(answers._bodies), len(answers._places)) <= 4096


async def ask_quickly(sidecar: Sidecar, model: str) -> None:
    response = await sidecar.chat(model)
    assert response.status == 200
    await response.read()
