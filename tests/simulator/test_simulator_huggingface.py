"""The huggingface dialect is the router, hf-inference and a dedicated endpoint."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from proxy.simulator import Behaviour, Simulator

Post = Callable[..., Awaitable[aiohttp.ClientResponse]]
USER = {"role": "user", "content": "clock"}
TOOL = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}
STREAM = {"stream": True}
SCHEMA = {"type": "object", "properties": {"hour": {"type": "integer"}}, "required": ["hour"]}
SERVERLESS = "/huggingface/hf-inference/models/org/name"
ENDPOINT = "/huggingface/endpoint/v1/chat/completions"


async def chunks(response: aiohttp.ClientResponse) -> list[dict[str, Any]]:
    events = (await response.text()).split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    return [json.loads(event.removeprefix("data: ")) for event in events[:-2]]


@pytest.mark.parametrize(
    "fields",
    [
        {"max_completion_tokens": 5},
        {"stop": "x"},
        {"stop": ["a", "b", "c", "d", "e"]},
        {"user": "me"},
        {"store": True},
        {"logprobs": True, "top_logprobs": 6},
        {"messages": [{"role": "developer", "content": "x"}]},
        {"messages": [USER | {"audio": {}}]},
        {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]},
        {"tools": [{"type": "custom", "custom": {"name": "x"}}]},
        {"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "allowed_tools": {}}},
        {"functions": [{"name": "clock"}]},
        {"stream_options": {"include_usage": True}},
        {"response_format": {"type": "grammar"}},
    ],
)
async def test_a_strict_provider_refuses_what_is_not_documented(post: Post, fields: dict[str, Any]) -> None:
    """422 with a bare text, and its kind."""
    response = await post("huggingface", fields)
    body = await response.json()
    assert response.status == 422
    assert isinstance(body["error"], str)
    assert body["error_type"] == "validation"


async def test_the_model_must_stand_first(post_to: Post) -> None:
    """The router looks for it near the start of the body."""
    response = await post_to("/huggingface/v1/chat/completions", {"messages": [USER], "model": "org/name"})
    assert response.status == 400
    assert "must be its first field" in (await response.json())["error"]


@pytest.mark.parametrize("suffix", ["", ":groq", ":fastest", ":cheapest"])
async def test_a_suffix_names_the_provider(post: Post, suffix: str) -> None:
    """The answer names the model without it."""
    body = await (await post("huggingface", {"model": f"org/name{suffix}"})).json()
    assert body["model"] == "org/name"


@pytest.mark.parametrize("model", ["org/name:nobody", "missing/name"])
async def test_a_model_that_nobody_serves_is_not_supported(post: Post, model: str) -> None:
    """A 400 with the router's only structured error."""
    response = await post("huggingface", {"model": model})
    error = (await response.json())["error"]
    assert (response.status, error["code"], error["param"]) == (400, "model_not_supported", "model")
    assert "is not supported by" in error["message"]


async def test_a_completion_has_an_empty_id_and_no_time(post: Post) -> None:
    """`n` is not used, thoughts are in `reasoning`."""
    body = await (await post("huggingface", {"n": 3}, behaviour="reasoning=Hm.")).json()
    assert (body["id"], body["created"], len(body["choices"])) == ("", 0, 1)
    assert body["choices"][0]["message"]["reasoning"] == "Hm."


async def test_a_stream_has_nulls_and_a_joined_reason(post: Post) -> None:
    """The last chunk carries content and finish; usage may come with it, unasked."""
    whole = await (await post("huggingface")).json()
    seen = await chunks(await post("huggingface", STREAM, behaviour="quirks=usage_on_finish,explicit_nulls"))
    assert seen[0]["choices"][0]["delta"]["tool_calls"] is None
    text = "".join(chunk["choices"][0]["delta"]["content"] or "" for chunk in seen)
    assert text == whole["choices"][0]["message"]["content"]
    assert seen[-1]["choices"][0]["finish_reason"] == "stop"
    assert seen[-1]["usage"] == whole["usage"]


@pytest.mark.parametrize(
    ("behaviour", "status", "words"),
    [
        ("status=401", 401, "Invalid username or password."),
        ("error=insufficient_quota", 402, "monthly included credits"),
        ("status=403", 403, "sufficient permissions"),
        ("status=429", 429, "Too Many Requests"),
    ],
)
async def test_failures_are_bare_texts(post: Post, behaviour: str, status: int, words: str) -> None:
    """`error` is the text itself."""
    response = await post("huggingface", behaviour=behaviour)
    body = await response.json()
    assert response.status == status
    assert words in body["error"]


async def test_failures_of_providers_are_forwarded(post: Post) -> None:
    """An object, when the provider's is one; a page of text, when the queue is full."""
    error = (await (await post("huggingface", behaviour="status=500")).json())["error"]
    assert error["type"] == "server_error"
    response = await post("huggingface", behaviour="error=overloaded")
    assert (response.status, response.content_type) == (503, "text/plain")


async def test_a_loading_model_says_how_long(post: Post) -> None:
    """In the body, not in a header."""
    response = await post("huggingface", behaviour="status=503; retry_after=7.5")
    body = await response.json()
    assert (response.status, body["estimated_time"]) == (503, 7.5)
    assert body["error"] == "Model openai/gpt-oss-120b is currently loading"
    assert "retry-after" not in response.headers


async def test_a_wrong_key_and_path_are_told(client: aiohttp.ClientSession) -> None:
    """401 in JSON, 404 in text."""
    async with Simulator(keys={"huggingface": "hf_right"}) as simulator:
        base = simulator.base_url("huggingface")
        response = await client.post(f"{base}/chat/completions", json={})
        assert (response.status, await response.json()) == (401, {"error": "Invalid username or password."})
        response = await client.post(f"{base}/embeddings", json={})
        assert (response.status, await response.text()) == (404, "Not Found")


async def test_models_name_their_providers(simulator: Simulator, client: aiohttp.ClientSession) -> None:
    """The list, and one of it by its name with a slash."""
    base = simulator.base_url("huggingface")
    data = (await (await client.get(f"{base}/models")).json())["data"]
    assert data[0]["providers"][0]["status"] == "live"
    one = await (await client.get(f"{base}/models/{data[0]['id']}")).json()
    assert one == data[0]


async def test_hf_inference_has_the_model_in_the_path(post_to: Post) -> None:
    """And in the body, where it must be the same."""
    path = f"{SERVERLESS}/v1/chat/completions"
    response = await post_to(path, {"messages": [USER], "model": "org/name"})
    assert (response.status, (await response.json())["model"]) == (200, "org/name")
    assert (await post_to(path, {"messages": [USER], "model": "org/other"})).status == 400
    seen = await chunks(await post_to(path, {"messages": [USER], "model": "org/name"} | STREAM))
    assert seen[-1]["choices"][0]["finish_reason"] == "stop"


async def test_hf_inference_takes_a_schema_as_value(post_to: Post) -> None:
    """In its own spelling and in OpenAI's."""
    for form in (
        {"type": "json_object", "value": SCHEMA},
        {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}},
    ):
        body = {"model": "org/name", "messages": [USER], "response_format": form}
        answer = await (await post_to(f"{SERVERLESS}/v1/chat/completions", body)).json()
        assert set(json.loads(answer["choices"][0]["message"]["content"])) == {"hour"}


async def test_features_are_bare_arrays(post_to: Post) -> None:
    """A text gives one, a list gives a list; other inputs are refused."""
    path = f"{SERVERLESS}/pipeline/feature-extraction"
    one = await (await post_to(path, {"inputs": "sea"})).json()
    several = await (await post_to(path, {"inputs": ["sea", "sand"]})).json()
    assert len(one) == 384
    assert several[0] == one != several[1]
    assert (await post_to(path, {"inputs": [1]})).status == 422
    assert (await post_to(f"{SERVERLESS}/pipeline/other", {"inputs": "sea"})).status == 404


async def test_an_endpoint_runs_vllm_once_it_is_awake(simulator: Simulator, client: aiohttp.ClientSession) -> None:
    """Models that start with "cold" are scaled to zero, unless the call waits."""
    url = simulator.url + ENDPOINT
    body = {"model": "org/name", "messages": [USER]}
    assert (await (await client.post(url, json=body)).json())["choices"][0]["message"]["tool_calls"] == []
    cold = body | {"model": "cold-model"}
    response = await client.post(url, json=cold)
    assert (response.status, (await response.json())["estimated_time"]) == (503, 20.0)
    assert (await client.post(url, json=cold, headers={"X-Scale-Up-Timeout": "600"})).status == 200
    error = (await (await client.post(url, json=body | {"top_p": 0})).json())["error"]
    assert (error["type"], error["code"]) == ("BadRequestError", 400)
    seen = await chunks(await client.post(url, json=body | STREAM))
    assert seen[-1]["choices"][0]["finish_reason"] == "stop"


async def test_an_error_may_come_within_the_stream(post: Post, simulator: Simulator) -> None:
    """In the words of a page."""
    simulator.script("huggingface", Behaviour(error_after=1, status=429, text="a a a"))
    text = await (await post("huggingface", STREAM)).text()
    assert text.endswith('data: {"error":"Too Many Requests: you have exceeded your hourly quota."}\n\n')
