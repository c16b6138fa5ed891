"""The parent of several processes that share a port: it keeps them, steers them, and tells of them as of one."""

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge

from proxy.admission.auth import Auth
from proxy.app import Place
from proxy.call import Json
from proxy.config import Address, Config, ConfigError, hold
from proxy.edge.admin import AdminEndpoints
from proxy.edge.listening import ListenError, Listeners, Reserved
from proxy.edge.server import HttpServer
from proxy.errors import NotFound, ProxyError, ProxyFault
from proxy.generations import new_via
from proxy.reload import Attempt, Reloader
from proxy.sources import Source
from proxy.telemetry import ReloadCounts, Telemetry
from proxy.workers.channel import Gone
from proxy.workers.child import Child
from proxy.workers.merging import Merged, added, listed
from proxy.workers.shares import share_of
from proxy.workers.worker import Beginning

logger = logging.getLogger("octet")

MOST_WAIT = 5.0  # seconds, before a worker that keeps dying is begun again
METRICS_PATIENCE = 2.0  # seconds, for a worker that does not answer


class Supervisor:
    """Runs `server.workers` processes.

    It owns the ports, the admin listener and the configuration; a worker that dies is replaced.
    """

    def __init__(self, config: Config, source: Source, text: bytes | None) -> None:
        self._config = config  # in force
        self._via = new_via()
        self.addresses: list[Address] = []
        self.admin: Address | None = None
        self.draining = False
        self._children: dict[int, Child] = {}  # those that serve, by number
        self._keepers: list[asyncio.Task[None]] = []
        self._registry = CollectorRegistry()
        self.reloader = Reloader(source, config, text, self._prepare, ReloadCounts(self._registry))
        text_of_gauge = "Processes that serve calls."
        Gauge("octet_workers", text_of_gauge, registry=self._registry).set_function(lambda: len(self._children))
        self._restarts = Counter(
            "octet_worker_restarts", "Workers that died and were replaced.", registry=self._registry
        )

    @property
    def ready(self) -> bool:
        """Whether new calls are welcome, in every process."""
        return not self.draining and len(self._children) == self._config.server.workers

    @property
    def auth(self) -> Auth:
        """Who operates."""
        return self._auth

    async def run(self, on_listening: Callable[[], object]) -> None:
        """Serve until SIGTERM or SIGINT, then have all workers drain; a second signal ends at once.

        Raises:
            ConfigError, ListenError: it cannot begin.
        """
        loop, stopped = asyncio.get_running_loop(), asyncio.Event()
        errands: set[asyncio.Task[Attempt]] = set()

        def on_signal(number: int) -> None:
            if stopped.is_set():
                for child in self._children.values():
                    child.kill()
                os._exit(128 + number)
            stopped.set()

        def on_hangup() -> None:
            task = loop.create_task(self.reloader.reload("SIGHUP"))
            errands.add(task)
            task.add_done_callback(errands.discard)

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal, number)
        try:
            await self.start()
            loop.add_signal_handler(signal.SIGHUP, on_hangup)
            on_listening()
            await stopped.wait()
            logger.info("stopping: no new calls")
        finally:
            await self.stop()

    async def start(self) -> None:
        """Take the ports, begin the workers, and listen for operators."""
        self._auth = Auth(self._config.server)
        self._ports = Reserved(self._config.server.listen)
        self.addresses = self._ports.addresses
        count = self._config.server.workers
        begun = await asyncio.gather(*(self._begin(number) for number in range(count)), return_exceptions=True)
        for failure in begun:
            if isinstance(failure, BaseException):
                raise _as_begun(failure) from failure
        loop = asyncio.get_running_loop()
        self._keepers = [loop.create_task(self._keep(number)) for number in range(count)]
        telemetry = Telemetry(lambda _: None)
        server = HttpServer(AdminEndpoints(self).handle, telemetry, self._config.server.max_connections)
        self._admin_server, self._admin_listeners = server, Listeners(server)
        await self._admin_listeners.listen([self._config.server.admin])
        (self.admin,) = self._admin_listeners.addresses
        self.reloader.start()

    async def stop(self) -> None:
        """Have all workers drain, and end."""
        self.draining = True
        await self.reloader.close()
        for keeper in self._keepers:
            keeper.cancel()
        if self._keepers:
            await asyncio.wait(self._keepers)
        await asyncio.gather(*(child.stop() for child in self._children.values()))
        self._children.clear()
        if self.admin is not None:
            self._admin_listeners.close()
            await self._admin_server.shutdown(0.5)
            self._admin_listeners.remove()
        if self.addresses:
            self._ports.close()

    # Workers.

    async def _begin(self, number: int) -> Child:
        """Begin a worker; it serves when this returns.

        Raises:
            ProxyError, ConfigError: it cannot.
        """
        generation, config = self.reloader.generation, self._config
        child = await Child.spawn()
        try:
            await child.ask("start", beginning=Beginning(self._share(config, number), Place(self._via, generation)))
            while generation != self.reloader.generation:  # another has come into force meanwhile
                generation, config = self.reloader.generation, self._config
                await child.ask("prepare", config=self._share(config, number))
                await child.ask("commit", generation=generation)
        except BaseException:
            child.kill()
            await child.ended()
            raise
        self._children[number] = child
        return child

    def _share(self, config: Config, number: int) -> Config:
        return share_of(config, number, self._config.server.workers, self.addresses)

    async def _keep(self, number: int) -> None:
        """Replace a worker whenever it dies; slower and slower if it dies at once."""
        loop, wait = asyncio.get_running_loop(), 0.1
        while True:
            began = loop.time()
            child = self._children.get(number)
            if child is not None:
                code = await child.ended()
                self._children.pop(number, None)
                logger.error("worker %d (process %d) has ended with %s; it is replaced", number, child.pid, code)
                self._restarts.inc()
            wait = 0.1 if child is not None and loop.time() - began > MOST_WAIT else min(2 * wait, MOST_WAIT)
            await asyncio.sleep(wait)
            try:
                await self._begin(number)
            except (ProxyError, ConfigError, Gone, OSError) as error:
                logger.error("worker %d cannot begin: %s", number, str(error) or type(error).__name__)

    # Configurations.

    async def _prepare(self, config: Config) -> "_Ready":
        """Have every worker make it ready; all of them can, or none does."""
        held, needs_restart = hold(self._config, config)
        children = dict(self._children)
        asked = [child.ask("prepare", config=self._share(held, number)) for number, child in sorted(children.items())]
        told = await asyncio.gather(*asked, return_exceptions=True)
        failures = [each for each in told if isinstance(each, BaseException) and not isinstance(each, Gone)]
        if failures:
            await asyncio.gather(*(child.ask("discard") for child in children.values()), return_exceptions=True)
            raise failures[0]
        return _Ready(self, held, needs_restart, children)

    async def take(self, config: Config, generation: int, children: dict[int, Child]) -> None:
        """Put in force what they have made ready."""
        self._config, self._auth = config, Auth(config.server)
        await asyncio.gather(*(_commit(child, generation) for child in children.values()))
        for number, child in list(self._children.items()):
            if child not in children.values():  # it has begun since, with what was in force then
                await child.ask("prepare", config=self._share(config, number))
                await _commit(child, generation)

    # An operator's side.

    async def metrics(self) -> Merged:
        """Those of all workers that answer, and the parent's own."""
        told = await self._ask_all("metrics", {})
        return Merged(list(told.values()), self._registry.collect())

    async def ask(self, what: str, **arguments: Any) -> Json:
        """What an operator asks, of whom it concerns; raises ProxyError."""
        if what == "config":
            return {**self.reloader.describe(), "workers": {n: each.pid for n, each in self._children.items()}}
        if what == "reload":
            return (await self.reloader.reload("/admin/reload")).told()
        if what == "explain":
            return await self._ask_one(what, arguments)
        told = await self._ask_all(what, arguments)
        if what == "upstreams":
            return listed(told, "upstreams")
        if what == "calls":
            calls = sorted(listed(told, "calls")["calls"], key=lambda call: call["time"], reverse=True)
            return {"calls": calls[: arguments["limit"]]}
        if what in ("call", "open", "reset"):
            return next(iter(told.values()))
        merged: Json = added(list(told.values()))
        return merged

    async def _ask_one(self, what: str, arguments: dict[str, Any]) -> Json:
        for child in list(self._children.values()):
            try:
                told: Json = await child.ask(what, **arguments)
            except Gone:
                continue
            return told
        raise ProxyFault("no worker is there", status=503, code="no_worker")

    async def _ask_all(self, what: str, arguments: dict[str, Any]) -> dict[int, Any]:
        """What each worker says; of one that has none of it nothing, unless that is true of all."""
        children = dict(sorted(self._children.items()))
        asked = (asyncio.wait_for(child.ask(what, **arguments), METRICS_PATIENCE) for child in children.values())
        told = dict(zip(children, await asyncio.gather(*asked, return_exceptions=True), strict=True))
        good = {number: each for number, each in told.items() if not isinstance(each, BaseException)}
        for failure in told.values():
            if isinstance(failure, BaseException) and not isinstance(failure, Gone | TimeoutError | NotFound):
                raise failure
        for failure in told.values():
            if isinstance(failure, NotFound) and not good:
                raise failure
        if not good:
            raise ProxyFault("no worker is there", status=503, code="no_worker")
        return good


class _Ready:
    """A configuration that all workers have made ready."""

    def __init__(
        self, parent: Supervisor, config: Config, needs_restart: list[str], children: dict[int, Child]
    ) -> None:
        self.config, self.needs_restart = config, needs_restart
        self._parent, self._children = parent, children

    async def commit(self, generation: int) -> None:
        await self._parent.take(self.config, generation, self._children)


async def _commit(child: Child, generation: int) -> None:
    """Have a worker take over what it has made ready. One that cannot is replaced by one that begins with it."""
    try:
        await child.ask("commit", generation=generation)
    except Gone:
        return
    except ProxyError as error:
        logger.error("process %d did not take generation %d over: %s", child.pid, generation, error)
        child.kill()


def _as_begun(failure: BaseException) -> BaseException:
    """Why a worker cannot begin, as one process would say it."""
    return ListenError(failure.message) if isinstance(failure, ProxyError) else failure
