"""How long a call may take: its caller, its client and its route say so, and nothing goes on for longer."""

import asyncio
import json
from typing import Any

import openai
import pytest

from proxy.simulator import Behaviour, Simulator
from tests.conftest import Sidecar, Start
from tests.edge.wire import Head, asking, call, connect, read_answer, request

A, B = {"upstream": "openai", "model": "gpt-4o-mini"}, {"upstream": "anthropic", "model": "claude-haiku-4-5"}
LONG = "one two three four five six seven eight nine ten"
MESSAGES: Any = [{"role": "user", "content": "Hello"}]
BEFORE_CONTENT = [
    pytest.param(Behaviour(stall="accept"), False, id="json, accepted"),
    pytest.param(Behaviour(stall="before_headers"), False, id="json, before the head"),
    pytest.param(Behaviour(stall=1), False, id="json, in the body"),
    pytest.param(Behaviour(stall="before_headers"), True, id="stream, before the head"),
    pytest.param(Behaviour(stall="before_first_token"), True, id="stream, before the first token"),
]
both_modes = pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])


def route(*targets: dict[str, str], **more: Any) -> list[dict[str, Any]]:
    return [{"name": "one", "match": {"model": "*"}, "targets": list(targets), **more}]


def order(simulator: Simulator) -> list[str]:
    return [seen.dialect for seen in simulator.report.requests if seen.method == "POST"]


async def ask(sidecar: Sidecar, *headers: str, **fields: Any) -> tuple[Head, bytes]:
    return await call(sidecar, request(*headers, **fields))


async def closed(simulator: Simulator) -> None:
    """The only call has been aborted, and its connection closed."""
    await simulator.report.wait_for(
        lambda report: (report.calls, report.aborted, report.dialects["openai"].open_connections) == (1, 1, 0)
    )


def check(head: Head, body: bytes) -> None:
    """The answer of a call whose time is over."""
    assert (head.status, head["x-should-retry"]) == (504, "false")
    error = json.loads(body)["error"]
    assert (error["code"], error["type"]) == ("upstream_timeout", "timeout_error")


@pytest.mark.parametrize(("behaviour", "stream"), BEFORE_CONTENT)
async def test_the_callers_deadline(start: Start, simulator: Simulator, behaviour: Behaviour, stream: bool) -> None:
    """After x-octet-timeout seconds a call without content is 504; upstream it is closed, and nobody else is asked."""
    sidecar = await start(routes=route(A, B))
    simulator.always("*", behaviour)
    check(*await ask(sidecar, "x-octet-timeout: 0.15", stream=stream))
    await closed(simulator)
    assert order(simulator) == ["openai"]
    (line,) = await sidecar.lines.wait_for(1)
    assert (line["reason"], line["attempts"]) == ("TooSlow.deadline", 1)
    simulator.clear()
    assert (await ask(sidecar, stream=stream))[0].status == 200


async def test_the_deadline_of_a_stream_that_flows(start: Start, simulator: Simulator) -> None:
    """x-octet-timeout bounds the whole of a stream: one that flows ends with an error event, and is closed upstream."""
    sidecar = await start(routes=route(A, B))
    simulator.always("*", Behaviour(text=LONG, stall=3))
    head, body = await ask(sidecar, "x-octet-timeout: 0.2", stream=True)
    assert head.status == 200
    last = json.loads(body.rstrip().rpartition(b"data: ")[2])
    assert last["error"]["code"] == "upstream_timeout"
    assert b"[DONE]" not in body
    await closed(simulator)
    assert order(simulator) == ["openai"]
    (line,) = await sidecar.lines.wait_for(1)
    assert (line["outcome"], line["reason"]) == ("cut", "TooSlow.deadline")


@both_modes
@pytest.mark.parametrize("value", ["0", "-1", "nan", "soon", "", "5s", "-inf"])
async def test_a_deadline_that_is_none(sidecar: Sidecar, simulator: Simulator, value: str, stream: bool) -> None:
    """What is no time is the caller's mistake: 400, it is named, and nothing goes upstream."""
    head, body = await ask(sidecar, f"x-octet-timeout: {value}", stream=stream)
    error = json.loads(body)["error"]
    assert (head.status, error["code"], error["type"]) == (400, "invalid_timeout", "invalid_request_error")
    assert "x-octet-timeout" in error["message"]
    assert simulator.report.calls == 0


@both_modes
async def test_a_deadline_that_is_kept(sidecar: Sidecar, simulator: Simulator, stream: bool) -> None:
    """A call that ends in time is answered as without a deadline, and its connection lives on."""
    async with asking(sidecar) as (reader, writer):
        for _ in range(3):
            writer.write(request("x-octet-timeout: 30", "x-stainless-read-timeout: 30", stream=stream))
            head, _ = await read_answer(reader)
            assert head.status == 200
    assert simulator.report.completed == 3


@pytest.mark.parametrize("name", ["x-stainless-read-timeout", "x-stainless-timeout"])
@pytest.mark.parametrize(("behaviour", "stream"), BEFORE_CONTENT)
async def test_the_clients_patience(
    start: Start, simulator: Simulator, behaviour: Behaviour, stream: bool, name: str
) -> None:
    """What an SDK says of its own patience bounds the wait for an answer, or for a stream's first content."""
    sidecar = await start(routes=route(A, B))
    simulator.always("*", behaviour)
    check(*await ask(sidecar, f"{name}: 0.15", stream=stream))
    await closed(simulator)
    assert order(simulator) == ["openai"]


async def test_the_clients_patience_with_gaps(start: Start, simulator: Simulator) -> None:
    """It bounds each gap of a stream, and not the whole: a stream that stands still is cut, one that flows is not."""
    sidecar = await start(routes=route(A))
    patience = "x-stainless-read-timeout: 0.5"
    simulator.script("openai", Behaviour(text=LONG, tokens=16, token_seconds=0.05))
    head, body = await ask(sidecar, patience, stream=True)
    assert head.status == 200
    assert body.endswith(b"data: [DONE]\n\n")
    simulator.script("openai", Behaviour(text=LONG, stall=3))
    head, body = await ask(sidecar, patience, stream=True)
    assert b'"upstream_timeout"' in body
    await simulator.report.wait_for(lambda report: report.aborted == 1)


@both_modes
@pytest.mark.parametrize("patience", [0.2, openai.Timeout(30, read=0.2)], ids=["number", "reading"])
async def test_an_sdk_that_gives_up(start: Start, simulator: Simulator, stream: bool, patience: Any) -> None:
    """When the SDK has given up nothing of its call is left open upstream, and no repeat was begun after it."""
    sidecar = await start(routes=route(A, B, retry={"attempts": 5, "first_wait_seconds": 0.001}))
    simulator.always("*", Behaviour(stall="before_headers"))
    with pytest.raises((openai.APITimeoutError, openai.InternalServerError)):
        await sidecar.openai(timeout=patience).chat.completions.create(
            model="gpt-4o-mini", messages=MESSAGES, stream=stream
        )
    await closed(simulator)
    (line,) = await sidecar.lines.wait_for(1)
    assert order(simulator) == ["openai"]
    assert line["outcome"] in ("hangup", "upstream_error")


@both_modes
async def test_the_routes_bound_is_for_all_attempts(start: Start, simulator: Simulator, stream: bool) -> None:
    """total_seconds bounds a call with all its attempts: what the first one used up the second does not have."""
    slow = {"timeouts": {"total_seconds": 0.2}}
    retry = {"attempts": 9, "first_wait_seconds": 0.001}
    targets = A, B, {"upstream": "ollama", "model": "qwen3"}
    sidecar = await start(upstreams={"openai": slow}, routes=route(*targets, total_seconds=0.5, retry=retry))
    simulator.always("*", Behaviour(stall="before_headers"))
    check(*await ask(sidecar, stream=stream))
    await simulator.report.wait_for(lambda report: report.aborted == 2 and report.open_calls == 0)
    assert order(simulator) == ["openai", "anthropic"]
    (line,) = await sidecar.lines.wait_for(1)
    assert (line["reason"], line["attempts"]) == ("TooSlow.deadline", 2)


@pytest.mark.parametrize(("total", "header"), [(0.15, "30"), (30, "0.15")])
async def test_the_shortest_bound_holds(start: Start, simulator: Simulator, total: float, header: str) -> None:
    """Of the caller's time and the route's the shorter one counts."""
    sidecar = await start(routes=route(A, total_seconds=total))
    simulator.always("openai", Behaviour(stall="before_headers"))
    check(*await ask(sidecar, f"x-octet-timeout: {header}", "x-stainless-read-timeout: 40"))


@both_modes
async def test_a_deadline_does_not_count(start: Start, simulator: Simulator, stream: bool) -> None:
    """The caller's impatience says nothing of the upstream: a circuit that opens at the first failure stays closed."""
    policy = {"window": 1, "minimum_calls": 1}
    sidecar = await start(upstreams={"openai": {"circuit": policy}}, routes=route(A))
    simulator.always("openai", Behaviour(stall="before_headers"))
    for bound in ("x-octet-timeout: 0.1", "x-stainless-read-timeout: 0.1"):
        check(*await ask(sidecar, bound, stream=stream))
        assert await sidecar.metric("octet_circuit_state", upstream="openai") == 0
    simulator.always("openai", Behaviour(status=503))
    assert (await ask(sidecar))[0].status == 503
    assert await sidecar.metric("octet_circuit_state", upstream="openai") == 2


async def test_a_wait_beyond_the_deadline(start: Start, simulator: Simulator) -> None:
    """A back-off that would not end in time is not begun: the failure is told, with its Retry-After."""
    sidecar = await start(routes=route(A, retry={"attempts": 3, "longest_wait_seconds": 60}))
    simulator.always("openai", Behaviour(status=503, retry_after=20))
    head, _ = await ask(sidecar, "x-octet-timeout: 10")
    assert (head.status, head["retry-after"]) == (503, "20")
    assert simulator.report.calls == 1
    simulator.script("openai", Behaviour(status=429, retry_after=20))
    for _ in range(2):  # the second one is not sent at all
        head, _ = await ask(sidecar, "x-octet-timeout: 10")
        assert head.status == 429
    assert simulator.report.calls == 2


async def occupied(sidecar: Sidecar, simulator: Simulator, *headers: str) -> asyncio.StreamWriter:
    """A call that stands still upstream, and holds its place for as long as its connection lives."""
    simulator.script("openai", Behaviour(stall="before_headers"))
    _, writer = await connect(sidecar)
    writer.write(request(*headers))
    await simulator.report.wait_for(lambda report: report.open_calls == 1)
    return writer


@both_modes
async def test_a_deadline_in_an_upstreams_queue(start: Start, simulator: Simulator, stream: bool) -> None:
    """A call whose time is over while it waits for a place upstream is 504 and leaves the queue, unsent."""
    sidecar = await start(upstreams={"openai": {"limits": {"concurrent": 1}}}, routes=route(A))
    holder = await occupied(sidecar, simulator)
    head, body = await ask(sidecar, "x-octet-timeout: 0.15", stream=stream)
    check(head, body)
    assert "x-octet-attempts" not in head
    assert simulator.report.calls == 1
    assert await sidecar.metric("octet_queue_length", scope="upstream") == 0
    holder.transport.abort()
    await sidecar.lines.wait_for(2)
    assert await sidecar.metric("octet_slots_in_use", scope="upstream") == 0
    assert (await ask(sidecar))[0].status == 200


@both_modes
async def test_a_deadline_in_a_callers_queue(start: Start, simulator: Simulator, stream: bool) -> None:
    """A call whose time is over while it waits for a place of its caller is 504 and leaves the queue, unsent."""
    key = "authorization: Bearer sk-search"
    callers = [{"name": "search", "key": "sk-search", "limits": {"concurrent": 1}}]
    sidecar = await start(server={"callers": callers}, routes=route(A))
    holder = await occupied(sidecar, simulator, key)
    head, body = await ask(sidecar, key, "x-octet-timeout: 0.15", stream=stream)
    assert simulator.report.calls == 1
    assert await sidecar.metric("octet_queue_length", scope="caller") == 0
    holder.transport.abort()
    await sidecar.lines.wait_for(2)
    check(head, body)


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
async def test_a_call_without_any_time_is_not_sent(start: Start, simulator: Simulator, stream: bool) -> None:
    """When nothing is left before the first attempt, no upstream hears of the call."""
    sidecar = await start()
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "x"}], "stream": stream}
    url, headers = f"{sidecar.url}/v1/chat/completions", {"x-octet-timeout": "0.0000001"}
    async with sidecar.http.post(url, json=body, headers=headers) as response:
        assert response.status == 504
        assert (await response.json())["error"]["code"] == "upstream_timeout"
        assert response.headers["x-should-retry"] == "false"
    assert simulator.report.calls == 0
