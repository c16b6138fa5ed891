"""Workers, and the process that they are forked from, as their parent sees them."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from prometheus_client import Metric

from proxy.errors import ProxyError
from proxy.process import aside
from proxy.workers import nursery
from proxy.workers.channel import Channel, Gone

logger = logging.getLogger("octet")

_PLACE = str(Path(__file__).parent.parent.parent)  # of our own package, and of nothing that lies where we were begun
_CODE = "import gc, sys; gc.disable(); sys.path.insert(0, sys.argv[1]); from proxy.workers.nursery import main; main()"
ANSWER_SECONDS = 5.0  # for what takes a worker a moment
BEGIN_SECONDS = 60.0
LEAVING_SECONDS = 5.0  # that a worker may take to end once it has drained


def _deaf() -> None:
    """A terminal's Ctrl-C is for all of us: the parent decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class _Forked:
    """A copy of this process, with what is needed here of `Popen`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def kill(self) -> None:
        if self.returncode is None:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode


class _Ends(NamedTuple):
    """A process that workers are forked from, and our ends of what is asked of it and what it tells."""

    process: "subprocess.Popen[bytes] | _Forked"
    requests: socket.socket
    reports: socket.socket

    def close(self) -> None:
        """End it; it has nothing to lose."""
        self.process.kill()
        self.process.wait()
        self.requests.close()
        self.reports.close()


def _spawn() -> _Ends:
    """Begin one. Not through the loop: uvloop's children hear signals again that were to be ignored."""
    (requests, asked), (reports, told) = socket.socketpair(), socket.socketpair()
    with asked, told:
        descriptors = asked.fileno(), told.fileno()
        try:
            process = subprocess.Popen(  # noqa: S603  # ourselves
                (sys.executable, "-P", "-c", _CODE, _PLACE, *map(str, descriptors)), pass_fds=descriptors,
                stdin=subprocess.DEVNULL, preexec_fn=_deaf,
            )  # fmt: skip
        except BaseException:
            requests.close()
            reports.close()
            raise
    return _Ends(process, requests, reports)


class Nursery:
    """Begins workers; the process that they are forked from is begun when it is needed, and again when it has ended."""

    def __init__(self, first: "_Ends | None" = None) -> None:
        self._first = first
        self._line: _Line | None = None
        self._lock = asyncio.Lock()

    @classmethod
    def forked(cls) -> "Nursery":
        """One whose first process is a copy of this one, which must have neither a loop nor threads yet."""
        work = nursery.load()
        (requests, asked), (reports, told) = socket.socketpair(), socket.socketpair()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                requests.close()
                reports.close()
                nursery.Forker(asked, told, work).run()
                code = 0
            except BaseException:  # noqa: BLE001  # its last words; another will be begun
                traceback.print_exc()
            finally:
                os._exit(code)
        asked.close()
        told.close()
        return cls(_Ends(_Forked(pid), requests, reports))

    async def fork(self, descriptor: int) -> "Begun":
        """Begin a worker with a copy of a descriptor.

        Raises:
            Gone: there is nobody to begin it.
            OSError: the system lets no process begin.
        """
        async with self._lock:
            if self._line is not None and self._line.task.done():
                logger.error("the process that workers are forked from has ended; it is replaced")
                await self.close()
            if self._line is None:
                ends, self._first = self._first, None
                if ends is None:
                    ends = await asyncio.to_thread(_spawn)
                try:
                    self._line = _Line(ends, *await asyncio.open_connection(sock=ends.reports))
                except BaseException:
                    ends.close()
                    raise
        return await self._line.fork(descriptor)

    async def close(self) -> None:
        """End the process; those that it has begun go on."""
        line, self._line = self._line, None
        if line is not None:
            await line.close()
        if self._first is not None:
            self._first.close()


class Begun(NamedTuple):
    """A worker's process, and its exit code when it has ended; None: nobody knows."""

    pid: int
    code: "asyncio.Future[int | None]"


class _Line:
    """One such process: what is asked of it, and what it tells."""

    def __init__(self, ends: _Ends, reports: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._ends, self._writer = ends, writer
        self._asked: deque[asyncio.Future[Begun]] = deque()
        self._codes: dict[int, asyncio.Future[int | None]] = {}
        self.task = asyncio.get_running_loop().create_task(self._listen(reports))  # done: it has ended

    async def fork(self, descriptor: int) -> Begun:
        begun: asyncio.Future[Begun] = asyncio.get_running_loop().create_future()
        try:
            socket.send_fds(self._ends.requests, [b"+"], [descriptor])
            self._asked.append(begun)
        except OSError as error:
            raise await self._given_up() from error
        if not (await asyncio.wait([begun], timeout=BEGIN_SECONDS))[0]:
            raise await self._given_up()
        return begun.result()

    async def _given_up(self) -> Gone:
        """Whatever is the matter with it, there will be another."""
        self._ends.process.kill()
        await asyncio.wait([self.task])
        return Gone()

    async def close(self) -> None:
        self._ends.process.kill()
        await asyncio.wait([self.task])
        await aside(self._ends.process.wait)
        self._ends.requests.close()
        self._writer.close()

    async def _listen(self, reports: asyncio.StreamReader) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionError):
            while (line := await reports.readline()).endswith(b"\n"):
                word, *numbers = line.decode().split()
                number, *more = map(int, numbers)
                if word == nursery.ENDED:
                    self._codes.pop(number).set_result(*more)
                elif word == nursery.BEGUN:
                    self._codes[number] = loop.create_future()
                    self._asked.popleft().set_result(Begun(number, self._codes[number]))
                else:
                    _fail(self._asked.popleft(), OSError(number, os.strerror(number)))
        for begun in self._asked:
            _fail(begun, Gone())
        for ended in self._codes.values():
            ended.set_result(None)


def _fail(future: "asyncio.Future[Begun]", error: Exception) -> None:
    future.set_exception(error)
    future.exception()  # whoever asked may have left


class Child:
    """A worker, and the channel to it."""

    generation = 0  # of the configuration it has
    told: Sequence[Metric] = ()  # its metrics, as it told them last

    def __init__(self, begun: Begun, channel: Channel) -> None:
        self._begun, self._channel = begun, channel

    @classmethod
    async def spawn(cls, home: Nursery) -> "Child":
        """Begin a worker; it waits to be told what to do. Raises as `Nursery.fork`."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                begun = await home.fork(theirs.fileno())
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
