"""One of several processes that share a port: serves calls, and does what the parent asks.

It lives as long as the parent holds the other end of its channel.
"""

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, NamedTuple

from prometheus_client import Metric

from proxy.app import App, Place
from proxy.config import Config
from proxy.edge.listening import ListenError
from proxy.errors import ProxyFault
from proxy.generations import Prepared
from proxy.process import run, settle
from proxy.telemetry import LineWriter
from proxy.workers.channel import Answering

logger = logging.getLogger("octet")


class Beginning(NamedTuple):
    """What a worker is told first."""

    config: Config
    place: Place


class Worker:
    """Does what the parent asks."""

    def __init__(self) -> None:
        self._app: App | None = None
        self._prepared: Prepared | None = None
        self._stopping: asyncio.Task[None] | None = None
        self.stopped = asyncio.Event()
        self._acts: Mapping[str, Callable[..., Coroutine[Any, Any, Any]]] = {
            "start": self._start,
            "prepare": self._prepare,
            "commit": self._commit,
            "discard": self._discard,
            "metrics": self._metrics,
            "stop": self.stop,
            "ping": self._ping,
        }

    async def act(self, what: str, arguments: dict[str, Any]) -> Any:
        """One thing: of our own, or of an operator's."""
        own = self._acts.get(what)
        return await (own(**arguments) if own is not None else self._running.operations.ask(what, **arguments))

    @property
    def _running(self) -> App:
        if self._app is None:
            raise ProxyFault("the worker has not begun")
        return self._app

    async def _start(self, beginning: Beginning) -> None:
        app = App(beginning.config, LineWriter(shared=True), place=beginning.place)
        try:
            await app.start()
        except ListenError as error:
            raise ProxyFault(str(error)) from error
        self._app = app
        settle()

    async def _prepare(self, config: Config) -> list[str]:
        self._prepared = await self._running.prepare(config)
        return self._prepared.needs_restart

    async def _commit(self, generation: int) -> None:
        prepared, self._prepared = self._prepared, None
        if prepared is None:
            raise ProxyFault("nothing has been prepared")
        self._running.take(prepared, generation)

    async def _ping(self) -> None:
        """It answers."""

    async def _discard(self) -> None:
        self._prepared = None

    async def _metrics(self) -> list[Metric]:
        return await asyncio.to_thread(list, self._running.telemetry.registry.collect())

    async def stop(self) -> None:
        """Drain, and end."""
        if self._stopping is None:
            self._stopping = asyncio.get_running_loop().create_task(self._drain())
        await asyncio.shield(self._stopping)

    async def _drain(self) -> None:
        try:
            if self._app is not None:
                await self._app.stop()
        finally:
            self.stopped.set()


async def work(descriptor: int) -> int:
    """Until the parent has gone, or says so, or somebody ends this process; what is in flight ends first."""
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=descriptor))
    worker, loop = Worker(), asyncio.get_running_loop()
    listening = loop.create_task(Answering(reader, writer, worker.act).run())
    told = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, told.set)
    loop.add_signal_handler(signal.SIGINT, id, 0)  # of a terminal, to all of us: the parent decides
    loop.add_signal_handler(signal.SIGHUP, id, 0)
    ends = [loop.create_task(each) for each in (told.wait(), worker.stopped.wait())]
    await asyncio.wait([listening, *ends], return_when=asyncio.FIRST_COMPLETED)
    await worker.stop()
    await asyncio.sleep(0)  # the parent is told that it is done
    for task in (listening, *ends):
        task.cancel()
    await asyncio.wait([listening, *ends])
    writer.close()
    return 0


def main(descriptor: int) -> int:
    """All that a worker does; returns its exit code.

    Args:
        descriptor: of its end of the channel.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    return run(work(descriptor))
