"""The compose stack as one thing: its services, what they answer, what they say."""

import json
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deploy.image.verify.engine import Engine, printing
from deploy.image.verify.report import Missing
from deploy.image.verify.running import told_in

INSIDE = Path(__file__).parent / "inside.py"
FETCH = """import sys, urllib.error, urllib.request as r
try:
    told = r.urlopen(sys.argv[1], timeout=10)
except urllib.error.HTTPError as error:
    told = error
print(told.status)
sys.stdout.write(told.read().decode())
"""


class Stack:
    """What compose.yaml describes, under a project of its own: another one of the same file is left alone."""

    def __init__(self, engine: Engine, file: Path, project: str) -> None:
        self._engine = engine
        self._command = (*compose_command(engine), "--ansi", "never", "--file", str(file), "--project-name", project)
        self._environment = engine.environment | {"GRAFANA_ADMIN_PASSWORD": secrets.token_urlsafe()}
        self.project = project
        self.settings: dict[str, Any] = json.loads(self.compose("config", "--format", "json"))

    def compose(self, *arguments: str, check: bool = True) -> str:
        """A compose command, to its end; returns what it printed."""
        done = subprocess.run(
            [*self._command, *arguments],
            check=False,
            capture_output=True,
            text=True,
            timeout=600,
            env=self._environment,
        )
        if check and done.returncode:
            raise RuntimeError(f"compose {' '.join(arguments)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def image(self, service: str) -> str:
        """The tag of a service's image."""
        return str(self.settings["services"][service]["image"])

    def states(self) -> dict[str, dict[str, Any]]:
        """What the engine says of each service's container."""
        names = self.compose("ps", "--all", "--quiet").split()
        found = json.loads(self._engine.ask("inspect", *names)) if names else []
        return {each["Config"]["Labels"]["com.docker.compose.service"]: each for each in found}

    def health(self) -> dict[str, str]:
        """How each service is."""
        return {name: state["State"].get("Health", {}).get("Status", "") for name, state in self.states().items()}

    def said(self, service: str) -> list[str]:
        """What a service has printed, line by line."""
        done = self._engine.run("logs", self.compose("ps", "--all", "--quiet", service).strip())
        return (done.stdout + done.stderr).splitlines()

    def inside(self, service: str, *command: str) -> str:
        """What a command prints in a service's container."""
        return self.compose("exec", "-T", service, *command).strip()

    def fetch(self, url: str) -> tuple[int, str]:
        """What a published port answers: a status and a body; 0 where nobody does."""
        command = self._engine.near(sys.executable, "-c", FETCH, url)
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        status, _, body = done.stdout.partition("\n")
        return int(status or 0), body

    def ask(self, url: str) -> Any:
        """The data in one of Prometheus's answers."""
        status, body = self.fetch(url)
        return json.loads(body)["data"] if status == 200 else {}

    @contextmanager
    def stream(self, port: int) -> Iterator[Iterator[str]]:
        """Ask for a streamed answer through a published port; yields the lines that arrive."""
        with printing(self._engine.near(sys.executable, str(INSIDE), "stream", "127.0.0.1", str(port))) as printed:
            yield map(told_in, printed)

    def left(self) -> list[str]:
        """Containers, volumes and networks that are still there."""
        label = f"label=com.docker.compose.project={self.project}"
        commands = (("ps", "--all", "--quiet"), ("volume", "ls", "--quiet"), ("network", "ls", "--quiet"))
        return [name for command in commands for name in self._engine.ask(*command, "--filter", label).split()]


def compose_command(engine: Engine) -> Sequence[str]:
    """Docker's compose, of version 2 or later.

    Raises:
        Missing: there is none.
    """
    if engine.run("compose", "version", check=False).returncode == 0:
        return ("docker", "compose")
    if (found := shutil.which("docker-compose")) is not None:
        told = subprocess.run([found, "version"], capture_output=True, text=True, check=False).stdout
        if re.search(r"\bv?[2-9]\d*\.\d+", told):
            return (found,)
    raise Missing(
        "there is no docker compose of version 2 or later: Debian 13's package docker-compose, or Docker's own"
    )
