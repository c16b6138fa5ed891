"""Whatever comes, an exchange has one outcome, the same wherever the reads are cut, and its connection one fate."""

import asyncio
import contextlib

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from proxy.errors import Broken, CutShort, Unreachable
from proxy.upstream.exchange import Exchange, Stale
from tests.upstream.scene import Notes, Scene

LIMIT = 1024 * 1024
unhurried = settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])

GOOD = [
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 11\r\n\r\nhello world",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\ntrailer: x\r\n\r\n",
    b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\n\r\nhello world",
    b"HTTP/1.0 200 OK\r\n\r\nhello world",
    b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n",
]
SCRAPS = [
    b"HTTP/1.1 ", b"HTTP/1.0 ", b"HTTP/1.1 101 Up\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", b"200 OK",
    b"204 ", b"304 ", b"099 ", b"100 Continue", b"199 X", b"\r\n", b"\n", b"\r", b"\r\n\r\n", b": ", b":", b" ", b"\t",
    b"\0", b"\xff",
    b"content-length: 5\r\n", b"content-length: 0\r\n", b"content-length: -1\r\n", b"transfer-encoding: chunked\r\n",
    b"transfer-encoding: gzip\r\n", b"connection: close\r\n", b"connection: upgrade\r\n", b"upgrade: h2c\r\n",
    b"x: y\r\n", b" folded\r\n", b"0\r\n", b"5\r\nhello\r\n", b"5;x=y\r\n", b"ffffffffffffffff\r\n", b"zz", b"{}",
]  # fmt: skip

Place = st.integers(0, 200)
Change = tuple[str, int, int, int]
changes: st.SearchStrategy[list[Change]] = st.lists(
    st.tuples(st.sampled_from(["flip", "insert", "delete", "double", "scrap"]), Place, st.integers(1, 40), Place),
    min_size=1,
    max_size=4,
)
cuts = st.lists(Place, max_size=8)
scraps = st.lists(st.sampled_from([*SCRAPS, *GOOD]), min_size=1, max_size=12).map(b"".join)
names = st.from_regex(rb"x-[a-zA-Z0-9!#$%&'*+.^_`|~-]{1,12}", fullmatch=True)
values = st.from_regex(rb"([\x21-\x7e\x80-\xff]([\x20-\x7e\x80-\xff]{0,12}[\x21-\x7e\x80-\xff])?)?", fullmatch=True)


def changed(raw: bytes, what: list[Change]) -> bytes:
    """The bytes with some of them other, more, fewer or twice."""
    for act, place, size, with_what in what:
        start = place % (len(raw) + 1)
        before, slice_, after = raw[:start], raw[start : start + size], raw[start + size :]
        if act == "flip":
            slice_ = bytes(byte ^ (1 << with_what % 8) for byte in slice_)
        elif act == "insert":
            slice_ = bytes([with_what]) * size + slice_
        elif act == "scrap":
            slice_ = SCRAPS[with_what % len(SCRAPS)] + slice_
        raw = before + slice_ * {"delete": 0, "double": 2}.get(act, 1) + after
    return raw


def cut(raw: bytes, places: list[int]) -> list[bytes]:
    ends = [*sorted({place for place in places if 0 < place < len(raw)}), len(raw)]
    return [raw[start:end] for start, end in zip([0, *ends], ends, strict=False) if start < end]


def told(scene: Scene, exchange: Exchange, *, complete: bool) -> None:
    """The pool must have heard the truth, and the exchange must have one outcome."""
    assert scene.heard in (["gone"], ["freed", "gone"])
    if "freed" in scene.heard:
        assert complete
    assert exchange.headed.done()
    assert scene.clock.timers == []


async def play(reads: list[bytes], error: Exception | None, *, reused: bool, pushes: bool) -> object:
    """What became of an answer that arrived so, and then the connection was lost: what it says, or its failure."""
    scene, notes = Scene(), Notes()
    exchange = scene.ask(reused=reused)
    exchange.bound(scene.loop.time() + 10, "total")
    reader, started = None if pushes else asyncio.create_task(exchange.read(LIMIT)), False
    await asyncio.sleep(0)  # the reader waits
    for piece in reads:
        scene.come(piece)
        if pushes and not started and exchange.headed.done():
            exchange.start(notes)
            started = True
    scene.leave(error)
    failure = exchange.headed.exception()
    if isinstance(failure, Stale):
        assert reused
        assert not reads
        if reader is not None:
            reader.cancel()
        told(scene, exchange, complete=False)
        return Stale
    if reader is not None:
        (body,) = await asyncio.wait_for(asyncio.gather(reader, return_exceptions=True), 5)
    else:
        if not started:
            exchange.start(notes)
        (last,) = notes.last
        body = last or notes.body
    told(scene, exchange, complete=isinstance(body, bytes))
    if isinstance(body, bytes):
        assert failure is None
        assert 200 <= exchange.status <= 999
        assert all(name == name.lower() for name in exchange.headers)
        return exchange.status, exchange.headers, body
    assert type(body) in ((CutShort, Broken) if failure is None else (Unreachable, Broken))
    return type(body)


async def judge(raw: bytes, places: list[int], error: Exception | None, reused: bool) -> None:
    """Play it in all ways; all must end alike."""
    outcomes = [
        await play(reads, error, reused=reused, pushes=pushes)
        for reads in (cut(raw, places), cut(raw, list(range(len(raw)))))
        for pushes in (False, True)
    ]
    assert outcomes.count(outcomes[0]) == len(outcomes), outcomes


errors = st.sampled_from([None, ConnectionResetError()])


@given(raw=st.binary(max_size=200) | scraps, places=cuts, error=errors, reused=st.booleans())
@unhurried
async def test_anything(raw: bytes, places: list[int], error: Exception | None, reused: bool) -> None:
    """Any bytes at all end in one outcome, and nothing is thrown at the loop."""
    await judge(raw, places, error, reused)


@given(good=st.sampled_from(GOOD), what=changes, places=cuts, error=errors)
@unhurried
async def test_good_answers_gone_bad(
    good: bytes, what: list[Change], places: list[int], error: Exception | None
) -> None:
    """A good answer with bytes flipped, added, lost or doubled ends in one outcome too."""
    await judge(changed(good, what), places, error, reused=False)


@given(
    status=st.integers(200, 599).filter(lambda status: status not in (204, 304)),
    lines=st.lists(st.tuples(names, values), max_size=5),
    pieces=st.lists(st.binary(min_size=1, max_size=20), max_size=5),
    framing=st.sampled_from(["length", "chunks", "trailers", "close"]),
    hints=st.lists(st.sampled_from([100, 102, 103]), max_size=2),
    places=cuts,
)
@unhurried
async def test_any_good_answer(
    status: int,
    lines: list[tuple[bytes, bytes]],
    pieces: list[bytes],
    framing: str,
    hints: list[int],
    places: list[int],
) -> None:
    """Any answer is read as it was meant: status, headers with those of a name joined, and body."""
    given_lines = b"".join(b"%b: %b\r\n" % line for line in lines)
    headers: dict[str, list[str]] = {}
    for name, value in lines:
        headers.setdefault(name.decode().lower(), []).append(value.decode("latin-1"))
    body, raw = b"".join(pieces), b"".join(b"HTTP/1.1 %d X\r\n%b\r\n" % (hint, given_lines) for hint in hints)
    raw += b"HTTP/1.1 %d \r\n%b" % (status, given_lines)
    if framing == "length":
        headers["content-length"] = [str(len(body))]
        raw += b"content-length: %d\r\n\r\n%b" % (len(body), body)
    elif framing == "close":
        raw += b"\r\n" + body
    else:
        headers["transfer-encoding"] = ["chunked"]
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
        trailers = given_lines if framing == "trailers" else b""
        raw += b"transfer-encoding: chunked\r\n\r\n%b0\r\n%b\r\n" % (chunks, trailers)
    meant = (status, {name: ", ".join(values) for name, values in headers.items()}, body)
    for pushes in (False, True):
        assert await play(cut(raw, places), None, reused=False, pushes=pushes) == meant


@given(
    raw=scraps | st.builds(changed, st.sampled_from(GOOD), changes),
    places=cuts,
    acts=st.lists(st.sampled_from(["start", "pause", "resume", "drain", "close", "tick", "later"]), max_size=10),
    error=errors,
)
@example(raw=GOOD[0][:-1], places=[], acts=["later", "drain", "drain", "tick"], error=None)
@unhurried
async def test_anything_done_at_any_moment(
    raw: bytes, places: list[int], acts: list[str], error: Exception | None
) -> None:
    """Whatever we do meanwhile, the pool hears of the connection's end once, and a sink of the stream's."""
    scene, notes = Scene(), Notes()
    exchange = scene.ask()
    exchange.bound(scene.loop.time() + 10, "total")
    started = closed = False
    reads = iter(cut(raw, places))
    for act in [*acts, *["later"] * len(raw)]:
        if act == "later":
            scene.come(next(reads, b"") or b"x")
        elif act == "tick":
            scene.clock.turn(4)
        elif act == "start" and exchange.headed.done() and not (started or closed):
            exchange.start(notes)
            started = True
        elif act in ("pause", "resume") and started:
            (exchange.pause if act == "pause" else exchange.resume)()
        elif act in ("drain", "close"):
            exchange.close(drain=act == "drain")
            closed = True
        if "freed" in scene.heard:  # somebody else's now
            break
    before = scene.fate
    scene.leave(error)
    assert scene.heard in (["gone"], ["freed", "gone"])
    assert (before == "kept") == ("freed" in scene.heard)
    assert scene.clock.timers == []
    if started:
        assert len(notes.last) <= 1 if closed else len(notes.last) == 1
    with contextlib.suppress(asyncio.CancelledError):
        exchange.headed.exception()
