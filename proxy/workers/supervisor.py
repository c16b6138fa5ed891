"""The parent of several processes that share a port: it keeps them, steers them, and tells of them as of one."""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry

from proxy.admission.auth import Auth
from proxy.app import Place
from proxy.call import Json
from proxy.config import Address, Config, ConfigError, hold
from proxy.edge.admin import AdminEndpoints
from proxy.edge.listening import ListenError, Listeners, Reserved
from proxy.edge.server import HttpServer
from proxy.errors import ProxyError
from proxy.generations import new_via
from proxy.reload import Attempt, Reloader
from proxy.sources import Source
from proxy.telemetry import CrewCounts, ReloadCounts, Telemetry
from proxy.workers.channel import Gone
from proxy.workers.child import BEGIN_SECONDS, Child, Nursery
from proxy.workers.crew import Crew
from proxy.workers.merging import Merged
from proxy.workers.shares import share_of
from proxy.workers.worker import Beginning

logger = logging.getLogger("octet")

MOST_WAIT = 5.0  # seconds, before a worker that keeps dying is begun again
PING_SECONDS = 5.0  # between looks whether a worker answers
PING_PATIENCE = 15.0


class Supervisor:
    """Runs `server.workers` processes.

    It owns the ports, the admin listener and the configuration; a worker that dies is replaced.

    Args:
        nursery: what the workers are forked from; default: one that is begun when it is needed.
    """

    def __init__(
        self, config: Config, source: Source, text: bytes | None = None, nursery: Nursery | None = None
    ) -> None:
        self._config = config  # in force
        self._via = new_via()
        self.addresses: list[Address] = []
        self.admin: Address | None = None
        self.draining = False
        self._generation = 1
        self.crew = Crew(shared=config.redis is not None)
        self._nursery = nursery or Nursery()
        self._keepers: list[asyncio.Task[None]] = []
        self._registry = CollectorRegistry()
        self.reloader = Reloader(source, config, text, self._prepare, ReloadCounts(self._registry))
        self._counts = CrewCounts(self._registry, lambda: len(self.crew.children))

    @property
    def ready(self) -> bool:
        """Whether new calls are welcome; while one worker is replaced, the others take them."""
        return not self.draining and bool(self.crew.children)

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
                for child in self.crew.children.values():
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
        patience = self._config.server.drain_delay_seconds + self._config.server.drain_seconds
        await asyncio.gather(*(child.stop(patience) for child in self.crew.children.values()))
        self.crew.children.clear()
        await self._nursery.close()
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
        generation, config = self._generation, self._config
        child = await Child.spawn(self._nursery)
        try:
            await child.ask(
                "start",
                patience=BEGIN_SECONDS,
                beginning=Beginning(self._share(config, number), Place(self._via, generation)),
            )
            child.generation = generation
            while child.generation != self._generation:  # another has come into force meanwhile
                await self._bring_up(child, number)
            await self.crew.hold(child)
        except BaseException:
            child.kill()
            await child.ended()
            raise
        self.crew.children[number] = child
        return child

    async def _bring_up(self, child: Child, number: int) -> None:
        """Have a worker take over what is in force."""
        generation = self._generation
        await child.ask("prepare", patience=BEGIN_SECONDS, config=self._share(self._config, number))
        await child.ask("commit", generation=generation)
        child.generation = generation

    def _share(self, config: Config, number: int) -> Config:
        return share_of(config, number, self._config.server.workers, self.addresses)

    async def _keep(self, number: int) -> None:
        """Replace a worker whenever it dies; slower and slower if it dies at once."""
        loop, wait = asyncio.get_running_loop(), 0.1
        while True:
            began = loop.time()
            child = self.crew.children.get(number)
            if child is not None:
                code = await self._until_ended(child)
                self.crew.children.pop(number, None)
                self.crew.past.add(child.told)
                logger.error("worker %d (process %d) has ended with %s; it is replaced", number, child.pid, code)
                self._counts.replaced()
            wait = 0.1 if child is not None and loop.time() - began > MOST_WAIT else min(2 * wait, MOST_WAIT)
            await asyncio.sleep(wait)
            try:
                await self._begin(number)
            except (ProxyError, ConfigError, Gone, OSError) as error:
                logger.error("worker %d cannot begin: %s", number, str(error) or type(error).__name__)

    async def _until_ended(self, child: Child) -> int | None:
        """Its exit code, or None: nobody knows; one that answers nothing any more is ended."""
        ended = asyncio.ensure_future(child.ended())
        try:
            while not (await asyncio.wait([ended], timeout=PING_SECONDS))[0]:
                with contextlib.suppress(Gone, ProxyError):
                    await child.ask("ping", patience=PING_PATIENCE)
            return ended.result()
        finally:
            ended.cancel()

    # Configurations.

    async def _prepare(self, config: Config) -> "_Ready":
        """Have every worker make it ready; all of them can, or none does."""
        held, needs_restart = hold(self._config, config)
        # One that is frozen is ended now; the others may take as long as their files do.
        await asyncio.gather(*(child.ask("ping") for child in self.crew.children.values()), return_exceptions=True)
        children = dict(self.crew.children)
        asked = [
            child.ask("prepare", patience=BEGIN_SECONDS, config=self._share(held, number))
            for number, child in sorted(children.items())
        ]
        told = await asyncio.gather(*asked, return_exceptions=True)
        failures = [each for each in told if isinstance(each, BaseException) and not isinstance(each, Gone)]
        if failures:
            await asyncio.gather(*(child.ask("discard") for child in children.values()), return_exceptions=True)
            raise failures[0]
        return _Ready(self, held, needs_restart, children)

    async def take(self, config: Config, generation: int, children: dict[int, Child]) -> None:
        """Put in force what they have made ready."""
        self._config, self._auth, self._generation = config, Auth(config.server), generation
        await asyncio.gather(*(_commit(child, generation) for child in children.values()))
        while late := [number for number, child in self.crew.children.items() if child.generation != generation]:
            for number in late:  # they have begun since, with what was in force then
                await self._catch_up(number)

    async def _catch_up(self, number: int) -> None:
        """Have a worker take over what is in force; one that cannot is replaced by one that begins with it."""
        child = self.crew.children.get(number)
        if child is None:
            return
        try:
            await self._bring_up(child, number)
        except (Gone, ProxyError, ConfigError) as error:
            logger.error("process %d cannot be brought up to date: %s", child.pid, error)
            child.kill()
            self.crew.children.pop(number, None)
            await child.ended()

    # An operator's side.

    async def metrics(self) -> Merged:
        """Those of all workers, and the parent's own."""
        return await self.crew.metrics(self._registry.collect())

    async def ask(self, what: str, **arguments: Any) -> Json:
        """What an operator asks, of whom it concerns; raises ProxyError."""
        if what == "config":
            return {**self.reloader.describe(), "workers": {n: each.pid for n, each in self.crew.children.items()}}
        if what == "reloads":
            return self.reloader.describe_reloads()
        if what == "reload":
            return (await self.reloader.reload("/admin/reload")).told()
        return await self.crew.ask(what, arguments)


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
        child.generation = generation
    except Gone:
        child.generation = generation  # it has ended, or is about to
    except ProxyError as error:
        logger.error("process %d did not take generation %d over: %s", child.pid, generation, error)
        child.kill()


def _as_begun(failure: BaseException) -> BaseException:
    """Why a worker cannot begin, as one process would say it."""
    if isinstance(failure, Gone):
        return ListenError("a worker ended before it had begun; its last words are above")
    if isinstance(failure, OSError):
        return ListenError(f"a worker cannot begin: {failure.strerror}")
    return ListenError(failure.message) if isinstance(failure, ProxyError) else failure
