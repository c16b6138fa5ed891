"""Sidecars with prices, and what they have counted."""

from collections.abc import Mapping
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from proxy.simulator import Behaviour, Simulator
from tests.conftest import MODELS, Sidecar
from tests.edge.wire import call, request

Labels = Mapping[str, str]

INPUT, OUTPUT = 1000.0, 3000.0  # US dollars for a million: a token of a prompt is 0.001, one of an answer 0.003
PRICES = {"*": {"input_per_million": INPUT, "output_per_million": OUTPUT}}
DOLLAR = Behaviour(tokens=4)  # answers whose cost is easily told


def priced(*names: str, **more: Any) -> dict[str, Any]:
    """Upstreams that have prices."""
    return {name: {"prices": PRICES, **more} for name in names or MODELS}


def route(name: str = "openai", upstream: str = "openai", **rules: Any) -> dict[str, Any]:
    """A route of any model to one upstream, without a second try."""
    return {"name": name, "targets": [{"upstream": upstream}], "retry": {"attempts": 1}, **rules}


def cost_of(line: Mapping[str, Any]) -> float:
    """What the call of an access line costs at these prices."""
    return float(line["prompt_tokens"] * INPUT + line["completion_tokens"] * OUTPUT) / 1e6


async def samples(sidecar: Sidecar, name: str) -> dict[tuple[tuple[str, str], ...], float]:
    """The series of a metric, by their labels."""
    async with sidecar.http.get(f"{sidecar.admin_url}/metrics") as response:
        text = await response.text()
    return {
        tuple(sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


async def total(sidecar: Sidecar, name: str, /, **labels: str) -> float:
    """The sum of a metric's series that have these labels."""
    found = await samples(sidecar, name)
    return sum(value for known, value in found.items() if labels.items() <= dict(known).items())


async def ask(sidecar: Sidecar, key: str = "", **fields: Any) -> int:
    """The status of a call's answer, which is read to its end."""
    head, _ = await call(sidecar, request(*([f"authorization: Bearer {key}"] if key else []), **fields))
    return head.status


def always(simulator: Simulator, *names: str, **fields: Any) -> None:
    """Have upstreams answer so from now on."""
    for name in names or MODELS:
        simulator.always(name, Behaviour(**fields))
