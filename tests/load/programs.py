"""The processes of a run: the demo, a simulator, a sidecar, Locust. Each is ended with the run."""

import contextlib
import math
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

from tests.load.settings import PREFIX

ROOT = Path(__file__).parent.parent.parent
LOOK_SECONDS = 0.05  # between two looks at what a process has said
START_SECONDS = 30.0
LOOPBACK = "127.0.0.1:0"


class StartError(Exception):
    """A program that is missing, or has ended before it began; the message is for the person who runs us."""


class Program:
    """A process of ours; what it says on standard error goes to a file, and Ctrl-C is not for it."""

    def __init__(self, command: Sequence[str], log: Path, **environ: str) -> None:
        self._log, self._name = log, " ".join(command)
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdout=subprocess.DEVNULL,
                stderr=file,
                env={**os.environ, **environ},
                process_group=0,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def said(self, pattern: str) -> str:
        """Wait until it has said this; gives the pattern's group."""
        until = time.monotonic() + START_SECONDS
        while (found := re.search(pattern, text := self._log.read_text())) is None:
            if self._process.poll() is not None or time.monotonic() > until:
                raise StartError(f"{self._name} did not start:\n{text}")
            time.sleep(LOOK_SECONDS)
        return found[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()


def demo(folder: Path) -> Program:
    """The sidecar and its simulated upstreams, in one process."""
    return Program(_octet("demo", "--listen", LOOPBACK, "--admin", LOOPBACK), folder / "octet.log")


def simulator(folder: Path) -> Program:
    """The simulated upstreams alone."""
    return Program(_octet("simulate", "--listen", LOOPBACK), folder / "simulator.log")


def sidecar(folder: Path, config: Path, upstreams: str, tasks: Path) -> Program:
    """A sidecar in front of simulated upstreams; it writes to a file how many tasks it has."""
    command = [sys.executable, "-m", "tests.load.watched", str(tasks), "serve", str(config)]
    return Program([*command, "--listen", LOOPBACK, "--admin", LOOPBACK], folder / "octet.log", SIMULATOR_URL=upstreams)


def host_of(program: Program) -> str:
    """Where a sidecar of ours listens, without the path."""
    return program.said(r"base URL +(\S+)/v1")


def admin_of(program: Program) -> str:
    return program.said(r"admin +(\S+)/metrics")


def locust_path() -> str | None:
    """Where Locust is, if it is installed: it is none of the sidecar's own dependencies."""
    places = (str(ROOT / ".tools" / "bin"), os.environ.get("PATH", ""))
    return shutil.which("locust", path=os.pathsep.join(places))


@contextlib.contextmanager
def locust(host: str, settings: Mapping[str, str], report: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A run; its report goes to a folder, its exit code is the verdict.

    Raises:
        StartError: it is not installed.
    """
    binary = locust_path()
    if binary is None:
        raise StartError("locust is not installed: make tools")
    ours = {f"{PREFIX}{name.upper()}": value for name, value in settings.items()}
    command = [binary, "--headless", "--only-summary", "--loglevel", "WARNING", "--exit-code-on-error", "1"]
    command += ["-f", "tests/load/locustfile.py", "--host", host]
    command += ["--users", settings["users"], "--spawn-rate", settings["spawn_rate"]]
    command += ["--run-time", f"{math.ceil(float(settings['seconds']))}s"]
    command += ["--stop-timeout", f"{math.ceil(float(settings['timeout_seconds'])) + 1}s"]  # what has begun may end
    command += ["--html", str(report / "report.html")]
    running = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), **ours})
    try:
        yield running
    finally:
        running.terminate()
        running.wait()


def _octet(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "proxy", *arguments]
