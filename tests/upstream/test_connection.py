"""A connection carries one exchange after another as long as nothing is doubtful, and is given back or shut once."""

import asyncio

import pytest

from proxy.errors import CutShort, TooSlow, Unreachable
from proxy.upstream.connection import DRAIN_SECONDS, JOINED_BYTES
from proxy.upstream.exchange import WAITING_BYTES, Exchange, Stale
from tests.upstream.scene import Notes, Scene

LIMIT = 1024 * 1024
OK = b"HTTP/1.1 200 OK\r\n"
SIZED = OK + b"content-length: 5\r\n\r\nhello"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
TRAILED = OK + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-evil: 1\r\nset-cookie: y\r\n\r\n"

KEPT = {
    "content-length": SIZED,
    "chunked": CHUNKED,
    "chunked, with trailers": TRAILED,
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "not modified": b"HTTP/1.1 304 Not Modified\r\netag: x\r\n\r\n",
    "an error": b"HTTP/1.1 429 Too Many\r\ncontent-length: 5\r\n\r\nhello",
    "HTTP/1.0 that is kept alive": b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 5\r\n\r\nhello",
    "an informational answer before it": b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + SIZED,
}
SHUT = {
    "connection: close": OK + b"connection: close\r\ncontent-length: 5\r\n\r\nhello",
    "connection: Close, among others": OK + b"connection: x, Close\r\ncontent-length: 5\r\n\r\nhello",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    "two answers": SIZED + SIZED,
    "the beginning of a second answer": SIZED + b"H",
    "garbage after the end": CHUNKED + b"garbage",
    "an upgrade after the end": SIZED + b"HTTP/1.1 101 Up\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    "a body longer than it says": SIZED + b" world",
    "a byte after the end": SIZED + b"\0",
}


@pytest.mark.parametrize("pushes", [False, True], ids=["read", "push"])
@pytest.mark.parametrize("raw", KEPT.values(), ids=KEPT.keys())
async def test_a_good_answer_leaves_the_connection_to_the_next(raw: bytes, pushes: bool) -> None:
    """It is given back once, at the end of the answer; the next answer has nothing of the last one in it."""
    scene = Scene()
    for count in range(1, 4):
        exchange, notes = scene.ask(reused=count > 1), Notes()
        if pushes:
            scene.come(raw[:-1])
            exchange.start(notes)
            scene.come(raw[-1:])
            assert notes.last == [None]
        else:
            scene.come(raw)
        exchange.close(drain=True)
        assert scene.heard == ["freed"] * count
    last = scene.ask(reused=True)
    scene.come(SIZED)
    assert (last.status, last.headers, await last.read(LIMIT)) == (200, {"content-length": "5"}, b"hello")
    scene.leave()
    assert scene.heard == ["freed"] * 4 + ["gone"]


@pytest.mark.parametrize("raw", SHUT.values(), ids=SHUT.keys())
async def test_a_doubtful_connection_is_shut(raw: bytes) -> None:
    """The answer is good, but nobody else gets the connection."""
    scene = Scene()
    exchange = scene.ask()
    scene.come(raw)
    assert await exchange.read(LIMIT) == b"hello"
    exchange.close()
    assert scene.fate == "aborted"
    assert not scene.connection.usable
    scene.leave()
    assert scene.heard == ["gone"]


async def test_a_connection_that_is_closed_with_the_answer_is_not_kept() -> None:
    """The end of the connection is the end of some answers, and in any case the end of the connection."""
    scene = Scene()
    exchange = scene.ask()
    scene.come(OK + b"\r\nhello")
    scene.leave()
    assert await exchange.read(LIMIT) == b"hello"
    assert scene.heard == ["gone"]


async def test_bytes_on_an_idle_connection() -> None:
    """Whatever an upstream says without being asked, it is not taken for the next answer."""
    for before in ([], [SIZED]):
        scene = Scene()
        for raw in before:
            scene.ask()
            scene.come(raw)
        scene.come(SIZED)
        assert scene.socket.aborted
        assert not scene.connection.usable


async def test_an_answer_to_half_a_request() -> None:
    """An answer that came while the request was still being sent is good; the connection is not."""
    for unsent, fate in ((1, "aborted"), (0, "kept")):
        scene = Scene()
        exchange = scene.ask()
        scene.socket.unsent = unsent
        scene.come(SIZED)
        assert await exchange.read(LIMIT) == b"hello"
        assert scene.fate == fate


async def test_an_idle_connection_that_is_closed_is_not_usable() -> None:
    """Neither after the end of what the upstream sends, nor when it is gone, nor when we have shut it."""
    scene, usable = Scene(), list[bool]()
    for act in (lambda: None, scene.connection.eof_received, scene.leave):
        act()
        usable.append(scene.connection.usable)
    assert usable == [True, False, False]
    with pytest.raises(RuntimeError):
        scene.ask()
    scene = Scene()
    scene.connection.abort()
    assert not scene.connection.usable


async def test_a_request_is_sent_whole() -> None:
    """Head and body reach the socket in their order, joined or not."""
    for size in (0, 1, JOINED_BYTES, JOINED_BYTES + 1):
        scene = Scene()
        scene.connection.ask(b"head", b"x" * size, Exchange(scene.connection, scene.loop, reused=False))
        assert scene.socket.sent == b"head" + b"x" * size


@pytest.mark.parametrize("error", [None, ConnectionResetError()], ids=["closed", "reset"])
async def test_a_stale_connection(error: Exception | None) -> None:
    """Only a connection that was used before, and gave not a byte of an answer, allows that the request is repeated."""
    for reused, first, kind in (
        (True, b"", Stale),
        (True, b"H", Unreachable),
        (True, b"HTTP/1.1 100 Continue\r\n\r\n", Unreachable),
        (False, b"", Unreachable),
    ):
        scene = Scene()
        exchange = scene.ask(reused=reused)
        if first:
            scene.come(first)
        scene.leave(error)
        assert type(exchange.headed.exception()) is kind
        assert scene.heard == ["gone"]
        exchange.close()


MOMENTS = {
    "before the head": b"",
    "in the head": OK,
    "after the head": OK + b"content-length: 5\r\n\r\n",
    "in the body": SIZED[:-2],
    "after the end": SIZED,
    "after the end of a doubtful one": SHUT["connection: close"],
    "when it is broken": b"SSH-2.0\r\n",
}


@pytest.mark.parametrize("closes", [(False,), (True,), (False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("moment", MOMENTS)
async def test_closing(moment: str, closes: tuple[bool, ...]) -> None:
    """An exchange may be closed at any moment and twice: its connection is given back, or shut, once."""
    scene = Scene()
    exchange = scene.ask()
    if MOMENTS[moment]:
        scene.come(MOMENTS[moment])
    for drain in closes:
        exchange.close(drain=drain)
    if all(closes) and moment in ("after the head", "in the body"):
        assert scene.fate == "in use"
        scene.come(SIZED[len(MOMENTS[moment]) :])
        kept = True
    else:
        kept = moment == "after the end"
    assert scene.fate == ("kept" if kept else "aborted")
    if kept:  # a timer of the last exchange must not shut the next one's connection
        scene.ask(reused=True)
        scene.clock.turn(2 * DRAIN_SECONDS)
        assert not scene.socket.aborted
    scene.leave()
    assert scene.heard == (["freed", "gone"] if kept else ["gone"])
    assert scene.clock.timers == []


async def test_closing_while_somebody_waits_for_the_head() -> None:
    """Whoever waits for the head of a closed exchange is told so, and nothing is told to its sink."""
    scene = Scene()
    exchange = scene.ask()
    exchange.close()
    assert exchange.headed.cancelled()
    scene, notes = Scene(), Notes()
    exchange = scene.ask()
    scene.come(SIZED[:-2])
    exchange.start(notes)
    exchange.close(drain=True)
    scene.come(b"lo")
    assert (notes.body, notes.last) == (b"hel", [])


@pytest.mark.parametrize("paused", [False, True])
async def test_the_end_that_does_not_come(paused: bool) -> None:
    """The end of an answer is awaited for a moment and 64 KiB, whether or not its reader had held it back."""
    scene = Scene()
    exchange = scene.ask()
    scene.come(OK + b"content-length: %d\r\n\r\n" % LIMIT)
    if paused:
        exchange.pause()
    exchange.close(drain=True)
    assert scene.socket.reading
    scene.come(b"x" * WAITING_BYTES)
    assert scene.fate == "in use"
    scene.come(b"x")
    assert scene.fate == "aborted"
    scene = Scene()
    exchange = scene.ask()
    scene.come(SIZED[:-1])
    exchange.close(drain=True)
    scene.clock.turn(DRAIN_SECONDS)
    assert scene.fate == "aborted"


async def test_draining_what_breaks_off() -> None:
    """A connection that goes, or that sends nonsense, while the end of an answer is awaited, is gone, and no more."""
    for rest in (b"", b"zz\r\n"):
        scene = Scene()
        exchange = scene.ask()
        scene.come(CHUNKED[:-5])
        exchange.close(drain=True)
        if rest:
            scene.come(rest)
        scene.leave()
        assert scene.heard == ["gone"]
        assert scene.clock.timers == []


async def test_one_timer_serves_several_exchanges() -> None:
    """A connection has one timer, however many exchanges had their clocks on it; each clock is kept all the same."""
    scene = Scene()
    for _ in range(5):
        exchange = scene.ask()
        exchange.bound(scene.loop.time() + 10, "total")
        (timer,) = scene.clock.timers
        assert timer.due == scene.clock.began + 10
        scene.come(SIZED)
        scene.clock.turn(1)
    last = scene.ask()
    last.bound(scene.loop.time() + 7, "first_token")
    scene.clock.turn(6.9)  # past the timer
    assert not last.headed.done()
    scene.clock.turn(0.1)
    failure = last.headed.exception()
    assert isinstance(failure, TooSlow)
    assert failure.clock == "first_token"
    scene.leave()
    assert scene.clock.timers == []


async def test_a_shorter_clock_than_the_last() -> None:
    """A clock that runs out before the timer of an exchange before is kept too."""
    scene = Scene()
    scene.ask().bound(scene.loop.time() + 100, "total")
    scene.come(SIZED)
    exchange = scene.ask()
    exchange.bound(scene.loop.time() + 1, "total")
    assert len(scene.clock.timers) == 1
    scene.clock.turn(1)
    assert isinstance(exchange.headed.exception(), TooSlow)


async def test_one_failure_counts() -> None:
    """After the first failure nothing else is told: not the loss of the connection, nor a clock."""
    for kind in (CutShort, TooSlow):
        scene, notes = Scene(), Notes()
        exchange = scene.ask()
        exchange.bound(scene.loop.time() + 10, "total")
        scene.come(SIZED[:-2])
        if kind is TooSlow:
            scene.clock.turn(10)
        scene.leave(ConnectionResetError())
        exchange.expire(scene.loop.time() + 1000)
        exchange.start(notes)
        assert [type(failure) for failure in notes.last] == [kind]
        with pytest.raises(kind):
            await asyncio.wait_for(exchange.read(LIMIT), 5)
        exchange.close()
