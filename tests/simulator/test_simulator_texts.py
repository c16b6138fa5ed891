"""Bare completions and embeddings, of the dialects that have them."""

import base64
import json
import math
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from openai import AsyncOpenAI

from proxy.simulator import Simulator

Post = Callable[..., Awaitable[aiohttp.ClientResponse]]
DIALECTS = ("openai", "vllm", "rayserve")
TEXTS = {"model": "m", "prompt": "Once upon"}

every_dialect = pytest.mark.parametrize("dialect", DIALECTS)


async def chunks(response: aiohttp.ClientResponse) -> list[dict[str, Any]]:
    events = (await response.text()).split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    return [json.loads(event.removeprefix("data: ")) for event in events[:-2]]


@every_dialect
@pytest.mark.parametrize("prompt", ["one", ["one", "two"], [5, 6], [[5], [6, 7]]])
async def test_every_prompt_has_its_answers(post_to: Post, dialect: str, prompt: Any) -> None:
    """`n` for each, in order; at most sixteen tokens unless asked for more."""
    body = await (await post_to(f"/{dialect}/v1/completions", TEXTS | {"prompt": prompt, "n": 2})).json()
    several = isinstance(prompt, list) and not isinstance(prompt[0], int)
    assert body["object"] == "text_completion"
    assert [choice["index"] for choice in body["choices"]] == list(range(4 if several else 2))
    assert len({choice["text"] for choice in body["choices"]}) == len(body["choices"])
    assert all(len(choice["text"].split()) <= 16 for choice in body["choices"])


@every_dialect
async def test_the_stream_says_what_the_completion_says(post_to: Post, dialect: str) -> None:
    """Chunks are the same kind of object; usage comes last when asked for."""
    fields = TEXTS | {"prompt": ["one", "two"], "echo": True, "max_tokens": 5}
    whole = await (await post_to(f"/{dialect}/v1/completions", fields)).json()
    options = {"stream": True, "stream_options": {"include_usage": True}}
    seen = await chunks(await post_to(f"/{dialect}/v1/completions", fields | options))
    assert (seen[-1]["choices"], seen[-1]["usage"]) == ([], whole["usage"])
    texts = ["", ""]
    for chunk in seen[:-1]:
        assert chunk["object"] == "text_completion"
        texts[chunk["choices"][0]["index"]] += chunk["choices"][0]["text"]
    assert texts == [choice["text"] for choice in whole["choices"]]
    assert texts[1].startswith("two")
    assert [choice["finish_reason"] for choice in whole["choices"]] == ["length", "length"]


async def test_log_probabilities_have_the_old_shape(post_to: Post) -> None:
    """Four parallel lists, the offsets through the text."""
    (choice,) = (await (await post_to("/openai/v1/completions", TEXTS | {"logprobs": 2})).json())["choices"]
    logprobs = choice["logprobs"]
    assert "".join(logprobs["tokens"]) == choice["text"]
    for offset, token, top in zip(logprobs["text_offset"], logprobs["tokens"], logprobs["top_logprobs"], strict=True):
        assert choice["text"][offset:].startswith(token)
        assert len(top) == 2
    assert len(logprobs["token_logprobs"]) == len(logprobs["tokens"])


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("/openai/v1/completions", {"prompt": 5}, "prompt"),
        ("/openai/v1/completions", {"prompt": ["a", 5]}, "prompt"),
        ("/openai/v1/completions", {"logprobs": 6}, "logprobs"),
        ("/openai/v1/completions", {"messages": []}, "messages"),
        ("/vllm/v1/completions", {"suffix": "x"}, "suffix"),
        ("/openai/v1/embeddings", {"prompt": None, "input": ""}, "input"),
        ("/openai/v1/embeddings", {"prompt": None, "input": []}, "input"),
        ("/openai/v1/embeddings", {"prompt": None, "input": {"a": 1}}, "input"),
        ("/openai/v1/embeddings", {"prompt": None, "input": "x", "encoding_format": "hex"}, "encoding_format"),
        ("/openai/v1/embeddings", {"prompt": None, "input": "x", "dimensions": 0}, "dimensions"),
    ],
)
async def test_wrong_fields_are_refused(post_to: Post, path: str, fields: dict[str, Any], param: str) -> None:
    """By their name."""
    response = await post_to(path, TEXTS | fields)
    assert response.status == 400
    assert (await response.json())["error"]["param"] == param


@every_dialect
async def test_embeddings_are_unit_vectors(post_to: Post, dialect: str) -> None:
    """The same for the same text, alone or in a list, as numbers or as base64."""
    path = f"/{dialect}/v1/embeddings"
    body = await (await post_to(path, {"model": "e", "input": ["sea", "sand"]})).json()
    one, other = (each["embedding"] for each in body["data"])
    assert math.isclose(math.hypot(*one), 1, rel_tol=1e-4)
    assert one != other
    assert body["usage"] == {"prompt_tokens": 2, "total_tokens": 2}
    packed = await (await post_to(path, {"model": "e", "input": "sea", "encoding_format": "base64"})).json()
    data = base64.b64decode(packed["data"][0]["embedding"])
    assert list(struct.unpack(f"<{len(one)}f", data)) == one


async def test_dimensions_can_be_chosen(post_to: Post) -> None:
    """Not of the oldest model; tokens are an input too."""
    body = {"model": "text-embedding-3-small", "input": [[1, 2], [3]], "dimensions": 8}
    data = (await (await post_to("/openai/v1/embeddings", body)).json())["data"]
    assert [len(each["embedding"]) for each in data] == [8, 8]
    response = await post_to("/openai/v1/embeddings", body | {"model": "text-embedding-ada-002"})
    assert (await response.json())["error"]["param"] == "dimensions"


async def test_the_official_client_reads_both(simulator: Simulator) -> None:
    """It asks for base64 by itself."""
    async with AsyncOpenAI(base_url=simulator.base_url("openai"), api_key="sk-any", max_retries=0) as openai:
        found = await openai.embeddings.create(model="text-embedding-3-small", input="sea")
        assert len(found.data[0].embedding) == 1536
        answer = await openai.completions.create(model="gpt-3.5-turbo-instruct", prompt="Once")
        assert answer.choices[0].text
    assert b'"encoding_format":"base64"' in simulator.report.requests[0].body


async def test_failures_and_faults_happen_here_too(post_to: Post) -> None:
    """A behaviour holds for every call of the dialect."""
    body = {"model": "e", "input": "sea"}
    assert (await post_to("/openai/v1/embeddings", body, behaviour="status=503")).status == 503
    assert (await post_to("/openai/v1/embeddings", body | {"model": "missing"})).status == 404
    text = await (await post_to("/openai/v1/completions", TEXTS | {"stream": True}, behaviour="error_after=1")).text()
    assert "[DONE]" not in text
