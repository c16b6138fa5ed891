"""A thousand mixed calls: our books are the upstreams' own."""

import asyncio
import random
from typing import Any

import pytest

from proxy.simulator import Behaviour, Simulator
from tests.conftest import MODELS, Lines, Sidecar, Start

PRICES: dict[str, tuple[float, float]] = {"openai": (2.5, 10.0), "anthropic": (1.0, 5.0), "vllm": (0.2, 0.4)}
TOLD = ("openai", "anthropic", "vllm", "ollama")
CLOSE = 0.05  # of what is estimated
WORDS = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda ny xi omicron rho sigma tau upsilon".split()


def routes() -> list[dict[str, Any]]:
    """One for each dialect, one that keeps answers, and one with a second target."""
    plain = [
        {"name": name, "match": {"model": MODELS[name]}, "targets": [{"upstream": name}], "retry": {"attempts": 1}}
        for name in TOLD
    ]
    target = {"upstream": "openai", "model": MODELS["openai"]}
    other = {"upstream": "anthropic", "model": MODELS["anthropic"]}
    kept = {"name": "kept", "match": {"model": "kept"}, "targets": [target], "cache": {"any_temperature": True}}
    return [*plain, kept, {"name": "two", "match": {"model": "two"}, "targets": [target, other]}]


def priced() -> dict[str, Any]:
    """Upstreams with prices; Ollama has none."""
    return {
        name: {"prices": {"*": {"input_per_million": prompt, "output_per_million": answer}}}
        for name, (prompt, answer) in PRICES.items()
    }


class Scene:
    """Callers who ask all at once, and what was told of their calls."""

    def __init__(self, sidecar: Sidecar, simulator: Simulator) -> None:
        self.sidecar, self.simulator = sidecar, simulator
        self.chance = random.Random(7)
        self.asked = 0

    def prompt(self) -> str:
        """Words, some to many."""
        return " ".join(self.chance.choices(WORDS, k=self.chance.randrange(5, 120)))

    async def ask(self, model: str, count: int, *, stream: bool = False, prompts: int | None = None) -> None:
        """Answers that are read to their end."""
        texts = [self.prompt() for _ in range(prompts or count)]
        room = asyncio.Semaphore(16)

        async def one(text: str) -> None:
            async with room:
                message = [{"role": "user", "content": text}]
                response = await self.sidecar.chat(model, messages=message, stream=stream)
                assert response.status == 200
                assert (b"[DONE]" in await response.read()) is stream

        await asyncio.gather(*(one(texts[number % len(texts)]) for number in range(count)))
        self.asked += count

    async def leave(self, model: str, count: int, after: int) -> None:
        """Streams that their callers leave after so many contents."""

        async def one() -> None:
            message = [{"role": "user", "content": self.prompt()}]
            response = await self.sidecar.chat(model, messages=message, stream=True)
            seen = 0
            async with asyncio.timeout(20):
                while seen < after:
                    line = await response.content.readline()
                    assert line, "the stream ended by itself"
                    seen += b'"content":"' in line and b'"content":""' not in line
            response.close()

        await asyncio.gather(*(one() for _ in range(count)))
        self.asked += count

    async def total(self, name: str, **labels: str) -> float:
        """The sum of a metric's series."""
        async with self.sidecar.http.get(f"{self.sidecar.admin_url}/metrics") as response:
            text = await response.text()
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        lines = [line for line in text.splitlines() if line.startswith(name + "{")]
        return sum(float(line.rpartition(" ")[2]) for line in lines if all(each in line for each in wanted))


@pytest.mark.timeout(180)
async def test_a_thousand_calls(start: Start, simulator: Simulator) -> None:
    """Tokens and money are the simulator's own: exact where usage was told, else within five of a hundred."""
    scene = Scene(await start(upstreams=priced(), routes=routes()), simulator)
    lines: Lines = scene.sidecar.lines
    for name in TOLD:
        await scene.ask(MODELS[name], 60)
        await scene.ask(MODELS[name], 60, stream=True)
    await scene.ask("kept", 100, prompts=20)
    await scene.ask("kept", 50, prompts=10, stream=True)
    simulator.always("openai", Behaviour(status=500))
    await scene.ask("two", 60)
    await scene.ask("two", 40, stream=True)
    simulator.always("openai", Behaviour())
    await lines.wait_for(scene.asked)
    for name in TOLD:
        books = simulator.report.dialects[name]
        for direction, count in (("prompt", books.prompt_tokens), ("completion", books.completion_tokens)):
            told = await scene.total("octet_tokens_total", upstream=name, direction=direction, source="provider")
            assert told == count, (name, direction)
        cost = await scene.total("octet_cost_usd_total", upstream=name)
        assert cost == pytest.approx(dollars(simulator, name), rel=1e-9), name
    assert await scene.total("octet_unpriced_total", upstream="ollama", reason="price") == 120
    assert await scene.total("octet_cost_saved_usd_total") > 0

    simulator.report.reset()
    before = {name: await scene.total("octet_cost_usd_total", upstream=name) for name in PRICES}
    for name in ("openai", "anthropic", "vllm"):
        for after in (3, 11, 17, 24, 30):
            simulator.always(name, Behaviour(tokens=40, stall=after))
            await scene.leave(MODELS[name], 15, after)
    simulator.always("vllm", Behaviour(usage="none"))
    await scene.ask(MODELS["vllm"], 25)
    await scene.ask(MODELS["vllm"], 20, stream=True)
    await lines.wait_for(scene.asked)
    assert scene.asked == 1000
    await simulator.report.wait_for(lambda report: report.open_calls == 0)
    for name in PRICES:
        books = simulator.report.dialects[name]
        for direction, count in (("prompt", books.prompt_tokens), ("completion", books.completion_tokens)):
            told = await unsure(scene, name, direction)
            assert told == pytest.approx(count, rel=CLOSE), (name, direction)
        cost = await scene.total("octet_cost_usd_total", upstream=name) - before[name]
        assert cost == pytest.approx(dollars(simulator, name), rel=CLOSE), name
    prompts = await scene.total("octet_tokens_total", upstream="anthropic", direction="prompt", source="partial")
    assert prompts == simulator.report.dialects["anthropic"].prompt_tokens  # its streams begin with them

    assert sum(line["cost_usd"] or 0 for line in lines.kept) == pytest.approx(await scene.total("octet_cost_usd_total"))
    assert {line["usage_source"] for line in lines.kept} == {"provider", "partial", "estimated", None}
    unpriced = [line for line in lines.kept if line["upstream"] == "ollama"]
    assert {line["cost_usd"] for line in unpriced} == {None}
    assert {line["cost_usd"] for line in lines.kept if line["cache"] in ("memory", "joined")} == {0}


async def unsure(scene: Scene, name: str, direction: str) -> float:
    """Tokens that no upstream told."""
    counts = [
        await scene.total("octet_tokens_total", upstream=name, direction=direction, source=source)
        for source in ("partial", "estimated")
    ]
    return sum(counts)


def dollars(simulator: Simulator, name: str) -> float:
    """What the upstream would ask for."""
    books, (prompt, answer) = simulator.report.dialects[name], PRICES.get(name, (0.0, 0.0))
    return (books.prompt_tokens * prompt + books.completion_tokens * answer) / 1e6
