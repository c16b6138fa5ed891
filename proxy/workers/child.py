"""Workers, and the process that they are forked from, as their parent sees them."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from prometheus_client import Metric

from proxy.errors import ProxyError
from proxy.process import aside
from proxy.workers.channel import Channel, Gone
from proxy.workers.nursery import BEGUN

logger = logging.getLogger("octet")

_PLACE = str(Path(__file__).parent.parent.parent)  # of our own package, and of nothing that lies where we were begun
_CODE = "import gc, sys; gc.disable(); sys.path.insert(0, sys.argv[1]); from proxy.workers.nursery import main; main()"
ANSWER_SECONDS = 5.0  # for what takes a worker a moment
BEGIN_SECONDS = 60.0
LEAVING_SECONDS = 5.0  # that a worker may take to end once it has drained


def _spawn(*descriptors: int) -> subprocess.Popen[bytes]:
    """Begin a process. Not through the loop: uvloop's children hear signals again that were to be ignored."""
    return subprocess.Popen(  # noqa: S603  # ourselves
        (sys.executable, "-P", "-c", _CODE, _PLACE, *map(str, descriptors)), pass_fds=descriptors,
        stdin=subprocess.DEVNULL, preexec_fn=_deaf,
    )  # fmt: skip


def _deaf() -> None:
    """A terminal's Ctrl-C is for all of us: the parent decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class Nursery:
    """Begins workers; the process that they are forked from is begun with the first, and replaced when it has ended."""

    def __init__(self) -> None:
        self._line: _Line | None = None
        self._lock = asyncio.Lock()

    async def fork(self, descriptor: int) -> "Begun":
        """Begin a worker with a copy of a descriptor. Raises Gone."""
        async with self._lock:
            if self._line is not None and self._line.task.done():
                logger.error("the process that workers are forked from has ended; it is replaced")
                await self.close()
            if self._line is None:
                self._line = await _Line.begin()
        return await self._line.fork(descriptor)

    async def close(self) -> None:
        """End the process; those that it has begun go on."""
        line, self._line = self._line, None
        if line is not None:
            await line.close()


class Begun(NamedTuple):
    """A worker's process, and its exit code when it has ended; None: nobody knows."""

    pid: int
    code: "asyncio.Future[int | None]"


class _Line:
    """One such process: what is asked of it, and what it tells."""

    def __init__(self, process: subprocess.Popen[bytes], requests: socket.socket, reports: asyncio.StreamReader,
                 writer: asyncio.StreamWriter) -> None:  # fmt: skip
        self._process, self._requests, self._writer = process, requests, writer
        self._asked: deque[asyncio.Future[Begun]] = deque()
        self._codes: dict[int, asyncio.Future[int | None]] = {}
        self.task = asyncio.get_running_loop().create_task(self._listen(reports))  # done: it has ended

    @classmethod
    async def begin(cls) -> "_Line":
        (requests, asked), (reports, told) = socket.socketpair(), socket.socketpair()
        with asked, told:
            try:
                process = await asyncio.to_thread(_spawn, asked.fileno(), told.fileno())
            except BaseException:
                requests.close()
                reports.close()
                raise
        return cls(process, requests, *await asyncio.open_connection(sock=reports))

    async def fork(self, descriptor: int) -> Begun:
        begun: asyncio.Future[Begun] = asyncio.get_running_loop().create_future()
        try:
            socket.send_fds(self._requests, [b"+"], [descriptor])
            self._asked.append(begun)
            async with asyncio.timeout(BEGIN_SECONDS):
                return await asyncio.shield(begun)
        except (OSError, TimeoutError) as error:
            self._process.kill()  # whatever is the matter with it, there will be another
            await asyncio.wait([self.task])
            raise Gone from error

    async def close(self) -> None:
        self._process.kill()  # it has nothing to lose
        await asyncio.wait([self.task])
        await aside(self._process.wait)
        self._requests.close()
        self._writer.close()

    async def _listen(self, reports: asyncio.StreamReader) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionError):
            while (line := await reports.readline()).endswith(b"\n"):
                word, pid, *code = line.decode().split()
                if word == BEGUN:
                    self._codes[int(pid)] = loop.create_future()
                    self._asked.popleft().set_result(Begun(int(pid), self._codes[int(pid)]))
                else:
                    self._codes.pop(int(pid)).set_result(int(code[0]))
        for begun in self._asked:
            begun.set_exception(Gone())
            begun.exception()  # whoever asked may have left
        for ended in self._codes.values():
            ended.set_result(None)


class Child:
    """A worker, and the channel to it."""

    generation = 0  # of the configuration it has
    told: Sequence[Metric] = ()  # its metrics, as it told them last

    def __init__(self, begun: Begun, channel: Channel) -> None:
        self._begun, self._channel = begun, channel

    @classmethod
    async def spawn(cls, nursery: Nursery) -> "Child":
        """Begin a worker; it waits to be told what to do. Raises Gone."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                begun = await nursery.fork(theirs.fileno())
            except BaseException:
                ours.close()
                raise
        return cls(begun, Channel(*await asyncio.open_connection(sock=ours)))

    @property
    def pid(self) -> int:
        return self._begun.pid

    async def ask(self, what: str, *, patience: float = ANSWER_SECONDS, **arguments: Any) -> Any:
        """Have it do something; see `Channel.ask`. One that does not answer is ended: it serves nobody either."""
        try:
            async with asyncio.timeout(patience):
                return await self._channel.ask(what, **arguments)
        except TimeoutError as error:
            logger.error("process %d does not answer; it is ended", self.pid)
            self.kill()
            raise Gone from error

    async def ended(self) -> int | None:
        """Until the process has ended; its exit code, or None: nobody knows."""
        code = self._begun.code
        await self._channel.gone()
        await asyncio.wait([code], timeout=LEAVING_SECONDS)
        await self._channel.close()
        return code.result() if code.done() else None

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
        code = self._begun.code
        if not code.done() or (code.result() is None and not self._channel.is_gone):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
