"""The rayserve dialect's ingress answers as ray.serve.llm does."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from proxy.simulator import Simulator

Post = Callable[..., Awaitable[aiohttp.ClientResponse]]
STREAM = {"stream": True}
MODEL = "meta-llama/Llama-3.1-8B-Instruct"


async def test_a_completion_is_vllms(post: Post) -> None:
    """The model may be left out, as there is only one."""
    body = await (await post("rayserve", without=("model",))).json()
    assert body["model"] == MODEL
    assert body["choices"][0]["message"]["tool_calls"] == []


async def test_chunks_leave_in_batches(simulator: Simulator) -> None:
    """One piece of the body carries several events, and the stream ends with the terminal one."""
    host, port = simulator.url.removeprefix("http://").split(":")
    body = json.dumps({"messages": [{"role": "user", "content": "hi"}]} | STREAM).encode()
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"POST /rayserve/v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b'x-simulate: text="a a a a a a a a"; headers={"connection": "close"}\r\n'
        b"content-length: %d\r\n\r\n%s" % (len(body), body)
    )
    received = (await reader.read()).partition(b"\r\n\r\n")[2]
    writer.close()
    await writer.wait_closed()
    events = []
    while received:
        size, _, received = received.partition(b"\r\n")
        events.append(received[: int(size, 16)].count(b"data: "))
        received = received[int(size, 16) + 2 :]
    assert events == [1, 3, 3, 1, 1, 1, 0]  # role, contents, one more, the last with the reason, [DONE], end


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"messages": []}, []), ({"temperature": 5}, 5), ({"tools": [{"type": "function"}]}, [{"type": "function"}])],
)
async def test_a_wrong_request_has_its_input_as_param(post: Post, fields: dict[str, Any], param: Any) -> None:
    """Which may be anything; the code is a text."""
    response = await post("rayserve", fields)
    error = (await response.json())["error"]
    assert (response.status, error["code"], error["type"]) == (400, "invalid_parameter", "ValidationError")
    assert error["message"].startswith("Invalid request format: ")
    assert error["param"] == param


async def test_a_long_prompt_is_rays_value_error(post: Post) -> None:
    """What the engine itself refuses has the status as code."""
    error = (await (await post("rayserve", {"max_tokens": 40_000})).json())["error"]
    assert (error["type"], error["code"]) == ("ValueError", 400)


@pytest.mark.parametrize(
    ("behaviour", "status", "kind"),
    [
        ("error=model_not_found", 404, "OpenAIHTTPException"),
        ("error=context_length_exceeded", 400, "ValueError"),
        ("status=500", 500, "EngineDeadError"),
    ],
)
async def test_failures_have_python_classes_as_types(post: Post, behaviour: str, status: int, kind: str) -> None:
    """And a message of three parts."""
    response = await post("rayserve", behaviour=behaviour)
    error = (await response.json())["error"]
    assert (response.status, error["type"], error["code"]) == (status, kind, status)
    assert error["message"].startswith("Message: ")
    assert "original exception: " in error["message"]


@pytest.mark.parametrize("behaviour", ["error=overloaded", "status=408", "status=429", "status=401"])
async def test_the_proxy_in_front_answers_in_text(post: Post, behaviour: str) -> None:
    """No JSON."""
    assert (await post("rayserve", behaviour=behaviour)).content_type == "text/plain"


async def test_an_error_within_the_stream_ends_with_done(post: Post) -> None:
    """The chunk has the shape of a page."""
    response = await post("rayserve", STREAM, behaviour='error_after=1; text="a a a a a a"')
    events = (await response.text()).split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert json.loads(events[-3].removeprefix("data: "))["error"]["type"] == "EngineDeadError"


async def test_models_have_no_time_of_creation(simulator: Simulator, client: aiohttp.ClientSession) -> None:
    """Two dashes stand for a slash."""
    base = simulator.base_url("rayserve")
    (listed,) = (await (await client.get(f"{base}/models")).json())["data"]
    assert set(listed) == {"id", "object", "owned_by", "permission", "metadata"}
    for name in (MODEL, MODEL.replace("/", "--")):
        assert await (await client.get(f"{base}/models/{name}")).json() == listed
    response = await client.get(f"{base}/models/other")
    assert (response.status, (await response.json())["error"]["code"]) == (404, 404)


async def test_health_routes_and_lost_paths_are_the_proxys(simulator: Simulator, client: aiohttp.ClientSession) -> None:
    """Plain text, pointing at the routes."""
    url = f"{simulator.url}/rayserve"
    assert await (await client.get(f"{url}/-/healthz")).text() == "success"
    assert await (await client.get(f"{url}/-/routes")).json() == {"/": "llm_app"}
    response = await client.post(f"{url}/v1/nothing", json={})
    assert response.status == 404
    assert (await response.text()).startswith("Path '/v1/nothing' not found.")
