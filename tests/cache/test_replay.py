"""A kept answer is streamed whole and in order, at once or in pieces, and stops when it is told to."""

import asyncio
from collections.abc import Callable

import pytest

from proxy.cache.replay import LONGEST_PAUSE, Replay
from proxy.reply import Out

FRAMES = [b'data: {"n":%d}\n\n' % number for number in range(20)] + [b"data: [DONE]\n\n"]
EVENTS = b"".join(FRAMES)
QUICK = 1e-6  # seconds for the whole of a stream


class Heard(Out):
    """What was pushed, and when it ended."""

    def __init__(self, then: Callable[[], object] = lambda: None) -> None:
        self.pieces: list[bytes] = []
        self.ended = False
        self._then = then

    @property
    def write(self) -> None:
        return None

    def push(self, data: bytes) -> None:
        assert not self.ended
        self.pieces.append(data)
        self._then()

    def push_last(self, data: bytes) -> None:
        self.push(data)
        self.ended = True


async def wait_for(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  # looked at every turn of the loop
            await asyncio.sleep(0)


def timers() -> int:
    """Of the loop, those that have not been cancelled."""
    scheduled = getattr(asyncio.get_running_loop(), "_scheduled", [])
    return sum(not handle.cancelled() for handle in scheduled)


async def test_at_once() -> None:
    """All events in one piece, which is the last."""
    replay, heard = Replay(EVENTS, ("top_k",)), Heard()
    assert not replay.finished.done()
    replay.connect(heard)
    assert (heard.pieces, heard.ended) == ([EVENTS], True)
    assert replay.finished.done()
    assert replay.dropped == ("top_k",)
    assert dict(replay.headers) == {}
    assert timers() == 0


async def test_at_a_pace() -> None:
    """Each event by itself, in order; the last one ends it."""
    replay, heard = Replay(EVENTS, (), QUICK), Heard()
    replay.connect(heard)
    assert heard.pieces == FRAMES[:1]
    await asyncio.wait_for(replay.finished, 5)
    assert heard.pieces == FRAMES
    assert heard.ended
    assert timers() == 0


@pytest.mark.parametrize(
    "events",
    [
        b"data: [DONE]\n\n",
        b"data: 1\r\n\r\n: comment\r\n\r\ndata: [DONE]\r\n\r\n",
        b"data: 1\r\rdata: 2\r\rdata: [DONE]\n\n",
        b": octet\n\n\n\ndata: \xf0\x9f\xa6\x8a\xe2\x80\xa8\n\ndata: [DONE]\n\n",
        b"data: %b\n\ndata: [DONE]\n\n" % (b"x" * 9_000_000),
        b"",
    ],
    ids=["one", "crlf", "cr", "odd", "large", "none"],
)
@pytest.mark.parametrize("streamed", [0.0, QUICK])
async def test_all_of_it_comes(events: bytes, streamed: float) -> None:
    """However it is framed, paced or not, each byte comes once."""
    replay, heard = Replay(events, (), streamed), Heard()
    replay.connect(heard)
    await asyncio.wait_for(replay.finished, 5)
    assert b"".join(heard.pieces) == events
    assert heard.ended


@pytest.mark.parametrize("streamed", [-1.0, float("nan")])
async def test_a_pace_that_is_none(streamed: float) -> None:
    """It comes at once."""
    replay, heard = Replay(EVENTS, (), streamed), Heard()
    replay.connect(heard)
    assert heard.pieces == [EVENTS]


@pytest.mark.parametrize("streamed", [1e300, float("inf")])
async def test_the_longest_pace(streamed: float) -> None:
    """Whatever an entry says, the next event is not far."""
    replay, heard = Replay(EVENTS, (), streamed), Heard()
    replay.connect(heard)
    assert replay._pause == LONGEST_PAUSE
    replay.close()


async def test_a_slow_caller() -> None:
    """Paused, nothing is pushed; resumed, it goes on where it was, and nothing is lost or told twice."""
    replay, heard = Replay(EVENTS, (), QUICK), Heard()
    replay.connect(heard)
    replay.pause()
    for _ in range(50):
        await asyncio.sleep(0)
    assert heard.pieces == FRAMES[:1]
    assert timers() == 0
    replay.resume()
    await asyncio.wait_for(replay.finished, 5)
    assert heard.pieces == FRAMES


async def test_a_caller_who_pauses_at_each_event() -> None:
    """Paused from within a push, it stops after that event."""
    heard = Heard(lambda: replay.pause())
    replay = Replay(EVENTS, (), QUICK)
    replay.connect(heard)
    for count in range(1, len(FRAMES)):
        for _ in range(5):
            await asyncio.sleep(0)
        assert heard.pieces == FRAMES[:count]
        replay.resume()
    assert heard.pieces == FRAMES
    assert heard.ended


async def test_resumed_more_than_once() -> None:
    """Who was not paused is not hurried."""
    replay, heard = Replay(EVENTS, (), 1e6), Heard()
    replay.connect(heard)
    replay.resume()
    replay.resume()
    assert heard.pieces == FRAMES[:1]
    assert timers() == 1
    replay.close()


async def test_paused_before_and_after() -> None:
    """Before anybody listens, and after the end, neither pausing nor resuming does anything."""
    replay, heard = Replay(EVENTS, (), QUICK), Heard()
    replay.pause()
    replay.resume()
    replay.connect(heard)
    await asyncio.wait_for(replay.finished, 5)
    replay.pause()
    replay.resume()
    replay.close()
    assert heard.pieces == FRAMES
    assert timers() == 0


@pytest.mark.parametrize("after", [1, 5])
async def test_a_caller_who_hangs_up(after: int) -> None:
    """Closed, it pushes nothing any more, and leaves nothing behind."""
    replay, heard = Replay(EVENTS, (), QUICK), Heard()
    replay.connect(heard)
    await wait_for(lambda: len(heard.pieces) >= after)
    replay.close()
    count = len(heard.pieces)
    replay.resume()
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(heard.pieces) == count
    assert timers() == 0


async def test_a_caller_who_closes_from_within() -> None:
    """Also while it is pushed at."""
    heard = Heard(lambda: replay.close())
    replay = Replay(EVENTS, (), QUICK)
    replay.connect(heard)
    for _ in range(50):
        await asyncio.sleep(0)
    assert heard.pieces == FRAMES[:1]
    assert timers() == 0


async def test_nothing_is_left_of_one_who_hung_up() -> None:
    """Not even the timer of an event that was far away."""
    replay, heard = Replay(EVENTS, (), 1e6), Heard()
    replay.connect(heard)
    assert timers() == 1
    replay.close()
    assert timers() == 0
