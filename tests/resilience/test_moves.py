"""Calls that go on to another provider: conversations with tools, and refusals that `fallback_on` sends on."""

import json
from typing import Any

import openai
import pytest

from proxy.call import Json
from proxy.simulator import Behaviour, Simulator
from tests.conftest import Start
from tests.edge.wire import call, request

MODEL = {"openai": "gpt-4o-mini", "anthropic": "claude-haiku-4-5", "ollama": "qwen3"}
PLACE: Json = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": name, "description": f"The {name}.", "parameters": PLACE}}
    for name in ("weather", "time")
]
CALLS = [{"name": "weather", "arguments": {"city": "Zürich"}}, {"name": "time", "arguments": {"city": "Zürich"}}]
RESULTS = {"weather": "14 °C, rain", "time": "09:41"}
both_modes = pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])


def target(name: str) -> dict[str, str]:
    return {"upstream": name, "model": MODEL[name]}


def order(simulator: Simulator) -> list[str]:
    """Who was called, one after the other."""
    return [seen.dialect for seen in simulator.report.requests if seen.method == "POST"]


def last_seen(simulator: Simulator, dialect: str) -> Json:
    """The body of the last call, which went there."""
    seen = [each for each in simulator.report.requests if each.method == "POST"][-1]
    assert seen.dialect == dialect
    body: Json = json.loads(seen.body)
    return body


async def reply(client: openai.AsyncOpenAI, messages: list[Any], *, stream: bool) -> Any:
    """The message that the model answers with, as the SDK reads it, and the response's upstream."""
    if not stream:
        whole = await client.chat.completions.create(model="any", messages=messages, tools=TOOLS)
        return whole.choices[0].message
    async with client.chat.completions.stream(model="any", messages=messages, tools=TOOLS) as events:
        return (await events.get_final_completion()).choices[0].message


def results_seen(dialect: str, body: Json) -> list[tuple[str, str]]:
    """The names of the tools that a request says were called, each with its result."""
    names: dict[str, str] = {}
    results: dict[str, str] = {}
    for message in body["messages"]:
        if dialect == "openai":
            names |= {each["id"]: each["function"]["name"] for each in message.get("tool_calls") or ()}
            if message["role"] == "tool":
                results[message["tool_call_id"]] = message["content"]
            continue
        for block in message["content"] if isinstance(message["content"], list) else ():
            if block["type"] == "tool_use":
                names[block["id"]] = block["name"]
            if block["type"] == "tool_result":
                content = block["content"]
                results[block["tool_use_id"]] = content if isinstance(content, str) else content[0]["text"]
    return [(names[key], result) for key, result in results.items()]


@both_modes
@pytest.mark.parametrize("way", [("openai", "anthropic"), ("anthropic", "openai")], ids=["there", "back"])
async def test_a_conversation_moves(start: Start, simulator: Simulator, way: tuple[str, str], stream: bool) -> None:
    """Two tools are called by one provider, their results go to the other one, and back: the SDK notices nothing."""
    first, second = way
    sidecar = await start(routes=[{"match": {"model": "*"}, "targets": [target(first), target(second)]}])
    client = sidecar.openai()
    messages: list[Any] = [{"role": "user", "content": "What is it like in Zürich now?"}]
    for turn, dialect in enumerate((first, second, first)):  # who answers: the first one fails in the second turn
        simulator.clear()
        if dialect == second:
            simulator.always(first, Behaviour(status=503))
        simulator.script(dialect, Behaviour(tool_calls=CALLS))
        message = await reply(client, messages, stream=stream)
        called = [(each.function.name, json.loads(each.function.arguments)) for each in message.tool_calls]
        assert called == [(each["name"], each["arguments"]) for each in CALLS]
        assert results_seen(dialect, last_seen(simulator, dialect)) == list(RESULTS.items()) * turn
        told = [
            {
                "id": each.id,
                "type": "function",
                "function": {"name": each.function.name, "arguments": each.function.arguments},
            }
            for each in message.tool_calls
        ]
        messages.append({"role": "assistant", "content": message.content, "tool_calls": told})
        messages += [
            {"role": "tool", "tool_call_id": each.id, "content": RESULTS[each.function.name]}
            for each in message.tool_calls
        ]
    simulator.clear()
    simulator.always(first, Behaviour(status=503))
    simulator.script(second, Behaviour(text="Take an umbrella ☂."))
    assert (await reply(client, messages, stream=stream)).content == "Take an umbrella ☂."
    assert results_seen(second, last_seen(simulator, second)) == list(RESULTS.items()) * 3
    assert {line["outcome"] for line in sidecar.lines.kept} == {"ok"}


REFUSALS = {"context": "context_length_exceeded", "policy": "content_filter"}


def chain(*fallback_on: str) -> list[dict[str, Any]]:
    """Two targets and a fallback, with attempts for each of them twice."""
    targets, fallback = [target("openai"), target("anthropic")], [target("ollama")]
    retry = {"attempts": 6, "first_wait_seconds": 0.001}
    whole = {"name": "chain", "targets": targets, "fallback": fallback, "fallback_on": list(fallback_on)}
    return [{**whole, "match": {"model": "*"}, "retry": retry}]


@both_modes
@pytest.mark.parametrize("word", REFUSALS)
async def test_a_refusal_goes_to_the_fallback(start: Start, simulator: Simulator, word: str, stream: bool) -> None:
    """With its word under fallback_on a refused call goes to `fallback` at once, past the other targets."""
    sidecar = await start(routes=chain(word))
    error: Any = REFUSALS[word]
    simulator.always("openai", Behaviour(error=error))
    head, _ = await call(sidecar, request(stream=stream))
    assert (head.status, head["x-octet-upstream"], head["x-octet-attempts"]) == (200, "ollama", "2")
    assert order(simulator) == ["openai", "ollama"]


@both_modes
@pytest.mark.parametrize(
    ("word", "fallback_on"),
    [("context", ()), ("policy", ()), ("context", ("policy",)), ("policy", ("context",))],
    ids=str,
)
async def test_a_refusal_is_told(
    start: Start, simulator: Simulator, word: str, fallback_on: tuple[str, ...], stream: bool
) -> None:
    """Without its word under fallback_on a refusal is told to the caller, with its own code; nobody else is asked."""
    sidecar = await start(routes=chain(*fallback_on))
    error: Any = REFUSALS[word]
    simulator.always("openai", Behaviour(error=error))
    with pytest.raises(openai.BadRequestError) as caught:
        await sidecar.openai(max_retries=5).chat.completions.create(
            model="any", messages=[{"role": "user", "content": "Hello"}], stream=stream
        )
    assert caught.value.code == REFUSALS[word]
    assert order(simulator) == ["openai"]


async def test_a_fallback_that_refuses_too(start: Start, simulator: Simulator) -> None:
    """When the fallback refuses as well, that is told; no target is asked twice."""
    sidecar = await start(routes=chain("context", "policy"))
    simulator.always("openai", Behaviour(error="context_length_exceeded"))
    simulator.always("ollama", Behaviour(error="context_length_exceeded"))
    head, body = await call(sidecar, request())
    assert head.status == 400
    assert json.loads(body)["error"]["code"] == "context_length_exceeded"
    assert order(simulator) == ["openai", "ollama"]


async def test_a_refusal_after_a_failure(start: Start, simulator: Simulator) -> None:
    """The second target may be the one that refuses: the fallback comes next, and the failed first one not again."""
    sidecar = await start(routes=chain("context"))
    simulator.always("openai", Behaviour(status=503))
    simulator.always("anthropic", Behaviour(error="context_length_exceeded"))
    simulator.script("ollama", Behaviour(status=500))
    head, _ = await call(sidecar, request(model="any"))
    assert head.status == 200
    assert order(simulator) == ["openai", "anthropic", "ollama", "ollama"]
