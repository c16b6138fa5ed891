"""The image, built from the Dockerfile as it stands."""

import json
import subprocess
import time
from pathlib import Path
from typing import Any, NamedTuple

from deploy.image.verify.contents import check_contents
from deploy.image.verify.engine import Engine
from deploy.image.verify.report import Report, say
from deploy.image.verify.running import check_running
from deploy.image.verify.standins import BASE, make_base

ROOT = Path(__file__).parents[3]
IMAGE = "octet:local"
COMMAND = ["serve", "/etc/octet/octet.yaml", "--admin", "0.0.0.0:8081"]
SOURCE = "https://git.example/octet"
LABELS = ("title", "description", "licenses", "version", "revision", "source")


class Wanted(NamedTuple):
    """What is asked for on the command line."""

    directory: Path
    fresh: bool = False
    base: str = ""
    build_base: str = ""


def build(engine: Engine, wanted: Wanted) -> float:
    """Build it; returns the seconds that took."""
    revision = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    arguments = {"REVISION": revision.stdout.strip() or "unknown", "SOURCE": SOURCE}
    arguments |= {"BASE": wanted.base} if wanted.base else {}
    arguments |= {"BUILD_BASE": wanted.build_base} if wanted.build_base else {}
    options = [part for name, value in arguments.items() for part in ("--build-arg", f"{name}={value}")]
    if engine.ours:
        make_base(engine, wanted.directory)
        options += ["--network", "host"]
    if wanted.fresh:
        options += ["--no-cache"]
    began = time.monotonic()
    engine.run("build", *options, "--tag", IMAGE, str(ROOT))
    return time.monotonic() - began


def verify(wanted: Wanted) -> int:
    """Build, look, run, look; returns the exit code."""
    report = Report()
    with Engine(wanted.directory, apart=False) as engine:
        version = engine.ask("version", "--format", "{{.Server.Version}}")
        say(f"      Docker {version}, {'started for this' if engine.ours else 'as it runs here'}")
        seconds = build(engine, wanted)
        skipped = "" if wanted.fresh else ", unchanged steps skipped"
        report.check("the Dockerfile builds", True, f"{seconds:.0f} s{skipped}")
        (image,) = json.loads(engine.ask("image", "inspect", IMAGE))
        check_facts(report, image["Config"])
        lock = (ROOT / "deploy/image/requirements.txt").read_text()
        version = image["Config"]["Labels"]["org.opencontainers.image.version"]
        check_contents(report, engine, IMAGE, wanted.base or BASE, lock, version)
        check_running(report, engine, IMAGE, COMMAND, wanted.directory)
    return report.end()


def check_facts(report: Report, config: dict[str, Any]) -> None:
    """What the image says of itself."""
    report.equal("it runs as a user without a name", config["User"], "10001:10001")
    report.equal("its entrypoint is octet, without a shell", config["Entrypoint"], ["octet"])
    report.equal("its command line is that of a sidecar", config["Cmd"], COMMAND)
    report.equal("its health check is octet's own", config["Healthcheck"]["Test"], ["CMD", "octet", "healthcheck"])
    report.equal("it is stopped by SIGTERM", config["StopSignal"], "SIGTERM")
    report.equal("its ports are named", sorted(config["ExposedPorts"]), ["8080/tcp", "8081/tcp"])
    labels = {name: config["Labels"].get(f"org.opencontainers.image.{name}") for name in LABELS}
    report.check("its labels are filled", all(labels.values()), f"{labels['version']}, {labels['revision'][:12]}")
    report.equal("its source is the one given", labels["source"], SOURCE)
