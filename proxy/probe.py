"""Asks a sidecar whether it is ready: the health check of an image that has no curl."""

import argparse
import http.client
import socket
import sys
from collections.abc import Sequence
from typing import Any

PROMISE = "Exit 0 where a sidecar is ready, else 1."
ADMIN: Any = {"default": "127.0.0.1:8081", "metavar": "HOST:PORT", "help": "or unix:PATH (127.0.0.1:8081)"}
PATIENCE_SECONDS = 2.0


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=PATIENCE_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def main(arguments: Sequence[str]) -> int:
    """The command by itself; returns the exit code."""
    parser = argparse.ArgumentParser(prog="octet healthcheck", description=PROMISE)
    parser.add_argument("--admin", **ADMIN)
    return check(parser.parse_args(arguments))


def check(options: argparse.Namespace) -> int:
    """0 where the sidecar at `options.admin` is ready, else 1, with the reason on standard error."""
    trouble = ask(options.admin)
    if trouble is not None:
        sys.stderr.write(f"octet healthcheck: {options.admin}: {trouble}\n")
    return 0 if trouble is None else 1


def ask(address: str) -> str | None:
    """None where the sidecar is ready, else what is wrong.

    Args:
        address: of its admin side, as `--admin` takes it; an address of every interface is asked on this machine.
    """
    try:
        connection = _connection(address)
        connection.request("GET", "/readyz")
        status = connection.getresponse().status
    except (OSError, ValueError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
    return None if status == http.client.OK else f"not ready ({status})"


def _connection(address: str) -> http.client.HTTPConnection:
    if address.startswith("unix:"):
        return _UnixConnection(address.removeprefix("unix:"))
    host, _, port = address.rpartition(":")
    return http.client.HTTPConnection(host.strip("[]") or "127.0.0.1", int(port), timeout=PATIENCE_SECONDS)
