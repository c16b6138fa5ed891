"""The vllm dialect judges and answers as vLLM's server does."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from proxy.simulator import Behaviour, Simulator

Post = Callable[..., Awaitable[aiohttp.ClientResponse]]
USER = {"role": "user", "content": "clock"}
TOOL = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}
NAMED = {"type": "function", "function": {"name": "clock"}}
STREAM = {"stream": True}
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "hour": {"type": "integer", "minimum": 3}},
    "required": ["city", "hour"],
}


async def chunks(response: aiohttp.ClientResponse) -> list[dict[str, Any]]:
    events = (await response.text()).split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    return [json.loads(event.removeprefix("data: ")) for event in events[:-2]]


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": []},
        {"messages": [{"role": "developer", "content": "x"}]},
        {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png,x"}}]}]},
        {"tools": []},
        {"tools": [{"type": "custom", "custom": {"name": "x"}}]},
        {"tool_choice": "auto"},
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "other"}}},
        {"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [TOOL]}}},
        {"temperature": 3},
        {"top_p": 0},
        {"n": 2, "temperature": 0},
        {"top_logprobs": 2},
        {"logprobs": True, "top_logprobs": 21},
        {"stream_options": {"include_usage": True}},
        {"structured_outputs": {"json": {}, "regex": "a"}},
        {"structured_outputs": {}},
        {"max_tokens": 40_000},
        {"stop": [1]},
    ],
)
async def test_a_wrong_request_is_refused_with_a_number_as_code(post: Post, fields: dict[str, Any]) -> None:
    """Status 400, vLLM's type, and the status again in the code."""
    response = await post("vllm", fields)
    error = (await response.json())["error"]
    assert response.status == 400
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["code"]) == ("BadRequestError", 400)


async def test_unknown_fields_are_ignored(post: Post) -> None:
    """Also those of OpenAI that mean nothing here, and in messages."""
    fields = {
        "foo": 1,
        "guided_json": SCHEMA,
        "store": True,
        "metadata": 5,
        "functions": "any",
        "messages": [USER | {"odd": 1}, {"role": "assistant", "content": "x", "reasoning": "hm"}, USER],
    }
    assert (await post("vllm", fields)).status == 200


async def test_the_extras_are_known(post: Post) -> None:
    """Wrong types of its own fields are noticed."""
    good = {"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1, "chat_template_kwargs": {"a": 1}, "priority": 1}
    assert (await post("vllm", good)).status == 200
    assert (await post("vllm", {"top_k": "many"})).status == 400


async def test_a_completion_has_vllms_shape(post: Post) -> None:
    """Empty tool calls, nulls, and no details of the usage."""
    body = await (await post("vllm")).json()
    (choice,) = body["choices"]
    assert choice["message"]["tool_calls"] == []
    assert choice["message"]["reasoning"] is None
    assert (choice["stop_reason"], choice["finish_reason"]) == (None, "stop")
    assert set(body["usage"]) == {"prompt_tokens", "completion_tokens", "total_tokens"}
    assert body["prompt_logprobs"] is None


async def test_the_last_chunk_with_content_carries_the_reason(post: Post) -> None:
    """A role per choice, then content, the last joined with the finish."""
    whole = await (await post("vllm", {"n": 2})).json()
    seen = await chunks(await post("vllm", STREAM | {"n": 2}))
    assert [chunk["choices"][0]["delta"] for chunk in seen[:2]] == [{"role": "assistant", "content": ""}] * 2
    for index, choice in enumerate(whole["choices"]):
        mine = [chunk["choices"][0] for chunk in seen if chunk["choices"][0]["index"] == index]
        assert "".join(each["delta"]["content"] for each in mine) == choice["message"]["content"]
        assert (mine[-1]["finish_reason"], mine[-1]["stop_reason"]) == ("stop", None)
        assert mine[-1]["delta"]["content"]
        assert all(each["finish_reason"] is None for each in mine[:-1])


async def test_a_stop_sequence_is_named(post: Post, simulator: Simulator) -> None:
    """`stop_reason` tells which; the text ends before it."""
    simulator.always("vllm", Behaviour(text="one two three"))
    (choice,) = (await (await post("vllm", {"stop": " two"})).json())["choices"]
    assert (choice["message"]["content"], choice["finish_reason"], choice["stop_reason"]) == ("one", "stop", " two")
    seen = await chunks(await post("vllm", STREAM | {"stop": [" two"]}))
    assert seen[-1]["choices"][0]["stop_reason"] == " two"


async def test_thoughts_come_before_the_text(post: Post, simulator: Simulator) -> None:
    """In `reasoning`, whole and in pieces, counted as tokens; older servers say reasoning_content."""
    simulator.always("vllm", Behaviour(reasoning="Let me think.", text="Four."))
    body = await (await post("vllm")).json()
    assert body["choices"][0]["message"]["reasoning"] == "Let me think."
    assert body["usage"]["completion_tokens"] == 4
    seen = await chunks(await post("vllm", STREAM))
    assert [next(iter(chunk["choices"][0]["delta"])) for chunk in seen[1:]] == ["reasoning"] * 3 + ["content"]
    simulator.always("vllm", Behaviour(reasoning="Hm.", quirks=["legacy_reasoning"]))
    assert (await (await post("vllm")).json())["choices"][0]["message"]["reasoning_content"] == "Hm."


@pytest.mark.parametrize(("choice", "finish"), [("required", "tool_calls"), (NAMED, "stop")])
async def test_a_named_tool_finishes_with_stop(post: Post, choice: Any, finish: str) -> None:
    """Ids are of vLLM's kind."""
    fields = {"messages": [USER], "tools": [TOOL], "tool_choice": choice}
    (answer,) = (await (await post("vllm", fields)).json())["choices"]
    assert answer["finish_reason"] == finish
    assert answer["message"]["tool_calls"][0]["id"].startswith("chatcmpl-tool-")
    seen = await chunks(await post("vllm", STREAM | fields))
    assert seen[-1]["choices"][0]["finish_reason"] == finish


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}},
        {"structured_outputs": {"json": SCHEMA}},
    ],
)
async def test_a_schema_is_kept(post: Post, fields: dict[str, Any]) -> None:
    """The text is JSON with what the schema requires."""
    body = await (await post("vllm", fields)).json()
    value = json.loads(body["choices"][0]["message"]["content"])
    assert set(value) == {"city", "hour"}
    assert value["hour"] >= 3


async def test_a_choice_is_made(post: Post) -> None:
    """Structured outputs may leave only a few texts."""
    body = await (await post("vllm", {"structured_outputs": {"choice": ["yes", "no"]}})).json()
    assert body["choices"][0]["message"]["content"] == "yes"


async def test_log_probabilities_have_bytes_and_alternatives(post: Post) -> None:
    """The same entries whole and streamed, and no refusal beside them."""
    fields = {"logprobs": True, "top_logprobs": 2}
    (choice,) = (await (await post("vllm", fields)).json())["choices"]
    assert set(choice["logprobs"]) == {"content"}
    entries = choice["logprobs"]["content"]
    assert "".join(bytes(entry["bytes"]).decode() for entry in entries) == choice["message"]["content"]
    assert all(len(entry["top_logprobs"]) == 2 for entry in entries)
    seen = await chunks(await post("vllm", STREAM | fields))
    assert [chunk["choices"][0]["logprobs"]["content"][0] for chunk in seen[1:]] == entries


async def test_usage_is_in_every_chunk_on_request(post: Post) -> None:
    """Otherwise only in the last, and the others have no such field."""
    options = {"include_usage": True}
    plain = await chunks(await post("vllm", STREAM | {"stream_options": options}))
    assert [chunk for chunk in plain if "usage" in chunk] == plain[-1:]
    options["continuous_usage_stats"] = True
    seen = await chunks(await post("vllm", STREAM | {"stream_options": options}))
    assert [chunk["usage"]["completion_tokens"] for chunk in seen[:3]] == [0, 1, 2]
    assert seen[-1] == plain[-1]


@pytest.mark.parametrize(
    ("behaviour", "status", "kind"),
    [
        ("error=model_not_found", 404, "NotFoundError"),
        ("error=context_length_exceeded", 400, "BadRequestError"),
        ("error=overloaded", 503, "ServiceUnavailableError"),
        ("status=422", 422, "UnprocessableEntityError"),
        ("status=500", 500, "InternalServerError"),
        ("status=501", 501, "NotImplementedError"),
    ],
)
async def test_failures_have_their_types(post: Post, behaviour: str, status: int, kind: str) -> None:
    """With the status as code."""
    response = await post("vllm", behaviour=behaviour)
    error = (await response.json())["error"]
    assert (response.status, error["type"], error["code"]) == (status, kind, status)


async def test_an_error_within_the_stream_ends_with_done(post: Post) -> None:
    """Some tokens, the error event, then the terminal event all the same."""
    response = await post("vllm", STREAM, behaviour='error_after=2; text="a a a a"')
    events = (await response.text()).split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert json.loads(events[-3].removeprefix("data: "))["error"]["code"] == 500


async def test_the_key_guards_the_api_but_not_the_health(client: aiohttp.ClientSession) -> None:
    """401 has a bare text as error; /health is empty."""
    async with Simulator(keys={"vllm": "sk-right"}) as simulator:
        url = f"{simulator.url}/vllm"
        response = await client.post(f"{url}/v1/chat/completions", json={})
        assert (response.status, await response.json()) == (401, {"error": "Unauthorized"})
        response = await client.get(f"{url}/v1/models")
        assert response.status == 401
        for path in ("/health", "/ping"):
            response = await client.get(url + path)
            assert (response.status, await response.read()) == (200, b"")


async def test_models_tell_their_length_and_stand_in_the_list_only(
    simulator: Simulator, client: aiohttp.ClientSession
) -> None:
    """There is no page of one model."""
    base = simulator.base_url("vllm")
    data = (await (await client.get(f"{base}/models")).json())["data"]
    assert [each["id"] for each in data] == ["Qwen/Qwen3-8B", "qwen3-adapter"]
    assert data[0]["max_model_len"] == 32_768
    assert data[1]["parent"] == "Qwen/Qwen3-8B"
    response = await client.get(f"{base}/models/qwen3-adapter")
    assert (response.status, (await response.json())["error"]["code"]) == (404, 404)


async def test_a_missing_model_is_not_found(post: Post) -> None:
    """Names that start with "missing" do not exist."""
    response = await post("vllm", {"model": "missing-model"})
    error = (await response.json())["error"]
    assert (response.status, error["message"]) == (404, "The model `missing-model` does not exist.")
