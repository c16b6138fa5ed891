"""One worker, as its parent sees it."""

import asyncio
import contextlib
import socket
import sys
from collections.abc import Coroutine
from typing import Any

from proxy.workers.channel import Channel, Gone

LEAVING_SECONDS = 5.0  # that a worker may take to end once it has drained


class Child:
    """A process of ours, and the channel to it."""

    def __init__(self, process: asyncio.subprocess.Process, channel: Channel) -> None:
        self._process, self._channel = process, channel

    @classmethod
    async def spawn(cls) -> "Child":
        """Begin a process; it waits to be told what to do."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "proxy.workers.worker", str(theirs.fileno()), pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
        return cls(process, Channel(*await asyncio.open_connection(sock=ours)))

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, what: str, **arguments: Any) -> Coroutine[Any, Any, Any]:
        """Have it do something; see `Channel.ask`."""
        return self._channel.ask(what, **arguments)

    async def ended(self) -> int:
        """Until the process has ended; its exit code."""
        code = await self._process.wait()
        await self._channel.close()
        return code

    async def stop(self) -> None:
        """Have it drain, as long as it may, and end."""
        with contextlib.suppress(Gone):
            await self.ask("stop")
        try:
            async with asyncio.timeout(LEAVING_SECONDS):
                await self.ended()
        except TimeoutError:
            self.kill()
            await self.ended()

    def kill(self) -> None:
        """End it at once."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
