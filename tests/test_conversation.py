"""The same conversation over all eight upstreams, as applications have it."""

import json
from typing import Any

import aiohttp
import pytest
from aiohttp_sse_client.client import EventSource
from openai import AsyncOpenAI

from proxy.call import Json
from proxy.simulator import Behaviour, Simulator
from tests.conftest import DIALECTS, MODELS, Sidecar, Start
from tests.strict import check_chunks, check_completion, read_events

PLACE: Json = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": name, "description": f"The {name}.", "parameters": PLACE}}
    for name in ("weather", "time")
]
CALLS = [{"name": "weather", "arguments": {"city": "Zürich"}}, {"name": "time", "arguments": {"city": "Zürich"}}]
RESULTS = {"weather": "14 °C, rain", "time": "09:41"}
FINAL = "It is 09:41 in Zürich; take an umbrella ☂."
ONE_CALL_AT_A_TIME = {"tgi"}
each_dialect = pytest.mark.parametrize("dialect", DIALECTS)

Transcript = list[tuple[str, Any]]


async def converse(client: AsyncOpenAI, model: str, *, stream: bool) -> Transcript:
    """Ask, answer the tools that are called, until there is an answer; ids are left out of what is told."""
    messages: list[Any] = [{"role": "user", "content": "What is it like in Zürich now?"}]
    told: Transcript = []
    for _ in range(4):
        if stream:
            async with client.chat.completions.stream(
                model=model, messages=messages, tools=TOOLS, stream_options={"include_usage": True}
            ) as events:
                completion: Any = await events.get_final_completion()
        else:
            completion = await client.chat.completions.create(model=model, messages=messages, tools=TOOLS)
        (choice,) = completion.choices
        message, usage = choice.message, completion.usage
        calls = [
            (call.type, call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls or ()
        ]
        told.append((choice.finish_reason, [message.role, message.content or "", message.refusal, calls]))
        assert usage is not None
        assert usage.prompt_tokens > 0
        assert usage.completion_tokens > 0
        if not calls:
            return told
        assert len({call.id for call in message.tool_calls}) == len(calls)
        messages.append(message.model_dump(exclude_none=True, exclude={"parsed"}, warnings=False))
        for call in message.tool_calls:
            call.function.__dict__.pop("parsed_arguments", None)
            messages.append({"role": "tool", "tool_call_id": call.id, "content": RESULTS[call.function.name]})
        messages[-len(calls) - 1] = {
            "role": "assistant",
            "content": message.content,
            "tool_calls": [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.function.name, "arguments": call.function.arguments},
                }
                for call in message.tool_calls
            ],
        }
    raise AssertionError("the conversation does not end")


@each_dialect
@pytest.mark.parametrize("stream", [False, True])
async def test_a_conversation_with_tools(sidecar: Sidecar, simulator: Simulator, dialect: str, stream: bool) -> None:
    """Vector 45: two tools called, their results, the answer: the SDK reads the same from every upstream."""
    rounds = [[call] for call in CALLS] if dialect in ONE_CALL_AT_A_TIME else [CALLS]
    simulator.script(dialect, *(Behaviour(tool_calls=calls) for calls in rounds), Behaviour(text=FINAL))
    told = await converse(sidecar.openai(), MODELS[dialect], stream=stream)
    expected: Transcript = [
        (
            "tool_calls",
            ["assistant", "", None, [("function", call["name"], call["arguments"]) for call in calls]],
        )
        for calls in rounds
    ]
    assert told == [*expected, ("stop", ["assistant", FINAL, None, []])]


async def raw(sidecar: Sidecar, dialect: str, **fields: Any) -> bytes:
    response = await sidecar.chat(MODELS[dialect], **fields)
    assert response.status == 200, await response.text()
    return await response.read()


VARIANTS: dict[str, tuple[Behaviour, Json]] = {
    "text": (Behaviour(text="Grüße ☀"), {}),
    "thoughts": (Behaviour(text="So.", reasoning="Let me think."), {"reasoning_effort": "high"}),
    "tools": (Behaviour(tool_calls=CALLS[:1]), {"tools": TOOLS}),
    "length": (Behaviour(tokens=40), {"max_tokens": 3}),
    "several": (Behaviour(text="One of two."), {"n": 2}),
    "json": (
        Behaviour(),
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "place", "schema": {**PLACE, "additionalProperties": False}},
            }
        },
    ),
}


@each_dialect
@pytest.mark.parametrize("variant", VARIANTS)
async def test_everything_we_send_is_of_the_official_types(
    start: Start, simulator: Simulator, dialect: str, variant: str
) -> None:
    """Bodies and chunks hold what OpenAI's documents require, and streamed or not they amount to the same.

    On the exact wire the bytes are the upstream's: those upstreams are normalised here.
    """
    sidecar = await start(upstreams={name: {"wire": "normalise"} for name in ("openai", "vllm", "rayserve")})
    behaviour, fields = VARIANTS[variant]
    if dialect == "openai" and variant == "thoughts":
        fields = {}  # its model does not take reasoning_effort
    simulator.always(dialect, behaviour)
    whole = json.loads(await raw(sidecar, dialect, **fields))
    with_usage = read_events(await raw(sidecar, dialect, **fields, stream=True, stream_options={"include_usage": True}))
    without = read_events(await raw(sidecar, dialect, **fields, stream=True))
    check_completion(whole)
    check_chunks(with_usage, usage=True)
    check_chunks(without, usage=False)
    assert [shape(choice) for choice in folded(with_usage)] == [shape(choice) for choice in whole["choices"]]
    assert with_usage[-1]["usage"] == whole["usage"]


def folded(chunks: list[Json]) -> list[Json]:
    """The choices of a stream, put together by hand: texts joined, tool calls by index."""
    choices: dict[int, Json] = {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            made = choices.setdefault(choice["index"], {"message": {}, "calls": {}, "finish_reason": None})
            made["finish_reason"] = made["finish_reason"] or choice["finish_reason"]
            for piece in choice["delta"].get("tool_calls", ()):
                call = made["calls"].setdefault(piece["index"], {"name": "", "arguments": ""})
                for name in call:
                    call[name] += piece["function"].get(name, "")
            for name in ("content", "reasoning"):
                made["message"][name] = made["message"].get(name, "") + (choice["delta"].get(name) or "")
    return [choices[index] for index in sorted(choices)]


def shape(choice: Json) -> Json:
    """What a choice says, whether it came whole or in pieces."""
    message = choice["message"]
    calls = choice.get("calls", {}).values() or [call["function"] for call in message.get("tool_calls") or ()]
    return {
        "content": message.get("content") or "",
        "reasoning": message.get("reasoning") or "",
        "calls": [(call["name"], json.loads(call["arguments"])) for call in calls],
        "finish_reason": choice["finish_reason"],
    }


@each_dialect
async def test_another_client_reads_our_events(sidecar: Sidecar, simulator: Simulator, dialect: str) -> None:
    """A client that knows server-sent events and nothing of OpenAI reads the same text."""
    simulator.script(dialect, Behaviour(text="Grüße, 世界 👋"))
    body = {"model": MODELS[dialect], "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    text, ended = "", False
    async with (
        aiohttp.ClientSession() as session,
        EventSource(
            f"{sidecar.url}/v1/chat/completions", option={"method": "POST"}, session=session, json=body
        ) as events,
    ):
        async for event in events:
            assert event.type is None  # no event is named
            if event.data == "[DONE]":
                ended = True
                break
            text += "".join(choice["delta"].get("content") or "" for choice in json.loads(event.data)["choices"])
    assert ended
    assert text == "Grüße, 世界 👋"
