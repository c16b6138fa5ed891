"""Streams towards the caller: commit point, clocks, keep-alive comments, honest endings, back-pressure."""

import asyncio
import gc
import json
from typing import Any

import aiohttp
import pytest
from aiohttp_sse_client.client import EventSource

from proxy.providers.exact import ExactRelay
from proxy.simulator import Behaviour, Simulator
from tests.conftest import DIALECTS, MODELS, Sidecar, Start

each_dialect = pytest.mark.parametrize("dialect", DIALECTS)
TEXT = "one two three four five"
OURS = ("proxy.edge", "proxy.pipeline", "proxy.providers", "proxy.resilience", "proxy.telemetry", "proxy.upstream")


async def events(response: aiohttp.ClientResponse) -> list[str]:
    """The stream's events and comments, without their blank lines."""
    text = (await response.read()).decode()
    assert text.endswith("\n\n")
    return text.removesuffix("\n\n").split("\n\n")


async def open_stream(sidecar: Sidecar, dialect: str, **fields: Any) -> aiohttp.ClientResponse:
    return await sidecar.chat(MODELS[dialect], stream=True, **fields)


@each_dialect
async def test_nothing_but_data_lines(sidecar: Sidecar, dialect: str) -> None:
    """A stream is `data:` events and one [DONE], with the headers that keep proxies from buffering."""
    response = await open_stream(sidecar, dialect)
    found = await events(response)
    assert found[-1] == "data: [DONE]"
    chunks = [json.loads(event.removeprefix("data: ")) for event in found[:-1]]
    assert all(chunk["object"] == "chat.completion.chunk" for chunk in chunks)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-accel-buffering"] == "no"
    assert response.headers["x-octet-upstream"] == dialect
    assert response.headers["x-octet-attempts"] == "1"


@each_dialect
async def test_an_independent_reader_agrees(sidecar: Sidecar, dialect: str) -> None:
    """aiohttp-sse-client, which we did not write, reads the same events."""
    response = await open_stream(sidecar, dialect)
    wanted = [event.removeprefix("data: ") for event in await events(response)]
    body = {"model": MODELS[dialect], "messages": [{"role": "user", "content": "Hello"}], "stream": True}
    read: list[str] = []

    def stop() -> None:
        raise StopAsyncIteration

    source = EventSource(
        f"{sidecar.url}/v1/chat/completions",
        option={"method": "POST"},
        session=sidecar.http,
        json=body,
        on_error=stop,
        max_connect_retry=0,
    )
    async with source as stream:
        async for event in stream:
            read.append(event.data)
            if event.data == "[DONE]":
                break
    strip = [[json.loads(event)["choices"] for event in each[:-1]] for each in (read, wanted)]
    assert strip[0] == strip[1]


@each_dialect
async def test_tokens_come_one_by_one(sidecar: Sidecar, simulator: Simulator, dialect: str) -> None:
    """The caller has the first token while the upstream has not sent the second."""
    simulator.always(dialect, Behaviour(text=TEXT, stall=1))
    first, later = (b"one", b"four") if dialect == "rayserve" else (b"one", b"two")  # Ray sends chunks in threes
    async with await open_stream(sidecar, dialect) as response:
        text = b""
        while first not in text:
            text += await response.content.readany()
        assert later not in text


@each_dialect
async def test_a_failure_before_content_is_an_ordinary_error(
    sidecar: Sidecar, simulator: Simulator, dialect: str
) -> None:
    """Until first content nothing was sent, so a failure keeps its own status."""
    for behaviour in (Behaviour(error_after=0), Behaviour(cut="before_first_token"), Behaviour(garbage="not_sse")):
        simulator.script(dialect, behaviour)
        response = await open_stream(sidecar, dialect)
        assert response.status in (502, 503)
        assert response.content_type == "application/json"
        assert (await response.json())["error"]["message"]


CLOCKS = [
    ({"first_token_seconds": 0.25}, Behaviour(stall="before_headers"), "first_token"),
    ({"first_token_seconds": 0.25}, Behaviour(stall="before_first_token"), "first_token"),
    ({"total_seconds": 0.25}, Behaviour(stall="before_headers"), "total"),
    ({"total_seconds": 0.25}, Behaviour(stall="before_first_token"), "total"),
]


@each_dialect
@pytest.mark.parametrize(("timeouts", "behaviour", "clock"), CLOCKS, ids=lambda value: str(value)[:40])
async def test_clocks_before_content(
    start: Start, simulator: Simulator, dialect: str, timeouts: Any, behaviour: Behaviour, clock: str
) -> None:
    """A clock that runs out before content is a 504 with its own reason; the upstream is let go."""
    sidecar = await start(upstreams={dialect: {"timeouts": timeouts}})
    simulator.always(dialect, behaviour)
    response = await open_stream(sidecar, dialect)
    assert response.status == 504
    assert (await response.json())["error"]["code"] == "upstream_timeout"
    (line,) = await sidecar.lines.wait_for(1)
    assert line["reason"] == f"TooSlow.{clock}"
    await simulator.report.wait_for(lambda report: report.aborted == 1 and report.open_calls == 0)


@each_dialect
@pytest.mark.parametrize(("clock", "timeouts"), [("idle", {"idle_seconds": 0.25}), ("total", {"total_seconds": 0.5})])
async def test_clocks_after_content(
    start: Start, simulator: Simulator, dialect: str, clock: str, timeouts: Any
) -> None:
    """A clock that runs out in mid-stream ends it with an error event, no [DONE], and a closed connection."""
    sidecar = await start(upstreams={dialect: {"timeouts": timeouts}})
    simulator.always(dialect, Behaviour(text=TEXT, stall=2))
    response = await open_stream(sidecar, dialect)
    found = await events(response)
    assert response.status == 200
    error = json.loads(found[-1].removeprefix("data: "))["error"]
    assert (error["type"], error["code"]) == ("timeout_error", "upstream_timeout")
    assert "data: [DONE]" not in found
    (line,) = await sidecar.lines.wait_for(1)
    assert line["reason"] == f"TooSlow.{clock}"
    assert await sidecar.metric("octet_calls_total", outcome="cut", upstream=dialect) == 1


async def test_the_whole_of_a_json_call_is_bounded(start: Start, simulator: Simulator) -> None:
    """A JSON call has a total clock."""
    sidecar = await start(upstreams={"openai": {"timeouts": {"total_seconds": 0.25}}})
    simulator.always("openai", Behaviour(stall="before_headers"))
    assert (await sidecar.chat()).status == 504


async def test_nobody_listens_upstream(start: Start) -> None:
    """A refused connection is a 502, at once."""
    sidecar = await start(upstreams={"openai": {"base_url": "http://127.0.0.1:1/v1"}})
    response = await sidecar.chat()
    assert response.status == 502
    assert (await response.json())["error"]["code"] == "upstream_unreachable"


@each_dialect
async def test_comments_keep_a_silent_stream_alive(start: Start, simulator: Simulator, dialect: str) -> None:
    """Before content, silence brings the headers and comments; then the stream goes on and says who answered."""
    sidecar = await start(server={"keep_alive_seconds": 0.05})
    simulator.always(dialect, Behaviour(text=TEXT, first_token_seconds=0.3))
    response = await open_stream(sidecar, dialect)
    assert "x-octet-upstream" not in response.headers
    assert response.headers["x-request-id"]
    found = await events(response)
    assert found[0] == ": keep-alive"
    gist = next(index for index, event in enumerate(found) if event.startswith(": octet"))
    assert found[gist] == f": octet upstream={dialect} attempts=1"
    assert all(event == ": keep-alive" for event in found[:gist])
    assert found[-1] == "data: [DONE]"


async def test_comments_in_mid_stream(start: Start, simulator: Simulator) -> None:
    """Silence between two tokens brings a comment between two events."""
    sidecar = await start(server={"keep_alive_seconds": 0.05})
    simulator.always("openai", Behaviour(text=TEXT, stall=2))
    async with await open_stream(sidecar, "openai") as response:
        text = b""
        while text.count(b": keep-alive\n\n") < 2:
            text += await response.content.readany()
        assert text.count(b"data: ") == 3


async def test_a_failure_after_a_comment_is_an_error_event(start: Start, simulator: Simulator) -> None:
    """Once comments have gone out on a 200, a failure is the last event of the stream."""
    sidecar = await start(
        server={"keep_alive_seconds": 0.05}, upstreams={"openai": {"timeouts": {"first_token_seconds": 0.3}}}
    )
    simulator.always("openai", Behaviour(stall="before_first_token"))
    response = await open_stream(sidecar, "openai")
    found = await events(response)
    assert response.status == 200
    assert json.loads(found[-1].removeprefix("data: "))["error"]["code"] == "upstream_timeout"
    assert "data: [DONE]" not in found


async def test_no_comments_when_switched_off(start: Start, simulator: Simulator) -> None:
    """keep_alive_seconds: 0 sends none."""
    sidecar = await start(server={"keep_alive_seconds": 0})
    simulator.always("openai", Behaviour(text=TEXT, first_token_seconds=0.05))
    assert not [event for event in await events(await open_stream(sidecar, "openai")) if event.startswith(":")]


async def test_a_slow_caller_pauses_its_upstream(start: Start, simulator: Simulator) -> None:
    """A caller that does not read makes the upstream wait, within bounded memory; then nothing is missing."""
    sidecar = await start()
    words = "word " * 60_000
    simulator.always("openai", Behaviour(text=words))
    address = sidecar.app.addresses[0]
    reader, writer = await asyncio.open_connection(address.host, address.port, limit=1024)
    body = json.dumps({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "x"}], "stream": True})
    writer.write(
        b"POST /v1/chat/completions HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
        % (len(body), body.encode())
    )
    await reader.readline()
    sent = -1
    while sent != simulator.report.frames:  # until nothing moves any more: every buffer on the way is full
        sent = simulator.report.frames
        for _ in range(2000):
            await asyncio.sleep(0)
    assert 0 < sent < 50_000
    text = await reader.read()
    writer.close()
    assert text.count(b"word") == 60_000
    assert text.endswith(b"data: [DONE]\n\n")


async def test_http_1_0_streams(sidecar: Sidecar) -> None:
    """A caller without chunked encoding gets the plain body, ended by the close."""
    address = sidecar.app.addresses[0]
    reader, writer = await asyncio.open_connection(address.host, address.port)
    body = b'{"model":"qwen3","messages":[{"role":"user","content":"hi"}],"stream":true}'
    writer.write(
        b"POST /chat/completions HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    head, _, rest = (await reader.read()).partition(b"\r\n\r\n")
    assert b"chunked" not in head.lower()
    assert b"connection: keep-alive" not in head.lower()
    assert rest.startswith(b"data: {")
    assert rest.endswith(b"data: [DONE]\n\n")
    writer.close()


@each_dialect
async def test_a_json_answer_to_a_stream_is_streamed(sidecar: Sidecar, simulator: Simulator, dialect: str) -> None:
    """An upstream that ignores `stream` is replayed as one."""
    simulator.always(dialect, Behaviour(text=TEXT, whole=True))
    found = await events(await open_stream(sidecar, dialect))
    chunks = [json.loads(event.removeprefix("data: ")) for event in found[:-1]]
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks) == TEXT
    assert found[-1] == "data: [DONE]"


@each_dialect
@pytest.mark.parametrize("behaviour", [Behaviour(chunk_bytes=1), Behaviour(crlf=True, comments=True, no_space=True)])
async def test_however_it_arrives(sidecar: Sidecar, simulator: Simulator, dialect: str, behaviour: Behaviour) -> None:
    """Byte by byte, with CRLF, comments and no space: the caller reads the same words."""
    plain = await (await sidecar.chat(MODELS[dialect])).json()
    simulator.always(dialect, behaviour)
    stream = await sidecar.openai().chat.completions.create(
        model=MODELS[dialect], messages=[{"role": "user", "content": "Hello"}], stream=True
    )
    text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert text == plain["choices"][0]["message"]["content"]


async def test_a_bug_of_ours_in_a_stream(
    sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault of ours in mid-stream ends it with an error event that tells nothing, and goes to the log."""
    feed, calls = ExactRelay.feed, 0

    def breaking(relay: ExactRelay, data: bytes) -> bytes:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise ZeroDivisionError("secret detail")
        return feed(relay, data[:800] if calls == 1 else data)

    with monkeypatch.context() as patched:
        patched.setattr(ExactRelay, "feed", breaking)
        response = await open_stream(sidecar, "openai", seed=3)
        text = await response.text()
    assert "secret" not in text
    assert "[DONE]" not in text
    assert "the sidecar failed" in text
    assert "secret detail" in caplog.text
    (line,) = await sidecar.lines.wait_for(1)
    assert line["outcome"] == "proxy_error"


async def test_a_good_stream_leaves_no_garbage(sidecar: Sidecar) -> None:
    """What a stream was made of goes when it ends: nothing refers to itself in a circle, for a collector to find."""
    await events(await open_stream(sidecar, "openai"))
    gc.collect()
    gc.disable()
    try:
        for _ in range(20):
            await events(await open_stream(sidecar, "openai"))
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        ours = {type(each).__name__ for each in gc.garbage if type(each).__module__.startswith(OURS)}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert not ours


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
async def test_no_comment_in_a_flowing_stream(start: Start, simulator: Simulator, dialect: str) -> None:
    """Only silence is broken by comments, whichever way the pieces of a stream go."""
    sidecar = await start(server={"keep_alive_seconds": 0.5})
    text = " ".join(f"w{number}" for number in range(12))
    simulator.always(dialect, Behaviour(text=text, token_seconds=0.1))
    assert not [event for event in await events(await open_stream(sidecar, dialect)) if event.startswith(":")]
