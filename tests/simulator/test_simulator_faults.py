"""Each field of a behaviour does what it says, in every dialect."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp
import pytest
from openai import APIError, AsyncOpenAI

from proxy.simulator import Behaviour, Simulator

Post = Callable[..., Coroutine[Any, Any, aiohttp.ClientResponse]]
DIALECTS = ("openai", "anthropic", "ollama")
ENDINGS = {"openai": "[DONE]", "anthropic": "message_stop", "ollama": '"done":true'}
STREAM = {"stream": True}
ASK: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
PATHS = {"openai": "v1/chat/completions", "anthropic": "v1/messages", "ollama": "api/chat"}

every_dialect = pytest.mark.parametrize("dialect", DIALECTS)


async def raw(simulator: Simulator, dialect: str, behaviour: str, **fields: Any) -> tuple[bytes, bytes]:
    """Send a call over a plain socket; return head and body as they came until the server closed."""
    host, port = simulator.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    body = json.dumps(ASK | {"stream": True} | fields).encode()
    head = (
        f"POST /{dialect}/{PATHS[dialect]} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
        f"anthropic-version: 2023-06-01\r\nx-simulate: {behaviour}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    received = await reader.read()
    writer.close()
    await writer.wait_closed()
    head_bytes, _, rest = received.partition(b"\r\n\r\n")
    return head_bytes, rest


def dechunk(body: bytes) -> tuple[bytes, bool]:
    """Join the chunks of a body; also return whether it was ended properly."""
    joined = b""
    while body:
        size_text, _, body = body.partition(b"\r\n")
        size = int(size_text, 16)
        if size == 0:
            return joined, True
        joined, body = joined + body[:size], body[size + 2 :]
    return joined, False


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (402, "billing_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (409, "conflict_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (502, "api_error"),
        (504, "timeout_error"),
        (529, "overloaded_error"),
    ],
)
async def test_a_status_has_its_anthropic_error(post: Post, status: int, kind: str) -> None:
    """The error type follows the status, on calls and before streams alike."""
    for fields in ({}, STREAM):
        response = await post("anthropic", fields, behaviour=f"status={status}")
        body = await response.json()
        assert (response.status, body["error"]["type"]) == (status, kind)
        assert body["request_id"] == response.headers["request-id"]


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (400, "invalid_request_error", None),
        (401, "invalid_request_error", "invalid_api_key"),
        (402, "insufficient_quota", "billing_required"),
        (403, "request_forbidden", "unsupported_country_region_territory"),
        (404, "invalid_request_error", "model_not_found"),
        (413, "invalid_request_error", "request_too_large"),
        (429, "requests", "rate_limit_exceeded"),
        (500, "server_error", None),
        (503, "server_error", None),
        (529, "server_error", None),
    ],
)
async def test_a_status_has_its_openai_error(post: Post, status: int, kind: str, code: str | None) -> None:
    """Type and code follow the status."""
    response = await post("openai", behaviour=f"status={status}")
    error = (await response.json())["error"]
    assert (response.status, error["type"], error["code"]) == (status, kind, code)
    assert response.headers["x-request-id"]


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
async def test_a_status_has_its_ollama_error(post: Post, status: int) -> None:
    """One text under `error`."""
    response = await post("ollama", behaviour=f"status={status}")
    assert response.status == status
    assert list(await response.json()) == ["error"]


@pytest.mark.parametrize(
    ("dialect", "error", "status", "expected"),
    [
        ("openai", "insufficient_quota", 429, {"type": "insufficient_quota", "code": "insufficient_quota"}),
        ("openai", "context_length_exceeded", 400, {"param": "messages", "code": "context_length_exceeded"}),
        ("openai", "content_filter", 400, {"code": "content_filter"}),
        ("openai", "overloaded", 503, {"type": "server_error"}),
        ("openai", "model_not_found", 404, {"code": "model_not_found"}),
        ("anthropic", "insufficient_quota", 402, {"type": "billing_error"}),
        ("anthropic", "context_length_exceeded", 400, {"type": "invalid_request_error"}),
        ("anthropic", "content_filter", 400, {"type": "invalid_request_error"}),
        ("anthropic", "overloaded", 529, {"type": "overloaded_error", "message": "Overloaded"}),
        ("anthropic", "model_not_found", 404, {"type": "not_found_error", "message": "model: claude-haiku-4-5"}),
    ],
)
async def test_an_error_has_its_name(
    post: Post, dialect: str, error: str, status: int, expected: dict[str, str]
) -> None:
    """A named error brings its own status and the words of the dialect."""
    response = await post(dialect, behaviour=f"error={error}")
    body = await response.json()
    assert response.status == status
    assert expected.items() <= body["error"].items()


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        ("insufficient_quota", 402, "usage limit"),
        ("context_length_exceeded", 400, "context length"),
        ("content_filter", 400, "policy"),
        ("overloaded", 503, "server busy"),
        ("model_not_found", 404, "model 'qwen3:latest' not found"),
    ],
)
async def test_an_ollama_error_has_its_words(post: Post, error: str, status: int, words: str) -> None:
    """A named error brings its own status and text."""
    response = await post("ollama", behaviour=f"error={error}")
    assert response.status == status
    assert words in (await response.json())["error"]


async def test_a_status_beside_a_name_wins(post: Post) -> None:
    """Anthropic's spent limit as a 429 says so in its details."""
    response = await post("anthropic", behaviour="error=insufficient_quota; status=429")
    body = await response.json()
    assert (response.status, body["error"]["type"]) == (429, "rate_limit_error")
    assert body["error"]["details"] == {"error_code": "contract_spend_limit_reached"}


@every_dialect
async def test_a_limit_says_when_to_come_back(post: Post, dialect: str) -> None:
    """A 429 has Retry-After by itself, any error has the one asked for."""
    assert (await post(dialect, behaviour="status=429")).headers["retry-after"] == "1"
    response = await post(dialect, behaviour="status=503; retry_after=2.5")
    assert response.headers["retry-after"] == "2.5"
    assert "retry-after" not in (await post("openai", behaviour="error=insufficient_quota")).headers


@every_dialect
async def test_a_success_may_have_another_status(post: Post, dialect: str) -> None:
    """A status below 400 only changes the status line."""
    for stream in (True, False):
        response = await post(dialect, {"stream": stream}, behaviour="status=201")
        assert response.status == 201
        assert ENDINGS[dialect] in await response.text() or not stream


@every_dialect
@pytest.mark.parametrize(
    ("behaviour", "phase"),
    [
        ("stall=accept", "before_headers"),
        ("stall=before_headers", "before_headers"),
        ("delay_seconds=3600", "before_headers"),
        ("stall=before_first_token", "before_first_token"),
        ("first_token_seconds=3600", "before_first_token"),
        ("stall=0", "before_first_token"),
        ("stall=2", "mid_stream"),
        ("token_seconds=3600", "mid_stream"),
        ("stall=1000", "mid_stream"),
    ],
)
async def test_a_wait_holds_the_call_where_it_says(
    post: Post, simulator: Simulator, dialect: str, behaviour: str, phase: str
) -> None:
    """The call stays open in its phase, and a client that leaves then is counted there."""
    call = asyncio.create_task(post(dialect, STREAM, behaviour=behaviour))
    if phase == "before_headers":
        await simulator.report.wait_for(lambda report: report.open_calls == 1 and len(report.requests) == 1)
        call.cancel()
    else:
        response = await call
        if phase == "mid_stream":
            await response.content.readany()
            await simulator.report.wait_for(lambda report: report.frames > 0)
        response.close()
    await simulator.report.wait_for(lambda report: report.aborted == 1 and report.open_connections == 0)
    assert {name: count for name, count in simulator.report.aborted_in.items() if count} == {phase: 1}
    assert simulator.report.open_calls == 0


@every_dialect
@pytest.mark.parametrize(("after", "wanted"), [(0, 0), (3, 3), (1000, 9)])
async def test_a_stall_follows_so_many_content_frames(
    post: Post, simulator: Simulator, dialect: str, after: int, wanted: int
) -> None:
    """Exactly so many tokens arrive, or all of them but no terminal event."""
    response = await post(dialect, STREAM, behaviour=f'stall={after}; text="a a a a a a a a a"')
    seen = b""
    while seen.count(b' a"') + seen.count(b'"a"') < wanted:
        seen += await response.content.readany()
    assert seen.count(b' a"') + seen.count(b'"a"') == wanted
    response.close()
    await simulator.report.wait_for(lambda report: report.aborted == 1)
    assert ENDINGS[dialect].encode() not in seen


@every_dialect
async def test_a_cut_before_the_headers_answers_nothing(simulator: Simulator, dialect: str) -> None:
    """The connection closes without a byte."""
    assert await raw(simulator, dialect, "cut=before_headers") == (b"", b"")
    assert (simulator.report.failed, simulator.report.aborted) == (1, 0)


@every_dialect
async def test_a_cut_before_the_first_token_leaves_the_setup(simulator: Simulator, dialect: str) -> None:
    """Headers and what announces content arrive, the body is not ended."""
    head, body = await raw(simulator, dialect, 'cut=before_first_token; text="Aha!"')
    text, ended = dechunk(body)
    assert head.startswith(b"HTTP/1.1 200")
    assert (b"Aha!" in text, ended) == (False, False)
    assert text.endswith(b"\n") or not text


@every_dialect
@pytest.mark.parametrize("after", [0, 2, 1000])
async def test_a_cut_goes_through_the_middle_of_a_frame(simulator: Simulator, dialect: str, after: int) -> None:
    """After so many whole frames comes half of one, and the body is not ended."""
    _, body = await raw(simulator, dialect, f'cut={after}; text="a a a a a"')
    text, ended = dechunk(body)
    assert not ended
    assert not text.endswith(b"\n")
    assert text.count(b' a"') + text.count(b'"a"') in (min(after, 5), min(after, 5) + 1)
    assert ENDINGS[dialect].encode() not in text.rpartition(b"\n")[0]
    assert simulator.report.failed == 1


@every_dialect
@pytest.mark.parametrize("after", ["before_first_token", 2, 1000])
async def test_a_clean_cut_ends_the_body_without_the_last_event(post: Post, dialect: str, after: str | int) -> None:
    """HTTP is content, whole frames only, but nothing says that the answer is over."""
    response = await post(dialect, STREAM, behaviour=f"cut={after}; clean_cut")
    text = await response.text()
    assert text.endswith("\n") or not text
    assert ENDINGS[dialect] not in text


@every_dialect
async def test_a_cut_goes_through_the_middle_of_a_json_answer(simulator: Simulator, dialect: str) -> None:
    """Half of what the length promised arrives."""
    head, body = await raw(simulator, dialect, "cut=3", stream=False)
    promised = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
    assert len(body) == int(promised.split(b":")[1]) // 2


async def test_a_clean_cut_of_a_json_answer_is_broken_json(post: Post) -> None:
    """The body ends properly, half way."""
    text = await (await post("openai", behaviour="cut=1; clean_cut")).text()
    with pytest.raises(json.JSONDecodeError):
        json.loads(text)


@pytest.mark.parametrize(("behaviour", "phase"), [("before_first_token", "before_first_token"), ("1", "mid_stream")])
async def test_a_json_answer_stalls_before_or_within_its_body(
    post: Post, simulator: Simulator, behaviour: str, phase: str
) -> None:
    """Headers come, then nothing or half."""
    response = await post("openai", behaviour=f"stall={behaviour}")
    if phase == "mid_stream":
        assert (await response.content.readany()).startswith(b'{"id"')
    response.close()
    await simulator.report.wait_for(lambda report: report.aborted == 1)
    assert {name for name, count in simulator.report.aborted_in.items() if count} == {phase}


@pytest.mark.parametrize(
    ("dialect", "behaviour", "last"),
    [
        ("openai", "", '"type":"server_error","param":null,"code":null}}'),
        ("openai", "; error=insufficient_quota", '"code":"insufficient_quota"}}'),
        ("anthropic", "", 'event: error\ndata: {"type":"error","error":{"type":"overloaded_error"'),
        ("anthropic", "; status=500", '"error":{"type":"api_error"'),
        ("ollama", "", '{"error":"llama runner process has terminated: exit status 2"}'),
        ("ollama", "; error=overloaded", '{"error":"server busy'),
    ],
)
@pytest.mark.parametrize("after", [0, 2])
async def test_an_error_may_come_within_the_stream(
    post: Post, dialect: str, behaviour: str, last: str, after: int
) -> None:
    """So many tokens on a 200, then the dialect's own error event, then the proper end of the body."""
    response = await post(dialect, STREAM, behaviour=f'error_after={after}; text="a a a a"{behaviour}')
    assert response.status == 200
    text = await response.text()
    assert text.count(' a"') + text.count('"a"') == after
    assert last in text
    assert ENDINGS[dialect] not in text


async def test_a_json_answer_has_its_later_error_at_once(post: Post) -> None:
    """Without a stream there is no later."""
    response = await post("anthropic", behaviour="error_after=2")
    assert response.status == 529


async def test_the_official_client_raises_on_the_error_event(simulator: Simulator) -> None:
    """AsyncOpenAI sees the event for what it is."""
    simulator.script("openai", Behaviour(error_after=1))
    async with AsyncOpenAI(base_url=simulator.base_url("openai"), api_key="sk-any", max_retries=0) as openai:
        stream = await openai.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "x"}], stream=True
        )
        with pytest.raises(APIError, match="The server had an error"):
            async for _ in stream:
                pass


@pytest.mark.parametrize(
    ("garbage", "content_type", "body"),
    [
        ("html", "text/html", "<!DOCTYPE html>"),
        ("json", "application/json", '{"greeting":"hello","answer":42}'),
        ("text", "text/plain", "upstream connect error"),
        ("empty", "application/json", ""),
        ("not_sse", "text/event-stream", "this is\nno stream"),
    ],
)
@every_dialect
async def test_garbage_is_what_it_says(post: Post, dialect: str, garbage: str, content_type: str, body: str) -> None:
    """A 200, or the status asked for, with a body no client of the dialect expects."""
    for status in (200, 502):
        response = await post(dialect, STREAM, behaviour=f"garbage={garbage}; status={status}")
        assert (response.status, response.content_type) == (status, content_type)
        text = await response.text()
        assert text.startswith(body)
        assert text or garbage == "empty"


@every_dialect
async def test_the_content_type_and_headers_can_be_changed(post: Post, dialect: str) -> None:
    """On answers, streams and errors."""
    behaviour = 'content_type=text/weird; headers={"x-more": "1", "Cache-Control": "no-store"}'
    for extra in ("", "; status=500", "; garbage=html"):
        for stream in (True, False):
            response = await post(dialect, {"stream": stream}, behaviour=behaviour + extra)
            assert response.headers["content-type"] == "text/weird"
            assert response.headers["x-more"] == "1"
            assert response.headers.getall("cache-control") == ["no-store"]


async def test_a_server_may_close_after_its_answer(post: Post, simulator: Simulator) -> None:
    """The header `connection: close` is honoured."""
    response = await post("openai", behaviour='headers={"connection": "close"}')
    await response.read()
    await simulator.report.wait_for(lambda report: report.open_connections == 0)
    assert simulator.report.completed == 1


async def test_a_redirect_names_its_location(post: Post) -> None:
    """A 302 without a body."""
    response = await post("openai", behaviour="redirect=http://127.0.0.1:9/elsewhere")
    assert (response.status, response.headers["location"]) == (302, "http://127.0.0.1:9/elsewhere")


@every_dialect
async def test_the_finish_reason_can_be_changed(post: Post, dialect: str) -> None:
    """In the JSON answer and at the end of the stream."""
    for stream in (True, False):
        assert '_reason":"odd"' in await (await post(dialect, {"stream": stream}, behaviour="finish=odd")).text()


@every_dialect
async def test_text_and_tokens_can_be_fixed(post: Post, simulator: Simulator, dialect: str) -> None:
    """The text comes back letter for letter; so many tokens make so many content frames."""
    assert "Nur Öl, 油 🛢!" in await (await post(dialect, behaviour='text="Nur Öl, 油 🛢!"')).text()
    text = await (await post(dialect, STREAM, behaviour="tokens=100")).text()
    assert text.count("text_delta" if dialect == "anthropic" else '"content":"') == 101 - (dialect == "anthropic")


@every_dialect
async def test_tool_calls_can_be_fixed(post: Post, dialect: str) -> None:
    """They need not have been offered."""
    behaviour = 'tool_calls=[{"name": "launch_it", "arguments": {"when": "now"}}]'
    assert "launch_it" in await (await post(dialect, behaviour=behaviour)).text()


@every_dialect
@pytest.mark.parametrize("size", [1, 7, 100_000])
async def test_the_stream_can_be_written_in_pieces_of_any_size(simulator: Simulator, dialect: str, size: int) -> None:
    """The bytes are the same, each chunk but the last has just that size."""
    whole, ended = dechunk((await raw(simulator, dialect, 'headers={"connection": "close"}'))[1])
    assert ended
    body = (await raw(simulator, dialect, f'chunk_bytes={size}; headers={{"connection": "close"}}'))[1]
    assert dechunk(body) == (whole, True)
    sizes = []
    while body:
        length, _, body = body.partition(b"\r\n")
        sizes.append(int(length, 16))
        body = body[sizes[-1] + 2 :]
    assert set(sizes[:-2]) <= {size}
    assert sizes[-1] == 0


async def test_sse_can_be_spelt_in_other_ways(post: Post) -> None:
    """CRLF, no space and comments change the spelling, not the events."""
    plain = await (await post("anthropic", STREAM)).read()
    assert await (await post("anthropic", STREAM, behaviour="crlf")).read() == plain.replace(b"\n", b"\r\n")
    tight = await (await post("anthropic", STREAM, behaviour="no_space")).read()
    assert tight == plain.replace(b"data: ", b"data:").replace(b"event: ", b"event:")
    commented = await (await post("anthropic", STREAM, behaviour="comments")).read()
    assert commented.count(b": ping\n\n") == plain.count(b"event: ") - 1
    assert commented.replace(b": ping\n\nevent", b"event") == plain


@every_dialect
async def test_a_streaming_call_may_get_a_whole_answer(post: Post, dialect: str) -> None:
    """Some servers ignore `stream`."""
    response = await post(dialect, STREAM, behaviour="whole")
    assert response.content_type == "application/json"
    assert await response.json() == await (await post(dialect, {"stream": False})).json()
