"""What is told of calls: one access line each, metrics with bounded labels, and never a secret."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from proxy.call import Facts
from proxy.config.load import build
from proxy.config.source import Document
from proxy.providers import traits
from proxy.simulator import Behaviour, Simulator
from proxy.telemetry import CallRecord, LineWriter, Telemetry
from proxy.telemetry.prices import PriceList
from tests.conftest import MODELS, Sidecar, Start

FIELDS = {
    *("time", "request_id", "caller", "route", "upstream", "model_asked", "model", "stream", "status", "outcome"),
    *("reason", "attempts", "cache", "prompt_tokens", "completion_tokens", "usage_source", "first_token_seconds"),
    *("duration_seconds", "upstream_request_id", "cost_usd"),
}


async def test_the_access_line(sidecar: Sidecar) -> None:
    """One line per call, with every field, whatever became of the call."""
    await (await sidecar.chat("claude-haiku-4-5", stream=True)).read()
    await (await sidecar.chat("nowhere")).read()
    good, bad = await sidecar.lines.wait_for(2)
    assert set(good) == set(bad) == FIELDS
    assert (good["route"], good["upstream"], good["model"]) == ("anthropic", "anthropic", "claude-haiku-4-5")
    assert (good["status"], good["outcome"], good["stream"], good["attempts"]) == (200, "ok", True, 1)
    assert good["usage_source"] == "provider"
    assert 0 < good["first_token_seconds"] <= good["duration_seconds"]
    assert good["upstream_request_id"].startswith("req_")
    assert (bad["status"], bad["outcome"], bad["reason"]) == (404, "caller_error", "NotFound")
    assert bad["upstream"] is None


OUTCOMES = [
    ({"status": 400}, "caller_error"),
    ({"status": 500}, "upstream_error"),
    ({"text": "one two three four", "cut": 2}, "cut"),
    ({}, "ok"),
]


@pytest.mark.parametrize(("behaviour", "outcome"), OUTCOMES, ids=lambda value: str(value))
async def test_outcomes(sidecar: Sidecar, simulator: Simulator, behaviour: Any, outcome: str) -> None:
    """Whose fault a call's end was is counted, once."""
    simulator.always("openai", Behaviour(**behaviour))
    await (await sidecar.chat(stream=True)).read()
    (line,) = await sidecar.lines.wait_for(1)
    assert line["outcome"] == outcome
    labels = {"route": "openai", "upstream": "openai", "model": "gpt-4o-mini"}
    assert await sidecar.metric("octet_calls_total", outcome=outcome, **labels) == 1
    assert await sidecar.metric("octet_call_duration_seconds_count", upstream="openai", mode="stream") == 1
    content = outcome in ("ok", "cut")
    assert await sidecar.metric("octet_first_token_seconds_count", upstream="openai", mode="stream") == content
    assert await sidecar.metric("octet_overhead_seconds_count", upstream="openai", mode="stream") == content


async def test_tokens_are_the_upstreams_own(sidecar: Sidecar) -> None:
    """Token counters equal the usage that callers see."""
    usage = (await (await sidecar.chat()).json())["usage"]
    for direction in ("prompt", "completion"):
        labels = {"upstream": "openai", "model": "gpt-4o-mini", "direction": direction, "source": "provider"}
        assert await sidecar.metric("octet_tokens_total", **labels) == usage[f"{direction}_tokens"]


async def test_callers_cannot_add_series(sidecar: Sidecar) -> None:
    """Model names that callers invent become `other`."""
    for number in range(30):
        await (await sidecar.chat(f"ollama/invented-{number}")).read()
        await (await sidecar.chat(f"invented-{number}")).read()
    async with sidecar.http.get(f"{sidecar.admin_url}/metrics") as response:
        text = await response.text()
    assert "invented" not in text
    assert await sidecar.metric("octet_calls_total", route="direct", model="other", outcome="ok") == 30


async def test_series_begin_at_zero(sidecar: Sidecar) -> None:
    """The series of good calls are there before the first call, so that rates have a beginning."""
    async with sidecar.http.get(f"{sidecar.admin_url}/metrics") as response:
        text = await response.text()
    for dialect, model in MODELS.items():
        labels = f'model="{model}",outcome="ok",route="{dialect}",upstream="{dialect}"'
        assert f"octet_calls_total{{{labels}}} 0.0" in text
        assert f'octet_call_duration_seconds_count{{mode="stream",upstream="{dialect}"}} 0.0' in text
    before = set(re.findall(r"^(octet_\w+\{[^}]*\})", text, re.MULTILINE))
    for model in MODELS.values():
        await (await sidecar.chat(model)).read()
    async with sidecar.http.get(f"{sidecar.admin_url}/metrics") as response:
        assert set(re.findall(r"^(octet_\w+\{[^}]*\})", await response.text(), re.MULTILINE)) == before


CANARY = "canary-5f2e"


async def test_no_secret_leaks(start: Start, simulator: Simulator, capfd: pytest.CaptureFixture[str]) -> None:
    """Keys and prompts are in no log, metric or error, not even when calls fail or the upstream quotes them."""
    sidecar = await start(
        server={"callers": [{"name": "app", "key": f"key-{CANARY}"}], "direct_models": True},
        upstreams={"openai": {"api_key": f"sk-{CANARY}", "headers": {"x-own": CANARY}}},
    )
    told = ""
    for behaviour in (Behaviour(), Behaviour(status=401), Behaviour(status=500), Behaviour(garbage="html")):
        simulator.script("openai", behaviour)
        body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}], "user": CANARY}
        headers = {"authorization": f"Bearer key-{CANARY}", "x-custom": CANARY}
        url = f"{sidecar.url}/v1/chat/completions"
        async with sidecar.http.post(url, json=body, headers=headers) as response:
            told += str(response.headers) + await response.text()
        async with sidecar.http.post(url, json=body, headers={"authorization": f"Bearer wrong-{CANARY}"}) as response:
            told += await response.text()
    async with sidecar.http.get(f"{sidecar.admin_url}/metrics") as response:
        told += await response.text()
    told += json.dumps(sidecar.lines.kept) + repr(sidecar.app.pipeline.snapshot) + "".join(capfd.readouterr())
    assert CANARY not in told


def test_lines_are_written_in_batches(tmp_path: Path) -> None:
    """Lines wait for the next flush; above the bound they are dropped and counted, and calls go on."""
    file = tmp_path / "log"
    lines = LineWriter(os.open(file, os.O_WRONLY | os.O_CREAT))
    telemetry = Telemetry(lines.write)
    for number in range(LineWriter.MAX_WAITING + 5):
        telemetry.settle(CallRecord(f"id-{number}", 0.0, outcome="ok"))
    assert file.read_bytes() == b""
    lines.flush()
    assert len(file.read_bytes().splitlines()) == LineWriter.MAX_WAITING
    assert lines.lost == 5


def test_a_reader_that_is_gone_costs_lines_only() -> None:
    """A closed pipe behind the log stops no call."""
    reader, writer = os.pipe()
    os.close(reader)
    lines = LineWriter(writer)
    lines.write(b"one\n")
    lines.flush()
    assert lines.lost == 1


def test_a_reader_that_does_not_read_stops_nobody() -> None:
    """Closing gives up on a full pipe; the writing thread holds nobody up."""
    reader, writer = os.pipe()
    lines = LineWriter(writer)
    lines.start()
    for _ in range(100):
        lines.write(b"x" * 10_000 + b"\n")
    lines.close(patience=0.01)
    os.close(reader)


@pytest.mark.parametrize(
    "usage", ["x", {"prompt_tokens": {"a": "answer"}, "completion_tokens": 10**400}, {"prompt_tokens": -1}]
)
async def test_odd_usage(sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch, usage: Any) -> None:
    """Counts that cannot be believed are none; the call is settled all the same."""
    telemetry, record = sidecar.app.telemetry, CallRecord("id", 0.0, outcome="ok")
    record.facts.usage = usage if isinstance(usage, dict) else None
    telemetry.settle(record)
    assert sidecar.lines.kept[-1]["prompt_tokens"] is None
    assert sidecar.lines.kept[-1]["completion_tokens"] is None


ENDINGS = ("ok", "caller_error", "limited", "upstream_error", "cut", "hangup", "proxy_error")


@pytest.mark.parametrize(("targets", "callers"), [(1, 1), (3, 10), (10, 10), (10, 50)])
def test_series_are_few(targets: int, callers: int) -> None:
    """Ten routes, each to some of ten upstreams, with limits, budgets and prices, whose calls end in every way."""
    upstreams, names = [f"u{number}" for number in range(10)], [f"c{number}" for number in range(callers)]
    places = [(f"r{route}", upstreams[(route + n) % 10], "model") for route in range(10) for n in range(targets)]
    telemetry = Telemetry(lambda _: None)
    prices = {"prices": {"*": {"input_per_million": 1}}, "provider": "openai"}
    tree = {"upstreams": dict.fromkeys(upstreams, prices)}
    telemetry.ledger.follow(PriceList(build(Document("test", tree), traits()).upstreams))
    telemetry.bind(upstreams, places, names)
    usage = {"prompt_tokens": 1, "completion_tokens": 1}
    for caller in names:
        for route, upstream, model in places[::targets]:
            for outcome in ENDINGS if caller == names[0] else ("ok",):
                for stream in (False, True):
                    record = CallRecord("id", 0.0, caller, route, upstream, model=model, model_label=model)
                    record.stream, record.outcome, record.attempts, record.first_token = stream, outcome, 1, 0.0
                    record.facts = Facts(content=True, finished=outcome == "ok", usage=usage)
                    telemetry.settle(record)
    for upstream in upstreams:
        for reason in ("ok", "hangup", "lost", "Overloaded", "Limited", "Broken", "CutShort", "TooSlow.first_token"):
            telemetry.attempted(upstream, reason)
    samples = [sample for family in telemetry.registry.collect() for sample in family.samples]
    assert len(samples) < 2000
    assert sum(sample.value for sample in samples if sample.name == "octet_cost_usd_total") > 0
