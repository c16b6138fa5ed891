"""A body waits for whoever asks for it, within bounds; a reader, a sink and a clock come to their end once."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from proxy.errors import Broken, ProxyFault, TooSlow
from proxy.upstream.exchange import WAITING_BYTES, Exchange
from tests.upstream.scene import Notes, Scene

LIMIT = 1024 * 1024
STEP = 8 * 1024


def head(length: int) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % length


async def begun(work: Awaitable[Any]) -> asyncio.Task[Any]:
    """The work as a task that has come to its first wait."""
    task = asyncio.ensure_future(work)
    await asyncio.sleep(0)
    return task


async def outcome(task: asyncio.Task[Any]) -> Any:
    """What a task gave or raised; it must be at its end in no time."""
    (found,) = await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), 5)
    return found


def send_until_paused(scene: Scene, most: int) -> int:
    """Send a body in steps as long as anybody reads; how much was taken."""
    taken = 0
    while scene.socket.reading and taken < most:
        scene.come(b"x" * STEP)
        taken += STEP
    return taken


async def test_a_body_nobody_asked_for_waits_in_the_network() -> None:
    """No more than 64 KiB and a read of it wait here; whoever asks gets it whole."""
    for asks in (Exchange.read, Exchange.start):
        scene, notes = Scene(), Notes()
        exchange = scene.ask()
        scene.come(head(LIMIT))
        taken = send_until_paused(scene, LIMIT)
        assert taken == WAITING_BYTES + STEP
        if asks is Exchange.read:
            reader = await begun(exchange.read(LIMIT))
        else:
            exchange.start(notes)
            assert len(notes.body) == taken
        assert scene.socket.reading
        assert taken + send_until_paused(scene, LIMIT - taken) == LIMIT
        body = await outcome(reader) if asks is Exchange.read else notes.body
        assert body == b"x" * LIMIT
        assert scene.fate == "kept"


async def test_a_sink_holds_the_upstream_back() -> None:
    """`pause` and `resume` reach the socket, more of them do no harm, and a connection is given back reading."""
    scene, notes, reading = Scene(), Notes(), list[bool]()
    exchange = scene.ask()
    scene.come(head(10))
    exchange.start(notes)
    for act in (exchange.pause, exchange.pause, exchange.resume, exchange.resume, exchange.pause):
        act()
        reading.append(scene.socket.reading)
    assert reading == [False, False, True, True, False]
    scene.come(b"0123456789")  # was read already
    assert (notes.body, notes.last, scene.fate) == (b"0123456789", [None], "kept")
    exchange.pause()
    assert scene.socket.reading  # the connection is another exchange's now


async def test_a_body_that_is_too_long() -> None:
    """A reader is told that a body is longer than its limit, however it came."""
    for reads_first in (True, False):
        for reads in ([b"x" * 20], [b"x" * 10, b"x" * 10], [b"x"] * 20):
            scene = Scene()
            exchange = scene.ask()
            scene.come(head(20))
            if not reads_first:
                scene.come(*reads)
            reader = await begun(exchange.read(19))
            if reads_first:
                scene.come(*reads)
            assert type(await outcome(reader)) is Broken, (reads_first, len(reads))
            exchange.close()


async def test_a_body_of_just_the_limit() -> None:
    """A body as long as the limit is read."""
    scene = Scene()
    exchange = scene.ask()
    scene.come(head(20))
    reader = await begun(exchange.read(20))
    scene.come(b"x" * 10, b"x" * 10)
    assert await outcome(reader) == b"x" * 20


async def test_a_reader_of_too_much_holds_the_upstream_back() -> None:
    """When the limit is passed, no more is read until the exchange is closed; then the connection is shut."""
    scene = Scene()
    exchange = scene.ask()
    scene.come(head(LIMIT))
    reader = await begun(exchange.read(100_000))
    assert send_until_paused(scene, LIMIT) <= 100_000 + STEP
    assert type(await outcome(reader)) is Broken
    exchange.close()
    assert scene.fate == "aborted"


async def test_the_beginning_of_a_body() -> None:
    """`read_up_to` waits for its limit or for the end, and gives all that has come."""
    scene = Scene()
    exchange = scene.ask()
    scene.come(head(30))
    reader = await begun(exchange.read_up_to(10))
    scene.come(b"x" * 10)
    await asyncio.sleep(0)
    assert not reader.done()
    scene.come(b"y" * 10)
    assert await outcome(reader) == b"x" * 10 + b"y" * 10
    exchange.close()
    scene = Scene()
    exchange = scene.ask()
    scene.come(head(3) + b"xyz")
    assert await exchange.read_up_to(10) == b"xyz"


class Faulty(Notes):
    """A sink with a bug."""

    def feed(self, data: bytes) -> None:
        raise ZeroDivisionError(data)


class FaultyAtTheEnd(Notes):
    def end(self) -> None:
        raise ZeroDivisionError


@pytest.mark.parametrize("rest", [b"xx", b"xxx"], ids=["in the middle", "with the end"])
async def test_a_sink_that_fails(rest: bytes) -> None:
    """A bug of ours ends the stream as our fault, and the connection with it; nothing is told twice."""
    scene, faulty = Scene(), Faulty()
    exchange = scene.ask()
    scene.come(head(3))
    exchange.start(faulty)
    scene.come(rest)
    (failure,) = faulty.last
    assert type(failure) is ProxyFault
    assert isinstance(failure.__cause__, ZeroDivisionError)
    assert "xx" not in str(failure)
    assert scene.fate == "aborted"
    scene.leave()
    exchange.close()
    assert faulty.last == [failure]


async def test_a_sink_that_fails_at_the_end() -> None:
    """A bug of ours in the end of a stream leaves no stream standing either, and no exception flies at the loop."""
    scene, faulty = Scene(), FaultyAtTheEnd()
    exchange = scene.ask()
    scene.come(head(3))
    exchange.start(faulty)
    scene.come(b"xyz")
    assert [type(failure) for failure in faulty.last] == [ProxyFault]


Setting = Callable[[Scene, Exchange], object]


def nothing(_: Scene, __: Exchange) -> None:
    pass


def head_came(scene: Scene, _: Exchange) -> None:
    scene.come(head(3))


def part_came(scene: Scene, _: Exchange) -> None:
    scene.come(head(3) + b"x")


def all_came(scene: Scene, _: Exchange) -> None:
    scene.come(head(3) + b"xyz")


def pushed(scene: Scene, exchange: Exchange) -> None:
    scene.come(head(3) + b"x")
    exchange.start(Notes())


def failed(scene: Scene, _: Exchange) -> None:
    scene.come(b"SSH-2.0\r\n")


@pytest.mark.parametrize("setting", [nothing, head_came, part_came])
async def test_the_clock(setting: Setting) -> None:
    """An answer that is not whole in time is TooSlow, by the name of its clock, for head and reader alike."""
    scene = Scene()
    exchange = scene.ask()
    exchange.bound(scene.loop.time() + 10, "first_token")
    setting(scene, exchange)
    reader = await begun(exchange.read(LIMIT))
    scene.clock.turn(9.9)
    assert scene.fate == "in use"
    scene.clock.turn(0.1)
    failure = await outcome(reader)
    assert type(failure) is TooSlow
    assert (failure.clock, failure.reason) == ("first_token", "TooSlow.first_token")
    if not exchange.status:
        assert exchange.headed.exception() is failure
    assert scene.fate == "aborted"
    scene.leave()
    assert scene.heard == ["gone"]
    exchange.close()


@pytest.mark.parametrize("setting", [all_came, pushed])
async def test_the_clock_stops(setting: Setting) -> None:
    """What is at its end, or is pushed, is not TooSlow whatever the time."""
    scene = Scene()
    exchange = scene.ask()
    exchange.bound(scene.loop.time() + 10, "total")
    setting(scene, exchange)
    fate = scene.fate
    scene.clock.turn(20)
    assert scene.fate == fate != "aborted"
    assert scene.clock.timers == []
    if setting is all_came:
        assert await exchange.read(LIMIT) == b"xyz"


async def test_a_closed_exchange_has_no_clock() -> None:
    """Nothing fails after `close`, not even while the end of the answer is awaited."""
    scene = Scene()
    exchange = scene.ask()
    exchange.bound(scene.loop.time() + 0.5, "total")
    scene.come(head(3) + b"x")
    exchange.close(drain=True)
    scene.clock.turn(0.75)
    assert scene.fate == "in use"
    scene.come(b"yz")
    assert scene.fate == "kept"
