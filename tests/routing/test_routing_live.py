"""What a route changes in calls on their way, as the upstream sees it, and what callers are told of it."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from proxy.cache.key import place_of
from proxy.simulator import Behaviour, Simulator
from tests.cache.stage import STREAM_HEAD, Stage, event, staged
from tests.conftest import MODELS, Sidecar, Start, last_call
from tests.routing.scene import call, route_of, router

SECRET = "token-of-the-target"
both_modes = pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    """An upstream that says what it is told to."""
    async with staged() as running:
        yield running


async def ask(sidecar: Sidecar, model: str = "gpt-4o-mini", **fields: Any) -> aiohttp.ClientResponse:
    """A call's answer, read to its end."""
    response = await sidecar.chat(model, **fields)
    await response.read()
    return response


def to(upstream: str = "openai", **more: Any) -> list[dict[str, Any]]:
    """One route to one target."""
    return [{"name": "r", "targets": [{"upstream": upstream, **more}], "retry": {"attempts": 1}}]


async def post(sidecar: Sidecar, body: bytes, **headers: str) -> aiohttp.ClientResponse:
    headers = {"content-type": "application/json", **headers}
    response = await sidecar.http.post(f"{sidecar.url}/v1/chat/completions", data=body, headers=headers)
    await response.read()
    return response


@pytest.mark.parametrize("dialect", ["openai", "vllm"])
async def test_an_exact_wire_keeps_every_other_byte(start: Start, simulator: Simulator, dialect: str) -> None:
    """Values that nobody changes arrive as they were written: spaces, escapes, and the spelling of numbers."""
    changes = {"set": {"seed": 7, "top_p": 0.5}, "defaults": {"temperature": 1, "user": "nobody", "n": 1}}
    sidecar = await start(routes=to(dialect, model=MODELS[dialect], remove=["logit_bias"], **changes))
    messages = '[ {"role":"user" ,\n"content":"\\u0048ello \u2028 🦊"} ]'
    metadata = '{ "k" : "\\u00e9" , "seed":"1" }'
    body = (
        f'{{ "model" : "any", "messages":{messages}, "metadata"\t: {metadata}, "temperature":1.50e-1,'
        ' "t\\u006fp_p":0.90, "user":null, "logit_bias":{}, "stop":["a",  "b"] }'
    )
    response = await post(sidecar, body.encode())
    assert response.status == 200
    assert response.headers["x-octet-dropped"] == "logit_bias"
    assert (
        last_call(simulator).body
        == (
            f'{{"model":"{MODELS[dialect]}","messages":{messages},"metadata":{metadata},"temperature":1.50e-1,'
            '"top_p":0.5,"user":"nobody","stop":["a",  "b"],"n":1,"seed":7}'
        ).encode()
    )
    assert b'"model":"any"' in (await response.read()).replace(b'": "', b'":"')


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dialect", ["anthropic", "ollama"])
async def test_dialects_that_are_written_anew(start: Start, simulator: Simulator, dialect: str, stream: bool) -> None:
    """Changes come before the translation; what is removed is told beside what the dialect cannot carry."""
    changes = {"set": {"temperature": 0.25}, "defaults": {"max_tokens": 99}, "remove": ["top_p", "absent"]}
    sidecar = await start(routes=to(dialect, model=MODELS[dialect], **changes))
    response = await ask(sidecar, "any", stream=stream, temperature=1, top_p=0.5, max_tokens=None, logit_bias={"1": 1})
    assert response.status == 200, await response.read()
    assert set(response.headers["x-octet-dropped"].replace(" ", "").split(",")) == {"top_p", "logit_bias"}
    sent = json.loads(last_call(simulator).body)
    options = sent["options"] if dialect == "ollama" else sent
    assert options["temperature"] == 0.25
    assert options["num_predict" if dialect == "ollama" else "max_tokens"] == 99
    assert "top_p" not in options


@both_modes
async def test_each_target_has_its_own_changes(start: Start, simulator: Simulator, stream: bool) -> None:
    """The second target gets the caller's call with its own changes, and nothing of those of the first."""
    targets = [
        {"upstream": "openai", "set": {"seed": 1}, "remove": ["top_p"], "headers": {"x-first": "1"}},
        {"upstream": "vllm", "defaults": {"seed": 2}, "remove": "user", "headers": {"x-second": "2"}},
    ]
    sidecar = await start(routes=[{"name": "r", "targets": targets}])
    simulator.always("openai", Behaviour(status=503))
    response = await ask(sidecar, "any", stream=stream, top_p=0.5, user="ann")
    assert (response.status, response.headers["x-octet-dropped"]) == (200, "user")
    first, second = (each for each in simulator.report.requests if each.method == "POST")
    bodies = [{**json.loads(each.body), "messages": 0, "stream": 0, "stream_options": 0} for each in (first, second)]
    common = {"model": "any", "messages": 0, "stream": 0, "stream_options": 0}
    assert bodies == [{**common, "seed": 1, "user": "ann"}, {**common, "seed": 2, "top_p": 0.5}]
    assert ("x-first" in first.headers, "x-second" in first.headers) == (True, False)
    assert ("x-first" in second.headers, "x-second" in second.headers) == (False, True)


async def test_headers_of_a_target(start: Start, simulator: Simulator) -> None:
    """They are sent beside those of the upstream, and come before them."""
    sidecar = await start(
        routes=to(headers={"X-Team": "target", "x-more": "1"}),
        upstreams={"openai": {"headers": {"x-team": "upstream", "x-own": "2"}}},
    )
    assert (await ask(sidecar)).status == 200
    seen = last_call(simulator).headers
    assert [seen[name] for name in ("x-team", "x-more", "x-own")] == ["target", "1", "2"]
    assert seen["authorization"] == "Bearer sk-ours"


@pytest.mark.parametrize(
    ("upstream", "name", "settings"),
    [
        ("openai", "Authorization", {}),
        ("openai", "API-key", {"auth_header": "Api-Key"}),
        ("anthropic", "x-api-key", {}),
    ],
)
async def test_headers_cannot_replace_our_key(
    start: Start, simulator: Simulator, upstream: str, name: str, settings: dict[str, Any]
) -> None:
    """The header that holds the key, whatever it is called, holds the key."""
    sidecar = await start(routes=to(upstream, headers={name: "wrong"}), upstreams={upstream: settings})
    assert (await ask(sidecar, MODELS[upstream])).status == 200
    assert last_call(simulator).headers[name.lower()].removeprefix("Bearer ") == "sk-ours"


async def test_headers_cannot_replace_the_callers_key(start: Start, simulator: Simulator) -> None:
    """Where the caller's own key goes upstream, it is that which goes."""
    sidecar = await start(
        routes=to(headers={"authorization": "Bearer wrong"}),
        upstreams={"openai": {"credential": "caller", "api_key": None}},
    )
    body = b'{"model":"m","messages":[{"role":"user","content":"x"}]}'
    assert (await post(sidecar, body, authorization="Bearer sk-theirs")).status == 200
    assert last_call(simulator).headers["authorization"] == "Bearer sk-theirs"


async def started(start: Start, stage: Stage, **upstream: Any) -> Sidecar:
    return await start(
        routes=to(headers={"x-secret": SECRET}), upstreams={"openai": {"base_url": stage.url, **upstream}}
    )


def refusal(status: int) -> bytes:
    error = {"message": f"no such {SECRET} here", "type": "t", "param": SECRET, "code": SECRET}
    body = json.dumps({"error": error}).encode()
    head = f"HTTP/1.1 {status} No\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


async def told(sidecar: Sidecar, stage: Stage, said: bytes, *, stream: bool) -> str:
    """What the caller gets when the upstream says this."""
    body = json.dumps({"model": "m", "stream": stream, "messages": [{"role": "user", "content": "x"}]}).encode()
    asking = asyncio.create_task(post(sidecar, body, authorization="Bearer sk-theirs"))
    (await stage.call()).say(said)
    response = await asking
    return await response.text() + str(response.headers) + json.dumps(await sidecar.lines.wait_for(1))


@both_modes
@pytest.mark.parametrize("status", [400, 401, 404, 429, 500])
async def test_a_secret_that_an_upstream_quotes(start: Start, stage: Stage, status: int, stream: bool) -> None:
    """A header of the target's is shown to nobody, in message, param and code."""
    answer = await told(await started(start, stage), stage, refusal(status), stream=stream)
    assert SECRET not in answer
    assert "error" in answer


async def test_a_secret_in_the_midst_of_a_stream(start: Start, stage: Stage) -> None:
    """Nor when it is quoted after the first content."""
    said = STREAM_HEAD + event("a ") + b"".join(_chunks({"error": {"message": f"lost {SECRET}", "code": SECRET}}))
    answer = await told(await started(start, stage), stage, said, stream=True)
    assert SECRET not in answer
    assert "[redacted]" in answer


def _chunks(payload: Any) -> list[bytes]:
    """An event in a chunk of its own, and the end."""
    data = b"data: " + json.dumps(payload).encode() + b"\n\n"
    return [b"%x\r\n%b\r\n" % (len(data), data), b"0\r\n\r\n"]


@pytest.mark.parametrize("status", [401, 403])
async def test_a_secret_beside_the_callers_key(start: Start, stage: Stage, status: int) -> None:
    """Nor when the upstream refuses the caller's own key, and quotes what we sent beside it."""
    sidecar = await started(start, stage, credential="caller", api_key=None)
    assert SECRET not in await told(sidecar, stage, refusal(status), stream=False)


@pytest.mark.parametrize(
    "change",
    [
        {"set": {"seed": 1}},
        {"defaults": {"seed": 1}},
        {"remove": "seed"},
        {"headers": {"x-a": "1"}},
        {"set": {"seed": 1}, "headers": {"x-a": "1"}},
    ],
)
def test_answers_to_changed_calls_are_kept_apart(change: dict[str, Any]) -> None:
    """Where a target's changes are others, answers are looked for under another key; secrets are not told by it."""
    plain, changed, other = (
        place_of(route_of(router({"name": "r", "targets": [{"upstream": "a", **more}]}), call()), "chat", {"a": b"u"})
        for more in ({}, change, {"set": {"seed": 2}})
    )
    again = route_of(router({"name": "r", "targets": [{"upstream": "a", **change}]}), call())
    assert len({plain, changed, other}) == 3
    assert place_of(again, "chat", {"a": b"u"}) == changed
    assert b"seed" not in changed


async def test_a_fallback_under_the_same_name_is_not_kept(start: Start, simulator: Simulator) -> None:
    """The same upstream and model with other changes is a fallback all the same, and its answer is not kept."""
    rule = {"fallback": [{"upstream": "openai", "set": {"seed": 2}}], "cache": {"any_temperature": True}}
    sidecar = await start(routes=[{"name": "r", "targets": [{"upstream": "openai", "set": {"seed": 1}}], **rule}])
    simulator.script("openai", Behaviour(error="model_not_found"))
    for _ in range(2):
        response = await ask(sidecar)
    assert response.headers["x-octet-cache"] == "miss"


async def test_a_canary_that_fails_costs_nobody_an_answer(start: Start, simulator: Simulator) -> None:
    """Its share of the calls goes on to the targets; those of the targets that fail go to no canary."""
    canary = {"upstream": "vllm", "model": "new", "share": 0.25}
    sidecar = await start(routes=[{"name": "r", "targets": [{"upstream": "openai"}], "canary": canary}])
    simulator.always("vllm", Behaviour(status=503))
    attempts = Counter[str]()
    for _ in range(20):
        response = await ask(sidecar)
        assert (response.status, response.headers["x-octet-upstream"]) == (200, "openai")
        attempts[response.headers["x-octet-attempts"]] += 1
    assert attempts == {"1": 15, "2": 5}
    assert await sidecar.metric("octet_failovers_total", route="r", upstream="vllm", reason="Overloaded") == 5
    simulator.clear()
    simulator.always("openai", Behaviour(error="model_not_found"))
    statuses = Counter([(await ask(sidecar)).status for _ in range(20)])
    assert statuses == {200: 5, 404: 15}
