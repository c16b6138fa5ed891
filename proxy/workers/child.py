"""One worker, as its parent sees it."""

import asyncio
import contextlib
import logging
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prometheus_client import Metric

from proxy.errors import ProxyError
from proxy.process import aside
from proxy.workers.channel import Channel, Gone

logger = logging.getLogger("octet")

_PLACE = str(Path(__file__).parent.parent.parent)  # of our own package, and of nothing that lies where we were begun
_CODE = """import gc, sys
gc.disable()
sys.path.insert(0, sys.argv[1])
from proxy.workers.worker import main
sys.exit(main())"""
ANSWER_SECONDS = 5.0  # for what takes a worker a moment
BEGIN_SECONDS = 60.0
LEAVING_SECONDS = 5.0  # that a worker may take to end once it has drained


def _deaf() -> None:
    """A terminal's Ctrl-C is for all of us: the parent decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _spawn(descriptor: int) -> subprocess.Popen[bytes]:
    """Begin a process. Not through the loop: uvloop's children hear signals again that were to be ignored."""
    return subprocess.Popen(  # noqa: S603  # ourselves
        (sys.executable, "-P", "-c", _CODE, _PLACE, str(descriptor)), pass_fds=(descriptor,),
        stdin=subprocess.DEVNULL, preexec_fn=_deaf,
    )  # fmt: skip


class Child:
    """A process of ours, and the channel to it."""

    generation = 0  # of the configuration it has
    told: Sequence[Metric] = ()  # its metrics, as it told them last

    def __init__(self, process: subprocess.Popen[bytes], channel: Channel) -> None:
        self._process, self._channel = process, channel

    @classmethod
    async def spawn(cls) -> "Child":
        """Begin a process; it waits to be told what to do."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = await asyncio.to_thread(_spawn, theirs.fileno())
            except BaseException:
                ours.close()
                raise
        return cls(process, Channel(*await asyncio.open_connection(sock=ours)))

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ask(self, what: str, *, patience: float = ANSWER_SECONDS, **arguments: Any) -> Any:
        """Have it do something; see `Channel.ask`. One that does not answer is ended: it serves nobody either."""
        try:
            async with asyncio.timeout(patience):
                return await self._channel.ask(what, **arguments)
        except TimeoutError as error:
            logger.error("process %d does not answer; it is ended", self.pid)
            self.kill()
            raise Gone from error

    async def ended(self) -> int:
        """Until the process has ended; its exit code."""
        code = await aside(self._process.wait)
        await self._channel.close()
        return code

    async def stop(self, patience: float) -> None:
        """Have it drain, as long as it may, and end."""
        with contextlib.suppress(Gone, ProxyError):
            await self.ask("stop", patience=patience + LEAVING_SECONDS)
        try:
            async with asyncio.timeout(LEAVING_SECONDS):
                await self.ended()
        except TimeoutError:
            self.kill()
            await self.ended()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
