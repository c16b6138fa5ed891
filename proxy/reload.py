"""Notices a new configuration, makes it ready whole, and puts it in force or keeps the old one.

A file is read twice a second: what its links lead to, whoever has renamed what, its content is what counts. It is
taken up when two looks agree, so that nothing half written is.

Source: DESIGN.md §5.2.
"""

import asyncio
import hashlib
import logging
import os
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

from proxy.call import Json
from proxy.config import Config, ConfigError, Mistake, differences, parse, read_file, shown
from proxy.equipment import digest
from proxy.providers import traits
from proxy.telemetry import ReloadCounts

logger = logging.getLogger("octet")

LOOK_SECONDS = 0.5
REMEMBERED = 20  # reloads

Prepare = Callable[[Config], Coroutine[Any, Any, "Ready"]]


class Source(Protocol):
    """Where a configuration comes from."""

    @property
    def name(self) -> str:
        """For people."""
        ...

    def read(self) -> bytes | None:
        """Its text; None where it has none that could change. Raises ConfigError when it cannot be read."""
        ...

    def parse(self, text: bytes) -> Config:
        """The configuration; raises ConfigError with every mistake."""
        ...


class FileSource:
    """A file.

    Args:
        finish: what is done to every configuration that is read, such as flags that win over it.
    """

    def __init__(self, path: str, finish: Callable[[Config], Config] = lambda config: config) -> None:
        self.name = path
        self._finish = finish

    def read(self) -> bytes:
        return read_file(self.name)

    def parse(self, text: bytes) -> Config:
        return self._finish(parse(text, self.name, traits(), os.environ))


class FixedSource:
    """Something that does not change: the environment, or the demo."""

    def __init__(self, name: str) -> None:
        self.name = name

    def read(self) -> None:
        """There is nothing to read."""

    def parse(self, text: bytes) -> Config:  # noqa: ARG002
        raise RuntimeError("there is nothing to read")


class Ready(Protocol):
    """A configuration that has been made ready, in every process that is to have it."""

    @property
    def needs_restart(self) -> list[str]:
        """Paths that a running process cannot follow."""
        ...

    async def commit(self, generation: int) -> None:
        """Put it in force."""
        ...


class Attempt(NamedTuple):
    """What became of one reload; `at` is RFC 3339."""

    at: str
    because: str
    generation: int
    changes: tuple[str, ...] = ()
    needs_restart: tuple[str, ...] = ()
    mistakes: tuple[str, ...] = ()

    @property
    def is_good(self) -> bool:
        return not self.mistakes

    def told(self) -> Json:
        """For people."""
        return {"ok": self.is_good, **self._asdict()}


class Reloader:
    """Watches one source; there is one reload at a time.

    Args:
        config: the first configuration; it is in force as generation 1.
        prepare: makes one ready; raises ConfigError.
    """

    def __init__(self, source: Source, config: Config, prepare: Prepare, counts: ReloadCounts) -> None:
        self.generation = 1
        self.config = config
        self._source = source
        self._prepare = prepare
        self._counts = counts
        self._lock = asyncio.Lock()
        self._files = _files(config)  # that are watched beside the source
        self._in_force = self._taken = b""  # digests of what is in force, and of what was looked at last, good or bad
        self._since = _now()
        self._attempts: deque[Attempt] = deque(maxlen=REMEMBERED)
        self._watching: asyncio.Task[None] | None = None
        counts.loaded()

    def start(self, text: bytes | None) -> None:
        """Watch; `text` is that of the first configuration, None where it is no file's."""
        if text is not None:
            self._taken = self._in_force = _digest(text, self._files)
            self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def close(self) -> None:
        """Stop watching; a reload that is under way is given up."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
        async with self._lock:
            pass

    async def reload(self, because: str) -> Attempt:
        """Read the source, and put what it says in force, or keep what is."""
        async with self._lock:
            attempt = await self._reload(because)
        self._tell(attempt)
        return attempt

    def describe(self) -> Json:
        """What is in force, without secrets, and what the last reloads did."""
        return {
            "generation": self.generation,
            "since": self._since,
            "source": self._source.name,
            "config": shown(self.config),
            "reloads": [attempt.told() for attempt in reversed(self._attempts)],
        }

    async def _reload(self, because: str) -> Attempt:
        now, files = _now(), self._files
        try:
            text, config = await asyncio.to_thread(self._load)
            self._files = _files(config)
            self._taken = _digest(text, self._files)
            if self._taken == self._in_force:
                return Attempt(now, because, self.generation)
            ready = await self._prepare(config)
        except ConfigError as error:
            self._files = tuple(dict.fromkeys((*files, *self._files)))  # one of them may be what is wrong
            self._taken = await asyncio.to_thread(self._look)
            return Attempt(now, because, self.generation, mistakes=tuple(map(str, error.mistakes)))
        changes = [str(change) for change in differences(self.config, config)] or ["keys or certificates altered"]
        await ready.commit(self.generation + 1)
        self.generation += 1
        self.config, self._in_force, self._since = config, self._taken, now
        return Attempt(now, because, self.generation, tuple(changes), tuple(ready.needs_restart))

    def _load(self) -> tuple[bytes, Config]:
        """Read and check; in a thread, since both take time."""
        text = self._source.read()
        if text is None:
            reason = "there is no file to read: the configuration came from elsewhere"
            raise ConfigError([Mistake(self._source.name, None, (), reason)])
        return text, self._source.parse(text)

    def _tell(self, attempt: Attempt) -> None:
        """One log entry, and the metrics."""
        if not attempt.is_good:
            self._attempts.append(attempt)
            self._counts.failed()
            mistakes = "\n  ".join(attempt.mistakes)
            logger.error("the configuration is not taken over, generation %d stays:\n  %s", self.generation, mistakes)
            return
        if not attempt.changes:
            self._counts.unchanged()
            logger.info("the configuration is that of generation %d (%s)", self.generation, attempt.because)
            return
        self._attempts.append(attempt)
        self._counts.loaded()
        changes = ", ".join(attempt.changes)
        logger.info("configuration generation %d (%s): %s", attempt.generation, attempt.because, changes)
        if attempt.needs_restart:
            logger.warning("these take effect at the next start: %s", ", ".join(attempt.needs_restart))

    async def _watch(self) -> None:
        """Look again and again; what two looks agree on, and has not been taken up, is."""
        before: bytes | None = None
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            seen = await asyncio.to_thread(self._look)
            if seen == before and seen != self._taken:
                await self.reload("the file has changed")
            before = seen

    def _look(self) -> bytes:
        try:
            return _digest(self._source.read() or b"", self._files)
        except ConfigError as error:
            return str(error).encode()


def _files(config: Config) -> tuple[str, ...]:
    """The files that a configuration names, whose contents change in place: keys and certificates."""
    named = [
        file
        for upstream in config.upstreams.values()
        for file in (upstream.api_key_file, upstream.tls.ca_file, upstream.tls.cert_file, upstream.tls.key_file)
    ]
    return tuple(file for file in named if file is not None)


def _digest(text: bytes, files: Iterable[str]) -> bytes:
    whole = hashlib.sha256(text)
    for file in files:
        whole.update(digest(file) or b"none")
    return whole.digest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
