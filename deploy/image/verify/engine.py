"""A Docker engine: the one that runs here, or one of our own for the time of the verification."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Self, cast

from deploy.image.verify.report import Missing, eventually

PROGRAMS = ("dockerd", "containerd", "runc", "docker", "unshare", "nsenter", "mmdebstrap")
PACKAGES = "docker.io, containerd, runc and mmdebstrap (and iptables for compose)"
# Some kernels have version 1 and version 2 of control groups at once, which no engine likes: it gets to see one.
ONE_CGROUP_VERSION = "umount /sys/fs/cgroup/unified 2>/dev/null; "
PATIENCE_SECONDS = 900  # with the slowest of commands, a build
ALONE = ("--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-masq=false")


class Engine:
    """Docker, and the network in which it publishes ports.

    Args:
        directory: where an engine of our own keeps everything.
        apart: give that engine a network of its own, without a way out; else it has the machine's, to build with, and
            leaves the machine's firewall and bridges alone.
    """

    def __init__(self, directory: Path, *, apart: bool) -> None:
        self.ours = not answers()
        self._directory = directory
        self._apart = apart
        self._daemon: subprocess.Popen[bytes] | None = None
        self._environment = dict(os.environ)
        if self.ours:
            self._socket = directory / "docker.sock"
            self._environment["DOCKER_HOST"] = f"unix://{self._socket}"

    def __enter__(self) -> Self:
        if self.ours:
            self._start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._daemon is not None:
            self._daemon.send_signal(signal.SIGTERM)
            self._daemon.wait(60)

    def _start(self) -> None:
        missing = [name for name in PROGRAMS if shutil.which(name) is None]
        if self._apart and shutil.which("iptables") is None:
            missing.append("iptables")
        if missing:
            raise Missing(f"no Docker engine runs, and one of our own needs {', '.join(missing)}: Debian's {PACKAGES}")
        if os.geteuid() != 0:
            raise Missing("no Docker engine runs, and one of our own needs root")
        self._directory.mkdir(parents=True, exist_ok=True)
        places = ("--data-root", "data", "--exec-root", "exec", "--pidfile", "docker.pid")
        options = [each if each.startswith("--") else str(self._directory / each) for each in places]
        command = ("dockerd", "-H", self._environment["DOCKER_HOST"], *options, *(() if self._apart else ALONE))
        network, first = (("--net",), "ip link set lo up; ") if self._apart else ((), "")
        with (self._directory / "dockerd.log").open("wb") as log:
            self._daemon = subprocess.Popen(
                ["unshare", "--mount", *network, "sh", "-c", f'{ONE_CGROUP_VERSION}{first}exec "$0" "$@"', *command,
                 "--exec-opt", "native.cgroupdriver=cgroupfs"],
                stdout=log, stderr=log,
            )  # fmt: skip
        if not eventually(lambda: answers(self._environment) or self._daemon_ended()) or self._daemon_ended():
            last = (self._directory / "dockerd.log").read_text().strip().splitlines()[-1:]
            raise Missing(f"dockerd does not start, see {self._directory / 'dockerd.log'}: {''.join(last)}")

    def _daemon_ended(self) -> bool:
        return self._daemon is not None and self._daemon.poll() is not None

    def run(self, *arguments: str, given: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        """A docker command, to its end.

        Args:
            given: its input.

        Raises:
            RuntimeError: it failed, and was to be checked.
        """
        done = subprocess.run(
            ["docker", *arguments],
            check=False, capture_output=True, text=True, input=given, timeout=PATIENCE_SECONDS, env=self._environment,
        )  # fmt: skip
        if check and done.returncode:
            raise RuntimeError(f"docker {' '.join(arguments)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def ask(self, *arguments: str) -> str:
        """What a docker command that must succeed prints."""
        return self.run(*arguments).stdout.strip()

    @contextmanager
    def begin(self, *arguments: str) -> Iterator[IO[bytes]]:
        """A docker command that goes on; yields what it prints."""
        with printing(["docker", *arguments], self._environment) as printed:
            yield printed

    def near(self, *command: str) -> Sequence[str]:
        """A command as it is to be run where this engine publishes ports."""
        if self._daemon is None or not self._apart:
            return command
        return ("nsenter", f"--net=/proc/{self._daemon.pid}/ns/net", *command)

    @property
    def environment(self) -> dict[str, str]:
        """For programs that find the engine by themselves."""
        return dict(self._environment)

    def remove(self, *containers: str) -> None:
        """End containers, if they are there."""
        self.run("rm", "--force", "--volumes", *containers, check=False)


@contextmanager
def printing(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Iterator[IO[bytes]]:
    """A program that goes on; yields what it prints, and ends it."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        try:
            yield cast("IO[bytes]", process.stdout)
        finally:
            process.terminate()


def answers(environment: dict[str, str] | None = None) -> bool:
    """Whether a Docker engine can be asked."""
    if shutil.which("docker") is None:
        return False
    asked = subprocess.run(["docker", "info", "--format", "{{.ServerVersion}}"], capture_output=True, env=environment)
    return asked.returncode == 0 and bool(asked.stdout.strip())
