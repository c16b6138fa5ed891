"""What compose brings up beside the monitoring, which tests/monitoring/test_provisioning.py looks at."""

import asyncio
import json
import os
import re
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import yaml

from proxy.config import load
from proxy.providers import traits
from tests.deploy.image_file import DOCKERFILE, ROOT, form, stages
from tests.deploy.manifests import run
from tests.programs import tool

FOLDER = ROOT / "deploy" / "compose"
# A digest cannot be known before an image is built, and those of others are yours to pin; a bound on CPU would make
# streams stutter, where one on memory ends what has gone wrong.
ACCEPTED = {"CL-0019", "CL-0026"}
PATIENCE_SECONDS = 30


def services() -> dict[str, Any]:
    return dict(yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"])


def test_compose_lint_finds_nothing_else() -> None:
    """No known way to give a container too much is taken."""
    told = run(tool("compose-lint"), "--format", "json", str(FOLDER / "compose.yaml")).stdout
    found = set(re.findall(r"CL-\d{4}", told))
    assert found == ACCEPTED, told


def test_the_application_has_the_sidecar_on_loopback() -> None:
    """It shares the sidecar's network, asks the port that it listens at, and waits until it is ready."""
    app = services()["app"]
    assert app["network_mode"] == "service:octet"
    assert "ports" not in app
    base = urlsplit(app["environment"]["OPENAI_BASE_URL"])
    assert (base.hostname, base.path) == ("127.0.0.1", "/v1")
    assert f"0.0.0.0:{base.port}" in services()["octet"]["command"]
    assert app["depends_on"]["octet"] == {"condition": "service_healthy", "restart": True}


def test_the_sidecars_command_line_is_that_of_the_image() -> None:
    """But for callers from outside the container, which is where a published port comes from."""
    octet, (*_, final) = services()["octet"], stages(DOCKERFILE.read_text())[1]
    assert octet["command"] == [*form(final, "CMD"), "--listen", "0.0.0.0:8080"]
    assert "entrypoint" not in octet
    assert services()["upstreams"]["command"] == ["simulate", "--listen", "0.0.0.0:8082"]
    for name in ("octet", "app"):
        assert services()[name]["healthcheck"]["test"] == ["CMD", *form(final, "HEALTHCHECK")]


def test_the_configuration_is_mounted_as_a_folder() -> None:
    """A file alone would stay the old one when an editor puts a new one in its place, and no reload would see it."""
    assert services()["octet"]["volumes"] == ["./octet:/etc/octet:ro"]
    assert [path.name for path in (FOLDER / "octet").iterdir()] == ["octet.yaml"]


def test_a_stop_waits_for_the_drain() -> None:
    """Docker kills five seconds after the sidecar has given up, never before."""
    server = load(str(FOLDER / "octet" / "octet.yaml"), traits(), {}).server
    grace = float(services()["octet"]["stop_grace_period"].removesuffix("s"))
    assert grace >= server.drain_delay_seconds + server.drain_seconds + 5


async def lines(process: Process) -> AsyncIterator[str]:
    assert process.stdout is not None
    async for line in process.stdout:
        yield line.decode()


@asynccontextmanager
async def started(*command: str, **environ: str) -> AsyncIterator[Process]:
    """A Python program with nothing of ours in its environment."""
    clean = {"PATH": os.defpath, "PYTHONPATH": str(ROOT)} | environ
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=PIPE, stderr=PIPE, env=clean)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@asynccontextmanager
async def sidecar() -> AsyncIterator[tuple[Process, str]]:
    """The demo at a port of its own, and its base URL."""
    async with started("-m", "proxy", "demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0") as process:
        assert process.stderr is not None
        told = ""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (found := re.search(r"base URL +(\S+)", told)) is None or "routes" not in told:
                told += (await process.stderr.readline()).decode()
        yield process, found[1]


async def test_the_stand_in_asks_and_is_answered() -> None:
    """In streams and in one piece, by every model; SIGTERM ends it well."""
    models = {"gpt-4o-mini", "claude-haiku-4-5", "demo"}
    wanted = {f"{model}{kind}" for model in models for kind in ("", " (streamed)")}
    app = str(FOLDER / "app.py")
    async with sidecar() as (_, url), started(app, OPENAI_BASE_URL=url, PAUSE_SECONDS="0") as process:
        asked: set[str] = set()
        async with asyncio.timeout(PATIENCE_SECONDS):
            async for line in lines(process):
                asked.add(line.partition(":")[0])
                assert len(line.split()) > 5, line
                if asked == wanted:
                    break
        process.terminate()
        assert (await process.communicate())[1] == b""
        assert process.returncode == 0
    assert asked == wanted


async def test_the_stand_in_ends_with_its_sidecar() -> None:
    """It is started anew then, beside the new one: in the old one's network it would be alone for ever."""
    app = str(FOLDER / "app.py")
    async with sidecar() as (octet, url), started(app, OPENAI_BASE_URL=url, PAUSE_SECONDS="0") as process:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await anext(lines(process))
            octet.kill()
            _, told = await process.communicate()
    assert process.returncode == 1
    assert b"Error" in told


async def test_the_stand_in_tells_of_failures_and_goes_on() -> None:
    """A call that is refused is told with its status, and the next one is made."""
    app = str(FOLDER / "app.py")
    async with sidecar() as (_, url):
        wrong = f"{url}/nowhere"
        async with started(app, OPENAI_BASE_URL=wrong, PAUSE_SECONDS="0") as process:
            async with asyncio.timeout(PATIENCE_SECONDS):
                answers = lines(process)
                told = [await anext(answers) for _ in range(3)]
            assert process.returncode is None
    assert all(re.search(r": 404 \{", line) for line in told), told
    assert json.loads(told[0].split(" 404 ", 1)[1])["error"]["type"] == "invalid_request_error"
