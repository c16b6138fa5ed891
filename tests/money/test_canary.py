"""Keys and prompts stay where they belong, wherever they come in."""

import asyncio
import io
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from proxy.simulator import Behaviour, Simulator
from tests.cache.in_redis import be_patient, until_seen
from tests.conftest import Sidecar, Start
from tests.edge.wire import pouring
from tests.money.collector import Collector, collecting, flush
from tests.money.scene import PRICES, priced, route, samples
from tests.redis_server import RedisServer

KEYS = {
    name: f"sk-canary-{name}-Zq7xW2"
    for name in ("search", "other", "ours", "file", "header", "query", "admin", "redis", "collector")
}
PROMPT = "canary-prompt-Tg5vR9"
MODEL = "gpt-4o-mini"
BUDGET = {"daily_usd": 1000.0}


class Scene:
    """A sidecar with secrets everywhere, and all that can be seen of it from outside."""

    def __init__(self, sidecar: Sidecar, redis: RedisServer, collector: Collector, log: io.StringIO) -> None:
        self.sidecar, self.redis, self.collector, self.log = sidecar, redis, collector, log
        self.errors: list[bytes] = []  # of answers to callers
        self.answered = 0

    async def ask(self, path: str = "/v1/chat/completions", key: str = "search", **more: Any) -> bytes:
        """A call; what it brings is `json`, `headers`, or both."""
        fields: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": PROMPT}]}
        usual = {"authorization": f"Bearer {KEYS[key]}", "content-type": "application/json"}
        headers = {**usual, **more.pop("headers", {})}
        body = json.dumps({**fields, **more.pop("json", {})}).encode()
        data = more.pop("data", body)
        alone = aiohttp.TCPConnector(force_close=True)  # what is cut ends its connection
        async with (
            aiohttp.ClientSession(connector=alone) as session,
            session.post(self.sidecar.url + path, data=data, headers=headers, **more) as response,
        ):
            answer = await response.read()
            self.answered += response.status == 200
            if response.status != 200:
                self.errors.append(answer)
            return answer

    async def seen(self) -> dict[str, str]:
        """What an operator, a scraper, a collector or a reader of logs can see, by its place."""
        await flush(self.sidecar)
        sidecar, operator = self.sidecar, {"authorization": f"Bearer {KEYS['admin']}"}
        pages = {
            "access log": "\n".join(map(json.dumps, sidecar.lines.kept)),
            "log": self.log.getvalue(),
            "spans": self.collector.bodies.decode("latin-1"),
        }
        paths = ["/", "/metrics", "/healthz", "/readyz", "/admin/calls?limit=1000", "/admin/config", "/admin/upstreams"]
        paths += ["/admin/cache", *(f"/admin/calls/{line['request_id']}" for line in sidecar.lines.kept[-5:])]
        for path in paths:
            async with sidecar.http.get(sidecar.admin_url + path, headers=operator) as response:
                pages[path] = await response.text()
        strict = {"accept": "application/openmetrics-text"}
        async with sidecar.http.get(sidecar.admin_url + "/metrics", headers=strict) as response:
            pages["openmetrics"] = await response.text()
        pages["/admin/live"] = await self.live(operator)
        async with sidecar.http.post(
            sidecar.admin_url + "/admin/explain", headers=operator, json={"model": "a-model"}
        ) as response:
            pages["/admin/explain"] = await response.text()
        names: list[Any] = await self.redis.client.keys("*")
        pages["redis"] = b"\n".join(names).decode("latin-1")
        for name in names:
            if await self.redis.client.type(name) == b"hash":
                pages["redis"] += repr(await self.redis.client.hgetall(name))
        return pages

    async def live(self, headers: dict[str, str]) -> str:
        """The first event of the status page."""
        async with self.sidecar.http.get(self.sidecar.admin_url + "/admin/live", headers=headers) as response:
            return (await asyncio.wait_for(response.content.readuntil(b"\n\n"), 10)).decode()


@pytest.fixture
async def scene(
    start: Start, simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Scene]:
    """With callers, budgets, limits, a cache in Redis, traces, and all keys."""
    be_patient(monkeypatch)
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    logging.getLogger().addHandler(handler)
    before = logging.getLogger().level
    logging.getLogger().setLevel(logging.DEBUG)
    redis = RedisServer(tmp_path, "--requirepass", KEYS["redis"])
    (tmp_path / "key").write_text(KEYS["file"])
    await redis.start()
    redis.client.connection_pool.connection_kwargs["password"] = KEYS["redis"]
    url = f"redis://:{KEYS['redis']}@127.0.0.1:{redis.port}/0"
    ours = {
        "openai": {"prices": PRICES, "api_key": KEYS["ours"], "headers": {"x-own": KEYS["header"]},
                   "query": {"own": KEYS["query"]}},
        "vllm": {"prices": PRICES, "api_key": None, "api_key_file": str(tmp_path / "key")},
    }  # fmt: skip
    callers = [
        {"name": name, "key": KEYS[name], "budget": BUDGET, "limits": {"requests_per_minute": 100_000}}
        for name in ("search", "other")
    ]
    kept = route("kept", match={"model": MODEL}, cache={"any_temperature": True}, budget=BUDGET)
    async with collecting() as collector:
        sidecar = await start(
            upstreams=ours,
            routes=[kept, route("files", "vllm", match={"model": "file-*"}), route("rest")],
            server={"callers": callers, "admin_token": KEYS["admin"], "direct_models": True},
            redis={"url": url, "timeout_seconds": 5.0},
            cache={"redis": {"url": url, "timeout_seconds": 5.0}},
            tracing={"endpoint": collector.url, "headers": {"x-collector": KEYS["collector"]}},
        )
        yield Scene(sidecar, redis, collector, log)
        await sidecar.close()
        sidecar.app.stop = _stopped  # type: ignore[method-assign]
    await redis.kill()
    logging.getLogger().removeHandler(handler)
    logging.getLogger().setLevel(before)


async def _stopped() -> None:
    pass


def found(pages: dict[str, str], *canaries: str) -> set[str]:
    """Where any of them stands."""
    return {place for place, text in pages.items() for canary in canaries if canary in text}


async def test_keys(scene: Scene, simulator: Simulator) -> None:
    """No key is anywhere, whatever happens to the calls that need them."""
    for behaviour in (
        Behaviour(),
        Behaviour(status=401),
        Behaviour(status=403),
        Behaviour(status=400),
        Behaviour(status=429),
        Behaviour(status=500),
        Behaviour(garbage="html"),
        Behaviour(cut=1),
        Behaviour(redirect="http://127.0.0.1:1/"),
    ):
        for name in ("openai", "vllm"):
            simulator.always(name, behaviour)
        for model in (MODEL, "file-model", "openai/direct", "nobody/knows"):
            for stream in (False, True):
                await scene.ask(json={"model": model, "stream": stream, "seed": len(scene.errors)})
    own: dict[str, Any] = {
        "headers": {"x-octet-key": KEYS["search"], "authorization": "Bearer sk-canary-theirs-Zq7xW2"}
    }
    await scene.ask(**own)
    for path in ("/v1/models", "/v1/nothing", f"/v1/{KEYS['search']}", "/v1/chat/completions?key=" + KEYS["other"]):
        await scene.ask(path)
    for value in (f"Basic {KEYS['search']}", KEYS["search"], f"Bearer {KEYS['search']} more", "Bearer sk-canary-wrong"):
        await scene.ask(headers={"authorization": value})
    assert scene.answered > 10
    pages = await scene.seen()
    assert not found(pages, "sk-canary")
    assert not [error for error in scene.errors if b"sk-canary" in error]


# A request id is the caller's own name for the call: it is in the access line, so that both find it there. The model
# that was asked for is, too. Both are in spans and on /admin/calls, which tell the same; an upstream's last failures on
# /admin/upstreams name the model. In nothing else.
TOLD = {"access log", "spans", "/admin/calls?limit=1000", "/admin/live", "/admin/upstreams"}

PLACES: dict[str, dict[str, Any]] = {
    "message": {"json": {"messages": [{"role": "user", "content": PROMPT}]}},
    "role": {"json": {"messages": [{"role": PROMPT, "content": "x"}]}},
    "name": {"json": {"messages": [{"role": "user", "name": PROMPT, "content": "x"}]}},
    "part": {"json": {"messages": [{"role": "user", "content": [{"type": PROMPT, "text": PROMPT}]}]}},
    "tool": {"json": {"tools": [{"type": "function", "function": {"name": PROMPT, "description": PROMPT}}]}},
    "choice": {"json": {"tool_choice": {"type": "function", "function": {"name": PROMPT}}}},
    "arguments": {
        "json": {
            "messages": [
                {"role": "user", "content": "x"},
                {
                    "role": "assistant",
                    "tool_calls": [
                        {"id": PROMPT, "type": "function", "function": {"name": PROMPT, "arguments": PROMPT}}
                    ],
                },
                {"role": "tool", "tool_call_id": PROMPT, "content": PROMPT},
            ]
        }
    },
    "user": {"json": {"user": PROMPT}},
    "safety": {"json": {"safety_identifier": PROMPT, "prompt_cache_key": PROMPT}},
    "metadata": {"json": {"metadata": {PROMPT: PROMPT}}},
    "member": {"json": {PROMPT: PROMPT}},
    "temperature": {"json": {"temperature": PROMPT}},
    "stream": {"json": {"stream": PROMPT}},
    "n": {"json": {"n": PROMPT}},
    "stop": {"json": {"stop": [PROMPT]}},
    "options": {"json": {"stream": True, "stream_options": {PROMPT: PROMPT}}},
    "no json": {"data": f'{{"model": "gpt-4o-mini", "messages": {PROMPT}'.encode()},
    "a text": {"data": json.dumps(PROMPT).encode()},
    "twice": {"data": f'{{"model": "a", "model": "b", "{PROMPT}": 1, "{PROMPT}": 2}}'.encode()},
    "header": {"headers": {"x-anything": PROMPT, "cookie": PROMPT, "referer": PROMPT, "user-agent": PROMPT}},
    "header name": {"headers": {PROMPT: "x"}},
    "forwarded": {"headers": {"x-forwarded-for": PROMPT, "forwarded": PROMPT, "via": PROMPT, "origin": PROMPT}},
    "organization": {"headers": {"openai-organization": PROMPT, "openai-project": PROMPT}},
    "cache control": {"headers": {"cache-control": f"max-age={PROMPT}, {PROMPT}"}},
    "timeout": {"headers": {"x-octet-timeout": PROMPT, "x-stainless-timeout": PROMPT}},
    "type": {"headers": {"content-type": f"application/json; charset={PROMPT}"}},
    "encoding": {"headers": {"content-encoding": PROMPT}},
    "idempotency": {"headers": {"idempotency-key": PROMPT}},
    "traceparent": {"headers": {"traceparent": PROMPT}},
    "query": {"path": f"/v1/chat/completions?{PROMPT}={PROMPT}"},
    "path": {"path": f"/v1/{PROMPT}"},
    "legacy": {"path": "/v1/completions", "json": {"prompt": PROMPT, "suffix": PROMPT}},
    "embeddings": {"path": "/v1/embeddings", "json": {"input": [PROMPT]}},
}
BEHAVIOURS = [Behaviour(), Behaviour(status=500), Behaviour(status=400), Behaviour(cut=1), Behaviour(garbage="json")]


@pytest.mark.parametrize("place", PLACES)
async def test_prompts(scene: Scene, simulator: Simulator, place: str) -> None:
    """What callers send is in no log, metric, span, page or key; the same prompt asked again neither."""
    for behaviour in BEHAVIOURS:
        simulator.always("openai", behaviour)
        for stream in (False, True):
            fields = {"messages": [{"role": "user", "content": PROMPT}], "stream": stream}
            asked = {**PLACES[place], "json": {**fields, **PLACES[place].get("json", {})}}
            await scene.ask(**asked)
            await scene.ask(**asked)
    scene.errors.clear()  # whoever sent it may be told it
    assert not found(await scene.seen(), PROMPT)


@pytest.mark.parametrize(
    ("place", "asked", "told"),
    [
        ("model", {"json": {"model": PROMPT}}, TOLD),
        ("direct model", {"json": {"model": f"openai/{PROMPT}"}}, TOLD),
        ("unknown upstream", {"json": {"model": f"{PROMPT}/x"}}, TOLD),
        ("request id", {"headers": {"x-request-id": PROMPT}}, TOLD),
        # W3C Trace Context: the state travels with the trace, to the collector and to the upstream
        (
            "tracestate",
            {"headers": {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "tracestate": f"k={PROMPT}"}},
            {"spans"},
        ),
    ],
)
async def test_what_is_told(scene: Scene, simulator: Simulator, place: str, asked: Any, told: set[str]) -> None:
    """Request ids and asked models are told where one looks for calls, a trace's state with its trace; nowhere else."""
    for behaviour in BEHAVIOURS:
        simulator.always("openai", behaviour)
        await scene.ask(**asked)
    assert found(await scene.seen(), PROMPT) - told <= {f"/admin/calls/{PROMPT}"} | {
        f"/admin/calls/{line['request_id']}" for line in scene.sidecar.lines.kept
    }


async def test_errors_that_quote(start: Start, scene: Scene) -> None:
    """An error that quotes a prompt and a key of ours: its caller gets it without the key, and nobody else."""
    error = {
        "error": {"message": f"bad {PROMPT} with {KEYS['ours']} and {KEYS['header']}", "type": PROMPT, "code": PROMPT}
    }
    body = json.dumps(error).encode()
    for status in (400, 401, 403, 404, 422, 429, 500, 503):
        head = b"HTTP/1.1 %d Oh\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % (status, len(body))
        async with pouring(head + body) as upstream:
            log = io.StringIO()
            handler = logging.StreamHandler(log)
            logging.getLogger().addHandler(handler)
            settings = priced("openai", base_url=upstream.url, api_key=KEYS["ours"], headers={"x-own": KEYS["header"]})
            async with collecting() as collector:
                sidecar = await start(upstreams=settings, routes=[route()], tracing={"endpoint": collector.url})
                answer = await (await sidecar.chat()).read()
                await flush(sidecar)
            logging.getLogger().removeHandler(handler)
        assert b"sk-canary" not in answer
        seen = "\n".join([json.dumps(sidecar.lines.kept), log.getvalue(), collector.bodies.decode("latin-1")])
        async with sidecar.http.get(f"{sidecar.admin_url}/metrics") as response:
            seen += await response.text()
        for page in ("/admin/calls", "/admin/upstreams"):
            async with sidecar.http.get(sidecar.admin_url + page) as response:
                seen += await response.text()
        assert "sk-canary" not in seen
        assert PROMPT not in seen, status


async def test_answers_that_quote(start: Start) -> None:
    """What an upstream puts into ids, names, headers and usage is in no metric and no label."""
    choice = {"index": 0, "message": {"role": PROMPT, "content": PROMPT, PROMPT: 1}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, PROMPT: 5, "prompt_tokens_details": {PROMPT: 7}}
    whole = {"id": PROMPT, "object": PROMPT, "created": 1, "model": PROMPT, "choices": [choice], "usage": usage}
    body = json.dumps(whole).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\nx-else: %b\r\n\r\n"
    async with pouring(head % (len(body), PROMPT.encode()) + body) as upstream, collecting() as collector:
        settings = priced("openai", base_url=upstream.url)
        sidecar = await start(upstreams=settings, routes=[route()], tracing={"endpoint": collector.url})
        assert PROMPT.encode() in await (await sidecar.chat()).read()
        await flush(sidecar)
        for accept in ("text/plain", "application/openmetrics-text"):
            async with sidecar.http.get(f"{sidecar.admin_url}/metrics", headers={"accept": accept}) as response:
                assert PROMPT not in await response.text()
        assert PROMPT not in json.dumps(sidecar.lines.kept)
        assert PROMPT.encode() not in collector.bodies


async def test_a_finish_that_quotes(start: Start) -> None:
    """A reason to finish that is no word of OpenAI's does not bring an answer's text into a trace."""
    choice = {"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": PROMPT}
    body = json.dumps({"id": "c", "object": "o", "created": 1, "model": MODEL, "choices": [choice]}).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    async with pouring(head + body) as upstream, collecting() as collector:
        settings = priced("openai", base_url=upstream.url)
        sidecar = await start(upstreams=settings, routes=[route()], tracing={"endpoint": collector.url})
        await (await sidecar.chat()).read()
        await flush(sidecar)
        assert PROMPT.encode() not in collector.bodies


async def test_no_series_for_what_callers_invent(scene: Scene, simulator: Simulator) -> None:
    """A thousand models, users and routes add no series to any metric."""

    async def series() -> set[Any]:
        async with scene.sidecar.http.get(f"{scene.sidecar.admin_url}/metrics") as response:
            lines = (await response.text()).splitlines()
        return {line.rpartition(" ")[0] for line in lines if not line.startswith("#")}

    async def ask(number: int) -> None:
        headers = {"x-request-id": f"id-{number}", "traceparent": f"00-{number + 1:032x}-{'b' * 16}-01"}
        models = ("invented-", "file-", "openai/", "nobody/", f"r-{number}/")
        body = {"model": f"{models[number % 5]}{number}", "user": f"user-{number}", "metadata": {"route": f"r{number}"}}
        await scene.ask(f"/v1/chat/completions?route=r{number}", headers=headers, json=body)

    await asyncio.gather(*map(ask, range(49)))
    assert scene.answered > 5
    before = await series()
    for begin in range(49, 1000, 49):
        await asyncio.gather(*map(ask, range(begin, begin + 49)))
    known = {name for name in await series() if "octet_queue_seconds" not in name}  # begins when somebody has waited
    assert not known - before
    assert not [key for key in await samples(scene.sidecar, "octet_cost_usd_total") if "invented" in str(key)]


async def test_what_stands_in_redis(scene: Scene, simulator: Simulator) -> None:
    """Keys of budgets and limits hold names from the configuration; no prompt and no model is in any key."""
    await scene.ask()
    await scene.ask(json={"model": PROMPT})
    await scene.sidecar.lines.wait_for(2)

    async def told() -> bool:
        return len(await scene.redis.client.keys("octet:budget:*")) == 2

    await until_seen(told)
    names: list[Any] = await scene.redis.client.keys("octet:budget:*")
    assert sorted(names) == [b"octet:budget:caller:search", b"octet:budget:route:kept"]
    for name in await scene.redis.client.keys("*"):
        assert PROMPT.encode() not in name
        assert b"sk-canary" not in name
        assert await scene.redis.client.ttl(name) > 0, name
