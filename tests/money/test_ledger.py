"""What calls have used: as told where it is told, else reckoned; each of them counted once, whoever pays."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from proxy.config.load import build
from proxy.config.source import Document
from proxy.openai_format.chunks import reasoning
from proxy.openai_format.observing import text_size
from proxy.providers import traits
from proxy.simulator import Behaviour, Simulator
from proxy.telemetry.ledger import MOST_ACCOUNTS, MOST_PAYERS, Ledger, Ratio
from proxy.telemetry.prices import PriceList
from proxy.telemetry.record import CallRecord
from tests.conftest import MODELS, STEADY, Sidecar, Start
from tests.edge.wire import STREAM_HEAD, asking, event, pouring, read_head, request
from tests.money.scene import INPUT, OUTPUT, PRICES, always, ask, cost_of, priced, route, samples, total

both_modes = pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
TOLD = ("openai", "anthropic", "vllm", "ollama", "tgi", "huggingface")
PATHS: dict[str, dict[str, Any]] = {"rayserve": {"path": "/app"}, "bentoml": {}}
DONE = b"data: [DONE]\n\n"
FINISH = event("", delta={}, finish_reason="stop")
PLAIN = "one two three four five six seven eight nine ten " * 8


async def answered(sidecar: Sidecar, model: str = "gpt-4o-mini", **fields: Any) -> bytes:
    """A good answer's body."""
    response = await sidecar.chat(model, **fields)
    body = await response.read()
    assert response.status == 200, body
    return body


async def unknown(sidecar: Sidecar, upstream: str = "openai") -> float:
    return await total(sidecar, "octet_unpriced_total", upstream=upstream, reason="usage")


async def leave(sidecar: Sidecar, contents: int, **fields: Any) -> None:
    """A streamed call whose caller goes after so many contents."""
    async with asking(sidecar, request(stream=True, **fields)) as (reader, _):
        await read_head(reader)
        for _ in range(contents):
            while b'"content":"' not in (line := await reader.readline()) or b'"content":""' in line:
                pass


# What upstreams tell.


@both_modes
@pytest.mark.parametrize("name", TOLD)
async def test_as_the_upstream_told(start: Start, simulator: Simulator, name: str, stream: bool) -> None:
    """Tokens and costs are the upstream's own, in the access line and in the counters."""
    sidecar = await start(upstreams=priced())
    always(simulator, name, text=PLAIN)
    await answered(sidecar, MODELS[name], stream=stream)
    (line,) = await sidecar.lines.wait_for(1)
    books = simulator.report.dialects[name]
    assert (line["prompt_tokens"], line["completion_tokens"]) == (books.prompt_tokens, books.completion_tokens)
    assert line["usage_source"] == "provider"
    assert line["cost_usd"] == pytest.approx(cost_of(line))
    assert await total(sidecar, "octet_cost_usd_total", route=name, upstream=name) == pytest.approx(cost_of(line))
    told = await samples(sidecar, "octet_tokens_total")
    assert sum(told.values()) == line["prompt_tokens"] + line["completion_tokens"]


@both_modes
@pytest.mark.parametrize("name", ["openai", "vllm", "rayserve", "bentoml"])
async def test_upstreams_that_tell_nothing(start: Start, simulator: Simulator, name: str, stream: bool) -> None:
    """A whole answer is estimated, and is neither free nor unpriced."""
    custom: dict[str, Any] = {"settings": {"mode": "custom", **PATHS[name]}} if name in PATHS else {}
    if name == "rayserve":
        custom["base_url"] = f"{simulator.url}/rayserve"
    sidecar = await start(upstreams=priced(name, **custom))
    always(simulator, name, text=PLAIN, usage="none")
    await answered(sidecar, MODELS[name], stream=stream)
    (line,) = await sidecar.lines.wait_for(1)
    assert line["usage_source"] == "estimated"
    assert line["completion_tokens"] == pytest.approx(len(PLAIN) / 4, rel=0.05)
    assert line["prompt_tokens"] > 0
    assert line["cost_usd"] == pytest.approx(cost_of(line))
    assert await total(sidecar, "octet_unpriced_total") == 0


NO_COUNTS: dict[str, dict[str, Any]] = {
    "nulls": {"prompt_tokens": None, "completion_tokens": None, "total_tokens": None},
    "texts": {"prompt_tokens": "12", "completion_tokens": "7"},
    "total": {"total_tokens": 19},
    "negative": {"prompt_tokens": -1, "completion_tokens": -1},
    "huge": {"prompt_tokens": 2**60, "completion_tokens": 2**60},
    "bools": {"prompt_tokens": True, "completion_tokens": True},
    "foreign": {"queue_time": 0.1},
}


def answer(text: str, usage: Any = None) -> bytes:
    """A JSON answer with this usage."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    told = {"id": "c", "object": "chat.completion", "created": 1, "model": "gpt-4o-mini", "choices": [choice]}
    return raw_answer(json.dumps(told if usage is None else {**told, "usage": usage}).encode())


def raw_answer(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


def usage_event(usage: Any) -> bytes:
    """The chunk of a stream that holds it."""
    told = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [], "usage": usage}
    return b"data: %b\n\n" % json.dumps(told).encode()


def said(text: str, usage: Any, *, stream: bool) -> tuple[bytes, ...]:
    """What an upstream sends that says a text and this usage."""
    if not stream:
        return (answer(text, usage),)
    return STREAM_HEAD, event(text), FINISH, usage_event(usage), DONE


@asynccontextmanager
async def before(start: Start, *parts: bytes, **rules: Any) -> AsyncIterator[Sidecar]:
    """A sidecar in front of an upstream that sends this, and closes."""
    async with pouring(*parts) as upstream:
        yield await start(upstreams=priced("openai", base_url=upstream.url), routes=[route(**rules)])


@both_modes
@pytest.mark.parametrize("name", NO_COUNTS)
async def test_a_usage_without_counts(start: Start, name: str, stream: bool) -> None:
    """A usage that holds no count tells nothing: the answer is estimated, and does not cost 0."""
    async with before(start, *said(PLAIN, NO_COUNTS[name], stream=stream)) as sidecar:
        await answered(sidecar, stream=stream)
        (line,) = await sidecar.lines.wait_for(1)
    assert line["cost_usd"] is None or line["cost_usd"] > 0
    assert line["usage_source"] == "estimated"


@both_modes
async def test_half_a_usage(start: Start, stream: bool) -> None:
    """Of a usage with one count alone, that one holds."""
    async with before(start, *said(PLAIN, {"prompt_tokens": 12}, stream=stream)) as sidecar:
        await answered(sidecar, stream=stream)
        (line,) = await sidecar.lines.wait_for(1)
    assert line["prompt_tokens"] == 12
    assert line["cost_usd"] >= 0.012


@pytest.mark.parametrize(
    "usage",
    [
        pytest.param(b"", id="none"),
        pytest.param(b', "usage": {"prompt_tokens": 3, "completion_tokens": 2}', id="told"),
    ],
)
async def test_an_odd_text(start: Start, usage: bytes) -> None:
    """An answer that passes untouched does so whether or not usage stands in it."""
    body = (
        b'{"id": "c", "object": "chat.completion", "created": 1, "model": "gpt-4o-mini", "choices": [{"index": 0, '
        b'"message": {"role": "assistant", "content": "not \xff utf-8"}, "finish_reason": "stop"}]' + usage + b"}"
    )
    async with before(start, raw_answer(body)) as sidecar:
        response = await sidecar.chat()
        assert (response.status, await response.read()) == (200, body)


async def test_a_choice_that_is_none(start: Start) -> None:
    """What stands among the choices and is none has no text."""
    body = (
        b'{"id": "c", "object": "chat.completion", "created": 1, "model": "gpt-4o-mini", "choices": [{"index": 0, '
        b'"message": {"role": "assistant", "content": "four"}, "finish_reason": "stop"}, null, 5]}'
    )
    async with before(start, raw_answer(body)) as sidecar:
        response = await sidecar.chat()
        assert (response.status, await response.read()) == (200, body)
        (line,) = await sidecar.lines.wait_for(1)
    assert (line["usage_source"], line["completion_tokens"]) == ("estimated", 1)


# What is partial.


@pytest.mark.parametrize("name", ["openai", "anthropic", "vllm", "tgi", "ollama"])
async def test_a_caller_who_leaves(start: Start, simulator: Simulator, name: str) -> None:
    """What came until then is partial, and is paid; Anthropic's prompt is as told, others' is reckoned."""
    sidecar = await start(upstreams=priced())
    always(simulator, name, text=PLAIN, stall=20)
    await leave(sidecar, 10, model=MODELS[name])
    (line,) = await sidecar.lines.wait_for(1)
    assert (line["outcome"], line["usage_source"]) == ("hangup", "partial")
    assert 5 <= line["completion_tokens"] <= 60
    assert line["cost_usd"] == pytest.approx(cost_of(line))
    assert await total(sidecar, "octet_cost_usd_total", upstream=name) == pytest.approx(cost_of(line))
    assert await total(sidecar, "octet_tokens_total", upstream=name, source="provider") == 0
    await simulator.report.wait_for(lambda report: report.open_calls == 0)
    if name == "anthropic":
        assert line["prompt_tokens"] == simulator.report.dialects[name].prompt_tokens


@pytest.mark.parametrize("name", ["openai", "anthropic", "vllm", "tgi", "ollama"])
async def test_a_cut(start: Start, simulator: Simulator, name: str) -> None:
    """So is what came of an answer that was cut."""
    sidecar = await start(upstreams=priced())
    always(simulator, name, text=PLAIN, cut=10)
    await (await sidecar.chat(MODELS[name], stream=True)).read()
    (line,) = await sidecar.lines.wait_for(1)
    assert (line["outcome"], line["usage_source"]) == ("cut", "partial")
    assert line["completion_tokens"] > 0
    assert line["cost_usd"] == pytest.approx(cost_of(line))


async def test_usage_with_every_chunk(start: Start, simulator: Simulator) -> None:
    """vLLM tells it all along: a call that is left has used what was told last."""
    sidecar = await start(upstreams=priced())
    always(simulator, "vllm", text=PLAIN, stall=20, quirks=["usage_every_chunk"])
    await leave(sidecar, 10, model=MODELS["vllm"])
    (line,) = await sidecar.lines.wait_for(1)
    await simulator.report.wait_for(lambda report: report.open_calls == 0)
    assert line["usage_source"] == "partial"
    assert line["prompt_tokens"] == simulator.report.dialects["vllm"].prompt_tokens
    assert 10 <= line["completion_tokens"] <= 60


@pytest.mark.parametrize("ends", [True, False], ids=["end", "no end"])
async def test_usage_and_then_no_end(start: Start, ends: bool) -> None:
    """Usage that was told after the answer's end holds, though the connection ends without [DONE]."""
    told = {"prompt_tokens": 5, "completion_tokens": 7}
    parts = [STREAM_HEAD, event(PLAIN), FINISH, usage_event(told), *([DONE] if ends else [])]
    async with before(start, *parts) as sidecar:
        await (await sidecar.chat(stream=True)).read()
        (line,) = await sidecar.lines.wait_for(1)
    assert (line["prompt_tokens"], line["completion_tokens"], line["usage_source"]) == (5, 7, "provider")


# What is learnt.


def test_a_ratio_learns() -> None:
    """It begins at what is usual, goes by what it sees, and forgets the old."""
    ratio = Ratio(4.0)
    assert ratio.tokens(400) == 100
    ratio.learn(2_000, 1_000)
    assert ratio.tokens(400) == pytest.approx(200, abs=2)
    for _ in range(200):
        ratio.learn(100_000, 20_000)
    assert ratio.tokens(400) == pytest.approx(80, abs=2)


def test_a_ratio_is_not_poisoned() -> None:
    """One absurd count of an upstream does not make every later answer dear."""
    ratio = Ratio(4.0)
    ratio.learn(100, 2**53 - 1)
    for _ in range(200):
        ratio.learn(10_000, 2_500)
    assert ratio.tokens(400) < 10_000


@pytest.mark.parametrize("text", ["один два три четыре " * 20, "日本語のテキスト" * 20, "naïve 😀 " * 40])
async def test_text_that_is_not_ascii(start: Start, simulator: Simulator, text: str) -> None:
    """What was learnt of whole streams holds for one that is left half-way."""
    sidecar = await start(upstreams=priced())
    always(simulator, "openai", text=text)
    await answered(sidecar, stream=True)
    (line,) = await sidecar.lines.wait_for(1)
    whole = line["completion_tokens"]
    simulator.always("openai", Behaviour(text=text, cut=max(2, whole // 2)))
    await (await sidecar.chat(stream=True)).read()
    line = (await sidecar.lines.wait_for(2))[1]
    books = simulator.report.dialects["openai"]
    assert line["usage_source"] == "partial"
    assert line["completion_tokens"] == pytest.approx(books.completion_tokens - whole, rel=0.1, abs=2)
    assert line["prompt_tokens"] == pytest.approx(books.prompt_tokens / 2, rel=0.1, abs=1)


def test_reasoning_is_measured_once() -> None:
    """Reasoning is told under both names that clients read, and was written once."""
    assert text_size(reasoning("thought")) == len("thought")


def test_what_a_model_has_written() -> None:
    """Texts, refusals, and the names and arguments of tools, in bytes; what has another type has none."""
    assert text_size({"content": "naïve", "refusal": "no"}) == 8
    assert text_size({"tool_calls": [{"function": {"name": "f", "arguments": "{}"}}, None, 5]}) == 3
    assert text_size({"content": 5, "tool_calls": {"function": 1}, "function_call": "x"}) == 0
    assert text_size({"content": "\ud83d"}) > 0


async def test_reasoning_that_is_left(start: Start, simulator: Simulator) -> None:
    """A call that is left while the model thinks has used what was thought."""
    sidecar = await start(upstreams=priced())
    always(simulator, "ollama", reasoning=PLAIN, text=PLAIN, cut=40)
    await (await sidecar.chat(MODELS["ollama"], stream=True)).read()
    (line,) = await sidecar.lines.wait_for(1)
    books = simulator.report.dialects["ollama"]
    assert line["completion_tokens"] == pytest.approx(books.completion_tokens, rel=0.3)


@pytest.mark.parametrize("name", ["openai", "vllm"])
async def test_tool_calls_are_text(start: Start, simulator: Simulator, name: str) -> None:
    """Arguments of tools count as what they are: text that the model has written."""
    sidecar = await start(upstreams=priced())
    tools = [{"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}]
    always(simulator, name, tool_calls=[{"name": "find", "arguments": {"words": PLAIN}}], usage="none")
    await answered(sidecar, MODELS[name], stream=True, tools=tools)
    (line,) = await sidecar.lines.wait_for(1)
    assert line["usage_source"] == "estimated"
    assert line["completion_tokens"] > len(PLAIN) / 5


@both_modes
async def test_several_choices(start: Start, simulator: Simulator, stream: bool) -> None:
    """Where an upstream has `n`, the prompt is sent once, and all answers count."""
    sidecar = await start(upstreams=priced())
    always(simulator, "openai", text=PLAIN)
    await answered(sidecar, stream=stream, n=3)
    (line,) = await sidecar.lines.wait_for(1)
    books = simulator.report.dialects["openai"]
    assert (line["prompt_tokens"], line["completion_tokens"]) == (books.prompt_tokens, books.completion_tokens)
    assert line["cost_usd"] == pytest.approx(cost_of(line))


@both_modes
@pytest.mark.parametrize("name", ["anthropic", "ollama", "tgi"])
async def test_choices_asked_one_by_one(start: Start, simulator: Simulator, name: str, stream: bool) -> None:
    """Where an upstream has none, the prompt is paid as often as it was sent; the caller is told it once."""
    sidecar = await start(upstreams=priced())
    always(simulator, name, text=PLAIN)
    await answered(sidecar, MODELS[name], stream=stream, n=3)
    (line,) = await sidecar.lines.wait_for(1)
    books = simulator.report.dialects[name]
    told = await samples(sidecar, "octet_tokens_total")
    assert sum(told.values()) == books.prompt_tokens + books.completion_tokens
    assert line["prompt_tokens"] * 3 == books.prompt_tokens
    dollars = (books.prompt_tokens * INPUT + books.completion_tokens * OUTPUT) / 1e6
    assert line["cost_usd"] == pytest.approx(dollars)


@pytest.mark.parametrize("name", ["anthropic", "ollama"])
async def test_choices_that_are_left(start: Start, simulator: Simulator, name: str) -> None:
    """A caller who leaves such an answer pays the prompt as often as it was sent, too."""
    sidecar = await start(upstreams=priced())
    always(simulator, name, text=PLAIN, stall=8)
    await leave(sidecar, 10, model=MODELS[name], n=3)
    (line,) = await sidecar.lines.wait_for(1)
    prompts = await total(sidecar, "octet_tokens_total", direction="prompt")
    assert prompts == 3 * line["prompt_tokens"] > 0
    dollars = (prompts * INPUT + line["completion_tokens"] * OUTPUT) / 1e6
    assert line["cost_usd"] == pytest.approx(dollars)


# Who pays for what was tried.


@both_modes
async def test_failing_over_costs_once(start: Start, simulator: Simulator, stream: bool) -> None:
    """Attempts that were refused cost nothing; the answer's upstream is paid."""
    targets = [{"upstream": "openai"}, {"upstream": "anthropic", "model": MODELS["anthropic"]}]
    sidecar = await start(upstreams=priced(), routes=[{"name": "two", "targets": targets}])
    simulator.always("openai", Behaviour(status=503))
    await answered(sidecar, stream=stream)
    (line,) = await sidecar.lines.wait_for(1)
    assert (line["upstream"], line["attempts"]) == ("anthropic", 2)
    assert await total(sidecar, "octet_cost_usd_total") == pytest.approx(cost_of(line))
    assert await total(sidecar, "octet_cost_usd_total", upstream="openai") == 0
    assert await total(sidecar, "octet_unpriced_total") == 0


@both_modes
async def test_a_loser_pays_its_prompt(start: Start, simulator: Simulator, stream: bool) -> None:
    """Of two attempts the one that lost has used its prompt, estimated; the caller pays both."""
    targets = [{"upstream": "openai", "model": "gpt-4o-mini"}, {"upstream": "anthropic", "model": MODELS["anthropic"]}]
    hedge = {"after_seconds": 0.01, "budget": 1.0}
    sidecar = await start(upstreams=priced(), routes=[{"name": "two", "targets": targets, "hedge": hedge}])
    simulator.always("openai", Behaviour(stall="before_first_token" if stream else "before_headers"))
    await answered(sidecar, stream=stream)
    (line,) = await sidecar.lines.wait_for(1)
    lost = {"upstream": "openai", "source": "estimated"}
    assert await total(sidecar, "octet_tokens_total", direction="prompt", **lost) > 0
    assert await total(sidecar, "octet_tokens_total", direction="completion", **lost) == 0
    assert await total(sidecar, "octet_cost_usd_total", upstream="openai") > 0
    assert await total(sidecar, "octet_cost_usd_total", upstream="anthropic") == pytest.approx(cost_of(line))
    assert await unknown(sidecar) == 0


@both_modes
async def test_a_copy_is_paid(start: Start, simulator: Simulator, stream: bool) -> None:
    """Copies cost under the caller `none`; the call's own line does not have it."""
    mirror = {"upstream": "anthropic", "model": MODELS["anthropic"]}
    callers = [{"name": "search", "key": "sk-search"}]
    sidecar = await start(upstreams=priced(), routes=[route(mirror=mirror)], server={"callers": callers})
    assert await ask(sidecar, "sk-search", stream=stream) == 200
    async with asyncio.timeout(5):
        while not await total(sidecar, "octet_mirrored_total", outcome="ok"):
            pass
    (line,) = await sidecar.lines.wait_for(1)
    assert await total(sidecar, "octet_cost_usd_total", caller="search") == pytest.approx(cost_of(line))
    books = simulator.report.dialects["anthropic"]
    copies = (books.prompt_tokens * INPUT + books.completion_tokens * OUTPUT) / 1e6
    assert await total(sidecar, "octet_cost_usd_total", caller="none") == pytest.approx(copies)


@both_modes
async def test_kept_answers_cost_nothing(start: Start, simulator: Simulator, stream: bool) -> None:
    """The second call costs 0, and what it would have cost is saved."""
    sidecar = await start(upstreams=priced(), routes=[route(cache={"any_temperature": True})])
    for _ in range(2):
        await answered(sidecar, stream=stream, temperature=0)
    first, second = await sidecar.lines.wait_for(2)
    assert second["cache"] == "memory"
    assert (second["cost_usd"], first["cost_usd"]) == (0, pytest.approx(cost_of(first)))
    assert await total(sidecar, "octet_cost_usd_total") == pytest.approx(cost_of(first))
    assert await total(sidecar, "octet_cost_saved_usd_total") == pytest.approx(cost_of(first))


@both_modes
async def test_who_waits_too_long(start: Start, simulator: Simulator, stream: bool) -> None:
    """Nobody knows what a call has used whose upstream was too slow: it counts once for each such attempt."""
    timeouts = {"first_token_seconds": 0.05, "total_seconds": 0.1}
    rule = {"name": "slow", "targets": [{"upstream": "openai"}], "retry": {"attempts": 2, "longest_wait_seconds": 0.01}}
    sidecar = await start(upstreams=priced("openai", timeouts=timeouts, circuit=STEADY), routes=[rule])
    always(simulator, "openai", stall="before_first_token" if stream else "before_headers")
    await (await sidecar.chat(stream=stream)).read()
    (line,) = await sidecar.lines.wait_for(1)
    assert (line["outcome"], line["cost_usd"], line["usage_source"]) == ("upstream_error", None, None)
    assert await unknown(sidecar) == line["attempts"] >= 1


@both_modes
async def test_who_leaves_before_anything_came(start: Start, simulator: Simulator, stream: bool) -> None:
    """The same of a caller who goes while the upstream is silent."""
    sidecar = await start(upstreams=priced())
    always(simulator, "openai", stall="before_first_token" if stream else "before_headers")
    async with asking(sidecar, request(stream=stream)):
        await simulator.report.wait_for(lambda report: report.open_calls == 1)
    (line,) = await sidecar.lines.wait_for(1)
    assert (line["outcome"], line["cost_usd"], line["usage_source"]) == ("hangup", None, None)
    assert await unknown(sidecar) == 1


@pytest.mark.parametrize("stage_", ["before_headers", "before_first_token"])
async def test_a_connection_that_ends_while_it_waits(start: Start, simulator: Simulator, stage_: Any) -> None:
    """A request was sent, and the connection ended: nobody knows either."""
    sidecar = await start(upstreams=priced(), routes=[route()])
    always(simulator, "openai", cut=stage_)
    await (await sidecar.chat(stream=stage_ == "before_first_token")).read()
    await sidecar.lines.wait_for(1)
    assert await unknown(sidecar) == 1


# Other operations.


@pytest.mark.parametrize("name", ["openai", "vllm", "ollama"])
async def test_embeddings(start: Start, simulator: Simulator, name: str) -> None:
    """They have a prompt and no answer."""
    sidecar = await start(upstreams=priced())
    body = {"model": MODELS[name], "input": ["one two three", "four five"]}
    response = await sidecar.http.post(f"{sidecar.url}/v1/embeddings", json=body)
    told = await response.json()
    assert response.status == 200, told
    (line,) = await sidecar.lines.wait_for(1)
    assert line["prompt_tokens"] == told["usage"]["prompt_tokens"] > 0
    assert not line["completion_tokens"]
    assert line["cost_usd"] == pytest.approx(line["prompt_tokens"] * INPUT / 1e6)


@both_modes
async def test_legacy_completions(start: Start, simulator: Simulator, stream: bool) -> None:
    """They are counted as chats are; without usage their text is measured."""
    sidecar = await start(upstreams=priced())
    body = {"model": MODELS["vllm"], "prompt": "Hello", "stream": stream}
    for usage in ("normal", "none"):
        always(simulator, "vllm", text=PLAIN, usage=usage)
        response = await sidecar.http.post(f"{sidecar.url}/v1/completions", json=body)
        assert response.status == 200, await response.read()
        await response.read()
    told, silent = await sidecar.lines.wait_for(2)
    assert (told["usage_source"], silent["usage_source"]) == ("provider", "estimated")
    assert told["cost_usd"] == pytest.approx(cost_of(told))
    assert silent["completion_tokens"] == pytest.approx(told["completion_tokens"], rel=0.4)


# Bounds.


def ledger(**globs: Any) -> tuple[Ledger, CollectorRegistry]:
    """One that knows these prices of the upstream `one`."""
    registry = CollectorRegistry()
    made = Ledger(registry)
    tree = {"upstreams": {"one": {"provider": "openai", "prices": globs or PRICES}}}
    made.follow(PriceList(build(Document("test", tree), traits()).upstreams))
    return made, registry


def record(model: str = "m", caller: str = "", label: str = "other", prompt: int = 10) -> CallRecord:
    """An answered call that has used 10 tokens of each."""
    made = CallRecord("id", time.perf_counter(), caller, "r", "one", model=model, model_label=label)
    made.attempts, made.first_token = 1, time.perf_counter()
    made.facts.finished, made.facts.usage = True, {"prompt_tokens": prompt, "completion_tokens": 10}
    made.facts.text_bytes = 40
    return made


def counted(registry: CollectorRegistry, name: str) -> dict[tuple[str, ...], float]:
    return {
        tuple(sample.labels.values()): sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == name
    }


def test_invented_models() -> None:
    """Ten thousand of them add no series, and what is remembered of them is bounded; the sums are right."""
    made, registry = ledger()
    for number in range(10_000):
        assert made.settle(record(f"model-{number}")).cost == pytest.approx(0.04)
    assert len(made._accounts) <= MOST_ACCOUNTS
    assert len(made._ratios) <= MOST_ACCOUNTS
    costs = counted(registry, "octet_cost_usd_total")
    assert list(costs) == [("r", "one", "other", "none")]
    assert sum(costs.values()) == pytest.approx(400)
    assert sum(counted(registry, "octet_tokens_total").values()) == 200_000


def test_very_many_callers() -> None:
    """Beyond the bound they are `other`; the sum is right, and who was there first keeps a series."""
    made, registry = ledger()
    spent = dict[str, float]()

    def charge(caller: str, _: str, usd: float) -> None:
        spent[caller] = spent.get(caller, 0.0) + usd

    made.on_cost = charge
    for _ in range(2):
        for number in range(1000):
            made.settle(record(caller=f"caller-{number}"))
    costs = counted(registry, "octet_cost_usd_total")
    assert len(costs) <= MOST_PAYERS + 1
    assert costs["r", "one", "other", "caller-0"] == pytest.approx(0.08)
    assert costs["r", "one", "other", "other"] == pytest.approx(0.08 * (1001 - len(costs)))
    assert sum(costs.values()) == pytest.approx(80)
    assert spent == {f"caller-{number}": pytest.approx(0.08) for number in range(1000)}


def test_a_reload_keeps_the_sums() -> None:
    """Prices may change: what was counted stays, what follows goes by the new ones."""
    made, registry = ledger()
    made.settle(record())
    tree = {"upstreams": {"one": {"provider": "openai", "prices": {"*": {"input_per_million": 1e6}}}}}
    made.follow(PriceList(build(Document("test", tree), traits()).upstreams))
    made.settle(record())
    assert counted(registry, "octet_cost_usd_total") == {("r", "one", "other", "none"): pytest.approx(10.04)}
    made.follow(PriceList({}))
    assert made.settle(record()).cost is None
    assert counted(registry, "octet_unpriced_total") == {("one", "other", "price"): 1}
    known = {"route": {"r"}, "upstream": {"one"}, "model": {"other"}, "caller": {"none", "other"}}
    made.prune(known)
    assert counted(registry, "octet_cost_usd_total") == {("r", "one", "other", "none"): pytest.approx(10.04)}
    made.prune({**known, "route": {"s"}})
    assert not counted(registry, "octet_cost_usd_total")
    made.follow(PriceList(build(Document("test", tree), traits()).upstreams))
    made.settle(record())  # a call that began before
    assert sum(counted(registry, "octet_cost_usd_total").values()) == pytest.approx(10)
