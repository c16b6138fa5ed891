"""Wiring: what the process owns, and one configuration made ready."""

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from proxy.call import Json
from proxy.config import Address, Config
from proxy.edge.admin import AdminEndpoints
from proxy.edge.endpoints import DataEndpoints, model_object
from proxy.edge.server import C_PARSER, HttpServer
from proxy.errors import Stopping
from proxy.generations import Generations, Prepared
from proxy.operations import Operations
from proxy.pipeline import Pipeline
from proxy.reload import Attempt, FixedSource, Reloader, Source
from proxy.resources import Resources
from proxy.telemetry import LagWatch, LineWriter, Telemetry

logger = logging.getLogger("octet")

DEFAULT_PORT = 8080
BACKLOG = 2048


class ListenError(Exception):
    """An address cannot be listened at."""


class App:
    """One sidecar: its listeners, its connections and its state.

    `start` listens, `stop` drains; both once.

    Args:
        source: where new configurations come from.
        text: what `config` was read from, where that may change.
    """

    def __init__(
        self,
        config: Config,
        lines: LineWriter | None = None,
        source: Source | None = None,
        text: bytes | None = None,
    ) -> None:
        self._source = source or FixedSource("a fixed configuration")
        self._text = text
        self._lines = lines or LineWriter()
        self._telemetry = Telemetry(self._lines.write)
        self._lag = LagWatch(self._telemetry.loop_lag)
        self._config = config
        self._servers: list[tuple[asyncio.Server, HttpServer]] = []
        self.addresses: list[Address] = []  # of the data listener, as bound
        self.admin: Address | None = None
        self.draining = False
        self.listening = False

    async def start(self) -> None:
        """Build, and listen.

        Raises:
            ConfigError: a key cannot be read.
            ListenError: an address is taken.
        """
        if not C_PARSER:
            logger.warning("aiohttp runs without its C parser: slower, and less tried; reinstall it from a wheel")
        self._generations = Generations(self._config, self._telemetry)
        self.pipeline = Pipeline(self._generations.commit(self._generations.prepare(self._config), 1), self._telemetry)
        await self._generations.resources.start()
        self.reloader = Reloader(self._source, self._config, self._prepare, self._telemetry.reloads)
        self._data = DataEndpoints(self, self._telemetry)
        resources = self._generations.resources
        self.operations = Operations(self.pipeline, resources, self._telemetry, lambda: self.ready, self.reloader)
        admin = AdminEndpoints(self.operations)
        self._lines.start()
        self._lag.start()
        try:
            await self._listen(self._config, admin)
        except BaseException:
            await self._close()
            raise
        self.listening = True
        self.reloader.start(self._text)
        self._generations.model_lists.heard()

    async def _listen(self, config: Config, admin: AdminEndpoints) -> None:
        limit = config.server.max_connections
        self._data_server = HttpServer(self._data.handle, self._telemetry, limit, self._telemetry.watched.connections)
        if config.server.listen is not None:
            for address in config.server.listen:
                self.addresses.append(await self._bind(address, self._data_server))
        else:
            first = await self._bind(Address("127.0.0.1", DEFAULT_PORT), self._data_server)
            self.addresses.append(first)
            with contextlib.suppress(_NoSuchAddress):
                self.addresses.append(await self._bind(Address("::1", DEFAULT_PORT), self._data_server))
        self.admin = await self._bind(config.server.admin, HttpServer(admin.handle, self._telemetry, limit))

    async def _bind(self, address: Address, server: HttpServer) -> Address:
        loop = asyncio.get_running_loop()
        try:
            if address.path:
                _remove_stale(Path(address.path))
                listener = await loop.create_unix_server(server, address.path, backlog=BACKLOG)
            else:
                listener = await loop.create_server(server, address.host, address.port, backlog=BACKLOG)
        except OSError as error:
            if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                raise _NoSuchAddress(f"cannot listen at {address}: this machine has no such address") from error
            reason = (
                "it is taken; choose another with --listen or --admin" if _is_taken(error) else error.strerror or error
            )
            raise ListenError(f"cannot listen at {address}: {reason}") from error
        self._servers.append((listener, server))
        if address.path:
            return address
        host, port = listener.sockets[0].getsockname()[:2]
        return Address(host, port)

    @property
    def ready(self) -> bool:
        return self.listening and not self.draining

    @property
    def telemetry(self) -> Telemetry:
        return self._telemetry

    @property
    def upstreams(self) -> Resources:
        return self._generations.resources

    async def _prepare(self, text: bytes, config: Config) -> "_Ready":  # noqa: ARG002  # other processes need the text
        return _Ready(self, self._generations.prepare(config))

    def take(self, prepared: Prepared, generation: int) -> None:
        """Put a configuration in force: calls that begin from now on go by it."""
        self.pipeline.snapshot = self._generations.commit(prepared, generation)
        for _, server in self._servers:
            server.max_connections = prepared.config.server.max_connections

    def models(self) -> list[Json]:
        """What /v1/models shows: names that the routes spell out, then the upstreams' own, each once."""
        return list({model["id"]: model for model in self._each_model()}.values())

    def _each_model(self) -> Iterator[Json]:
        router = self.pipeline.snapshot.router
        for name in router.models():
            yield model_object(name)
        for upstream, models in self._generations.model_lists.heard().items():
            for heard in models:
                model = {**heard, "created": heard["created"] or model_object("")["created"]}
                if router.reaches(model["id"], upstream):
                    yield model
                if router.direct:
                    yield {**model, "id": f"{upstream}/{model['id']}"}

    async def run(self, on_listening: Callable[[], None]) -> None:
        """Serve until SIGTERM or SIGINT, then drain; a second signal ends at once.

        Raises what `start` raises.
        """
        loop, stopped = asyncio.get_running_loop(), asyncio.Event()

        def on_signal(number: int) -> None:
            if stopped.is_set():
                os._exit(128 + number)
            stopped.set()

        reloading: set[asyncio.Task[Attempt]] = set()

        def on_hangup() -> None:
            task = loop.create_task(self.reloader.reload("SIGHUP"))
            reloading.add(task)
            task.add_done_callback(reloading.discard)

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal, number)
        await self.start()
        loop.add_signal_handler(signal.SIGHUP, on_hangup)
        on_listening()
        await stopped.wait()
        logger.info("stopping: no new calls, %d in flight", self._data.answering)
        await self.stop()

    async def stop(self) -> None:
        """Drain: take no new calls, let those in flight end, cut off what is left, close everything."""
        server = self.pipeline.snapshot.config.server
        self.draining = True
        await self.reloader.close()
        try:
            if server.drain_delay_seconds:
                await asyncio.sleep(server.drain_delay_seconds)
            for listener, listened in self._servers:
                if listened is self._data_server:  # probes and metrics go on to the end
                    listener.close()
            await self._in_flight(server.drain_seconds)
            if self._data.answering:
                logger.warning("drain_seconds are over: cutting off %d calls", self._data.answering)
                self._data.cut_off(Stopping("the sidecar is shutting down"))
                await self._in_flight(1.0)
        finally:
            await self._close()

    async def _in_flight(self, patience: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._data.idle()

    async def _close(self) -> None:
        self.listening = False
        for listener, server in self._servers:
            listener.close()
            await server.shutdown(0.5)
        self._lag.stop()
        await self.pipeline.close()
        await self._generations.close()
        self._lines.close()
        _remove_sockets(self.addresses)


class _Ready:
    """A configuration that this process has made ready."""

    def __init__(self, app: App, prepared: Prepared) -> None:
        self.needs_restart = prepared.needs_restart
        self._app, self._prepared = app, prepared

    async def commit(self, generation: int) -> None:
        self._app.take(self._prepared, generation)


class _NoSuchAddress(ListenError):
    pass


def _is_taken(error: OSError) -> bool:
    return error.errno == errno.EADDRINUSE or "address already in use" in str(error)


def _remove_sockets(addresses: Iterable[Address]) -> None:
    for address in addresses:
        if address.path:
            Path(address.path).unlink(missing_ok=True)


def _remove_stale(path: Path) -> None:
    """Remove a socket that nobody listens at any more."""
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise ListenError(f"cannot listen at unix:{path}: a file is in the way")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        if probe.connect_ex(str(path)) == 0:
            raise ListenError(f"cannot listen at unix:{path}: it is taken")
    path.unlink()
