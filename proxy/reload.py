"""Notices a new configuration, makes it ready whole, and puts it in force or keeps the old one.

A file is read twice a second: what its links lead to, whoever has renamed what, its content is what counts. It is
taken up when two looks agree, so that nothing half written is.

Source: DESIGN.md §5.2.
"""

import asyncio
import hashlib
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple, Protocol

from proxy.call import Json
from proxy.config import Config, ConfigError, Mistake, differences, shown
from proxy.process import aside
from proxy.sources import Source
from proxy.telemetry import ReloadCounts
from proxy.upstream.material import digest

logger = logging.getLogger("octet")

LOOK_SECONDS = 0.5
REMEMBERED = 20  # reloads
PATIENCE_SECONDS = 30.0  # for files to be read

Prepare = Callable[[Config], Coroutine[Any, Any, "Ready"]]


class Ready(Protocol):
    """A configuration that has been made ready, in every process that is to have it."""

    @property
    def config(self) -> Config:
        """It, as far as it will be in force."""
        ...

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
        text: what it was read from; None where that cannot change.
        prepare: makes one ready; raises ConfigError.
    """

    def __init__(
        self, source: Source, config: Config, text: bytes | None, prepare: Prepare, counts: ReloadCounts
    ) -> None:
        self.generation = 1
        self.config = config  # in force
        self._source = source
        self._prepare = prepare
        self._counts = counts
        self._lock = asyncio.Lock()
        self._closed = False
        self._read = config  # what was in the source, when it was taken over last
        self._files = config.files  # that are watched beside the source
        self._changes = text is not None
        self._certificates = _digest(b"", self._files)  # of what is in force, these files alone
        self._in_force = self._judged = _digest(text or b"", self._files)  # the last: what was judged, good or bad
        self._since = _now()
        self._attempts: deque[Attempt] = deque(maxlen=REMEMBERED)
        self._watching: asyncio.Task[None] | None = None
        self._reloads: set[asyncio.Task[Attempt]] = set()
        self._taking: asyncio.Task[Any] | None = None  # the one that is past being given up
        counts.loaded()

    def start(self) -> None:
        """Watch, if there is something that can change."""
        if self._changes:
            self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def close(self) -> None:
        """Stop watching; nothing is taken over any more, but for what is being taken over now."""
        self._closed = True
        tasks = [*self._reloads, *([self._watching] if self._watching is not None else [])]
        for task in tasks:
            if task is not self._taking:
                task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def reload(self, because: str) -> Attempt:
        """Read the source, and put what it says in force, or keep what is; also when who asked for it has gone."""
        task = asyncio.get_running_loop().create_task(self._reload_alone(because))
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)
        return await asyncio.shield(task)

    async def _reload_alone(self, because: str) -> Attempt:
        async with self._lock:
            now = _now()
            try:
                attempt = await self._reload(now, because)
            except ConfigError as error:
                attempt = Attempt(now, because, self.generation, mistakes=tuple(map(str, error.mistakes)))
            except Exception as error:
                logger.exception("taking a configuration over failed")
                mistake = f"the sidecar failed on it: {type(error).__name__}"
                attempt = Attempt(now, because, self.generation, mistakes=(mistake,))
        self._tell(attempt)
        return attempt

    def describe(self) -> Json:
        """What is in force, without secrets, and what the last reloads did."""
        return {**self.describe_reloads(), "source": self._source.name, "config": shown(self.config)}

    def describe_reloads(self) -> Json:
        """Which generation is in force, and what the last reloads did."""
        return {
            "generation": self.generation,
            "since": self._since,
            "reloads": [attempt.told() for attempt in reversed(self._attempts)],
        }

    async def _reload(self, now: str, because: str) -> Attempt:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                look = await aside(partial(_look, self._source, self._files))
        except TimeoutError as error:
            reason = f"cannot be read within {PATIENCE_SECONDS:.0f} s"
            raise ConfigError([Mistake(self._source.name, None, (), reason)]) from error
        self._judged, self._files = look.digest, look.files
        if look.config is None:
            raise look.error
        if look.digest != self._in_force:
            changes = [str(change) for change in differences(self._read, look.config)]
            if look.certificates != self._certificates:
                changes.append("keys or certificates altered")
            if changes:
                return await self._take(now, because, look, look.config, changes)
            self._in_force = look.digest  # other words for the same
        return Attempt(now, because, self.generation)

    async def _take(self, now: str, because: str, look: "_Look", read: Config, changes: list[str]) -> Attempt:
        ready = await self._prepare(read)
        if self._closed:
            raise ConfigError([Mistake(self._source.name, None, (), "the sidecar is shutting down")])
        config, needs_restart = ready.config, tuple(ready.needs_restart)
        self._taking = asyncio.current_task()
        try:
            await ready.commit(self.generation + 1)
        finally:
            self._taking = None
        self.generation += 1
        self.config, self._read, self._since = config, read, now
        self._in_force, self._certificates = look.digest, look.certificates
        return Attempt(now, because, self.generation, tuple(changes), needs_restart)

    def _tell(self, attempt: Attempt) -> None:
        """One log entry, and the metrics."""
        if not attempt.is_good:
            self._attempts.append(attempt)
            if self._changes:  # and can be mended
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
        """Look again and again; what two looks agree on, and has not been judged, is."""
        before: bytes | None = None
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            seen = await aside(partial(_seen, self._source, self._files))
            if seen == before and seen != self._judged:
                await self.reload("the file has changed")
            before = seen


class _Look(NamedTuple):
    """What was found when the source was read: a configuration, or what is wrong."""

    digest: bytes
    certificates: bytes  # a digest of the other files alone
    files: tuple[str, ...]
    config: Config | None
    error: ConfigError


def _look(source: Source, files: tuple[str, ...]) -> _Look:
    """Read and check; it takes time."""
    nothing = ConfigError(())
    try:
        text = source.read()
    except ConfigError as error:
        return _Look(str(error).encode(), b"", files, None, error)
    if text is None:
        reason = "there is no file to read: the configuration came from elsewhere"
        return _Look(b"", b"", files, None, ConfigError([Mistake(source.name, None, (), reason)]))
    try:
        config = source.parse(text)
    except ConfigError as error:
        named = tuple(dict.fromkeys((*files, *error.files)))
        return _Look(_digest(text, named), _digest(b"", named), named, None, error)
    named = config.files
    return _Look(_digest(text, named), _digest(b"", named), named, config, nothing)


def _seen(source: Source, files: tuple[str, ...]) -> bytes:
    """The digest alone."""
    try:
        return _digest(source.read() or b"", files)
    except ConfigError as error:
        return str(error).encode()


def _digest(text: bytes, files: Iterable[str]) -> bytes:
    whole = hashlib.sha256(text)
    for file in files:
        whole.update(digest(file) or b"none")
    return whole.digest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
