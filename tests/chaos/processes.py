"""Real processes that can be killed, frozen, stopped and started again at the address that they had."""

import asyncio
import contextlib
import os
import re
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from pathlib import Path

from tests.chaos.nouns import Life
from tests.monitoring.servers import until
from tests.redis_server import free_port

ROOT = Path(__file__).parent.parent.parent
PATIENCE_SECONDS = 20.0  # for a process to start, or to end


class Server:
    """One of our own programs.

    Args:
        announces: what it says on standard error once it listens; `{port}` is its own.
        folder: where what it says is kept.
    """

    def __init__(self, name: str, folder: Path, announces: str) -> None:
        self.name, self.port = name, 0
        self.process: Process | None = None
        self._folder, self._announces = folder, announces
        self._starts = 0

    def arguments(self) -> list[str]:
        """After `python -m`, for `port`."""
        raise NotImplementedError

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.returncode is None

    def file(self, kind: str) -> Path:
        """What this start of it writes: `out` or `err`."""
        return self._folder / f"{self.name}.{self._starts}.{kind}"

    async def start(self) -> None:
        """It listens when this returns, and it is the process that we have started."""
        while not await self._started(self.port or await free_port()):
            told = self.file("err").read_text()  # somebody else may have just taken the port
            retry = not self.port and "address already in use" in told.lower()
            assert retry, f"{self.name} does not start: {told}"

    async def _started(self, port: int) -> bool:
        before, self.port, self._starts = self.port, port, self._starts + 1
        with self.file("out").open("wb") as out, self.file("err").open("wb") as err:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", *self.arguments(), stdin=DEVNULL, stdout=out, stderr=err, cwd=ROOT
            )
        ready = self._announces.format(port=port)

        async def told() -> str:
            text = self.file("err").read_text()
            return "listens" if ready in text else "" if self.runs else "ended"

        if await until(told, PATIENCE_SECONDS) == "listens":
            return True
        self.port = before
        return False

    def signal(self, number: int) -> None:
        if self.runs:
            os.kill(self.pid, number)

    async def wait(self) -> int:
        assert self.process is not None
        return await asyncio.wait_for(self.process.wait(), PATIENCE_SECONDS)

    async def kill(self) -> None:
        """At once."""
        self.signal(signal.SIGKILL)
        await self.wait()

    async def stop(self) -> None:
        """As it should be; at the very end."""
        if self.runs:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await self.wait()
                return
            await self.kill()


class EchoServer(Server):
    """An upstream that says for whom it answers."""

    def __init__(self, name: str, folder: Path) -> None:
        super().__init__(name, folder, f"echo {name} listens")
        self.log = folder / f"{name}.log"

    def arguments(self) -> list[str]:
        return ["tests.chaos.echo", self.name, str(self.port), str(self.log)]


class SimulatorServer(Server):
    """Upstreams of several dialects."""

    def __init__(self, folder: Path) -> None:
        super().__init__("simulator", folder, "http://127.0.0.1:{port}/ollama")

    def arguments(self) -> list[str]:
        return ["proxy", "simulate", "--listen", f"127.0.0.1:{self.port}", "--pace", "0.005"]


class SidecarServer(Server):
    """A sidecar, and the lives that it has had."""

    def __init__(self, name: str, folder: Path, config: Path) -> None:
        super().__init__(name, folder, "base URL   http://127.0.0.1:{port}/v1")
        self.admin = ""
        self.lives: list[Life] = []
        self._config = config
        self._files: list[tuple[Life, Path, Path]] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def life(self) -> Life:
        return self.lives[-1]

    def arguments(self) -> list[str]:
        admin = self.admin or "127.0.0.1:0"
        return ["proxy", "serve", str(self._config), "--listen", self.address, "--admin", admin]

    async def start(self) -> None:
        await super().start()

        async def admin() -> str:
            found = re.search(r"admin +http://(\S+)/metrics", self.file("err").read_text())
            return found[1] if found is not None else ""

        self.admin = await until(admin)
        life = Life(self.name, self.pid, time.time())
        self.lives.append(life)
        self._files.append((life, self.file("out"), self.file("err")))

    async def kill(self) -> None:
        self.life.how, self.life.going = "killed", time.time()
        await super().kill()
        self._over()

    async def drain(self) -> None:
        """SIGTERM, and until it has ended."""
        self.life.how, self.life.going = "drained", time.time()
        self.signal(signal.SIGTERM)
        await self.wait()
        self._over()

    def _over(self) -> None:
        assert self.process is not None
        self.life.ended, self.life.exit_code = time.time(), self.process.returncode

    async def stop(self) -> None:
        await super().stop()
        if self.lives and not self.life.how:
            self._over()

    def told(self) -> list[tuple[Life, bytes, str]]:
        """Of each life: the access lines, and what else it has said."""
        return [(life, out.read_bytes(), err.read_text()) for life, out, err in self._files]
