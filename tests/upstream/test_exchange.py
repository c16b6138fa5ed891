"""An answer is read the same whatever the cuts; what is none is told as such; what nobody asked for yet waits."""

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.errors import Broken, CutShort, ProxyError, Unreachable
from proxy.upstream.answer import MAX_HEAD_BYTES, MAX_HEADERS
from tests.upstream.scene import Notes, Scene

LIMIT = 1024 * 1024
KIB = 1024
OK = b"HTTP/1.1 200 OK\r\n"
SIZED = OK + b"Content-Type: a/b\r\ncontent-length: 11\r\n\r\nhello world"
CHUNKS = b"5\r\nhello\r\n1;note=x\r\n \r\n5\r\nworld\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n" + CHUNKS

Seen = tuple[int, dict[str, str], bytes]
ANSWERS: dict[str, tuple[bytes, Seen]] = {
    "content-length": (SIZED, (200, {"content-type": "a/b", "content-length": "11"}, b"hello world")),
    "chunked": (CHUNKED + b"0\r\n\r\n", (200, {"transfer-encoding": "chunked"}, b"hello world")),
    "chunked, with trailers": (
        CHUNKED + b"0\r\nx-sum: 1\r\nContent-Type: evil\r\n\r\n",
        (200, {"transfer-encoding": "chunked"}, b"hello world"),
    ),
    "until close": (OK + b"x: y\r\n\r\nhello world", (200, {"x": "y"}, b"hello world")),
    "HTTP/1.0": (b"HTTP/1.0 404 \r\n\r\nhello world", (404, {}, b"hello world")),
    "an empty body": (OK + b"content-length: 0\r\n\r\n", (200, {"content-length": "0"}, b"")),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", (204, {}, b"")),
    "several lines of a name": (
        OK + b"Via: a\r\nX: 1\r\nVIA: b\r\nvia:\tc d\r\nContent-Length: 0\r\n\r\n",
        (200, {"via": "a, b, c d", "x": "1", "content-length": "0"}, b""),
    ),
    "white space around a value": (
        OK + b"x: \t y z \t\r\ncontent-length:0\r\n\r\n",
        (200, {"x": "y z", "content-length": "0"}, b""),
    ),
    "informational answers before it": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\ncontent-type: evil\r\n\r\n"
        b"HTTP/1.1 102 Processing\r\nx: y\r\n\r\n" + SIZED,
        (200, {"content-type": "a/b", "content-length": "11"}, b"hello world"),
    ),
    "no UTF-8 in a header": (
        OK + b"x: \xe9\xff\r\ncontent-length: 0\r\n\r\n",
        (200, {"x": "éÿ", "content-length": "0"}, b""),
    ),
}
each_answer = pytest.mark.parametrize(("raw", "seen"), ANSWERS.values(), ids=ANSWERS.keys())
unhurried = settings(suppress_health_check=[HealthCheck.too_slow])


async def read(*reads: bytes) -> Seen:
    """What somebody sees who reads the body whole, of an answer that arrives in these reads."""
    scene = Scene()
    exchange = scene.ask()
    body = asyncio.create_task(exchange.read(LIMIT))
    await asyncio.sleep(0)  # it waits
    scene.come(*reads)
    scene.leave()
    assert exchange.headed.exception() is None
    return exchange.status, exchange.headers, await body


async def pushed(*reads: bytes, start_at: int) -> Seen:
    """What a sink sees that is started after so many reads, or once the head has come."""
    scene, notes = Scene(), Notes()
    exchange, started = scene.ask(), False
    for number, piece in enumerate(reads, 1):
        scene.come(piece)
        if not started and exchange.headed.done() and number >= start_at:
            exchange.start(notes)
            started = True
    scene.leave()
    if not started:
        exchange.start(notes)
    assert notes.last == [None]
    return exchange.status, exchange.headers, notes.body


def cut(raw: bytes, *places: int) -> list[bytes]:
    """The bytes in reads that end at these places."""
    ends = [*sorted({place for place in places if 0 < place < len(raw)}), len(raw)]
    return [raw[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@each_answer
async def test_an_answer_is_the_same_wherever_it_is_cut(raw: bytes, seen: Seen) -> None:
    """Whole, byte by byte or in two reads: status, headers and body are the same, read or pushed."""
    for reads in ([raw], cut(raw, *range(len(raw))), *[cut(raw, place) for place in range(1, len(raw))]):
        assert await read(*reads) == seen
        for start_at in (0, len(reads), len(reads) + 1):
            assert await pushed(*reads, start_at=start_at) == seen


@each_answer
@given(places=st.lists(st.integers(1, 200), max_size=8), start_at=st.integers(0, 9))
@unhurried
async def test_an_answer_is_the_same_in_random_reads(raw: bytes, seen: Seen, places: list[int], start_at: int) -> None:
    """However many reads bring it, and whenever the sink begins."""
    reads = cut(raw, *places)
    assert await read(*reads) == seen
    assert await pushed(*reads, start_at=start_at) == seen


async def test_what_comes_in_one_read_is_pushed_in_one_piece() -> None:
    """A sink is fed once per read, within the callback that brought it."""
    scene, notes = Scene(), Notes()
    exchange = scene.ask()
    scene.come(OK + b"transfer-encoding: chunked\r\n\r\n")
    exchange.start(notes)
    scene.come(CHUNKS, CHUNKS + b"0\r\n\r\n")
    assert notes.pieces == [b"hello world"] * 2
    assert notes.last == [None]


SECRET = b"sesame"
BROKEN = {
    "no HTTP": b"SSH-2.0-sesame\r\n",
    "a version that is none": b"HTTP/7.x 200 sesame\r\n\r\n",
    "a status that is none": b"HTTP/1.1 sesame OK\r\n\r\n",
    "a header that is none": OK + b"sesame sesame\r\n\r\n",
    "a NUL in a header": OK + b"x: sesame\0\r\n\r\n",
    "an upgrade": b"HTTP/1.1 101 sesame\r\nupgrade: sesame\r\nconnection: upgrade\r\n\r\nsesame",
    "an upgrade to nothing": b"HTTP/1.1 101 sesame\r\n\r\nsesame",
    "length and chunks": OK + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n6\r\nsesame\r\n0\r\n\r\n",
    "chunks and length": OK + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n6\r\nsesame\r\n0\r\n\r\n",
    "an unknown transfer coding": OK + b"transfer-encoding: sesame\r\n\r\nsesame",
    "a second transfer coding": OK + b"transfer-encoding: gzip, chunked\r\n\r\n6\r\nsesame\r\n0\r\n\r\n",
    "two lengths": OK + b"content-length: 6\r\ncontent-length: 5\r\n\r\nsesame",
    "a length that is none": OK + b"content-length: sesame\r\n\r\nsesame",
    "a negative length": OK + b"content-length: -6\r\n\r\nsesame",
    "a length beyond all numbers": OK + b"content-length: " + b"9" * 40 + b"\r\n\r\nsesame",
    "a chunk size that is none": OK + b"transfer-encoding: chunked\r\n\r\nsesame\r\n",
    "too many headers": OK + b"".join(b"sesame%d: x\r\n" % n for n in range(MAX_HEADERS + 1)) + b"\r\n",
    "an informational answer with a body": b"HTTP/1.1 199 X\r\ncontent-length: 6\r\n\r\nsesame" + SIZED,
}
ENDLESS = {
    "one header": (OK + b"x: ", b"sesame"),
    "the name of a header": (OK, b"sesame"),
    "many headers": (OK, b"x: sesame\r\n"),
    "the reason": (OK[:-2], b"sesame"),
    "informational answers": (b"", b"HTTP/1.1 103 Early Hints\r\nlink: sesame\r\n\r\n"),
    "empty lines": (b"", b"\r\n"),
    "a trailer": (CHUNKED + b"0\r\nx: ", b"sesame"),
    "trailers": (CHUNKED + b"0\r\n", b"x: sesame\r\n"),
    "a chunk's extension": (CHUNKED + b"5;", b"sesame"),
    "a chunk's size": (CHUNKED, b"0000"),
}


def refused(error: object) -> None:
    assert isinstance(error, Broken)
    assert error.code == "upstream_bad_response"
    assert SECRET.decode() not in str(error)


@pytest.mark.parametrize("raw", BROKEN.values(), ids=BROKEN.keys())
async def test_what_is_no_answer(raw: bytes) -> None:
    """It is Broken, quotes nothing of what came, and the connection is shut: whole, or byte by byte."""
    for reads in ([raw], cut(raw, *range(len(raw)))):
        scene, notes = Scene(), Notes()
        exchange = scene.ask()
        scene.come(*reads)
        exchange.start(notes)
        refused(notes.last[0])
        if not exchange.status:
            assert exchange.headed.exception() is notes.last[0]
        assert (notes.body, scene.fate) == (b"", "aborted")
        with pytest.raises(Broken):
            await exchange.read(LIMIT)
        exchange.close()


@pytest.mark.parametrize("way", ["read", "push", "nobody"])
@pytest.mark.parametrize(("begin", "go_on"), ENDLESS.values(), ids=ENDLESS.keys())
async def test_what_never_ends(begin: bytes, go_on: bytes, way: str) -> None:
    """What goes on for ever without being a body is Broken, before more than twice the bound has been taken in."""
    step = go_on * (8 * KIB // len(go_on))
    scene, notes = Scene(), Notes()
    exchange = scene.ask()
    reader = asyncio.create_task(exchange.read(LIMIT)) if way == "read" else None
    await asyncio.sleep(0)  # it waits
    scene.come(begin + step)
    if way == "push" and exchange.status:
        exchange.start(notes)
    scene.come(*[step] * (2 * MAX_HEAD_BYTES // len(step) - 1))
    assert scene.fate == "aborted"
    if reader is not None:
        refused((await asyncio.gather(reader, return_exceptions=True))[0])
    for failure in notes.last:
        refused(failure)
    exchange.close()


LOST: dict[str, tuple[bytes, type[ProxyError], bool]] = {
    "before anything": (b"", Unreachable, False),
    "in the head": (OK + b"content-le", Unreachable, False),
    "in an informational answer": (b"HTTP/1.1 103 Early Hints\r\nlink", Unreachable, False),
    "after an informational answer": (b"HTTP/1.1 100 Continue\r\n\r\n", Unreachable, False),
    "before the body": (OK + b"content-length: 5\r\n\r\n", CutShort, False),
    "in the body": (SIZED[:-1], CutShort, False),
    "between chunks": (CHUNKED, CutShort, False),
    "in the last chunk": (CHUNKED + b"0\r\n", CutShort, False),
    "in the trailers": (CHUNKED + b"0\r\nx: y\r\n", CutShort, False),
    "a body until close, by a reset": (OK + b"\r\nhello", CutShort, True),
}


@pytest.mark.parametrize("pushes", [False, True], ids=["read", "push"])
@pytest.mark.parametrize(("raw", "kind", "reset"), LOST.values(), ids=LOST.keys())
async def test_an_answer_that_breaks_off(raw: bytes, kind: type[ProxyError], reset: bool, pushes: bool) -> None:
    """Before the end of its head the upstream was not reached, after it the answer is cut short."""
    for error in (ConnectionResetError(), *([] if reset else [None])):
        scene, notes = Scene(), Notes()
        exchange = scene.ask()
        if raw:
            scene.come(raw)
        reader = None
        if pushes and exchange.headed.done():
            exchange.start(notes)
        elif not pushes:
            reader = asyncio.create_task(exchange.read(LIMIT))
            await asyncio.sleep(0)  # it waits
        scene.leave(error)
        if reader is not None:
            assert type((await asyncio.gather(reader, return_exceptions=True))[0]) is kind
        elif exchange.status:
            assert [type(failure) for failure in notes.last] == [kind]
        if not exchange.status:
            assert type(exchange.headed.exception()) is kind
        assert scene.heard == ["gone"]
        exchange.close()
