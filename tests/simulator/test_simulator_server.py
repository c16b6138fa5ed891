"""The server finds the dialect, keeps scripts and counts truthfully."""

import asyncio
import io
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from proxy.simulator import Behaviour, Report, Simulator

Post = Callable[..., Awaitable[aiohttp.ClientResponse]]
DIALECTS = ("openai", "anthropic", "ollama")
ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def quiet(report: Report) -> bool:
    return report.open_calls == 0 and report.open_connections == 0


async def test_it_knows_its_urls(simulator: Simulator) -> None:
    """One port, a base URL per dialect."""
    assert simulator.url.startswith("http://127.0.0.1:")
    assert simulator.base_url("openai") == f"{simulator.url}/openai/v1"
    assert simulator.base_url("anthropic") == f"{simulator.url}/anthropic"
    assert simulator.base_url("ollama") == f"{simulator.url}/ollama"


async def test_the_same_request_gives_the_same_bytes(client: aiohttp.ClientSession) -> None:
    """Another simulator with the same seed agrees, one with another seed does not."""
    bodies = []
    for seed in (0, 0, 1):
        async with Simulator(seed=seed) as simulator:
            response = await client.post(f"{simulator.base_url('openai')}/chat/completions", json=ASK)
            bodies.append(await response.read())
    assert bodies[0] == bodies[1] != bodies[2]


async def test_dialects_say_the_same_words(post: Post) -> None:
    """The same conversation has the same text everywhere."""
    openai = (await (await post("openai")).json())["choices"][0]["message"]["content"]
    anthropic = (await (await post("anthropic")).json())["content"][0]["text"]
    ollama = (await (await post("ollama")).json())["message"]["content"]
    assert openai == anthropic == ollama


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("POST", "/openai/v1/nothing", 404, '"message":"Invalid URL (POST /v1/nothing)"'),
        ("GET", "/openai/v1/chat/completions", 405, "Invalid method for URL (GET /v1/chat/completions)"),
        ("POST", "/anthropic/v1/nothing", 404, '"type":"not_found_error"'),
        ("GET", "/anthropic/v1/messages", 405, '"message":"Method Not Allowed"'),
        ("POST", "/ollama/nothing", 404, "404 page not found"),
        ("DELETE", "/ollama/api/chat", 405, "405 method not allowed"),
        ("GET", "/", 404, "no such dialect, known are openai, anthropic, huggingface, ollama"),
    ],
)
async def test_an_unknown_path_has_the_dialects_own_answer(
    simulator: Simulator, client: aiohttp.ClientSession, method: str, path: str, status: int, words: str
) -> None:
    """Each dialect loses its way in its own words, and no call is counted."""
    response = await client.request(method, simulator.url + path, json={})
    assert response.status == status
    assert words in await response.text()
    assert simulator.report.calls == 0


@pytest.mark.parametrize(
    ("dialect", "words"),
    [
        ("openai", "The model `missing-1` does not exist or you do not have access to it."),
        ("anthropic", '"type":"not_found_error","message":"model: missing-1"'),
        ("ollama", "model 'missing-1' not found"),
    ],
)
async def test_a_missing_model_is_missing(post: Post, dialect: str, words: str) -> None:
    """Any model is answered but those whose names start with missing."""
    response = await post(dialect, {"model": "missing-1"})
    assert response.status == 404
    assert words in await response.text()
    assert (await post(dialect, {"model": "anything-else"})).status == 200


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_key_is_insisted_on(client: aiohttp.ClientSession, dialect: str) -> None:
    """With a key only its bearer is served, on calls and on lists; the refusal comes before other errors."""
    paths = {"openai": "/v1/models", "anthropic": "/v1/models", "ollama": "/api/tags"}
    chats = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages", "ollama": "/api/chat"}
    async with Simulator(keys={dialect: "sk-right"}) as simulator:
        url = f"{simulator.url}/{dialect}"
        for headers, status in (
            ({}, 401),
            ({"authorization": "Bearer sk-wrong"}, 401),
            ({"authorization": "Bearer sk-right"}, 200),
        ):
            assert (await client.get(url + paths[dialect], headers=headers)).status == status
            sent = headers | {"anthropic-version": "2023-06-01"}
            response = await client.post(url + chats[dialect], json=ASK | {"max_tokens": 5}, headers=sent)
            assert response.status == status
        if dialect == "anthropic":
            assert (await client.get(url + paths[dialect], headers={"x-api-key": "sk-right"})).status == 200


async def test_the_listed_models_can_be_chosen(client: aiohttp.ClientSession) -> None:
    """By dialect; the others keep theirs."""
    async with Simulator(models={"openai": ["a", "b"]}) as simulator:
        listed = await (await client.get(f"{simulator.url}/openai/v1/models")).json()
        assert [model["id"] for model in listed["data"]] == ["a", "b"]
        listed = await (await client.get(f"{simulator.url}/anthropic/v1/models")).json()
        assert (listed["first_id"], listed["last_id"]) == ("claude-haiku-4-5", "claude-opus-4-8")


async def test_scripts_come_in_order_then_what_always_holds(post: Post, simulator: Simulator) -> None:
    """Header before queue, queue before always, the dialect before any, and each queued one once."""
    simulator.script("openai", Behaviour(status=501), Behaviour(status=502))
    simulator.script("*", Behaviour(status=504))
    simulator.always("openai", Behaviour(status=500))
    assert [(await post("openai", behaviour="status=503")).status] == [503]
    assert [(await post("openai")).status for _ in range(4)] == [501, 502, 504, 500]
    assert (await post("ollama")).status == 200
    simulator.always("openai", None)
    assert (await post("openai")).status == 200


async def test_an_unknown_dialect_cannot_be_scripted(simulator: Simulator) -> None:
    """A misspelt dialect would never be called."""
    with pytest.raises(KeyError, match="unknown dialect 'opnai'"):
        simulator.script("opnai", Behaviour())


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_misspelt_header_is_refused_clearly(post: Post, dialect: str) -> None:
    """Status 400 in the dialect's own shape, naming the mistake."""
    response = await post(dialect, behaviour="stats=503")
    assert response.status == 400
    assert "x-simulate: unknown field 'stats', did you mean 'status'?" in await response.text()


async def test_a_wrong_request_is_refused_whatever_was_scripted(post: Post, simulator: Simulator) -> None:
    """Mistakes cannot hide behind a fault."""
    simulator.script("openai", Behaviour(status=503, stall=3))
    assert (await post("openai", {"odd": 1})).status == 400
    assert simulator.report.failed == 1


async def test_behaviours_can_be_set_over_http(post: Post, simulator: Simulator, client: aiohttp.ClientSession) -> None:
    """So many times, or until deleted; mistakes are answered with what is right."""
    url = f"{simulator.url}/_simulator/behaviour"
    assert (await client.put(url, json={"dialect": "openai", "status": 503, "times": 2})).status == 200
    assert (await client.put(url, json={"dialect": "*", "status": 504})).status == 200
    assert [(await post("openai")).status for _ in range(3)] == [503, 503, 504]
    assert (await post("ollama")).status == 504
    assert (await client.delete(url)).status == 200
    assert (await post("openai")).status == 200
    for wrong, words in (
        ({"stats": 1}, "did you mean 'status'"),
        ({"dialect": "x"}, "unknown dialect 'x'"),
        ({"times": 0}, "times: expected a whole number"),
        ([], "Expected `object`"),
    ):
        response = await client.put(url, json=wrong)
        assert response.status == 400
        assert words in (await response.json())["error"]


async def test_the_report_is_served_and_reset(post: Post, simulator: Simulator, client: aiohttp.ClientSession) -> None:
    """Numbers in all and by dialect; a reset forgets what is over."""
    await (await post("openai", {"stream": True}, behaviour="tokens=5")).read()
    await (await post("ollama", behaviour="status=500")).read()
    report = await (await client.get(f"{simulator.url}/_simulator/report")).json()
    assert report == simulator.report.snapshot()
    assert (report["calls"], report["completed"], report["failed"], report["frames"]) == (2, 1, 1, 8)
    assert report["dialects"]["openai"]["completed"] == report["dialects"]["ollama"]["failed"] == 1
    report = await (await client.post(f"{simulator.url}/_simulator/reset")).json()
    assert (report["calls"], report["frames"], report["open_connections"]) == (0, 0, 1)
    assert len(simulator.report.requests) == 0
    assert (await client.get(f"{simulator.url}/_simulator/nothing")).status == 404


async def test_requests_are_remembered_byte_for_byte(simulator: Simulator, client: aiohttp.ClientSession) -> None:
    """What arrived, with lower-case header names and the behaviour it met."""
    body = b'{ "model":"m",  "messages":[{"role":"user","content":"\xc3\xbc"}] }'
    simulator.script("openai", Behaviour(tokens=3))
    url = f"{simulator.url}/openai/v1/chat/completions?a=b"
    await client.post(url, data=body, headers={"Content-Type": "application/json", "X-Odd": "Yes"})
    (seen,) = simulator.report.requests
    assert (seen.dialect, seen.method, seen.path) == ("openai", "POST", "/openai/v1/chat/completions")
    assert (seen.query, seen.body, seen.behaviour) == ("a=b", body, Behaviour(tokens=3))
    assert seen.headers["x-odd"] == "Yes"


async def test_nothing_is_remembered_unless_asked(client: aiohttp.ClientSession) -> None:
    """Load runs need not keep requests."""
    async with Simulator(record=False) as simulator:
        await client.post(f"{simulator.url}/openai/v1/chat/completions", json=ASK)
        assert len(simulator.report.requests) == 0
        assert simulator.report.calls == 1


async def test_a_large_body_is_read_whole(simulator: Simulator, client: aiohttp.ClientSession) -> None:
    """Bodies beyond a mebibyte are no problem, also for clients that ask first."""
    asked = json.dumps(ASK | {"messages": [{"role": "user", "content": "word " * 500_000}]})
    url, headers = f"{simulator.base_url('openai')}/chat/completions", {"content-type": "application/json"}
    response = await client.post(url, data=io.BytesIO(asked.encode()), headers=headers, expect100=True)
    body = await response.json()
    assert body["usage"]["prompt_tokens"] == 500_000


@pytest.mark.parametrize("behaviour", ["stall=accept", "stall=before_headers"])
async def test_a_client_that_leaves_amid_a_large_upload_is_noticed(simulator: Simulator, behaviour: str) -> None:
    """Whether its body is being read or not."""
    host, port = simulator.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = f"POST /openai/v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-simulate: {behaviour}\r\n"
    writer.write(f"{head}content-length: 9000000\r\n\r\n".encode() + b" " * 4_000_000)
    await simulator.report.wait_for(lambda report: report.open_calls == 1)
    writer.transport.abort()
    await simulator.report.wait_for(lambda report: report.aborted_in["before_headers"] == 1)


async def test_connections_are_counted(simulator: Simulator) -> None:
    """As many as are open, the dialect's own among them once used, none after they close."""
    async with aiohttp.ClientSession() as session:
        url = f"{simulator.url}/ollama/api/chat"
        stall = {"x-simulate": "stall=1"}
        calls = [await session.post(url, json=ASK, headers=stall) for _ in range(3)]
        assert simulator.report.open_connections == 3
        assert simulator.report.dialects["ollama"].open_connections == 3
        assert simulator.report.dialects["openai"].open_connections == 0
        assert simulator.report.open_calls == 3
        for call in calls:
            call.close()
        await simulator.report.wait_for(quiet)
    assert simulator.report.dialects["ollama"].open_connections == 0
    assert simulator.report.dialects["ollama"].aborted == 3


async def test_a_kept_connection_is_used_again(simulator: Simulator, client: aiohttp.ClientSession) -> None:
    """Calls in a row share one connection, streams and errors included."""
    url = f"{simulator.url}/openai/v1/chat/completions"
    for fields, behaviour in (
        ({}, ""),
        ({"stream": True}, ""),
        ({}, "status=500"),
        ({"stream": True}, "error_after=1"),
    ):
        response = await client.post(url, json=ASK | fields, headers={"x-simulate": behaviour})
        await response.read()
        assert simulator.report.open_connections == 1


@pytest.mark.parametrize("behaviour", ["accept", "before_headers", "before_first_token", "2"])
async def test_closing_ends_stalled_calls(client: aiohttp.ClientSession, behaviour: str) -> None:
    """The client's connection breaks; nobody hung up, so the calls count as failed."""
    simulator = Simulator()
    await simulator.start()
    url = f"{simulator.base_url('openai')}/chat/completions"
    headers = {"x-simulate": f"stall={behaviour}"}

    async def call() -> None:
        response = await client.post(url, json=ASK | {"stream": True}, headers=headers)
        await response.read()

    calls = [asyncio.create_task(call()) for _ in range(3)]
    await simulator.report.wait_for(lambda report: report.open_calls == 3)
    await simulator.close()
    for error in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(error, aiohttp.ClientError)
    assert quiet(simulator.report)
    assert (simulator.report.failed, simulator.report.aborted) == (3, 0)


async def test_it_can_be_started_again_after_closing(client: aiohttp.ClientSession) -> None:
    """Closing twice does no harm either."""
    simulator = Simulator()
    for _ in range(2):
        await simulator.start()
        assert (await client.get(f"{simulator.url}/ollama/")).status == 200
        await simulator.close()
        await simulator.close()


async def test_it_listens_on_a_unix_socket_too(tmp_path: Path) -> None:
    """A path instead of a port, beside the port if both are started."""
    path = tmp_path / "s"
    async with Simulator() as simulator:
        await simulator.start(path=path)
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(path=str(path))) as session:
            response = await session.post("http://localhost/openai/v1/chat/completions", json=ASK)
            await response.read()
            assert response.status == 200
        await simulator.report.wait_for(quiet)


async def test_waiting_in_vain_says_what_was_seen(simulator: Simulator) -> None:
    """The error carries the counters."""
    with pytest.raises(TimeoutError, match="'calls': 0"):
        await simulator.report.wait_for(lambda report: report.calls == 1, timeout=0.001)


async def test_every_call_ends_in_exactly_one_way(post: Post, simulator: Simulator) -> None:
    """Calls are the sum of completed, aborted, failed and open ones."""
    for behaviour in ("", "status=500", "error_after=1", "cut=1; clean_cut", "garbage=html", "whole"):
        await (await post("anthropic", {"stream": True}, behaviour=behaviour)).read()
    (await post("anthropic", {"stream": True}, behaviour="stall=1")).close()
    await simulator.report.wait_for(lambda report: report.open_calls == 0)
    tally = simulator.report.dialects["anthropic"]
    assert (tally.calls, tally.completed, tally.failed, tally.aborted) == (7, 2, 4, 1)
    assert simulator.report.counts() == tally.counts()
