"""The ollama dialect shows pictures, follows formats, thinks, embeds, and has an OpenAI layer."""

import base64
import json
import math
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from proxy.simulator import Simulator

Post = Callable[..., Awaitable[aiohttp.ClientResponse]]
Send = Callable[..., Awaitable[aiohttp.ClientResponse]]
PICTURE = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
SCHEMA = {"type": "object", "properties": {"hour": {"type": "integer"}}, "required": ["hour"]}
TOOL = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object"}}}


@pytest.fixture
def send(simulator: Simulator, client: aiohttp.ClientSession) -> Send:
    """Post a body to a path."""

    async def request(path: str, body: Any, behaviour: str = "") -> aiohttp.ClientResponse:
        url = f"{simulator.url}/ollama{path}"
        return await client.post(url, json=body, headers={"x-simulate": behaviour} if behaviour else {})

    return request


async def lines(response: aiohttp.ClientResponse) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (await response.text()).split("\n")[:-1]]


def showing(*images: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "What is it?", "images": list(images)}]}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (showing(f"data:image/png;base64,{PICTURE}"), "illegal base64 data at input byte 4"),
        (showing("https://example.org/a.png"), "illegal base64 data"),
        (showing(PICTURE, ""), "Failed to load image"),
        ({"format": {"type": 5}}, "invalid JSON schema in format"),
        ({"model": "plain:latest", "think": True}, '"plain:latest" does not support thinking'),
        ({"model": "plain:latest", "think": "low"}, '"plain:latest" does not support thinking'),
        ({"think": "low"}, 'think value "low" is not supported for this model'),
        ({"model": "gpt-oss:20b", "think": "minimal"}, 'invalid think value: "minimal"'),
        ({"model": "bare:latest", "tools": [TOOL]}, "registry.ollama.ai/library/bare:latest does not support tools"),
    ],
)
async def test_a_request_beyond_the_model_is_refused(post: Post, fields: dict[str, Any], words: str) -> None:
    """Status 400 and a plain text under `error`."""
    response = await post("ollama", fields)
    assert response.status == 400
    assert words in (await response.json())["error"]


@pytest.mark.parametrize(
    "fields",
    [
        showing(PICTURE),
        {"think": True},
        {"think": False, "model": "plain:latest"},
        {"think": "high", "model": "gpt-oss:20b"},
        {"think": None, "format": ""},
    ],
)
async def test_what_the_model_can_do_is_done(post: Post, fields: dict[str, Any]) -> None:
    """Bare pictures, and thinking where it exists."""
    assert (await post("ollama", fields)).status == 200


async def test_a_format_is_followed(post: Post) -> None:
    """Any object, or one that has what the schema requires."""
    body = await (await post("ollama", {"format": SCHEMA})).json()
    assert list(json.loads(body["message"]["content"])) == ["hour"]
    body = await (await post("ollama", {"format": "json"})).json()
    assert isinstance(json.loads(body["message"]["content"]), dict)


async def test_thoughts_have_their_own_field(post: Post) -> None:
    """Before the text; declined ones are not thought, scripted ones need not be asked for."""
    whole = await (await post("ollama", {"think": True})).json()
    assert whole["message"]["thinking"] == "Let me see."
    seen = await lines(await post("ollama", {"think": True, "stream": True}))
    assert "".join(line["message"].get("thinking", "") for line in seen) == whole["message"]["thinking"]
    assert "".join(line["message"]["content"] for line in seen) == whole["message"]["content"]
    assert "thinking" in seen[0]["message"]
    for fields, thinks in (({}, True), ({"think": False}, False)):
        body = await (await post("ollama", fields, behaviour='reasoning="One moment."')).json()
        assert ("thinking" in body["message"]) == thinks


async def test_log_probabilities_come_with_their_text(post: Post) -> None:
    """One entry per token, beside the message."""
    fields = {"logprobs": True, "top_logprobs": 2}
    body = await (await post("ollama", fields, behaviour='text="a b"')).json()
    assert [entry["token"] for entry in body["logprobs"]] == ["a", " b"]
    assert set(body["logprobs"][0]) == {"token", "logprob", "bytes", "top_logprobs"}
    seen = await lines(await post("ollama", fields | {"stream": True}, behaviour='text="a b"'))
    assert [entry for line in seen for entry in line.get("logprobs", ())] == body["logprobs"]


async def test_embeddings_are_numbers(send: Send) -> None:
    """One unit vector per input, of the wanted length; the same text has the same one."""
    body = await (await send("/api/embed", {"model": "nomic", "input": ["one two", "three"], "dimensions": 8})).json()
    assert [len(each) for each in body["embeddings"]] == [8, 8]
    assert body["prompt_eval_count"] == 3
    assert math.isclose(math.hypot(*body["embeddings"][0]), 1, abs_tol=1e-6)
    again = await (await send("/api/embed", {"model": "nomic", "input": "one two", "dimensions": 8})).json()
    assert again["embeddings"] == body["embeddings"][:1]
    assert (await (await send("/api/embed", {"model": "nomic"})).json())["embeddings"] == []


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"input": "x"}, "model is required"),
        ({"model": "m", "input": [1, 2]}, "invalid input type"),
        ({"model": "m", "input": "x", "dimensions": "8"}, "EmbedRequest.dimensions"),
        ({"model": "m", "input": "x " * 2049, "truncate": False}, "the input length exceeds the context length"),
    ],
)
async def test_wrong_inputs_are_not_embedded(send: Send, body: dict[str, Any], words: str) -> None:
    """Tokens, and what is too long if it may not be cut."""
    response = await send("/api/embed", body)
    assert response.status == 400
    assert words in (await response.json())["error"]


async def test_a_long_input_is_cut_without_a_word(send: Send) -> None:
    """Unless that was forbidden."""
    body = await (await send("/api/embed", {"model": "m", "input": "x " * 3000})).json()
    assert body["prompt_eval_count"] == 2048


async def test_the_layer_completes_prompts(send: Send) -> None:
    """In OpenAI's shape, with an id that will come again; unknown fields do not exist for it."""
    asked = {"model": "qwen3:latest", "prompt": "Once", "n": 3, "echo": True, "logprobs": 5, "stop": "X"}
    body = await (await send("/v1/completions", asked, behaviour='text="upon X a time"')).json()
    assert (body["id"], body["model"], len(body["choices"])) == ("cmpl-417", "qwen3:latest", 1)
    assert (body["choices"][0]["text"], body["choices"][0]["logprobs"]) == ("upon ", None)
    text = await (await send("/v1/completions", asked | {"stream": True})).text()
    assert text.endswith("data: [DONE]\n\n")
    assert "layer" not in text
    long = await (await send("/v1/completions", asked, behaviour="tokens=50")).json()
    assert (long["choices"][0]["finish_reason"], long["usage"]["completion_tokens"]) == ("stop", 50)


@pytest.mark.parametrize(
    ("fields", "behaviour", "status", "kind"),
    [
        ({"prompt": ["a", "b"]}, "", 400, "invalid_request_error"),
        ({"prompt": [1, 2]}, "", 400, "invalid_request_error"),
        ({"model": "missing"}, "", 404, "not_found_error"),
        ({}, "status=500", 500, "api_error"),
        ({}, "status=404", 404, "not_found_error"),
    ],
)
async def test_the_layer_has_openai_errors(
    send: Send, fields: dict[str, Any], behaviour: str, status: int, kind: str
) -> None:
    """With neither param nor code."""
    response = await send("/v1/completions", {"model": "m", "prompt": "x"} | fields, behaviour)
    error = (await response.json())["error"]
    assert (response.status, error["type"], error["param"], error["code"]) == (status, kind, None, None)


async def test_the_layer_loses_late_errors(send: Send) -> None:
    """An empty chunk comes in its place, and the stream ends with neither reason nor [DONE]."""
    asked = {"model": "m", "prompt": "x", "stream": True}
    text = await (await send("/v1/completions", asked, behaviour='error_after=1; text="a b"')).text()
    seen = [json.loads(event.removeprefix("data: ")) for event in text.split("\n\n")[:-1]]
    assert [chunk["choices"][0]["text"] for chunk in seen] == ["a", ""]
    assert {chunk["choices"][0]["finish_reason"] for chunk in seen} == {None}


async def test_the_layer_lists_models(simulator: Simulator, client: aiohttp.ClientSession) -> None:
    """The same ones."""
    listed = await (await client.get(f"{simulator.url}/ollama/v1/models")).json()
    assert [model["id"] for model in listed["data"]] == ["qwen3:latest", "llama3.2:latest"]
