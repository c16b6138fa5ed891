"""Each metric of docs/metrics.md moves when what it counts happens."""

import asyncio
import re
from pathlib import Path

import pytest

from proxy.simulator import Simulator
from proxy.telemetry import Telemetry
from tests.monitoring.scene import Callers, configuration
from tests.redis_server import RedisServer
from tests.reload.conftest import Live, StartLive

ROOT = Path(__file__).parents[2]
STEADY = {  # what is told here, and stays as it is
    "octet_build_info": "says which version runs",
    "octet_connections_limit": "as configured",
    "octet_budget_limit_usd": "as configured",
    "octet_redis_configured": "as configured",
}
ELSEWHERE = {  # what is not told here, or does not happen: where its test is
    "octet_memory_limit_bytes": "tests/money/test_memory.py",
    "octet_access_lines_lost_total": "test_lines_that_are_lost",
    "octet_workers": "tests/workers",
    "octet_worker_restarts_total": "tests/workers",
}

LATER = {  # what reloads, and a Redis that goes, move
    "octet_config_generation",
    "octet_config_last_reload_successful",
    "octet_config_reloads_total",
    "octet_redis_up",
}


def documented() -> set[str]:
    """The metrics of the table."""
    return set(re.findall(r"^\| `(octet_\w+)`", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE))


class Moves:
    """What has been told of each metric, at any time."""

    def __init__(self, sidecar: Live) -> None:
        self._sidecar = sidecar
        self._seen: dict[str, set[tuple[str, ...]]] = {}  # by metric; nothing, where it was not there

    async def look(self) -> None:
        """Once."""
        async with self._sidecar.http.get(f"{self._sidecar.admin_url}/metrics") as response:
            text = await response.text()
        told: dict[str, list[str]] = {name: [] for name in documented()}
        for line in text.splitlines():
            if line.startswith("octet_"):
                name = re.sub(r"_(bucket|sum|count|created)$", "", line.partition("{")[0].partition(" ")[0])
                told.setdefault(name, []).append(line)
        for name, lines in told.items():
            self._seen.setdefault(name, set()).add(tuple(sorted(lines)))

    async def watch(self) -> None:
        """Again and again."""
        while True:
            await self.look()

    @property
    def moved(self) -> set[str]:
        """Metrics that have changed, or appeared."""
        return {name for name, states in self._seen.items() if len(states) > 1}

    @property
    def told(self) -> set[str]:
        """Metrics that were there."""
        return {name for name, states in self._seen.items() if states != {()}}


@pytest.mark.timeout(120)
async def test_everything_moves(simulator: Simulator, redis: RedisServer, live: StartLive) -> None:
    """After rounds of everything, with good and bad reloads and a Redis that goes, nothing stands still."""
    tree = configuration(simulator, redis.url)
    sidecar = await live(tree)
    moves = Moves(sidecar)
    await moves.look()
    watching = asyncio.create_task(moves.watch())
    try:
        async with Callers(sidecar) as callers:
            async with asyncio.timeout(60):
                while documented() - moves.moved - STEADY.keys() - ELSEWHERE.keys() - LATER:
                    await callers.round()
            await sidecar.take({**tree, "server": {**tree["server"], "drain_seconds": 3.0}})
            sidecar.path.write_bytes(b"upstreams: none")
            await sidecar.http.post(f"{sidecar.admin_url}/admin/reload")
            await redis.kill()
            for _ in range(3):
                await callers.ask("good")
            async with asyncio.timeout(20):
                while "octet_redis_up" not in moves.moved:  # noqa: ASYNC110  # looked at meanwhile
                    await asyncio.sleep(0)
        await moves.look()
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    names = documented()
    assert names - moves.moved == STEADY.keys() | ELSEWHERE.keys()
    assert STEADY.keys() <= moves.told <= names


def test_lines_that_are_lost() -> None:
    """What the log's reader did not take is counted."""
    lost = [0]
    telemetry = Telemetry(lambda _: None, lambda: lost[0])
    lost[0] = 3
    assert telemetry.registry.get_sample_value("octet_access_lines_lost_total") == 3
