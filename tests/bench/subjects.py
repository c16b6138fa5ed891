"""What is measured: processes on a core of their own, and what the kernel says of them."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

ROOT = Path(__file__).parent.parent.parent
KEY = "bench-key"
DIALECT = "x-bench"

OCTET = """\
server:
  listen: ["127.0.0.1:{port}"]
  admin: "127.0.0.1:{admin}"
  callers:
    - {{name: other, key: other-key}}
    - name: bench
      key: {key}
      models: ["bench-*", "alias*", "kept*"]
      limits: {{concurrent: 10000, requests_per_minute: 100000000, tokens_per_minute: 100000000000}}
upstreams:
  openai: {{provider: openai, base_url: "http://127.0.0.1:{upstream}/v1", api_key: sk-ours, headers: {{x-team: bench}},
           limits: {{concurrent: 10000, requests_per_minute: 100000000, tokens_per_minute: 100000000000}}}}
  claude: {{provider: anthropic, base_url: "http://127.0.0.1:{upstream}", api_key: sk-ours}}
  ollama: {{provider: ollama, base_url: "http://127.0.0.1:{upstream}", list_models: false}}
routes:
  - {{name: batch, match: {{model: "batch-*"}}, targets: [{{upstream: openai}}]}}
  - {{name: other, match: {{caller: [other]}}, targets: [{{upstream: openai}}]}}
  - {{name: claude, match: {{headers: {{x-bench: anthropic}}}}, targets: [{{upstream: claude}}]}}
  - {{name: ollama, match: {{headers: {{x-bench: ollama}}}}, targets: [{{upstream: ollama}}]}}
  - name: kept
    match: {{model: kept}}
    targets: [{{upstream: openai, model: bench-600}}]
    cache: {{any_temperature: true}}
  - {{name: alias, match: {{model: alias}}, targets: [{{upstream: openai, model: bench-50x20}}]}}
  - {{name: alias-600, match: {{model: alias-600}}, targets: [{{upstream: openai, model: bench-600}}]}}
  - name: bench
    match: {{model: "bench-*"}}
    targets: [{{upstream: openai}}]
    fallback: [{{upstream: claude, model: claude-haiku-4-5}}]
"""

NGINX = """\
worker_processes 1; daemon off; error_log stderr crit; pid {folder}/nginx.pid;
events {{ worker_connections 4096; }}
http {{
  access_log off; client_max_body_size 64m; client_body_temp_path {folder}; proxy_temp_path {folder};
  fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
  client_body_buffer_size 2m; keepalive_requests 100000000;
  upstream mock {{ server 127.0.0.1:{upstream}; keepalive 512; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=2048;
    location / {{ proxy_pass http://mock; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; }}
  }}
}}
"""


@dataclass
class Subject:
    """A server under measurement; `process` is None when somebody else started it."""

    name: str
    port: int
    pid: int
    admin_port: int = 0
    ready_seconds: float = 0.0
    process: subprocess.Popen[bytes] | None = None

    def family(self) -> list[int]:
        """The process, its children, and theirs."""
        family = [self.pid]
        for pid in family:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                for thread in Path(f"/proc/{pid}/task").iterdir():  # whichever of them started a process has it
                    family += map(int, thread.joinpath("children").read_text().split())
        return family

    def cpu_seconds(self) -> float:
        """CPU time of the process and its children so far, as the scheduler counts it."""
        return sum(time.clock_gettime((~pid) << 3 | 2) for pid in self.family())

    def resident_bytes(self) -> int:
        """Resident set of the process and its children."""
        return sum(
            int(found[1]) * 1024
            for pid in self.family()
            if (found := re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text()))
        )

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)


class Workshop:
    """Starts the mock upstream on one core and the subjects on another.

    Args:
        folder: for configurations and logs.
    """

    def __init__(self, folder: Path, upstream_port: int | None = None) -> None:
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2:
            raise SystemExit("the bench needs two cores: one for the subject, one for the load")
        self.folder = folder
        self._cores = cores
        self._core, self._load_core = cores[0], cores[1]
        os.sched_setaffinity(0, {self._load_core})
        self.upstream_port = upstream_port or free_port()
        self._running: list[Subject] = []
        self._start("upstream", self.upstream_port, _python("tests.bench.upstream", self.upstream_port), pinned=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for subject in reversed(self._running):
            subject.stop()
        os.sched_setaffinity(0, self._cores)

    def octet(self) -> Subject:
        """The sidecar, everything on; its access log goes to a file."""
        port, admin = free_port(), free_port()
        config = self.folder / f"octet-{port}.yaml"
        config.write_text(OCTET.format(port=port, admin=admin, upstream=self.upstream_port, key=KEY))
        subject = self._start("octet", port, _python("proxy", "serve", config))
        subject.admin_port = admin
        return subject

    def serve(self, name: str, port: int, config: Path) -> Subject:
        """The sidecar by another file, on any core."""
        subject = self._start(name, port, _python("proxy", "serve", config))
        for pid in subject.family():
            os.sched_setaffinity(pid, self._cores)
        return subject

    def reference(self, kind: str) -> Subject:
        """`alone` or `session`."""
        port = free_port()
        return self._start(kind, port, _python("tests.bench.references", kind, port, self.upstream_port))

    def nginx(self) -> Subject | None:
        """nginx as a plain reverse proxy, where it is installed."""
        binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
        if binary is None:
            return None
        port = free_port()
        config = self.folder / "nginx.conf"
        config.write_text(NGINX.format(port=port, folder=self.folder, upstream=self.upstream_port))
        return self._start("nginx", port, [binary, "-c", str(config), "-p", str(self.folder)])

    def peer(self, name: str, port: int) -> Subject:
        """A gateway that is running already, in front of our mock upstream."""
        return Subject(name, port, listener(port))

    def _start(self, name: str, port: int, command: Sequence[str], *, pinned: bool = True) -> Subject:
        began = time.perf_counter()
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
        os.sched_setaffinity(process.pid, {self._core if pinned else self._load_core})
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if process.poll() is not None:
                raise SystemExit(f"{name} did not start: {(self.folder / f'{name}.log').read_text()}")
            time.sleep(0.002)
        subject = Subject(name, port, process.pid, ready_seconds=time.perf_counter() - began, process=process)
        self._running.append(subject)
        return subject


def _python(module: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", module, *map(str, arguments)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listener(port: int) -> int:
    """The process that listens at a port of this machine."""
    inodes = {
        f"socket:[{fields[9]}]"
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        for fields in map(str.split, Path(table).read_text().splitlines()[1:])
        if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port
    }
    owners = [pid for pid, link in _open_files() if link in inodes]
    if not owners:
        raise SystemExit(f"nobody listens at port {port}")
    return min(owners)


def _open_files() -> Iterator[tuple[int, str]]:
    for folder in Path("/proc").glob("[0-9]*/fd"):
        with contextlib.suppress(OSError):
            for descriptor in folder.iterdir():
                with contextlib.suppress(OSError):
                    yield int(folder.parent.name), str(descriptor.readlink())
