"""Questions and answers between parent and worker."""

import asyncio
import inspect
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from proxy import errors
from proxy.config import ConfigError, Mistake
from proxy.errors import ProxyError, ProxyFault
from proxy.workers.channel import MOST_BYTES, Act, Answering, Channel, Gone
from tests.waiting import until

OURS = [each for each in vars(errors).values() if inspect.isclass(each) and issubclass(each, ProxyError)]
NEEDING_MORE = {errors.BudgetSpent, errors.LimitReached, errors.TooSlow}  # arguments of their own


@asynccontextmanager
async def talking(act: Act) -> AsyncIterator[tuple[Channel, asyncio.Task[None], asyncio.StreamWriter]]:
    """Both ends, and the worker's task and writer."""
    ours, theirs = socket.socketpair()
    channel = Channel(*await asyncio.open_connection(sock=ours))
    reader, writer = await asyncio.open_connection(sock=theirs)
    task = asyncio.get_running_loop().create_task(Answering(reader, writer, act).run())
    try:
        yield channel, task, writer
    finally:
        await close(channel)
        await asyncio.wait([task])
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def close(channel: Channel) -> None:
    """Nothing of it is left."""
    await channel.close()
    with suppress(ConnectionError):
        await channel._writer.wait_closed()


def raising(make: Callable[[], Exception]) -> Act:
    """A worker that can do nothing."""

    async def act(_: str, __: dict[str, Any]) -> Any:
        raise make()

    return act


async def echo(what: str, arguments: dict[str, Any]) -> Any:
    """A worker that tells what it is asked."""
    return what, arguments


async def test_an_answer_is_what_was_done() -> None:
    """What a worker returns comes back as it is, whatever its size."""
    big = "x" * (4 * 1024 * 1024)
    async with talking(echo) as (channel, _, _):
        assert await channel.ask("this", name="a", seconds=None) == ("this", {"name": "a", "seconds": None})
        assert await channel.ask("that", big=big) == ("that", {"big": big})


async def test_answers_find_their_questions_in_any_order() -> None:
    """A worker does several things at once; each answer goes to who asked."""
    gates = [asyncio.Event() for _ in range(3)]

    async def act(_: str, arguments: dict[str, Any]) -> Any:
        await gates[arguments["number"]].wait()
        return arguments["number"]

    async with talking(act) as (channel, _, _):
        asked = [asyncio.ensure_future(channel.ask("wait", number=number)) for number in range(3)]
        for number in (2, 0, 1):
            gates[number].set()
            assert await asked[number] == number


@pytest.mark.parametrize("kind", [each for each in OURS if each not in NEEDING_MORE], ids=lambda each: each.__name__)
async def test_a_failure_is_the_same_at_both_ends(kind: type[ProxyError]) -> None:
    """What a worker raises of ours is raised at the parent: its class, message, status, code and parameter."""
    raised = kind("told", param="p", code="c")
    async with talking(raising(lambda: raised)) as (channel, _, _):
        with pytest.raises(ProxyError) as caught:
            async with asyncio.timeout(5):
                await channel.ask("anything")
        told = caught.value
        assert type(told) is kind
        assert (told.message, told.status, told.code, told.param) == ("told", raised.status, "c", "p")


async def test_a_failure_that_needs_more_is_ours() -> None:
    """One that cannot be made anew from what all have is told as a fault of ours, and the channel goes on."""
    gone = errors.LimitReached("told", retry_after=1.0, limit="requests")
    async with talking(raising(lambda: gone)) as (channel, _, _):
        for _ in range(2):
            with pytest.raises(ProxyFault, match="told"):
                await channel.ask("anything")


async def test_a_status_of_its_own_is_kept() -> None:
    """A fault whose status says more than its class keeps it."""
    async with talking(raising(lambda: ProxyFault("full", status=503, code="x"))) as (channel, _, _):
        with pytest.raises(ProxyFault, match="full") as caught:
            await channel.ask("anything")
        assert (caught.value.status, caught.value.code) == (503, "x")


async def test_mistakes_of_a_configuration_are_all_told() -> None:
    """Mistakes come over whole, each with its place."""
    mistakes = [Mistake("octet.yaml", None, ("upstreams", "a"), "is bad"), Mistake("octet.yaml", None, (), "too")]
    async with talking(raising(lambda: ConfigError(mistakes))) as (channel, _, _):
        with pytest.raises(ConfigError) as caught:
            await channel.ask("prepare")
        assert caught.value.mistakes == mistakes


async def test_a_bug_in_a_worker_is_a_fault_without_details(caplog: pytest.LogCaptureFixture) -> None:
    """What nobody expected is told by its class alone, and the worker goes on answering."""
    failing = iter([True, False])

    async def act(_: str, __: dict[str, Any]) -> Any:
        if next(failing):
            raise KeyError("sk-secret")
        return "well"

    async with talking(act) as (channel, task, _):
        with pytest.raises(ProxyFault, match="a worker failed: KeyError") as caught:
            await channel.ask("anything")
        assert "sk-secret" not in caught.value.message
        assert await channel.ask("anything") == "well"
        assert not task.done()


async def test_whoever_waits_is_told_when_the_worker_goes() -> None:
    """All questions that are open end with Gone when the other side closes, and so do later ones."""
    never = asyncio.Event()

    async def act(_: str, __: dict[str, Any]) -> Any:
        await never.wait()

    async with talking(act) as (channel, _, writer):
        asked = [asyncio.ensure_future(channel.ask("wait")) for _ in range(3)]
        await asyncio.sleep(0)
        writer.close()
        assert [type(each) for each in await asyncio.gather(*asked, return_exceptions=True)] == [Gone] * 3
        with pytest.raises(Gone):
            await channel.ask("anything")


async def test_a_worker_notices_that_its_parent_has_gone() -> None:
    """When the parent closes its end, the worker's listening ends."""
    async with talking(echo) as (channel, task, _):
        await channel.close()
        await until(task.done)
        assert task.exception() is None


async def test_who_no_longer_waits_does_not_disturb_others() -> None:
    """An answer that comes too late is thrown away; the next question has its own."""
    gate = asyncio.Event()

    async def act(what: str, _: dict[str, Any]) -> Any:
        if what == "late":
            await gate.wait()
        return what

    async with talking(act) as (channel, _, _):
        late = asyncio.ensure_future(channel.ask("late"))
        assert await channel.ask("first") == "first"
        late.cancel()
        gate.set()
        assert await channel.ask("second") == "second"


@pytest.mark.parametrize("data", [b"\0" * 7, (MOST_BYTES + 1).to_bytes(8, "big"), (100).to_bytes(8, "big") + b"cut"])
async def test_half_a_message_is_the_end(data: bytes) -> None:
    """What ends within a message, or claims to be absurdly long, is taken for a worker that has gone."""
    ours, theirs = socket.socketpair()
    channel = Channel(*await asyncio.open_connection(sock=ours))
    asked = asyncio.ensure_future(channel.ask("anything"))
    await asyncio.sleep(0)
    theirs.sendall(data)
    theirs.shutdown(socket.SHUT_WR)
    with pytest.raises(Gone):
        await asked
    await close(channel)
    theirs.close()


async def test_a_value_that_cannot_be_told() -> None:
    """A worker that has no way to tell what it found says that it failed."""

    async def act(_: str, __: dict[str, Any]) -> Any:
        return lambda: None

    async with talking(act) as (channel, _, _):
        with pytest.raises(ProxyFault):
            await asyncio.wait_for(channel.ask("anything"), 1.0)
