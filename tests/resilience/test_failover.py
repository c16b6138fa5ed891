"""Fail-over in its simplest form: the next target of the route, before anything was sent."""

from typing import Any

import pytest

from proxy.simulator import Behaviour, Simulator
from tests.conftest import Sidecar, Start, last_call

CHAIN = [
    {
        "name": "chain",
        "match": {"model": "any"},
        "targets": [
            {"upstream": "openai", "model": "gpt-4o-mini"},
            {"upstream": "anthropic", "model": "claude-haiku-4-5"},
        ],
        "fallback": [{"upstream": "ollama", "model": "qwen3"}],
    }
]


@pytest.fixture
async def chained(start: Start) -> Sidecar:
    """One route over all three dialects."""
    return await start(routes=CHAIN)


PASSED_ON = [
    Behaviour(status=401),
    Behaviour(status=403),
    Behaviour(status=402),
    Behaviour(status=429),
    Behaviour(error="insufficient_quota"),
    Behaviour(error="model_not_found"),
    Behaviour(status=500),
    Behaviour(status=503),
    Behaviour(cut="before_headers"),
    Behaviour(garbage="html"),
    Behaviour(garbage="empty"),
    Behaviour(redirect="http://127.0.0.1:1/"),
    Behaviour(cut="before_first_token"),
    Behaviour(error_after=0),
]
KEPT = [Behaviour(status=400), Behaviour(error="context_length_exceeded"), Behaviour(status=413), Behaviour(status=422)]


@pytest.mark.parametrize("behaviour", PASSED_ON, ids=lambda value: str(value)[:60])
@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
async def test_the_next_target_answers(chained: Sidecar, simulator: Simulator, behaviour: Any, stream: bool) -> None:
    """What another upstream may do better goes there, in its own dialect, and the headers say so."""
    simulator.script("openai", behaviour)
    response = await chained.chat("any", stream=stream, seed=7)
    assert response.status == 200
    assert response.headers["x-octet-upstream"] == "anthropic"
    assert response.headers["x-octet-model"] == "claude-haiku-4-5"
    assert response.headers["x-octet-attempts"] == "2"
    assert response.headers["x-octet-dropped"] == "seed"
    assert '"model":"any"' in await response.text()
    assert await chained.metric("octet_failovers_total", route="chain", upstream="openai") == 1
    assert await chained.metric("octet_attempts_total", upstream="anthropic", outcome="ok") == 1
    assert [simulator.report.dialects[name].calls for name in ("openai", "anthropic", "ollama")] == [1, 1, 0]


@pytest.mark.parametrize("behaviour", KEPT, ids=lambda value: str(value)[:60])
async def test_the_callers_fault_is_not_tried_elsewhere(chained: Sidecar, simulator: Simulator, behaviour: Any) -> None:
    """What the caller must change is told at once."""
    simulator.script("openai", behaviour)
    response = await chained.chat("any")
    assert response.status in (400, 413)
    assert simulator.report.calls == 1


async def test_when_all_fail_the_last_failure_is_told(chained: Sidecar, simulator: Simulator) -> None:
    """Every target is tried once, in order, and the caller hears of the last."""
    simulator.always("*", Behaviour(status=503))
    response = await chained.chat("any")
    assert response.status == 503
    assert response.headers["x-octet-attempts"] == "3"
    assert response.headers["x-octet-upstream"] == "ollama"
    assert [request.dialect for request in simulator.report.requests if request.method == "POST"] == [
        "openai",
        "anthropic",
        "ollama",
    ]


async def test_after_content_nothing_is_retried(chained: Sidecar, simulator: Simulator) -> None:
    """A stream that breaks after its first content is not begun again elsewhere."""
    simulator.script("openai", Behaviour(text="one two three four", cut=2))
    response = await chained.chat("any", stream=True)
    assert "upstream_disconnected" in await response.text()
    assert simulator.report.calls == 1


async def test_a_fallback_that_cannot_carry_the_call(chained: Sidecar, simulator: Simulator) -> None:
    """A target that cannot carry the call is passed over, and when nobody else answers the failure is told."""
    simulator.always("openai", Behaviour(status=503))
    simulator.always("ollama", Behaviour(status=500))
    response = await chained.chat("any", logprobs=True)
    assert response.status == 503
    assert response.headers["x-octet-attempts"] == "3"  # openai, ollama, openai
    assert simulator.report.dialects["anthropic"].calls == 0
    simulator.clear()
    assert (await chained.chat("any", logprobs=True)).status == 200


async def test_the_callers_own_key(start: Start, simulator: Simulator) -> None:
    """With credential: caller their key goes upstream, ours never; without one it is a 401, and refused is refused."""
    sidecar = await start(upstreams={"openai": {"credential": "caller", "api_key": None}})
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "x"}]}
    url = f"{sidecar.url}/v1/chat/completions"
    theirs = {"authorization": "Bearer sk-theirs", "openai-organization": "org-1", "x-other": "secret", "cookie": "a=b"}
    async with sidecar.http.post(url, json=body, headers=theirs) as response:
        assert response.status == 200
    seen = last_call(simulator).headers
    assert seen["authorization"] == "Bearer sk-theirs"
    assert seen["openai-organization"] == "org-1"
    assert not {"x-other", "cookie"} & set(seen)
    async with sidecar.http.post(url, json=body) as response:
        assert response.status == 401
    simulator.script("openai", Behaviour(status=401))
    async with sidecar.http.post(url, json=body, headers=theirs) as response:
        assert response.status == 401
        assert (await response.json())["error"]["code"] == "invalid_api_key"
    simulator.script("openai", Behaviour(status=403))
    async with sidecar.http.post(url, json=body, headers=theirs) as response:
        assert response.status == 403
        assert (await response.json())["error"]["type"] == "permission_error"


async def test_what_travels_upstream(start: Start, simulator: Simulator) -> None:
    """Our key, the configured headers and query, the trace and our via go upstream; nothing else of the caller's."""
    settings = {"headers": {"X-Team": "search"}, "query": {"api-version": "2026-05-01"}, "auth_header": "api-key"}
    sidecar = await start(upstreams={"openai": settings})
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    sent = {
        "authorization": "Bearer sk-any",
        "traceparent": trace,
        "x-stainless-lang": "python",
        "openai-organization": "o",
    }
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "x"}]}
    async with sidecar.http.post(f"{sidecar.url}/v1/chat/completions", json=body, headers=sent) as response:
        assert response.status == 200
    seen = last_call(simulator)
    assert seen.query == "api-version=2026-05-01"
    assert seen.headers["api-key"] == "sk-ours"
    assert seen.headers["x-team"] == "search"
    assert seen.headers["traceparent"] == trace
    assert seen.headers["via"].startswith("1.1 octet-")
    assert set(seen.headers) <= {
        *("host", "content-type", "content-length", "accept", "accept-encoding", "user-agent"),
        *("via", "api-key", "x-team", "traceparent"),
    }
