"""The short way of a stream gives what the long way gives, for every wire, however a stream is written and cut."""

import asyncio
import json
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.admission.parsing import parse
from proxy.call import UNBOUNDED, Caller, Facts
from proxy.config import Upstream
from proxy.config.load import build
from proxy.config.source import Document
from proxy.errors import TooSlow
from proxy.providers import providers, traits
from proxy.providers.pattern import Pattern
from proxy.providers.relay import open_relay
from proxy.providers.seam import Target
from proxy.resilience.clock import Bounds, bounds_of
from proxy.resilience.express import Express
from proxy.resilience.reply import StreamReply
from tests.upstream.scene import Scene

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ntransfer-encoding: chunked\r\n\r\n"
SSE, NDJSON = b"text/event-stream", b"application/x-ndjson"
END = b"0\r\n\r\n"
BODY = b'{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true}'


def bounded(upstream: Upstream, now: float) -> tuple[Bounds, int]:
    """The clocks of an attempt that began then, and how much may come before content."""
    return bounds_of(upstream.timeouts, UNBOUNDED, now, stream=True), upstream.max_frame_bytes


class Caller_:  # noqa: N801  # the caller's side of a stream
    """Takes events as they are pushed, and chunks as they are written when `chunked`."""

    def __init__(self, *, chunked: bool) -> None:
        self.events = b""
        self.short = 0  # reads that came the short way
        self.ends = 0
        self._chunked = chunked

    @property
    def write(self) -> Callable[[bytes], object] | None:
        return self._write if self._chunked else None

    def _write(self, data: bytes) -> None:
        size, _, rest = data.partition(b"\r\n")
        assert rest.endswith(b"\r\n")
        assert len(rest) - 2 == int(size, 16)
        self.events += rest[:-2]
        self.short += 1

    def push(self, data: bytes) -> None:
        self.events += data

    def push_last(self, data: bytes) -> None:
        self.events += data
        self.ends += 1


@dataclass(frozen=True)
class Wire:
    """A dialect, and how its streams are written."""

    provider: str
    kind: bytes
    frame: Callable[[str], bytes]
    first: bytes = b""
    last: bytes = b""
    model: str = "m"
    wire: str = ""


def event(payload: str, name: str = "") -> bytes:
    return (f"event: {name}\n" if name else "").encode() + f"data: {payload}\n\n".encode("utf-8", "surrogateescape")


def chunk(delta: str, reason: str = "null", more: str = "") -> str:
    return (
        '{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"m%1","choices":[{"index":0,'
        f'"delta":{delta},"logprobs":null,"finish_reason":{reason}}}]{more}}}'
    )


def openai(text: str) -> bytes:
    return event(chunk(f'{{"content":{text}}}'))


def obfuscated(text: str) -> bytes:
    return event(chunk(f'{{"content":{text}}}', more=f',"obfuscation":"{"x" * (len(text) % 5)}"'))


ROLE = event(chunk('{"role":"assistant","content":""}'))
FINISH = event(chunk("{}", '"stop"')) + b"data: [DONE]\n\n"
ANTHROPIC = (
    event(
        '{"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"m",'
        '"content":[],"usage":{"input_tokens":9,"output_tokens":1}}}',
        "message_start",
    )
    + event(
        '{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}', "content_block_start"
    ),
    event('{"type":"content_block_stop","index":0}', "content_block_stop")
    + event('{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":5}}', "message_delta")
    + event('{"type":"message_stop"}', "message_stop"),
)


def anthropic(text: str) -> bytes:
    payload = f'{{"type":"content_block_delta","index":0,"delta":{{"type":"text_delta","text":{text}}}}}'
    return event(payload, "content_block_delta")


def ollama(text: str, more: str = '"done":false') -> bytes:
    line = (
        f'{{"model":"m","created_at":"2026-01-01T00:00:0{len(text) % 9}.5Z","message":{{"role":"assistant",'
        f'"content":{text}}},{more}}}\n'
    )
    return line.encode("utf-8", "surrogateescape")


OLLAMA_END = ollama('""', '"done":true,"done_reason":"stop","prompt_eval_count":9,"eval_count":5')
WIRES = {
    "exact": Wire("openai", SSE, openai, ROLE, FINISH),
    "obfuscated": Wire("openai", SSE, obfuscated, ROLE, FINISH),
    "renamed": Wire("openai", SSE, openai, ROLE, FINISH, model="other"),
    "renamed, obfuscated": Wire("openai", SSE, obfuscated, ROLE, FINISH, model="other"),
    "anthropic": Wire("anthropic", SSE, anthropic, *ANTHROPIC),
    "ollama": Wire("ollama", NDJSON, ollama, b"", OLLAMA_END),
    "normalised": Wire("vllm", SSE, openai, ROLE, FINISH, wire="normalise"),
}
each_wire = pytest.mark.parametrize("wire", WIRES.values(), ids=WIRES)


@cache
def upstream_of(provider: str, wire: str) -> Upstream:
    fields: dict[str, Any] = {"provider": provider, "base_url": "http://localhost:1"}
    if wire:
        fields["wire"] = wire
    return build(Document("test", {"upstreams": {"up": fields}}), traits()).upstreams["up"]


@dataclass
class Told:
    """What the caller got, and what was noted."""

    events: bytes
    ends: int
    failure: str
    noted: dict[str, Any]
    short: int
    stands: bool  # the short way is open in the end
    gaps: int
    fate: str


async def tell(wire: Wire, reads: list[bytes], *, short: bool) -> Told:
    """Feed these reads after the head."""
    call = parse(BODY, caller=Caller(), headers={}, call_id="1", received_at=1.0)
    upstream = upstream_of(wire.provider, wire.wire)
    scene, caller, gaps = Scene(), Caller_(chunked=short), list[float]()
    exchange = scene.ask()
    scene.come(HEAD % wire.kind)
    relay = open_relay(providers()[wire.provider], call, Target("up", upstream, wire.model), exchange.headers)
    reply = StreamReply(relay, [exchange], (), *bounded(upstream, 0.0), gaps, list.clear)
    exchange.start(reply)
    reply.connect(caller)
    scene.come(*filter(None, reads))
    stands = scene.socket.get_protocol() is not scene.connection
    scene.leave()
    failure = repr(reply.finished.exception()) if reply.finished.done() else "none"
    noted = {name: getattr(relay.facts, name) for name in ("content", "finished", "finish_reason", "usage")}
    reply.close()
    exchange.close()
    return Told(caller.events, caller.ends, failure, noted, caller.short, stands, len(gaps), scene.fate)


def both(wire: Wire, reads: list[bytes]) -> Told:
    """The same reads both ways: only the way may differ."""

    async def run() -> tuple[Told, Told]:
        return await tell(wire, reads, short=True), await tell(wire, reads, short=False)

    short, long = asyncio.run(run())
    assert long.short == 0
    assert (short.events, short.ends, short.failure) == (long.events, long.ends, long.failure)
    assert short.noted == long.noted
    assert (short.fate, short.gaps) == (long.fate, long.gaps)
    return short


def framed(data: bytes, size: bytes = b"%x\r\n") -> bytes:
    return size % len(data) + data + b"\r\n" if data else b""


@each_wire
def test_pieces_that_are_alike_go_the_short_way(wire: Wire) -> None:
    """All but the first two pieces of a stream, whatever their texts; each is noted as having come."""
    words = [f'"w{number} 🦊"' for number in range(20)]
    told = both(wire, [framed(wire.first), *(framed(wire.frame(word)) for word in words), framed(wire.last) + END])
    assert told.short >= 17
    assert told.gaps == 19
    assert (told.ends, told.failure, told.fate) == (1, "None", "freed, gone")


@each_wire
@pytest.mark.parametrize(
    "text", ['"\\n"', '"say \\"hi\\"\\\\"', '"\\t\\b\\f\\r"', '"é 你好 \u3000"', '" "', '"%x %b %"']
)
def test_usual_escapes_go_the_short_way(wire: Wire, text: str) -> None:
    """Line ends, quotes and backslashes as everybody escapes them, characters of all scripts, and per cent signs."""
    words = ['"a"', '"b"', text, text, '"c"']
    told = both(wire, [framed(wire.first), *(framed(wire.frame(word)) for word in words), framed(wire.last) + END])
    assert told.short >= 3


@each_wire
@pytest.mark.parametrize("size", [b"%x\r\n", b"%X\r\n"], ids=["lower", "upper"])
def test_sizes_in_either_case(wire: Wire, size: bytes) -> None:
    """Servers write a chunk's size in small letters or in capitals; any number of digits."""
    words = [f'"{"w" * number}"' for number in (1, 2, 3, 5, 8, 13, 21, 34, 55, 3900, 4000, 4001, 4002, 4003, 2, 3, 4)]
    reads = [framed(wire.frame(word), size) for word in words]
    told = both(wire, [framed(wire.first), *reads, framed(wire.last) + END])
    assert told.short >= 11


NOT_SHORT = {
    "not UTF-8": '"\udcff"',
    "a control character": '"\x01"',
    "a quote inside": '"a"b"',
    "half an escape": '"a\\"',
    "an unusual escape": '"\\u00e9\\/"',
    "half a pair": '"\\ud83d"',
    "a line separator": '"\u2028"',
    "no text": "null",
    "a number": "7",
    "a closing brace": '"a"},"finish_reason":"stop"}',
}


@each_wire
@pytest.mark.parametrize("text", NOT_SHORT.values(), ids=NOT_SHORT)
def test_other_pieces_go_the_long_way(wire: Wire, text: str) -> None:
    """What is no text, or is written in another way, is read as it always was."""
    words = ['"a"', '"b"', '"c"']
    alone = both(wire, [framed(wire.first), *(framed(wire.frame(word)) for word in words)])
    told = both(wire, [framed(wire.first), *(framed(wire.frame(word)) for word in [*words, text])])
    assert told.short == alone.short


@each_wire
def test_learning_ends_where_it_is_not_worth_it(wire: Wire) -> None:
    """Where no read is like the one before, nothing stands in the way any more, and nothing is lost."""
    frames = [wire.frame(f'"{number}"').replace(b'"content":', b'"r%d":0,"content":' % number) for number in range(9)]
    frames = [frame.replace(b'"index":0,"delta"', b'"r%d":0,"index":0,"delta"' % at) for at, frame in enumerate(frames)]
    told = both(wire, [framed(wire.first), *map(framed, frames)])
    assert not told.stands
    assert told.short == 0
    assert both(wire, [framed(wire.first), *map(framed, frames), framed(wire.last) + END]).ends == 1


def test_a_finished_choice_is_not_taken_up_unnoticed() -> None:
    """After a chunk that ends a choice, what looks like another piece is read again: the state has changed."""
    pieces = [openai('"a"'), openai('"b"'), openai('"c"'), event(chunk("{}", '"length"')), openai('"d"'), openai('"e"')]
    told = both(WIRES["exact"], [framed(ROLE), *map(framed, pieces), END])
    assert told.noted["finish_reason"] == "length"
    assert "CutShort" in told.failure


ALIKE_TWICE = {
    "a piece that ends its choice": (WIRES["normalised"], event(chunk('{"content":"a"}', '"stop"'))),
    "another choice ends": (
        WIRES["normalised"],
        event(
            chunk('{"content":"a"}').replace(
                '"choices":[', '"choices":[{"index":1,"delta":{"content":null},"finish_reason":"stop"},'
            )
        ),
    ),
    "a tool's arguments": (
        WIRES["normalised"],
        event(chunk('{"tool_calls":[{"index":0,"id":"c1","function":{"name":"f","arguments":"1"}}]}')),
    ),
    "a tool's arguments, exact": (
        WIRES["exact"],
        event(chunk('{"tool_calls":[{"index":0,"function":{"arguments":"{\\"a\\":"}}]}')),
    ),
    "two texts": (WIRES["normalised"], event(chunk('{"content":"","text":"b"}'))),
    "a named event": (WIRES["exact"], event(chunk('{"content":"a"}'), "message")),
    "a named event, renamed": (WIRES["renamed"], event(chunk('{"content":"a"}'), "message")),
    "an id": (WIRES["exact"], b"id: 7\n" + openai('"a"')),
    "a comment": (WIRES["exact"], b": hi\n" + openai('"a"')),
    "a comment, renamed": (WIRES["renamed"], b": hi\n" + openai('"a"')),
    "two lines of data": (WIRES["exact"], b"data: {}\n" + openai('"a"')),
    "usage each time": (
        WIRES["exact"],
        event(chunk('{"content":"a"}', more=',"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}')),
    ),
    "no choice": (WIRES["exact"], event('{"choices":[],"text":"a"}')),
    "a model behind the text": (WIRES["renamed"], event('{"choices":[{"delta":{"content":"a"}}],"model":"x"}')),
    "CRLF": (WIRES["exact"], openai('"a"').replace(b"\n", b"\r\n")),
    "another choice": (WIRES["exact"], openai('"a"').replace(b'"index":0', b'"index":1')),
    "thoughts": (WIRES["normalised"], event(chunk('{"reasoning":"a"}'))),
    "a role": (
        WIRES["normalised"],
        event(chunk('{"role":"assistant","content":""}')).replace(b'"index":0', b'"index":1'),
    ),
    "no text": (WIRES["anthropic"], anthropic('""')),
}


@pytest.mark.parametrize(("wire", "frame"), ALIKE_TWICE.values(), ids=ALIKE_TWICE)
def test_frames_that_are_alike_are_told_alike(wire: Wire, frame: bytes) -> None:
    """What a frame does once and another of its kind does not, or would add to, is done as it always was."""
    some = [framed(wire.first), framed(wire.frame('"a"'))]
    other = frame.replace(b'"a"', b'"bb"').replace(b'"content":""', b'"content":"c"').replace(b'"1"', b'"{}"')
    for last in ([], [framed(wire.last) + END], [END]):
        both(wire, [*some, *map(framed, (frame, frame, other, frame, wire.frame('"a"'), other)), *last])


@each_wire
def test_half_a_frame_is_no_frame(wire: Wire) -> None:
    """A chunk that ends a frame and has a text of its own is not taken for one, nor what is like it later."""
    frame = wire.frame('"a"')
    cut = frame.index(b'"a"') - 14
    half = [framed(frame[:cut]), framed(frame[cut:])]
    both(wire, [framed(wire.first), framed(frame), *half, half[1], half[1]])


@each_wire
def test_the_beginning_of_a_chunk_is_remembered(wire: Wire) -> None:
    """A read that ends within the next chunk's size is followed by the rest of that size, whatever it looks like."""
    read = framed(wire.frame('"a"'))
    both(wire, [framed(wire.first), read, read + b"7", read, read])


def test_a_size_that_is_wrong_is_not_passed_on() -> None:
    """Where the number of digits changes, a size that is one too small is found to be wrong, as ever."""
    wire = WIRES["exact"]
    empty = len(openai('""'))
    frames = [openai(f'"{"w" * (length - empty)}"') for length in (300, 301, 302, 256)]
    assert len(frames[-1]) == 0x100
    wrong = b"ff\r\n" + frames[-1] + b"\r\n"
    told = both(wire, [framed(ROLE), *map(framed, frames[:-1]), wrong, framed(FINISH) + END])
    assert "not HTTP" in told.failure


class Turned(asyncio.SelectorEventLoop):
    """A loop whose clock can be turned on."""

    turned = 0.0

    def time(self) -> float:
        return super().time() + self.turned


def test_what_comes_the_short_way_keeps_a_stream_alive() -> None:
    """The idle clock (120 s) runs from the last read, whichever way it went, and not a moment longer."""

    async def run(loop: Turned) -> None:
        scene, caller, wire = Scene(), Caller_(chunked=True), WIRES["exact"]
        call = parse(BODY, caller=Caller(), headers={}, call_id="1", received_at=1.0)
        upstream, exchange = upstream_of(wire.provider, wire.wire), scene.ask()
        scene.come(HEAD % wire.kind)
        relay = open_relay(providers()[wire.provider], call, Target("up", upstream, "m"), exchange.headers)
        reply = StreamReply(relay, [exchange], (), *bounded(upstream, loop.time()), [], list.clear)
        exchange.start(reply)
        reply.connect(caller)
        for word in ('"a"', '"b"', '"c"', '"d"', '"e"'):
            scene.come(framed(openai(word)))
            loop.turned += 100
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert not reply.finished.done()
        assert caller.short == 4
        loop.turned += 21
        with pytest.raises(TooSlow, match="stands still"):
            await reply.finished
        reply.close()
        exchange.close()

    loop = Turned()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(run(loop))


def test_reads_that_come_at_once_are_worth_learning() -> None:
    """Pairs that are alike, all read at one time of the loop's: learning goes on."""
    frames = [openai('"a"').replace(b"1700000000", b"17%08d" % (number // 2)) for number in range(40)]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        told = runner.run(tell(WIRES["exact"], [framed(ROLE), *map(framed, frames)], short=True))
    assert told.short == 20


def test_what_stood_between_two_texts_must_be_there() -> None:
    """A frame with the beginning and the end of the others, but without what they have in between."""
    frames = [obfuscated(f'"{"a" * length}"') for length in (1, 2, 3)]
    broken = frames[0].replace(b'"},"logprobs":null,"finish_reason":null}],"obfuscation":"', b"")
    assert broken != frames[0]
    both(WIRES["obfuscated"], [framed(ROLE), *map(framed, [*frames, broken]), framed(FINISH) + END])


@each_wire
def test_sizes_that_shrink(wire: Wire) -> None:
    """From four digits to three to two: no text loses its beginning."""
    words = [f'"{"0123456789" * number}"' for number in (410, 411, 40, 41, 410, 2, 1, 40, 1)]
    both(wire, [framed(wire.first), *(framed(wire.frame(word)) for word in words), framed(wire.last) + END])


def test_a_piece_that_overlaps_itself_is_not_taken() -> None:
    """A read shorter than what surrounds a text cannot hold one, whatever it begins and ends with."""
    frame = openai('"a"')
    start = frame.index(b'"a"') + 1
    overlap = frame[:start] + frame[start + 2 :]
    both(WIRES["exact"], [framed(ROLE), framed(frame), framed(frame), framed(overlap), framed(FINISH) + END])


async def test_the_lengths_that_are_remembered_are_few() -> None:
    """An upstream that sends every length there is makes nobody remember all of them."""
    taken: list[int] = []
    express = Express(Scene().ask(), lambda data: taken.append(len(data)), [], list.clear, Facts())
    first = b'data: {"model":"' + b"m" * 5000 + b'","content":"'
    express.learn(Pattern((first, b'"}\n\n')), b"%x\r\n", len(first) + 10, 0.0)
    tracemalloc.start()
    try:
        for number in range(1, 2000):
            express.data_received(framed(first + b"w" * number + b'"}\n\n'))
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(taken) == 1999
    assert kept < 1_000_000


@each_wire
def test_no_text_is_no_content(wire: Wire) -> None:
    """Pieces without a text are passed on, or not, as ever; they do not count as content that came."""
    words = [wire.frame(text) for text in ('"a"', '"b"', '""', '"c"', '""', '""', '"d"')]
    told = both(wire, [framed(wire.first), *map(framed, words), framed(wire.last) + END])
    assert told.gaps == 3


pieces = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6).flatmap(
        lambda text: st.sampled_from([json.dumps(text), json.dumps(text, ensure_ascii=False)])
    ),
    st.sampled_from([*NOT_SHORT.values(), '""', '"content":"', '"},"finish_reason":"stop"', '"a\\\\"']),
)
odd = st.sampled_from(
    [
        b": ping\n\n",
        b'event: ping\ndata: {"type": "ping"}\n\n',
        b"\n",
        b"data: \n\n",
        b"data: [DONE]\n\n",
        b"x\n\n",
        b"{}\n",
    ]
)


@st.composite
def streams(draw: st.DrawFn) -> tuple[Wire, list[bytes]]:
    """A stream of some wire in reads: mostly a chunk each, some cut elsewhere, some joined."""
    wire = draw(st.sampled_from(list(WIRES.values())))
    frames = [wire.frame('"a"'), wire.frame('"b"'), *map(wire.frame, draw(st.lists(pieces, max_size=8)))]
    for at, frame in draw(st.lists(st.tuples(st.integers(2, 9), odd), max_size=2)):
        frames.insert(at, frame)
    size = draw(st.sampled_from([b"%x\r\n", b"%X\r\n", b"%04x\r\n", b"%x;name=value\r\n"]))
    reads = [framed(frame, size) for frame in [wire.first, *frames] if frame]
    if draw(st.booleans()):
        reads.append(framed(wire.last) + END)
    if draw(st.booleans()):
        return wire, reads
    whole = b"".join(reads)
    cuts = sorted({0, len(whole), *draw(st.lists(st.integers(1, max(1, len(whole) - 1)), max_size=6)), *_ends(reads)})
    return wire, [whole[start:end] for start, end in pairwise(cuts)]


def _ends(reads: list[bytes]) -> Iterator[int]:
    at = 0
    for number, read in enumerate(reads):
        at += len(read)
        if number % 4:
            yield at


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(streams())
def test_both_ways_tell_the_same(stream: tuple[Wire, list[bytes]]) -> None:
    """Whatever is sent, however it is cut: the same bytes, the same end, the same notes, the same connection."""
    both(*stream)
