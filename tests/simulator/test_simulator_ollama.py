"""The ollama dialect judges and answers as Ollama does."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from proxy.simulator import Behaviour, Simulator

Post = Callable[..., Awaitable[aiohttp.ClientResponse]]
USER = {"role": "user", "content": "clock"}
TOOL = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object"}}}


async def lines(response: aiohttp.ClientResponse) -> list[dict[str, Any]]:
    text = (await response.read()).decode()
    assert text.endswith("\n")
    return [json.loads(line) for line in text.split("\n")[:-1]]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": ""}, "model is required"),
        ({"model": 5}, "json: cannot unmarshal number into Go struct field ChatRequest.model of type string"),
        ({"messages": [{"role": "developer", "content": "x"}]}, "invalid role: developer"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "json: cannot unmarshal array"),
        ({"messages": [{"role": "user", "content": "x", "images": ["not base64"]}]}, "illegal base64 data"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "a", "arguments": "{}"}}]}]},
            "json: cannot unmarshal string into Go struct field",
        ),
        ({"stream": "no"}, "json: cannot unmarshal string into Go struct field ChatRequest.stream of type bool"),
        ({"options": {"temperature": "hot"}}, 'option "temperature" must be of type float32'),
        ({"options": {"num_predict": 1.5}}, 'option "num_predict" must be of type integer'),
        ({"options": {"stop": "x"}}, 'option "stop" must be of type array'),
        ({"tools": [{"function": {"parameters": {"properties": []}}}]}, "json: cannot unmarshal"),
        ({"format": "xml"}, "invalid format"),
        ({"think": 3}, "think must be a boolean or string"),
        ({"top_logprobs": 21}, "top_logprobs must be between 0 and 20"),
    ],
)
async def test_a_wrong_request_is_refused_in_its_words(post: Post, fields: dict[str, Any], message: str) -> None:
    """Status 400 and a plain text under `error`."""
    response = await post("ollama", fields)
    body = await response.json()
    assert response.status == 400
    assert list(body) == ["error"]
    assert body["error"].startswith(message)


async def test_broken_json_is_refused(simulator: Simulator, client: aiohttp.ClientSession) -> None:
    """An empty body and a broken one have each its own words."""
    for body, message in ((b"", "missing request body"), (b"{", "invalid character")):
        response = await client.post(f"{simulator.url}/ollama/api/chat", data=body)
        assert response.status == 400
        assert (await response.json())["error"].startswith(message)


async def test_unknown_fields_are_ignored(post: Post) -> None:
    """The Go server skips what it does not know, options included."""
    assert (await post("ollama", {"odd": 1, "options": {"odder": 2}})).status == 200


async def test_an_answer_has_the_real_shape(post: Post) -> None:
    """Nanoseconds, durations and counts, in one object."""
    body = await (await post("ollama")).json()
    assert list(body) == [
        *["model", "created_at", "message", "done", "done_reason", "total_duration", "load_duration"],
        *["prompt_eval_count", "prompt_eval_duration", "eval_count", "eval_duration"],
    ]
    assert (body["done"], body["done_reason"], body["message"]["role"]) == (True, "stop", "assistant")
    assert body["created_at"] == "2026-11-18T11:06:40.123456789Z"
    assert (body["prompt_eval_count"], body["eval_count"]) == (6, len(body["message"]["content"].split()))


async def test_it_streams_lines_unless_told_otherwise(post: Post) -> None:
    """Without `stream` the answer is NDJSON, and says what the whole one says."""
    whole = await (await post("ollama")).json()
    response = await post("ollama", without=("stream",))
    assert response.headers["content-type"] == "application/x-ndjson"
    seen = await lines(response)
    assert "".join(line["message"]["content"] for line in seen) == whole["message"]["content"]
    assert [line["done"] for line in seen] == [False] * (len(seen) - 1) + [True]
    assert seen[-1]["eval_count"] == whole["eval_count"] == len(seen) - 1


async def test_tool_calls_come_whole(post: Post, simulator: Simulator) -> None:
    """Arguments are objects, each call has its own line and id, and an index that is always 0."""
    simulator.script("ollama", Behaviour(tool_calls=[{"name": "a", "arguments": {"x": 1}}, {"name": "b"}]))
    seen = await lines(await post("ollama", {"stream": True}))
    calls = [call for line in seen for call in line["message"].get("tool_calls", ())]
    assert [call["function"] for call in calls] == [
        {"index": 0, "name": "a", "arguments": {"x": 1}},
        {"index": 0, "name": "b", "arguments": {}},
    ]
    assert len({call["id"] for call in calls}) == 2
    assert seen[-1]["done_reason"] == "stop"


async def test_a_mentioned_tool_is_called_and_its_result_quoted(post: Post) -> None:
    """A whole tool conversation, not streamed."""
    body = await (await post("ollama", {"messages": [USER], "tools": [TOOL]})).json()
    assert body["message"]["content"] == ""
    result = {"role": "tool", "content": "noon", "tool_name": "clock", "tool_call_id": "x"}
    body = await (await post("ollama", {"messages": [USER, body["message"], result], "tools": [TOOL]})).json()
    assert "noon" in body["message"]["content"]


async def test_options_limit_the_answer(post: Post) -> None:
    """num_predict and stop cut, a seed changes the words."""
    body = await (await post("ollama", {"options": {"num_predict": 2}})).json()
    assert (body["done_reason"], body["eval_count"]) == ("length", 2)
    body = await (await post("ollama", {"options": {"stop": ["X"]}}, behaviour='text="a X b"')).json()
    assert (body["done_reason"], body["message"]["content"]) == ("stop", "a ")
    seeded = await (await post("ollama", {"options": {"seed": 7}})).json()
    assert seeded["message"] != (await (await post("ollama")).json())["message"]


async def test_an_empty_conversation_only_loads_the_model(post: Post) -> None:
    """No messages: an empty answer with the reason load."""
    body = await (await post("ollama", {"messages": []})).json()
    assert (body["done_reason"], body["message"]["content"]) == ("load", "")


async def test_it_says_that_it_runs(simulator: Simulator, client: aiohttp.ClientSession) -> None:
    """The health check, the version and the list of models."""
    for path in ("/ollama", "/ollama/"):
        assert await (await client.get(simulator.url + path)).text() == "Ollama is running"
    head = await client.head(f"{simulator.url}/ollama/")
    assert (head.status, await head.read()) == (200, b"")
    assert "version" in await (await client.get(f"{simulator.url}/ollama/api/version")).json()
    tags = await (await client.get(f"{simulator.url}/ollama/api/tags")).json()
    assert [model["name"] for model in tags["models"]] == ["qwen3:latest", "llama3.2:latest"]
