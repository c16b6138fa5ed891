"""Plain deployments of the rayserve dialect answer in their authors' forms, and fail without explanation."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from proxy.simulator import Simulator

Send = Callable[..., Awaitable[aiohttp.ClientResponse]]
ASK = {"prompt": "Tell me about clocks", "max_tokens": 100, "temperature": 0.5}
PATHS = ("/", "/list", "/text", "/ndjson", "/cumulative", "/app")

each_deployment = pytest.mark.parametrize("path", PATHS)


@pytest.fixture
def send(simulator: Simulator, client: aiohttp.ClientSession) -> Send:
    """Post a body to a path."""

    async def post(path: str, body: Any, behaviour: str = "") -> aiohttp.ClientResponse:
        url = f"{simulator.url}/rayserve{path}"
        return await client.post(url, json=body, headers={"x-simulate": behaviour} if behaviour else {})

    return post


@pytest.mark.parametrize(
    ("path", "kind", "body"),
    [
        ("/", "application/json", '{"text":"hello"}'),
        ("/list", "application/json", '[{"generated_text":"hello"}]'),
        ("/text", "text/plain", "hello"),
        ("/app", "application/json", '{"text":"hello"}'),
    ],
)
async def test_each_answers_in_its_form(send: Send, path: str, kind: str, body: str) -> None:
    """An object, a list or bare text."""
    response = await send(path, ASK, behaviour="text=hello")
    assert (response.status, response.content_type, await response.text()) == (200, kind, body)


@pytest.mark.parametrize("path", ["/", "/list", "/text", "/app"])
async def test_bare_text_is_streamed_if_asked_for(send: Send, path: str) -> None:
    """Without frames or an end."""
    response = await send(path, ASK | {"stream": True}, behaviour='text="a bé c"')
    assert response.content_type == "text/plain"
    assert await response.text() == "a bé c"


async def test_lines_hold_what_is_new_or_all_that_was_said(send: Send) -> None:
    """The last one says that it is the last."""
    ask = ASK | {"stream": True}
    response = await send("/ndjson", ask, behaviour='text="a b"')
    assert response.content_type == "application/x-ndjson"
    seen = [json.loads(line) for line in (await response.text()).splitlines()]
    assert [line["text"] for line in seen] == ["a", " b", ""]
    assert seen[-1]["done"]
    assert seen[-1]["usage"] == {"prompt_tokens": 4, "completion_tokens": 2}
    text = await (await send("/cumulative", ask, behaviour='text="a b"')).text()
    seen = [json.loads(line) for line in text.splitlines()]
    assert [(line["text"], line["done"]) for line in seen] == [("a", False), ("a b", False), ("a b", True)]


async def test_the_limit_is_obeyed(send: Send) -> None:
    """And counts words."""
    body = await (await send("/", ASK | {"max_tokens": 2})).json()
    assert len(body["text"].split()) == 2


@pytest.mark.parametrize("body", [{}, [], {"prompt": 5}, ASK | {"max_tokens": "9"}, ASK | {"stream": "yes"}])
async def test_a_wrong_body_crashes_a_handler(send: Send, body: Any) -> None:
    """Only an application with a schema says what is wrong."""
    response = await send("/", body)
    assert (response.status, response.content_type, await response.text()) == (
        500,
        "text/plain",
        "Internal Server Error",
    )
    response = await send("/app", body)
    assert response.status == 422
    assert (await response.json())["detail"][0]["loc"][0] == "body"


@each_deployment
async def test_failures_are_plain_texts(send: Send, path: str) -> None:
    """Of the deployment or of the proxy before it."""
    for behaviour, status, words in (
        ("status=500", 500, "Internal Server Error"),
        ("status=502", 502, "Internal Server Error"),
        ("status=503", 503, "backpressure"),
        ("status=404", 404, "not found"),
        ("status=408", 408, "timed out"),
        ("error=overloaded", 503, "backpressure"),
        ("error=context_length_exceeded", 500, "Internal Server Error"),
    ):
        for stream in (True, False):
            response = await send(path, ASK | {"stream": stream}, behaviour=behaviour)
            assert (response.status, response.content_type) == (status, "text/plain")
            assert words in await response.text()
    response = await send(path, ASK, behaviour="status=400")
    assert "detail" in await response.json()
    assert (await send(path, ASK, behaviour="status=503; retry_after=3")).headers["retry-after"] == "3"


async def test_a_failure_within_a_stream_is_silent_or_a_line(send: Send) -> None:
    """Bare text just ends; an author of lines may write one about it."""
    ask = ASK | {"stream": True}
    response = await send("/", ask, behaviour='error_after=1; text="a b"')
    assert (response.status, await response.text()) == (200, "a")
    text = await (await send("/ndjson", ask, behaviour='error_after=1; text="a b"')).text()
    assert text == '{"text":"a"}\n{"error":"Internal Server Error"}\n'


async def test_the_ingress_keeps_its_own_errors(send: Send) -> None:
    """Deployments beside it change nothing."""
    body = {"messages": [{"role": "user", "content": "hi"}]}
    response = await send("/v1/chat/completions", body, behaviour="status=500")
    assert "error" in await response.json()
    assert (await send("/v1/chat/completions", body)).status == 200
    assert (await send("/nowhere", ASK)).status == 404
