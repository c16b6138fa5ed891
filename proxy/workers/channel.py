"""Questions and answers between the parent and one worker, over a pair of sockets that nobody else has.

Both are the same program of the same user, so what is said is pickled.
"""

import asyncio
import pickle
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from proxy import errors
from proxy.config import ConfigError
from proxy.errors import ProxyError, ProxyFault

MOST_BYTES = 256 * 1024 * 1024
_HEAD = 8  # bytes that say how many follow


class Question(NamedTuple):
    """Something that the worker is to do."""

    number: int
    what: str
    arguments: dict[str, Any]


class Reply(NamedTuple):
    """What came of it: a value, or what was raised."""

    number: int
    value: Any
    failure: tuple[str, dict[str, Any]] | None = None


class Gone(Exception):
    """The other process has gone."""


async def receive(reader: asyncio.StreamReader) -> Any:
    """The next thing that is said; raises Gone."""
    try:
        size = int.from_bytes(await reader.readexactly(_HEAD), "big")
        if size > MOST_BYTES:
            raise Gone
        return pickle.loads(await reader.readexactly(size))  # noqa: S301  # from a process of ours
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise Gone from error


def send(writer: asyncio.StreamWriter, thing: Question | Reply) -> None:
    """Say something."""
    data = pickle.dumps(tuple(thing))
    writer.write(len(data).to_bytes(_HEAD, "big") + data)


class Channel:
    """The parent's end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._number = 0
        self._task = asyncio.get_running_loop().create_task(self._listen())

    async def ask(self, what: str, **arguments: Any) -> Any:
        """Have the worker do something.

        Raises:
            Gone: it has ended.
            ProxyError, ConfigError: what it says.
        """
        if self._task.done():
            raise Gone
        self._number += 1
        number, answer = self._number, asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        try:
            send(self._writer, Question(number, what, arguments))
            return await answer
        finally:
            self._asked.pop(number, None)

    @property
    def is_gone(self) -> bool:
        """Whether the worker has closed its end."""
        return self._task.done()

    async def gone(self) -> None:
        """Until it has."""
        await asyncio.wait([self._task])

    async def close(self) -> None:
        """Say nothing more; the worker takes that for the end."""
        self._task.cancel()
        await asyncio.wait([self._task])
        self._writer.close()

    async def _listen(self) -> None:
        try:
            while True:
                reply = Reply(*await receive(self._reader))
                answer = self._asked.get(reply.number)
                if answer is None or answer.done():
                    continue
                if reply.failure is None:
                    answer.set_result(reply.value)
                else:
                    answer.set_exception(_raised(*reply.failure))
        except Gone:
            pass
        finally:
            for answer in self._asked.values():
                if not answer.done():
                    answer.set_exception(Gone())


Act = Callable[[str, dict[str, Any]], Coroutine[Any, Any, Any]]


class Answering:
    """The worker's end: does what it is asked, several things at once, until the parent has gone."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, act: Act) -> None:
        self._reader, self._writer, self._act = reader, writer, act
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until the parent has gone."""
        while True:
            try:
                question = Question(*await receive(self._reader))
            except Gone:
                return
            task = asyncio.get_running_loop().create_task(self._answer(question))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(self, question: Question) -> None:
        try:
            send(self._writer, Reply(question.number, await self._act(question.what, question.arguments)))
        except (ProxyError, ConfigError) as error:
            send(self._writer, Reply(question.number, None, _told(error)))
        except Exception as error:  # what cannot be said, too
            message = f"a worker failed: {type(error).__name__}"
            send(self._writer, Reply(question.number, None, ("ProxyFault", {"message": message})))
            raise


def _told(error: ProxyError | ConfigError) -> tuple[str, dict[str, Any]]:
    """An exception as plain data."""
    if isinstance(error, ConfigError):
        return "ConfigError", {"mistakes": error.mistakes}
    fields = {"message": error.message, "param": error.param, "code": error.code}
    return type(error).__name__, {**fields, "status": error.status} if isinstance(error, ProxyFault) else fields


def _raised(name: str, fields: dict[str, Any]) -> Exception:
    if name == "ConfigError":
        return ConfigError(fields["mistakes"])
    kind: Callable[..., Exception] = getattr(errors, name, ProxyFault)
    try:
        return kind(**fields)
    except TypeError:  # it wants to know more
        return ProxyFault(fields["message"], code=fields.get("code"))
