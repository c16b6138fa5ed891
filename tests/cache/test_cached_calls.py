"""Answers that are kept: what the caller gets, and what the upstream sees."""

import json
from typing import Any

import pytest

from proxy.simulator import Behaviour, Simulator
from tests.cache.conftest import StartCached, body_of, calls
from tests.conftest import DIALECTS, MODELS, Sidecar

each_dialect = pytest.mark.parametrize("dialect", DIALECTS)


@each_dialect
@pytest.mark.parametrize("fields", [{}, {"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}])
async def test_the_second_answer_is_the_first(
    cached: Sidecar, simulator: Simulator, dialect: str, fields: dict[str, Any]
) -> None:
    """Byte for byte, without a second call upstream, and saying how old it is and where it came from."""
    first = await cached.chat(MODELS[dialect], **fields)
    live = await body_of(first)
    again = await cached.chat(MODELS[dialect], **fields)
    assert await body_of(again) == live
    assert calls(simulator) == 1
    assert [each.headers["x-octet-cache"] for each in (first, again)] == ["miss", "memory"]
    assert [each.headers.get("age") for each in (first, again)] == [None, "0"]
    assert [each.headers["x-octet-attempts"] for each in (first, again)] == ["1", "0"]
    for name in ("content-type", "x-octet-route", "x-octet-upstream", "x-octet-model"):
        assert first.headers[name] == again.headers[name]


@each_dialect
async def test_one_answer_serves_all_forms(cached: Sidecar, simulator: Simulator, dialect: str) -> None:
    """What came as a stream is given whole, and with usage or without; nothing of it is asked twice."""
    streamed = await body_of(await cached.chat(MODELS[dialect], stream=True))
    whole = json.loads(await body_of(await cached.chat(MODELS[dialect])))
    told = await body_of(await cached.chat(MODELS[dialect], stream=True, stream_options={"include_usage": True}))
    assert calls(simulator) == 1
    assert whole["object"] == "chat.completion"
    texts = [json.loads(event[6:]) for event in streamed.decode().split("\n\n") if event.startswith("data: {")]
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in texts if chunk["choices"])
    assert whole["choices"][0]["message"]["content"] == text
    assert whole["choices"][0]["finish_reason"] == "stop"
    usage = [json.loads(event[6:]) for event in told.decode().split("\n\n") if event.startswith("data: {")][-1]
    assert usage["choices"] == []
    assert usage["usage"] == whole["usage"]


@each_dialect
async def test_a_whole_answer_is_streamed(cached: Sidecar, simulator: Simulator, dialect: str) -> None:
    """What came whole is given as a stream that assembles to the same message."""
    whole = json.loads(await body_of(await cached.chat(MODELS[dialect])))
    client = cached.openai()
    text, finish = "", None
    stream = await client.chat.completions.create(
        model=MODELS[dialect], messages=[{"role": "user", "content": "Hello"}], stream=True
    )
    async for chunk in stream:
        for choice in chunk.choices:
            text += choice.delta.content or ""
            finish = choice.finish_reason or finish
    assert calls(simulator) == 1
    assert text == whole["choices"][0]["message"]["content"]
    assert finish == whole["choices"][0]["finish_reason"]


async def test_only_what_is_sure_to_be_the_same(start_cached: StartCached, simulator: Simulator) -> None:
    """Without `any_temperature`, calls with temperature 0 or a seed are kept, and no others."""
    sidecar = await start_cached({"any_temperature": False})
    told = [
        (await sidecar.chat(**fields)).headers["x-octet-cache"]
        for fields in ({}, {"temperature": 0}, {"temperature": 0.0}, {"seed": 7}, {"seed": 7}, {"temperature": 1})
    ]
    assert told == ["bypass", "miss", "memory", "miss", "memory", "bypass"]
    assert calls(simulator) == 4


async def test_errors_are_not_kept(cached: Sidecar, simulator: Simulator) -> None:
    """A failure is told, and the next call tries again."""
    simulator.script("openai", Behaviour(status=500))
    assert (await cached.chat()).status == 502
    assert (await cached.chat()).status == 200
    assert calls(simulator) == 2
