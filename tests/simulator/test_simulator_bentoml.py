"""The bentoml dialect judges and answers as a BentoML service does, mounted server and own endpoints."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from proxy.simulator import Simulator

Send = Callable[..., Awaitable[aiohttp.ClientResponse]]
ASK = {"prompt": "Tell me about clocks"}
CHAT = {"messages": [{"role": "user", "content": "hi"}]}
FINE = {"/generate": ASK, "/generate_text": ASK, "/summarize": {"text": "a long story"}, "/chat": CHAT}

each_endpoint = pytest.mark.parametrize("path", list(FINE))


@pytest.fixture
def send(simulator: Simulator, client: aiohttp.ClientSession) -> Send:
    """Post a body to a path."""

    async def post(path: str, body: Any, behaviour: str = "") -> aiohttp.ClientResponse:
        url = f"{simulator.url}/bentoml{path}"
        return await client.post(url, json=body, headers={"x-simulate": behaviour} if behaviour else {})

    return post


async def test_a_generator_streams_bare_text(send: Send) -> None:
    """No frames, no terminal event, and the words of the method that returns a whole text."""
    response = await send("/generate", ASK, behaviour='text="Bonjour, café."')
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["transfer-encoding"] == "chunked"
    assert response.headers["x-bentoml-request-id"]
    assert await response.text() == "Bonjour, café."
    whole = await send("/generate_text", ASK)
    assert whole.content_type == "text/plain"
    assert await whole.text() == await (await send("/generate", ASK)).text()


async def test_bare_text_may_be_cut_inside_a_letter(send: Send, simulator: Simulator) -> None:
    """Chunks follow bytes, not letters."""
    response = await send("/generate", ASK, behaviour="text=é; chunk_bytes=1")
    assert await response.read() == "é".encode()
    assert simulator.report.dialects["bentoml"].completed == 1


async def test_events_are_what_their_author_wrote(send: Send) -> None:
    """Proper events, one that is the last, and no [DONE]."""
    response = await send("/generate_sse", ASK, behaviour='text="a b"')
    assert response.content_type == "text/event-stream"
    blocks = (await response.text()).split("\n\n")
    assert blocks.pop() == ""
    seen = [json.loads(block.removeprefix("data: ")) for block in blocks]
    assert [event["text"] for event in seen] == ["a", " b", ""]
    assert [event.get("done") for event in seen] == [None, None, True]
    assert seen[-1]["usage"] == {"prompt_tokens": 4, "completion_tokens": 2}


async def test_items_are_written_back_to_back(send: Send) -> None:
    """Nothing is between two objects."""
    assert await (await send("/generate_items", ASK, behaviour='text="a b"')).text() == '{"text":"a"}{"text":" b"}'


async def test_others_answer_with_json(send: Send) -> None:
    """A string, or an object."""
    response = await send("/summarize", {"text": "a long story"}, behaviour="text=short")
    assert (response.content_type, await response.json()) == ("application/json", "short")
    response = await send("/chat", CHAT, behaviour="text=hello")
    assert await response.json() == {"text": "hello"}


async def test_only_the_endpoint_decides_whether_it_streams(send: Send) -> None:
    """Unknown keys are ignored, `stream` among them; the limit is obeyed."""
    asked = ASK | {"stream": False, "max_tokens": 2, "temperature": "hot"}
    text = await (await send("/generate", asked)).text()
    assert len(text.split()) == 2


@pytest.mark.parametrize(
    ("path", "body", "kind", "place"),
    [
        ("/generate", {}, "missing", ["prompt"]),
        ("/generate", {"prompt": None}, "string_type", ["prompt"]),
        ("/generate", ASK | {"max_tokens": "9"}, "int_type", ["max_tokens"]),
        ("/generate", ASK | {"max_tokens": 0}, "greater_than_equal", ["max_tokens"]),
        ("/generate", ["x"], "json_invalid", []),
        ("/generate_sse", {"text": "x"}, "missing", ["prompt"]),
        ("/summarize", ASK, "missing", ["text"]),
        ("/chat", {"messages": []}, "too_short", ["messages"]),
        ("/chat", {"messages": [{"role": "user"}]}, "string_type", ["messages", 0, "content"]),
    ],
)
async def test_a_wrong_input_is_a_validation_error(
    send: Send, path: str, body: Any, kind: str, place: list[str]
) -> None:
    """Status 400, pydantic's text, and its faults as detail."""
    response = await send(path, body)
    answer = await response.json()
    assert response.status == 400
    assert answer["error"].startswith("1 validation error for Input\n")
    assert (answer["detail"][0]["type"], answer["detail"][0]["loc"]) == (kind, place)


async def test_a_pickle_is_refused(simulator: Simulator, client: aiohttp.ClientSession) -> None:
    """Nobody unpickles what strangers send."""
    headers = {"content-type": "application/vnd.bentoml+pickle"}
    assert (await client.post(f"{simulator.url}/bentoml/generate", data=b"x", headers=headers)).status == 415


@each_endpoint
async def test_a_service_fails_in_its_own_ways(send: Send, path: str) -> None:
    """What it raises is an array that holds one object; crashes and limits are an object."""
    fine = FINE[path]
    for status in (400, 422, 503):
        response = await send(path, fine, behaviour=f"status={status}")
        assert response.status == status
        (error,) = await response.json()
        assert list(error) == ["error"]
    for status, words in ((401, "Authorization"), (429, "Too many requests"), (500, "unexpected"), (504, "60 seconds")):
        response = await send(path, fine, behaviour=f"status={status}")
        assert response.status == status
        assert words in (await response.json())["error"]
        assert "retry-after" not in response.headers
    response = await send(path, fine, behaviour="status=404")
    assert (response.content_type, await response.text()) == ("text/plain", "Not Found")


async def test_an_exception_in_a_generator_ends_in_silence(send: Send, simulator: Simulator) -> None:
    """The body is ended as if nothing had happened, after so many pieces."""
    for path, expected in (("/generate", "a b"), ("/generate_items", '{"text":"a"}{"text":" b"}')):
        response = await send(path, ASK, behaviour='error_after=2; text="a b c d"')
        assert (response.status, await response.text()) == (200, expected)
    assert simulator.report.failed == 2


async def test_an_author_may_tell_of_a_failure(send: Send) -> None:
    """As an event of their own; or the stream lacks its last event."""
    text = await (await send("/generate_sse", ASK, behaviour='error_after=1; text="a b"')).text()
    assert text.startswith('data: {"text":"a"}\n\ndata: {"error":"An unexpected error')
    text = await (await send("/generate_sse", ASK, behaviour='quirks=silent_end; text="a b"')).text()
    assert text == 'data: {"text":"a"}\n\ndata: {"text":" b"}\n\n'


async def test_a_cut_of_bare_text_is_seen_by_http_only(send: Send) -> None:
    """The body is not ended."""
    for count in (1, 1000):
        response = await send("/generate", ASK, behaviour=f'cut={count}; text="a b c d"')
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()


async def test_the_mounted_server_is_vllm(send: Send) -> None:
    """Its answers, refusals and streams, with BentoML's headers."""
    body = CHAT | {"model": "meta-llama/Llama-3.1-8B-Instruct"}
    response = await send("/v1/chat/completions", body)
    assert (await response.json())["object"] == "chat.completion"
    assert response.headers["x-bentoml-request-id"]
    response = await send("/v1/chat/completions", body | {"temperature": 5})
    assert (await response.json())["error"]["type"] == "BadRequestError"
    text = await (await send("/v1/chat/completions", body | {"stream": True})).text()
    assert text.endswith("data: [DONE]\n\n")
    text = await (await send("/v1/chat/completions", body | {"stream": True}, behaviour="error_after=1")).text()
    assert '"type":"InternalServerError"' in text


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, b'{"error":"Authorization error"}'),
        (429, b'{"error":"Too many requests"}'),
        (503, b"Upstream service unavailable."),
        (504, b'{"error":"Not able to process the request in 60 seconds"}'),
    ],
)
async def test_the_wrapper_of_the_mounted_server_fails_for_itself(send: Send, status: int, body: bytes) -> None:
    """When it is too busy, too late, or its server is not up."""
    for stream in ({}, {"stream": True}):
        response = await send("/v1/chat/completions", CHAT | {"model": "m"} | stream, behaviour=f"status={status}")
        assert (response.status, await response.read()) == (status, body)


async def test_a_key_is_insisted_on(client: aiohttp.ClientSession) -> None:
    """On every endpoint, in the wrapper's words; health is open to all."""
    async with Simulator(keys={"bentoml": "right"}) as simulator:
        url = f"{simulator.url}/bentoml"
        for token, status in (("wrong", 401), ("right", 200)):
            headers = {"authorization": f"Bearer {token}"}
            for path, body in (*FINE.items(), ("/v1/chat/completions", CHAT | {"model": "m"})):
                response = await client.post(url + path, json=body, headers=headers)
                assert response.status == status
                if status == 401:
                    assert await response.json() == {"error": "Authorization error"}
            assert (await client.get(f"{url}/v1/models", headers=headers)).status == status
        assert (await client.get(f"{url}/livez")).status == 200


async def test_it_tells_what_it_is(simulator: Simulator, client: aiohttp.ClientSession) -> None:
    """Health is a newline, and the endpoints are described."""
    url = f"{simulator.url}/bentoml"
    for path in ("/livez", "/readyz", "/healthz"):
        assert await (await client.get(url + path)).text() == "\n"
    described = await (await client.get(f"{url}/schema.json")).json()
    assert {route["route"]: route["is_stream"] for route in described["routes"]}["/generate"]
    assert (await client.get(f"{url}/v1/models")).status == 200
    assert (await client.post(f"{url}/nothing")).status == 404
    assert (await client.get(f"{url}/generate")).status == 405
    assert (await client.post(f"{url}/v1/nothing")).status == 404
