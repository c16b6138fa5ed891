"""Traces: a span for each call and a child for each attempt, and never a reason for a call to fail."""

import asyncio
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from proxy.simulator import Behaviour, Simulator
from tests.conftest import MODELS, Sidecar, Start
from tests.edge.wire import asking, pouring, read_head, request
from tests.money.collector import Collector, collecting, flush
from tests.money.scene import always, priced, route
from tests.waiting import until

both_modes = pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"
TWO = [{"upstream": "openai", "model": "gpt-4o-mini"}, {"upstream": "anthropic", "model": MODELS["anthropic"]}]
Traced = Callable[..., Awaitable[Sidecar]]


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    """One that listens, and takes all."""
    async with collecting() as running:
        yield running


@pytest.fixture
def traced(collector: Collector, start: Start) -> Traced:
    """Starts sidecars whose traces go there."""

    async def started(settings: dict[str, Any] | None = None, **tree: Any) -> Sidecar:
        rules = {"endpoint": collector.url, **(settings or {})}
        return await start(**{"upstreams": priced("openai", "anthropic"), "routes": [route()], **tree}, tracing=rules)

    return started


async def ask(sidecar: Sidecar, headers: dict[str, str] | None = None, **fields: Any) -> bytes:
    """A call's whole answer."""
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}], **fields}
    url = f"{sidecar.url}/v1/chat/completions"
    async with sidecar.http.post(url, json=body, headers=headers or {}) as response:
        return await response.read()


def sent(simulator: Simulator, dialect: str = "openai") -> dict[str, str]:
    """The headers of the last call that arrived there."""
    posts = [each for each in simulator.report.requests if each.method == "POST" and each.dialect == dialect]
    return dict(posts[-1].headers)


# One call.


@both_modes
async def test_a_call_and_its_attempt(traced: Traced, collector: Collector, simulator: Simulator, stream: bool) -> None:
    """One span with one child; the upstream goes on with the child."""
    sidecar = await traced()
    before = time.time_ns()
    await ask(sidecar, stream=stream)
    (line,) = await sidecar.lines.wait_for(1)
    await flush(sidecar)
    (call,), (attempt,) = collector.calls, collector.attempts
    assert (call.parent, attempt.parent, attempt.trace) == ("", call.id, call.trace)
    assert before <= call.began <= attempt.began <= attempt.ended <= call.ended <= time.time_ns()
    assert sent(simulator)["traceparent"][:-3] == f"00-{call.trace}-{attempt.id}"
    assert not call.failed
    assert not attempt.failed
    assert call.name == attempt.name == "chat gpt-4o-mini"
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "gpt-4o-mini",
        "gen_ai.response.model": "gpt-4o-mini",
        "gen_ai.usage.input_tokens": line["prompt_tokens"],
        "gen_ai.usage.output_tokens": line["completion_tokens"],
        "gen_ai.response.finish_reasons": ["stop"],
        "http.response.status_code": 200,
        "octet.request_id": line["request_id"],
        "octet.route": "openai",
        "octet.upstream": "openai",
        "octet.outcome": "ok",
        "octet.cache": "bypass",
        "octet.stream": stream,
        "octet.attempts": 1,
    }
    assert call.attributes == expected
    assert attempt.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o-mini",
        "octet.upstream": "openai",
        "octet.attempt": 1,
    }
    assert collector.resource["service.name"] == "octet"
    assert collector.resource["service.version"]


@pytest.mark.parametrize(("path", "operation"), [("completions", "text_completion"), ("embeddings", "embeddings")])
async def test_other_operations(traced: Traced, collector: Collector, path: str, operation: str) -> None:
    """They have the conventions' names."""
    sidecar = await traced()
    body = {"model": "gpt-4o-mini", "prompt" if path == "completions" else "input": "Hello"}
    async with sidecar.http.post(f"{sidecar.url}/v1/{path}", json=body) as response:
        assert response.status == 200
    await flush(sidecar)
    assert [span.attributes["gen_ai.operation.name"] for span in collector.spans] == [operation] * 2
    assert {span.name for span in collector.spans} == {f"{operation} gpt-4o-mini"}


@both_modes
async def test_failing_over(traced: Traced, collector: Collector, simulator: Simulator, stream: bool) -> None:
    """A child for each attempt, numbered, the failed one with the kind of its failure and none of its texts."""
    sidecar = await traced(routes=[{"name": "two", "targets": TWO}])
    simulator.always("openai", Behaviour(status=503))
    await ask(sidecar, stream=stream)
    await sidecar.lines.wait_for(1)
    await flush(sidecar)
    (call,), (first, second) = collector.calls, collector.attempts
    assert (first.failed, second.failed, call.failed) == (True, False, False)
    assert first.attributes["error.type"] == first.status
    assert [each.attributes["octet.attempt"] for each in (first, second)] == [1, 2]
    assert [each.attributes["gen_ai.provider.name"] for each in (first, second)] == ["openai", "anthropic"]
    assert sent(simulator, "anthropic")["traceparent"][:-3] == f"00-{call.trace}-{second.id}"
    assert call.attributes["octet.attempts"] == 2


async def test_a_retry(traced: Traced, collector: Collector, simulator: Simulator) -> None:
    """So has a repeat at the same upstream."""
    rule = route(retry={"attempts": 3, "first_wait_seconds": 0.001})
    sidecar = await traced(routes=[rule])
    simulator.script("openai", Behaviour(status=503), Behaviour(status=503))
    await ask(sidecar)
    await sidecar.lines.wait_for(1)
    await flush(sidecar)
    assert [each.failed for each in collector.attempts] == [True, True, False]
    assert {each.parent for each in collector.attempts} == {collector.calls[0].id}


@both_modes
async def test_hedges(traced: Traced, collector: Collector, simulator: Simulator, stream: bool) -> None:
    """Both attempts have spans, which end; the one that lost has not failed."""
    rule = {"name": "two", "targets": TWO, "hedge": {"after_seconds": 0.01, "budget": 1.0}}
    sidecar = await traced(routes=[rule])
    simulator.always("openai", Behaviour(stall="before_first_token" if stream else "before_headers"))
    await ask(sidecar, stream=stream)
    await sidecar.lines.wait_for(1)
    await flush(sidecar)
    first, second = collector.attempts
    assert (first.failed, second.failed) == (False, False)
    assert first.id != second.id
    assert collector.calls[0].attributes["octet.upstream"] == "anthropic"


@both_modes
async def test_kept_and_joined(traced: Traced, collector: Collector, simulator: Simulator, stream: bool) -> None:
    """Calls that nobody upstream was asked for have a span and no children."""
    sidecar = await traced(routes=[route(cache={"any_temperature": True})])
    always(simulator, "openai", delay_seconds=0.1)
    await asyncio.gather(ask(sidecar, stream=stream), ask(sidecar, stream=stream))
    await ask(sidecar, stream=stream)
    await sidecar.lines.wait_for(3)
    await flush(sidecar)
    assert sorted(call.attributes["octet.cache"] for call in collector.calls) == ["joined", "memory", "miss"]
    (attempt,) = collector.attempts
    (asked,) = [call for call in collector.calls if call.attributes["octet.cache"] == "miss"]
    assert attempt.parent == asked.id


@pytest.mark.parametrize(
    ("behaviour", "stream", "outcome"),
    [
        (Behaviour(status=500), False, "upstream_error"),
        (Behaviour(garbage="html"), False, "upstream_error"),
        (Behaviour(cut=3), True, "cut"),
        (Behaviour(status=400), False, "caller_error"),
    ],
)
async def test_failures(
    traced: Traced, collector: Collector, simulator: Simulator, behaviour: Behaviour, stream: bool, outcome: str
) -> None:
    """What is the upstream's fault makes the call's span a failed one, the caller's fault does not."""
    sidecar = await traced()
    simulator.always("openai", behaviour)
    await ask(sidecar, stream=stream)
    (line,) = await sidecar.lines.wait_for(1)
    await flush(sidecar)
    (call,), (attempt,) = collector.calls, collector.attempts
    assert call.attributes["octet.outcome"] == line["outcome"] == outcome
    assert call.failed is (outcome != "caller_error")
    assert attempt.failed
    assert attempt.attributes["error.type"] == line["reason"]
    assert (call.events, attempt.events) == (0, 0)
    assert call.attributes["http.response.status_code"] == line["status"]


async def test_a_refused_call(traced: Traced, collector: Collector) -> None:
    """A call that never got as far has a span too, without a model."""
    sidecar = await traced(server={"callers": [{"name": "a", "key": "sk-a"}]})
    await ask(sidecar)
    await sidecar.lines.wait_for(1)
    await flush(sidecar)
    (call,) = collector.calls
    assert (call.name, call.attributes["http.response.status_code"], call.failed) == ("chat", 401, False)
    assert not collector.attempts


@both_modes
async def test_a_caller_who_leaves(traced: Traced, collector: Collector, simulator: Simulator, stream: bool) -> None:
    """The spans end, and nobody has failed."""
    sidecar = await traced()
    always(simulator, "openai", stall="before_first_token" if stream else "before_headers")
    async with asking(sidecar, request(stream=stream)):
        await simulator.report.wait_for(lambda report: report.open_calls == 1)
    await sidecar.lines.wait_for(1)
    await flush(sidecar)
    assert [(span.failed, "error.type" in span.attributes) for span in collector.spans] == [(False, False)] * 2
    assert collector.calls[0].attributes["octet.outcome"] == "hangup"


# W3C Trace Context.


@both_modes
async def test_the_callers_trace(traced: Traced, collector: Collector, simulator: Simulator, stream: bool) -> None:
    """A sampled parent is the call's; its state goes on to the upstream."""
    sidecar = await traced({"sample_ratio": 0.0})
    await ask(sidecar, {"traceparent": SAMPLED, "tracestate": "congo=t61rcWkgMzE,rojo=1"}, stream=stream)
    await sidecar.lines.wait_for(1)
    await flush(sidecar)
    (call,), (attempt,) = collector.calls, collector.attempts
    assert (call.trace, call.parent) == (TRACE, PARENT)
    assert call.state == "congo=t61rcWkgMzE,rojo=1"
    assert sent(simulator)["traceparent"] == f"00-{TRACE}-{attempt.id}-01"
    assert sent(simulator)["tracestate"] == "congo=t61rcWkgMzE,rojo=1"


async def test_a_caller_who_traces_nothing(traced: Traced, collector: Collector, simulator: Simulator) -> None:
    """A parent that is not sampled makes no span, and passes on untouched."""
    sidecar = await traced()
    await ask(sidecar, {"traceparent": UNSAMPLED, "tracestate": "congo=1"})
    await flush(sidecar)
    assert not collector.spans
    assert (sent(simulator)["traceparent"], sent(simulator)["tracestate"]) == (UNSAMPLED, "congo=1")


async def test_no_share_of_the_calls(traced: Traced, collector: Collector, simulator: Simulator) -> None:
    """At a ratio of 0 nothing is traced that its caller does not trace, and no header is made up."""
    sidecar = await traced({"sample_ratio": 0})
    await ask(sidecar)
    await flush(sidecar)
    assert not collector.spans
    assert "traceparent" not in sent(simulator)


async def test_a_share_of_the_calls(traced: Traced, collector: Collector) -> None:
    """Of many calls about the share is traced, each whole."""
    sidecar = await traced({"sample_ratio": 0.5})
    await asyncio.gather(*(ask(sidecar) for _ in range(60)))
    await sidecar.lines.wait_for(60)
    await flush(sidecar)
    assert 10 < len(collector.calls) < 50
    assert {span.parent for span in collector.attempts} == {span.id for span in collector.calls}


MALFORMED = [
    "",
    "nonsense",
    f"00-{TRACE}-{PARENT}",
    f"00-{'0' * 32}-{PARENT}-01",
    f"00-{TRACE}-{'0' * 16}-01",
    f"ff-{TRACE}-{PARENT}-01",
    f"00-{TRACE.upper()}-{PARENT}-01",
    f"00-{TRACE}-{PARENT}-01-more",
    f"00-{TRACE[:-1]}-{PARENT}-01",
    f"00-{TRACE}-{PARENT}-zz",
    "00-" + "a" * 5000,
]


@pytest.mark.parametrize("header", MALFORMED, ids=lambda text: text[:20] or "empty")
async def test_a_malformed_parent(traced: Traced, collector: Collector, simulator: Simulator, header: str) -> None:
    """It is as good as none: a trace of our own begins."""
    sidecar = await traced()
    answer = await ask(sidecar, {"traceparent": header, "tracestate": "congo=1"})
    assert b"choices" in answer
    await flush(sidecar)
    (call,), (attempt,) = collector.calls, collector.attempts
    assert (call.parent, call.state) == ("", "")
    assert call.trace not in (TRACE, "0" * 32)
    assert sent(simulator)["traceparent"][:-3] == f"00-{call.trace}-{attempt.id}"


@pytest.mark.parametrize("headers", [{}, {"traceparent": "nonsense"}], ids=["none", "malformed"])
async def test_the_state_of_no_parent(traced: Traced, simulator: Simulator, headers: dict[str, str]) -> None:
    """A state without a valid parent belongs to nothing, and ends here (W3C Trace Context, 4.3)."""
    sidecar = await traced()
    await ask(sidecar, {**headers, "tracestate": "congo=1"})
    assert "tracestate" not in sent(simulator)


@pytest.mark.parametrize("state", ["=", "a" * 600, ",".join(f"k{number}=v" for number in range(40)), "k=v,k=w", "ö=1"])
async def test_an_odd_state(traced: Traced, collector: Collector, simulator: Simulator, state: str) -> None:
    """No state makes a call fail, or loses its trace."""
    sidecar = await traced()
    assert b"choices" in await ask(sidecar, {"traceparent": SAMPLED, "tracestate": state})
    await flush(sidecar)
    assert collector.calls[0].trace == TRACE


async def test_a_later_version(traced: Traced, collector: Collector) -> None:
    """A version that is not known yet is read as far as it is known."""
    sidecar = await traced()
    await ask(sidecar, {"traceparent": f"01-{TRACE}-{PARENT}-01-what-comes"})
    await flush(sidecar)
    assert collector.calls[0].trace == TRACE


# Content.


SECRET = "a prompt that is nobody's business"


@both_modes
async def test_without_content(traced: Traced, collector: Collector, simulator: Simulator, stream: bool) -> None:
    """Nothing of what was asked or answered is in a trace."""
    sidecar = await traced()
    always(simulator, "openai", text="an answer that is nobody's business either")
    await ask(sidecar, stream=stream, messages=[{"role": "user", "content": SECRET}], user=SECRET)
    await sidecar.lines.wait_for(1)
    await flush(sidecar)
    assert len(collector.spans) == 2
    assert b"business" not in collector.bodies


async def test_with_content(traced: Traced, collector: Collector, simulator: Simulator) -> None:
    """Messages have roles and parts as the conventions have them; keys are in none."""
    keys = {"callers": [{"name": "a", "key": "sk-canary-caller"}]}
    upstreams = priced("openai", api_key="sk-canary-ours", headers={"x-own": "sk-canary-header"})
    sidecar = await traced(
        {"content": True, "headers": {"x-key": "sk-canary-collector"}}, server=keys, upstreams=upstreams
    )
    always(simulator, "openai", text="an answer")
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": SECRET}, picture]},
    ]
    await ask(sidecar, {"authorization": "Bearer sk-canary-caller"}, messages=messages)
    await sidecar.lines.wait_for(1)
    await flush(sidecar)
    (call,) = collector.calls
    assert json.loads(call.attributes["gen_ai.input.messages"]) == [
        {"role": "system", "parts": [{"type": "text", "content": "Be brief."}]},
        {"role": "user", "parts": [{"type": "text", "content": SECRET}, {"type": "image_url"}]},
    ]
    (said,) = json.loads(call.attributes["gen_ai.output.messages"])
    assert (said["role"], said["parts"]) == ("assistant", [{"type": "text", "content": "an answer"}])
    assert b"canary" not in collector.bodies
    assert collector.requests[0]["x-key"] == "sk-canary-collector"
    assert b"iVBOR" not in collector.bodies


NULL = b'"choices": [{"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}, null]'
ODD_ANSWERS = [
    b'"choices": [{"index": 0, "message": "text", "finish_reason": "stop"}]',
    b'"choices": [{"index": 0, "message": {"role": 5, "content": {"a": 1}}, "finish_reason": "stop"}]',
    b'"choices": [{"index": 0, "message": {"role": null, "tool_calls": [null, {"function": 5}]}, "finish_reason": ""}]',
    b'"choices": [{"index": 0, "message": {"content": [null, 5, {"type": null, "text": 7}]}, "finish_reason": "x"}]',
    b'"choices": [{"index": 0, "message": {"content": "\\ud83d"}, "finish_reason": "x"}]',
    b'"choices": [{"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}], "x": 1e999',
]


@pytest.mark.parametrize(
    ("answer", "content"),
    [
        *((each, content) for each in (*ODD_ANSWERS, NULL) for content in (False, True)),
    ],
    ids=str,
)
async def test_odd_answers(start: Start, collector: Collector, answer: bytes, content: bool) -> None:
    """Whether traces hold content makes no difference for what the caller gets."""
    usage = b'{"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}'
    body = b'{"id": "c", "object": "chat.completion", "created": 1, "model": "gpt-4o-mini", %b, "usage": %b}'
    body %= (answer, usage)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    heard = list[tuple[int, bytes]]()
    for rules in ({}, {"tracing": {"endpoint": collector.url, "content": content}}):
        async with pouring(head % len(body) + body) as upstream:
            sidecar = await start(upstreams={"openai": {"base_url": upstream.url}}, routes=[route()], **rules)
            response = await sidecar.chat()
            text = await response.read()
            heard.append((response.status, text if response.status == 200 else b""))
    assert heard[0] == heard[1]


ODD_MESSAGES: list[Any] = [
    [{"role": "user", "content": "\ud83d"}],
    [
        {
            "role": "user",
            "content": [{"type": "text", "text": "a"}, {"type": "input_audio", "input_audio": {"data": ""}}],
        }
    ],
    [
        {
            "role": "assistant",
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        }
    ],
    [{"role": "user", "content": "x", "name": 2**70}],
    [{"role": "user", "content": [{"type": "text", "text": 10**400}]}],
    [{"role": "user", "content": [{"type": "text", "text": [[[]]]}]}],
]


@pytest.mark.parametrize("messages", ODD_MESSAGES, ids=range(len(ODD_MESSAGES)))
async def test_odd_messages(traced: Traced, simulator: Simulator, messages: Any) -> None:
    """No more do what callers send."""
    plain, telling = await traced(), await traced({"content": True})
    statuses = []
    for sidecar in (plain, telling):
        response = await sidecar.chat(messages=messages)
        await response.read()
        statuses.append(response.status)
    assert statuses[0] == statuses[1]


@pytest.mark.parametrize("depth", [50, 100, 200, 300, 400, 500, 700, 900, 950, 980, 990, 995, 1000, 1500])
async def test_deep_messages(traced: Traced, depth: int) -> None:
    """Nor how deep they are."""
    plain, telling = await traced(), await traced({"content": True})
    nested = b"[" * depth + b"]" * depth
    body = (
        b'{"model": "gpt-4o-mini", "messages": [{"role": "user", "content": [{"type": "text", "text": %b}]}]}' % nested
    )
    statuses = []
    for sidecar in (plain, telling):
        async with sidecar.http.post(f"{sidecar.url}/v1/chat/completions", data=body) as response:
            await response.read()
            statuses.append(response.status)
    assert statuses[0] == statuses[1]


@pytest.mark.parametrize("size", [100, 10_000, 200_000])
async def test_long_names(traced: Traced, collector: Collector, size: int) -> None:
    """What callers send makes no span larger than it must be: names of models are cut, or refused."""
    sidecar = await traced()
    await ask(sidecar, model="m" * size, messages=[{"role": "user", "content": "x"}])
    await sidecar.lines.wait_for(1)
    await flush(sidecar)
    assert len(collector.bodies) < 20_000


# Collectors.


async def refuse(status: int, **headers: str) -> web.Response:
    return web.Response(status=status, headers=headers)


@pytest.mark.parametrize("trouble", ["away", "mute", "500", "400", "redirect", "garbage"])
async def test_a_bad_collector(
    traced: Traced, collector: Collector, caplog: pytest.LogCaptureFixture, trouble: str
) -> None:
    """Calls are answered as ever; the log says so once, and once when it is well again; shutting down takes no time."""
    await until(_nobody_sends, 30)  # threads of sidecars that have ended may still be at it, and log
    caplog.clear()
    caplog.set_level(logging.DEBUG)
    release = asyncio.Event()

    async def behave(request: web.BaseRequest) -> web.StreamResponse:
        if trouble == "mute":
            await release.wait()
        if trouble == "redirect":
            return web.Response(status=307, headers={"location": "http://127.0.0.1:1/elsewhere"})
        return web.Response(status=int(trouble) if trouble.isdecimal() else 200, body=b"\xff\xff\xff")

    collector.behave = behave
    where = {"endpoint": "http://127.0.0.1:1/v1/traces"} if trouble == "away" else {}
    sidecar = await traced(where)
    for _ in range(3):
        assert b"choices" in await ask(sidecar)
        if trouble != "mute":
            await flush(sidecar)
    if trouble not in ("garbage", "mute"):
        said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        assert said == ["traces do not arrive at the collector (tracing.endpoint), and are lost meanwhile"]
    began = time.monotonic()
    await sidecar.close()
    assert time.monotonic() - began < 4
    release.set()
    sidecar.app.stop = nothing  # type: ignore[method-assign]


def _nobody_sends() -> bool:
    return not any(thread.name.startswith("OtelBatch") for thread in threading.enumerate())


async def nothing() -> None:
    pass


async def test_a_collector_that_comes_back(
    traced: Traced, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told once each time."""
    caplog.set_level(logging.INFO, "octet")
    sidecar = await traced()
    for status in (500, 500, 200, 200, 400):

        async def behave(request: web.BaseRequest, status: int = status) -> web.StreamResponse:
            return web.Response(status=status)

        collector.behave = behave
        await ask(sidecar)
        await flush(sidecar)
    said = [record.getMessage()[:40] for record in caplog.records if "traces" in record.getMessage()]
    assert [text[:18] for text in said] == ["traces do not arri", "traces arrive at t", "traces do not arri"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(traced: Traced, collector: Collector, status: int) -> None:
    """Spans, and the collector's key, go where the configuration says and nowhere else."""
    async with collecting() as other:

        async def behave(request: web.BaseRequest) -> web.StreamResponse:
            return web.Response(status=status, headers={"location": other.url})

        collector.behave = behave
        sidecar = await traced({"headers": {"x-collector-key": "canary-key"}})
        await ask(sidecar)
        await flush(sidecar)
        assert collector.requests
        assert not other.requests


# Whole processes.


def config_file(tmp_path: Path, simulator: Simulator, **sections: Any) -> Path:
    """A configuration with one upstream."""
    path = tmp_path / "octet.yaml"
    server = {"listen": "127.0.0.1:0", "admin": "127.0.0.1:0", "drain_seconds": 1}
    upstreams = {"openai": {"provider": "openai", "base_url": simulator.base_url("openai"), "api_key": "sk-ours"}}
    path.write_text(yaml.safe_dump({"server": server, "upstreams": upstreams, "routes": [route()], **sections}))
    return path


async def test_no_tracing_loads_nothing(simulator: Simulator, tmp_path: Path) -> None:
    """Where it is not configured, the library is not imported, though the sidecar runs and answers."""
    code = (
        "import asyncio, sys\n"
        "from proxy.app import App\n"
        "from proxy.sources import FileSource\n"
        "from proxy.telemetry import LineWriter\n"
        "async def main():\n"
        f"    source = FileSource({str(config_file(tmp_path, simulator))!r})\n"
        "    text = source.read()\n"
        "    app = App(source.parse(text), LineWriter(), source, text)\n"
        "    await app.start()\n"
        "    await app.stop()\n"
        "asyncio.run(main())\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry', 'requests', 'google'))])\n"
    )
    ended = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True)
    assert (ended.stdout.strip(), ended.returncode) == ("[]", 0), ended.stderr


@pytest.mark.parametrize("trouble", ["away", "mute"])
async def test_a_process_ends_in_time(simulator: Simulator, tmp_path: Path, trouble: str) -> None:
    """With spans that nobody takes a process ends within what its drain and the spans' patience allow."""
    async with collecting() as collector:

        async def behave(request: web.BaseRequest) -> web.StreamResponse:
            await asyncio.Event().wait()
            raise AssertionError

        collector.behave = behave
        endpoint = collector.url if trouble == "mute" else "http://127.0.0.1:1/v1/traces"
        path = config_file(tmp_path, simulator, tracing={"endpoint": endpoint})
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "proxy", "serve", str(path), stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE, env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        try:
            assert process.stderr is not None
            told = ""
            while "metrics" not in told and (line := await asyncio.wait_for(process.stderr.readline(), 20)):
                told += line.decode()
            port = int(re.findall(r"http://127\.0\.0\.1:(\d+)", told)[0])
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request())
            assert (await read_head(reader)).status == 200
            writer.close()
            process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            await asyncio.wait_for(process.wait(), 30)
            assert time.monotonic() - began < 5
            rest = (await process.stderr.read()).decode()
            assert "Traceback" not in rest
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()


# Exemplars.


async def scrape(sidecar: Sidecar, accept: str = "application/openmetrics-text") -> str:
    async with sidecar.http.get(f"{sidecar.admin_url}/metrics", headers={"accept": accept}) as response:
        assert response.headers["content-type"].startswith(accept)
        return await response.text()


def exemplars(text: str) -> set[tuple[str, str]]:
    """Metrics and the ids that their buckets have."""
    return {
        (family.name, sample.exemplar.labels["trace_id"])
        for family in text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
        for sample in family.samples
        if sample.exemplar is not None
    }


NO_IDS = [f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE}-{'0' * 16}-01", f"ff-{TRACE}-{PARENT}-01"]


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (SAMPLED, True),
        (UNSAMPLED, False),
        (None, False),
        *((each, False) for each in MALFORMED if each not in NO_IDS),
        *((each, False) for each in NO_IDS),
    ],
    ids=lambda value: str(value)[:24] or "empty",
)
async def test_exemplars_without_tracing(sidecar: Sidecar, header: str | None, found: bool) -> None:
    """The caller's trace, when its caller keeps it; no other, and no id that is none."""
    await ask(sidecar, {"traceparent": header} if header is not None else {}, stream=True)
    await sidecar.lines.wait_for(1)
    named = {("octet_call_duration_seconds", TRACE), ("octet_first_token_seconds", TRACE)}
    assert exemplars(await scrape(sidecar)) == (named if found else set())


async def test_exemplars_of_our_own(traced: Traced, collector: Collector) -> None:
    """With tracing, they are the spans' trace; plain text has none."""
    sidecar = await traced()
    await ask(sidecar)
    await sidecar.lines.wait_for(1)
    await flush(sidecar)
    found = exemplars(await scrape(sidecar))
    assert found == {("octet_call_duration_seconds", collector.calls[0].trace)}
    assert collector.calls[0].trace not in await scrape(sidecar, "text/plain")


async def test_openmetrics(traced: Traced, simulator: Simulator) -> None:
    """The strict parser reads all of it, with units."""
    sidecar = await traced(routes=[{"name": "two", "targets": TWO, "cache": {"any_temperature": True}}])
    simulator.script("openai", Behaviour(status=503))
    for number in range(6):
        await ask(sidecar, stream=number % 2 == 0, seed=number // 2)
    await sidecar.lines.wait_for(6)
    text = await scrape(sidecar)
    assert text.endswith("# EOF\n")
    families = {family.name: family for family in text_string_to_metric_families(text)}  # type: ignore[no-untyped-call]
    assert families["octet_cost_usd"].unit == "usd"
    assert families["octet_call_duration_seconds"].unit == "seconds"
    assert families["octet_memory_limit_bytes"].unit == "bytes" if "octet_memory_limit_bytes" in families else True
