"""The parent's decisions, with workers that do what a test says: what real ones can hardly be made to do in time."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from proxy.config import Config, ConfigError, Mistake
from proxy.config.load import build
from proxy.config.source import Document
from proxy.errors import ProxyFault
from proxy.providers import traits
from proxy.workers import supervisor
from proxy.workers.channel import Gone
from proxy.workers.child import Child, Nursery
from proxy.workers.supervisor import Supervisor
from tests.waiting import until

Act = Callable[[str], Any]


class FileOf:
    """A file that always holds another configuration."""

    name = "test"

    def __init__(self) -> None:
        self._reads = 0

    def read(self) -> bytes:
        self._reads += 1
        return b"%d" % self._reads

    def parse(self, text: bytes) -> Config:
        return configuration(text.decode())


def configuration(key: str = "0") -> Config:
    """Three workers; the key says which it is."""
    server = {"listen": "127.0.0.1:0", "admin": "127.0.0.1:0", "workers": 3}
    tree = {"server": server, "upstreams": {"a": {"provider": "openai", "api_key": key}}}
    return build(Document("test", tree), traits())


def key_of(config: Config) -> str:
    key = config.upstreams["a"].api_key
    return key.get_secret_value() if key is not None else ""


class Scripted(Child):
    """A worker that follows a script instead of being a process.

    Args:
        act: called with what is asked, before it is done; may raise, or give what is to be waited for.
    """

    def __init__(self, pid: int, act: Act) -> None:
        self._pid, self._act = pid, act
        self._over = asyncio.Event()
        self.prepared: str | None = None
        self.key, self.generation = "", 0

    @property
    def pid(self) -> int:
        return self._pid

    async def ask(self, what: str, **arguments: Any) -> Any:
        if self._over.is_set():
            raise Gone
        waiting = self._act(what)
        if waiting is not None:
            await waiting
        if what == "start":
            self.key, self.generation = key_of(arguments["beginning"].config), arguments["beginning"].place.generation
        elif what == "prepare":
            self.prepared = key_of(arguments["config"])
        elif what == "discard":
            self.prepared = None
        elif what == "commit":
            assert self.prepared is not None
            self.key, self.generation, self.prepared = self.prepared, arguments["generation"], None
        elif what == "stop":
            self._over.set()

    async def ended(self) -> int:
        await self._over.wait()
        return -9

    def kill(self) -> None:
        self._over.set()


class Stage:
    """A parent and its scripted workers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.born: list[Scripted] = []
        self.acts: dict[int, Act] = {}  # by the number of its birth, from 0
        monkeypatch.setattr(Child, "spawn", self._spawn)
        self.waits: list[float] = []
        monkeypatch.setattr(supervisor, "asyncio", _Hasty(self.waits))
        self.parent = Supervisor(configuration(), FileOf(), None)

    async def _spawn(self, _: Nursery) -> Scripted:
        number = len(self.born)
        self.born.append(Scripted(1000 + number, lambda what: self._act(number, what)))
        return self.born[-1]

    def _act(self, number: int, what: str) -> Any:
        act = self.acts.get(number)
        return act(what) if act is not None else None

    async def reload(self) -> Any:
        async with asyncio.timeout(10):
            return await self.parent.reloader.reload("test")

    def serving(self) -> list[Scripted]:
        return [child for child in self.parent.crew.children.values() if isinstance(child, Scripted)]


class _Hasty:
    """asyncio, whose sleeps are noted and take no time."""

    def __init__(self, waits: list[float]) -> None:
        self._waits = waits

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def sleep(self, seconds: float) -> None:
        self._waits.append(seconds)
        await asyncio.sleep(0)


@pytest.fixture
async def stage(monkeypatch: pytest.MonkeyPatch) -> Any:
    made = Stage(monkeypatch)
    await made.parent.start()
    yield made
    made.acts.clear()
    await made.parent.stop()


def cannot() -> None:
    raise ConfigError([Mistake("configuration", None, ("upstreams", "a", "api_key_file"), "cannot be read")])


async def test_a_worker_that_dies_at_once_is_begun_more_and_more_slowly(stage: Stage) -> None:
    """Every death in a row doubles the wait before the next beginning, up to five seconds."""
    for _ in range(9):
        before = len(stage.born)
        stage.serving()[-1].kill() if before == 3 else stage.born[-1].kill()
        await until(lambda before=before: len(stage.born) > before and len(stage.serving()) == 3)  # type: ignore[misc]
    assert stage.waits == [min(0.2 * 2**turn, 5.0) for turn in range(9)]


async def test_a_worker_that_cannot_begin_is_tried_more_and_more_slowly(stage: Stage) -> None:
    """A beginning that fails, whatever the reason, is repeated ever more slowly, and the others serve."""
    reasons: list[Exception] = [ProxyFault("taken"), Gone(), OSError("no more files")]
    for number, reason in enumerate(reasons):
        stage.acts[3 + number] = lambda what, reason=reason: _fail(reason) if what == "start" else None  # type: ignore[misc]
    stage.acts[6] = lambda what: cannot() if what == "start" else None
    stage.serving()[0].kill()
    await until(lambda: len(stage.serving()) == 3 and len(stage.born) == 8)
    assert stage.waits == [0.2, 0.4, 0.8, 1.6, 3.2]


def _fail(reason: Exception) -> None:
    raise reason


async def test_none_takes_over_what_one_cannot(stage: Stage) -> None:
    """Where one worker cannot make it ready, all forget it."""
    stage.acts[1] = lambda what: cannot() if what == "prepare" else None
    attempt = await stage.reload()
    assert (attempt.is_good, attempt.generation) == (False, 1)
    assert [(child.key, child.generation, child.prepared) for child in stage.born] == [("0", 1, None)] * 3
    stage.acts.clear()
    assert (await stage.reload()).generation == 2
    assert {child.generation for child in stage.born} == {2}


async def test_a_worker_that_does_not_take_over_is_replaced(stage: Stage) -> None:
    """One that fails after it was ready does not stay behind: its successor begins with the new configuration."""
    stage.acts[2] = lambda what: _fail(ProxyFault("a worker failed: KeyError")) if what == "commit" else None
    assert (await stage.reload()).generation == 2
    await until(lambda: len(stage.born) == 4 and len(stage.serving()) == 3)
    assert {(child.key, child.generation) for child in stage.serving()} == {("1", 2)}


@pytest.mark.parametrize("at", ["prepare", "commit"])
async def test_a_worker_that_dies_on_the_way_is_no_obstacle(stage: Stage, at: str) -> None:
    """One that dies while it makes ready or takes over leaves the reload to the others."""

    def die(what: str) -> None:
        if what == at:
            stage.born[0].kill()
            raise Gone

    stage.acts[0] = die
    assert (await stage.reload()).generation == 2
    await until(lambda: len(stage.born) == 4 and len(stage.serving()) == 3)
    assert {(child.key, child.generation) for child in stage.serving()} == {("1", 2)}


async def late_comers(stage: Stage, count: int, act: Act = lambda _: None) -> asyncio.Task[Any]:
    """A reload that is held up in the middle of taking over, while so many successors have begun."""
    began, gate = asyncio.Event(), asyncio.Event()
    stage.acts[0] = lambda what: _held(began, gate) if what == "commit" else None
    for number in range(3, 3 + count):
        stage.acts[number] = act
    task = asyncio.get_running_loop().create_task(stage.reload())
    await began.wait()
    for child in stage.born[3 - count : 3]:
        child.kill()
    await until(lambda: len(stage.born) == 3 + count and len(stage.serving()) == 3)
    gate.set()
    return task


async def _held(began: asyncio.Event, gate: asyncio.Event) -> None:
    began.set()
    await gate.wait()


@pytest.mark.parametrize("count", [1, 2])
async def test_those_that_begin_meanwhile_follow(stage: Stage, count: int) -> None:
    """Workers that begin while the others take over have the new generation in the end."""
    task = await late_comers(stage, count)
    assert (await task).generation == 2
    assert {(child.key, child.generation) for child in stage.serving()} == {("1", 2)}


@pytest.mark.parametrize("reason", [Gone(), ProxyFault("a worker failed: OSError"), None])
async def test_a_late_comer_that_fails_undoes_nothing(stage: Stage, reason: Exception | None) -> None:
    """When all others have taken over, one that has just begun and fails is replaced; the generation counts."""

    def act(what: str) -> None:
        if what == "prepare":
            _fail(reason) if reason is not None else cannot()

    task = await late_comers(stage, 1, act)
    attempt = await task
    assert (attempt.is_good, attempt.generation) == (True, 2)
    assert stage.parent.reloader.generation == 2


async def test_nobody_who_begins_meanwhile_is_forgotten(stage: Stage) -> None:
    """Also a worker that begins while another late one is being told has the new generation."""
    task = await late_comers(stage, 1)
    stage.born[1].kill()
    await until(lambda: len(stage.born) == 5 and len(stage.serving()) == 3)
    assert (await task).generation == 2
    assert {child.generation for child in stage.serving()} == {2}


async def test_a_worker_that_fails_oddly_is_a_bad_reload(stage: Stage) -> None:
    """What a worker cannot do for no reason of the file's keeps the old configuration, and is told as a failure."""
    stage.acts[1] = lambda what: _fail(ProxyFault("a worker failed: MemoryError")) if what == "prepare" else None
    attempt = await stage.reload()
    assert (attempt.is_good, attempt.generation) == (False, 1)


async def test_who_asked_may_leave(stage: Stage) -> None:
    """Somebody who hangs up in the middle of a reload does not leave workers at different generations."""
    began, gate = asyncio.Event(), asyncio.Event()
    stage.acts[0] = lambda what: _held(began, gate) if what == "commit" else None
    asking = asyncio.get_running_loop().create_task(stage.reload())
    await began.wait()
    asking.cancel()
    await asyncio.wait([asking])
    gate.set()
    await until(lambda: stage.parent.reloader.generation == 2)
    assert [child.generation for child in stage.serving()] == [2, 2, 2]
    stage.acts.clear()
    assert (await stage.reload()).generation == 3
