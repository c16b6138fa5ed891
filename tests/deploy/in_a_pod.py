"""Starts a sidecar's command line where everything is as in its pod, and prints what is seen of it, as JSON.

To be run in namespaces of its own: it mounts over /etc and /run, and makes all else read-only.
"""

import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

POD = "10.1.2.3"  # the kubelet and Prometheus ask here; no peer on loopback
CONFIG, SECRETS = Path("/etc/octet"), Path("/run/secrets/octet")
PATIENCE_SECONDS = 30.0
UPSTREAM_PORT = 9000
YAML = """
upstreams:
  here: {{provider: openai, base_url: "http://127.0.0.1:9000/v1", api_key_file: /run/secrets/octet/openai}}
routes:
  - name: {name}
    targets: [{{upstream: here}}]
"""


class Upstream(BaseHTTPRequestHandler):
    """Answers with the key that it was shown."""

    def do_POST(self) -> None:
        """Any call."""
        self.rfile.read(int(self.headers["Content-Length"]))
        message = {"role": "assistant", "content": self.headers["Authorization"]}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        body = json.dumps({"id": "a", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]})
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        """Nothing."""


def swap(folder: Path, files: Mapping[str, str]) -> None:
    """Bring files as the kubelet does: a new directory, and a link that moves to it."""
    data = folder / f"..{time.monotonic_ns()}"
    data.mkdir()
    for name, text in files.items():
        (data / name).write_text(text)
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    (folder / "..new").symlink_to(data.name)
    (folder / "..new").rename(folder / "..data")


def ask(host: str, port: int, path: str, body: Any = None) -> tuple[int, str, Mapping[str, str]]:
    """Status, text and headers of an answer."""
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        given = None if body is None else json.dumps(body)
        connection.request("GET" if body is None else "POST", path, given, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read().decode(), {key.lower(): value for key, value in response.getheaders()}
    finally:
        connection.close()


def call() -> tuple[str, str]:
    """The key that a call through the sidecar went with, and the route that it took."""
    question = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
    status, text, headers = ask("127.0.0.1", 8080, "/v1/chat/completions", question)
    if status != 200:
        raise AssertionError(text)
    return json.loads(text)["choices"][0]["message"]["content"], headers["x-octet-route"]


def until(holds: Callable[[], bool]) -> bool:
    """Whether it comes to hold in time."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            if holds():
                return True
        except OSError:
            pass
        time.sleep(0.05)
    return False


def refused(host: str, port: int) -> bool:
    """Whether nobody listens there."""
    try:
        ask(host, port, "/readyz")
    except ConnectionRefusedError:
        return True
    return False


def prepare() -> None:
    """What the kubelet does before it starts the container."""
    for folder in ("/etc", "/run"):
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", "/"], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["ip", "address", "add", f"{POD}/32", "dev", "lo"], check=True)
    CONFIG.mkdir(parents=True)
    SECRETS.mkdir(parents=True)
    swap(CONFIG, {"octet.yaml": YAML.format(name="first")})
    swap(SECRETS, {"openai": "old\n"})


def watch(sidecar: subprocess.Popen[bytes]) -> dict[str, Any]:
    """What is seen from outside, while the configuration and the key change."""
    seen: dict[str, Any] = {"ready": until(lambda: ask(POD, 8081, "/readyz")[0] == 200)}
    seen |= {path: ask(POD, 8081, path)[0] for path in ("/healthz", "/metrics", "/admin/config")}
    seen["data port is closed to others"] = refused(POD, 8080)
    seen["first call"] = call()
    swap(SECRETS, {"openai": "new\n"})
    swap(CONFIG, {"octet.yaml": YAML.format(name="second")})
    seen["taken over"] = until(lambda: call() == ("Bearer new", "second"))
    sidecar.terminate()
    seen["exit code"] = sidecar.wait(10)  # half of drain_seconds: with no call open, nothing is waited for
    return seen


def main() -> None:
    """The command line is that of the sidecar."""
    prepare()
    threading.Thread(
        target=ThreadingHTTPServer(("127.0.0.1", UPSTREAM_PORT), Upstream).serve_forever, daemon=True
    ).start()
    with subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL) as sidecar:
        try:
            seen = watch(sidecar)
        finally:
            sidecar.kill()
    sys.stdout.write(json.dumps(seen))


if __name__ == "__main__":
    main()
