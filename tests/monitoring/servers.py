"""Prometheus and Alertmanager of our own: processes on loopback, and what they tell."""

import asyncio
import json
import math
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import aiohttp
import yaml

from tests.programs import tool
from tests.redis_server import free_port

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus" / "rules"

LOOK_SECONDS = 0.1  # between two questions
ALERTMANAGER = ("alertmanager", "prometheus-alertmanager")  # its name, and the one that some distributions give it

Found = TypeVar("Found")


async def until(ask: Callable[[], Awaitable[Found]], patience: float = 30.0) -> Found:
    """The first answer that is not empty.

    Raises:
        TimeoutError: there was none, in so many seconds.
    """
    async with asyncio.timeout(patience):
        while not (found := await ask()):  # noqa: ASYNC110  # it is another process, which tells nobody
            await asyncio.sleep(LOOK_SECONDS)
    return found


class Server:
    """One process, and its HTTP interface.

    Args:
        directory: where its configuration and its data are.
    """

    names: tuple[str, ...]
    ready = "/-/ready"

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.address = ""
        self._process: Process | None = None
        self.http: aiohttp.ClientSession

    def arguments(self) -> Sequence[str]:
        """Of its command line, for `address`."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        self.http = aiohttp.ClientSession()
        while not await self._started():
            pass  # somebody else has just taken the port
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            await self._process.communicate()
        await self.http.close()

    async def _started(self) -> bool:
        self.address = f"127.0.0.1:{await free_port()}"
        log = (self.directory / "log").open("wb")
        with log:
            self._process = await asyncio.create_subprocess_exec(
                tool(*self.names), *self.arguments(), cwd=self.directory, stdout=DEVNULL, stderr=log
            )
        ended = asyncio.create_task(self._process.wait())
        try:
            await until(lambda: self._is_ready(ended))
        finally:
            ended.cancel()
        if self._process.returncode is None:
            return True
        told = (self.directory / "log").read_text()
        assert "address already in use" in told, told
        return False

    async def _is_ready(self, ended: asyncio.Task[int]) -> bool:
        try:
            async with self.http.get(f"http://{self.address}{self.ready}") as response:
                return ended.done() or response.status == 200
        except aiohttp.ClientConnectionError:
            return ended.done()

    async def get(self, path: str, **parameters: str) -> Any:
        """The JSON at a path."""
        async with self.http.get(f"http://{self.address}{path}", params=parameters) as response:
            told = await response.json()
        assert response.status == 200, told
        return told


class Prometheus(Server):
    """One that scrapes, judges and tells at the pace of tests.

    Args:
        target: the admin address to scrape.
        rules: texts of rule files.
        alertmanager: whom it tells.
    """

    names = ("prometheus",)

    def __init__(
        self, directory: Path, target: str, rules: Mapping[str, str], alertmanager: str = "", pace: str = "1s"
    ) -> None:
        super().__init__(directory)
        for name, text in rules.items():
            (directory / name).write_text(text)
        managers = [{"static_configs": [{"targets": [alertmanager]}]}] if alertmanager else []
        settings = {
            "global": {"scrape_interval": pace, "scrape_timeout": pace, "evaluation_interval": pace},
            "rule_files": list(rules),
            "alerting": {"alertmanagers": managers},
            "scrape_configs": [{"job_name": "octet", "static_configs": [{"targets": [target]}]}],
        }
        (directory / "prometheus.yml").write_text(yaml.safe_dump(settings))

    def arguments(self) -> Sequence[str]:
        return (
            "--config.file=prometheus.yml", "--storage.tsdb.path=tsdb", "--storage.tsdb.retention.time=1h",
            f"--web.listen-address={self.address}", "--rules.alert.resend-delay=1s",
        )  # fmt: skip

    async def query(self, expression: str) -> dict[tuple[tuple[str, str], ...], float]:
        """The values of an expression now, by their labels."""
        told = await self.get("/api/v1/query", query=expression)
        return {tuple(sorted(each["metric"].items())): float(each["value"][1]) for each in told["data"]["result"]}

    async def numbers(self, expression: str, seconds: float = 60.0) -> int:
        """How many series of an expression had a number at any time of late.

        Raises:
            AssertionError: the expression cannot be evaluated.
        """
        now = time.time()
        told = await self.get("/api/v1/query_range", query=expression, start=str(now - seconds), end=str(now), step="1")
        series = told["data"]["result"]
        return sum(any(not math.isnan(float(value)) for _, value in each["values"]) for each in series)

    async def rules(self) -> list[dict[str, Any]]:
        """Every rule, and how it is."""
        told = await self.get("/api/v1/rules")
        return [rule for group in told["data"]["groups"] for rule in group["rules"]]


class Alertmanager(Server):
    """One with the configuration given."""

    names = ALERTMANAGER

    def __init__(self, directory: Path, settings: Mapping[str, Any]) -> None:
        super().__init__(directory)
        (directory / "alertmanager.yml").write_text(json.dumps(settings))

    def arguments(self) -> Sequence[str]:
        return (
            "--config.file=alertmanager.yml", "--storage.path=data", "--cluster.listen-address=",
            f"--web.listen-address={self.address}",
        )  # fmt: skip


def shipped_rules() -> dict[str, str]:
    """The rule files by their names."""
    return {path.name: path.read_text() for path in sorted(RULES.glob("*.yml"))}


async def run(*command: str, given: bytes = b"") -> tuple[int, str]:
    """Exit code, and all that a command says."""
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, stderr=asyncio.subprocess.STDOUT)
    told, _ = await process.communicate(given)
    return process.returncode or 0, told.decode()
