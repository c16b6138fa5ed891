"""Wiring: what the process owns, and one configuration made ready."""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from proxy.call import Json
from proxy.config import Address, Config, ConfigError, Mistake, Tracing
from proxy.edge.admin import AdminEndpoints
from proxy.edge.endpoints import DataEndpoints, model_object
from proxy.edge.listening import Listeners
from proxy.edge.server import C_PARSER, HttpServer
from proxy.errors import Stopping
from proxy.generations import Generations, Prepared
from proxy.operations import Operations
from proxy.pipeline import Pipeline
from proxy.reload import Attempt, Reloader
from proxy.resources import Resources
from proxy.sources import FixedSource, Source
from proxy.telemetry import LagWatch, LineWriter, Telemetry, Traces

logger = logging.getLogger("octet")


@dataclass(frozen=True, slots=True)
class Place:
    """What a process has in common with others that share its port.

    Args:
        via: their entry of the `via` header.
        generation: of the configuration that it begins with.
    """

    via: str
    generation: int


class App:
    """One sidecar: its listeners, its connections and its state.

    `start` listens, `stop` drains; both once.

    Args:
        source: where new configurations come from.
        text: what `config` was read from, where that may change.
        place: of this process among others that share the port; they have no admin listener of their own.
    """

    def __init__(
        self,
        config: Config,
        lines: LineWriter | None = None,
        source: Source | None = None,
        text: bytes | None = None,
        place: Place | None = None,
    ) -> None:
        self._place = place
        self._source = source or FixedSource("a fixed configuration")
        self._text = text
        self._lines = lines or LineWriter()
        self._telemetry = Telemetry(self._lines.write, lambda: self._lines.lost)
        self._lag = LagWatch(self._telemetry.loop_lag)
        self._config = config
        self._servers: list[tuple[Listeners, HttpServer]] = []
        self.addresses: list[Address] = []  # of the data listener, as bound
        self.admin: Address | None = None
        self.draining = False
        self.listening = False
        self._traces: Traces | None = None

    async def start(self) -> None:
        """Build, and listen.

        Raises:
            ConfigError: a key cannot be read.
            ListenError: an address is taken.
        """
        if not C_PARSER:
            logger.warning("aiohttp runs without its C parser: slower, and less tried; reinstall it from a wheel")
        if self._config.tracing is not None:
            self._traces = self._telemetry.traces = _tracing(self._config.tracing)
        self.reloader = Reloader(self._source, self._config, self._text, self._prepare, self._telemetry.reloads)
        via, generation = (self._place.via, self._place.generation) if self._place is not None else (None, 1)
        self._generations = Generations(self._config, self._telemetry, via)
        first = self._generations.commit(await self._generations.prepare(self._config), generation)
        self.pipeline = Pipeline(first, self._telemetry)
        await self._generations.resources.start()
        self._data = DataEndpoints(self, self._telemetry)
        resources = self._generations.resources
        self.operations = Operations(self.pipeline, resources, self._telemetry, lambda: self.ready, self.reloader)
        self._lines.start()
        self._lag.start()
        try:
            await self._listen(self._config)
        except BaseException:
            await self._close()
            raise
        self.listening = True
        self.reloader.start()
        self._generations.model_lists.heard()

    async def _listen(self, config: Config) -> None:
        limit, telemetry = config.server.max_connections, self._telemetry
        data = HttpServer(self._data.handle, telemetry, limit, telemetry.watched.connections)
        self._listeners = Listeners(data, shared=self._place is not None)
        self._servers.append((self._listeners, data))
        await self._listeners.listen(config.server.listen)
        self.addresses = self._listeners.addresses
        if self._place is None:
            admin = HttpServer(AdminEndpoints(self.operations).handle, telemetry, limit)
            listeners = Listeners(admin)
            self._servers.append((listeners, admin))
            await listeners.listen([config.server.admin])
            (self.admin,) = listeners.addresses

    @property
    def ready(self) -> bool:
        return self.listening and not self.draining

    @property
    def telemetry(self) -> Telemetry:
        return self._telemetry

    @property
    def upstreams(self) -> Resources:
        return self._generations.resources

    async def prepare(self, config: Config) -> Prepared:
        """Make a configuration ready; raises ConfigError."""
        return await self._generations.prepare(config)

    async def _prepare(self, config: Config) -> "_Ready":
        return _Ready(self, await self.prepare(config))

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
            self._listeners.close()  # probes and metrics go on to the end
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
        for listeners, server in self._servers:
            listeners.close()
            await server.shutdown(0.5)
        self._lag.stop()
        await self.pipeline.close()
        await self._generations.close()
        if self._traces is not None:
            await self._traces.close()
        self._lines.close()
        for listeners, _ in self._servers:
            listeners.remove()


def _tracing(settings: Tracing) -> Traces:
    """Where traces go; raises ConfigError where the library is not installed, which is for those who want it."""
    try:
        from proxy.telemetry import otel
    except ModuleNotFoundError as error:
        reason = 'needs an extra that is not installed: pip install "octet[otel]", or leave it out'
        raise ConfigError([Mistake("configuration", None, ("tracing",), reason)]) from error
    return otel.Tracing(settings)


class _Ready:
    """A configuration that this process has made ready."""

    def __init__(self, app: App, prepared: Prepared) -> None:
        self.config, self.needs_restart = prepared.config, prepared.needs_restart
        self._app, self._prepared = app, prepared

    async def commit(self, generation: int) -> None:
        self._app.take(self._prepared, generation)
