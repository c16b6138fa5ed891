"""The soak, really run for a few seconds, and its sidecar."""

from pathlib import Path

from aiohttp import web

from proxy.config.load import build
from proxy.config.source import read
from proxy.providers import traits
from tests.conftest import Sidecar
from tests.load.__main__ import SOAK_CONFIG, SOAK_MODELS
from tests.load.locusts import run

SECONDS = 4.0
ARGUMENTS = ("soak", "--minutes", str(SECONDS / 60))
SETTINGS = {"CALLS": "0", "SECONDS": "", "USERS": "6", "THINK_SECONDS": "0.1"}


def test_every_model_has_its_way() -> None:
    """The names that are asked for are routes, or upstreams with a model; every route is asked for."""
    config = build(read(SOAK_CONFIG.read_bytes(), "soak.yaml", {"SIMULATOR_URL": "http://127.0.0.1:1"}), traits())
    routed = {str(model) for route in config.routes for model in route.match.model}
    asked = set(SOAK_MODELS.split(","))
    assert routed < asked
    assert {model.partition("/")[0] for model in asked - routed} < set(config.upstreams)


async def test_a_soak(tmp_path: Path) -> None:
    """Nothing is left of it; what was seen is told, in a table and in charts."""
    ran = await run(tmp_path, *ARGUMENTS, **SETTINGS)
    assert "held      left after the rest: nothing" in ran.told, ran.told
    assert "tasks: 2 before" in ran.told
    for name in ("generation", "streaming", "hangup", "health"):
        assert f"held      {name}: 100.00%" in ran.told
    assert (tmp_path / "soak.html").exists()
    header, *rows = (tmp_path / "soak.csv").read_text().splitlines()
    assert header.startswith("seconds,rss_mib,")
    assert len(rows) >= 2


async def test_a_sidecar_that_keeps_something(sidecar: Sidecar, tmp_path: Path) -> None:
    """A stream that stays open, and the run is not good."""

    async def metrics(request: web.Request) -> web.Response:
        async with sidecar.http.get(f"{sidecar.admin_url}/metrics") as response:
            text = await response.text()
        looks.append(text)
        return web.Response(text=text + f'octet_slots_in_use{{scope="x",name="y"}} {len(looks)}\n')

    looks: list[str] = []
    app = web.Application()
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    admin = f"http://127.0.0.1:{runner.addresses[0][1]}"
    ran = await run(tmp_path, *ARGUMENTS, "--rest", "1", "--host", sidecar.url, "--admin", admin, **SETTINGS)
    await runner.cleanup()
    assert ran.code == 1
    assert "NOT HELD  left after the rest: " in ran.told
    assert "slots" in ran.broken
