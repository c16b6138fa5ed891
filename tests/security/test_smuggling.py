"""Nobody gets a request past us inside another one: each has one answer, or the connection ends."""

from pathlib import Path

import pytest

from proxy.edge.server import C_PARSER
from proxy.simulator import Simulator
from tests.conftest import Sidecar, Start
from tests.edge.wire import asking, read_answer
from tests.security.process import serving
from tests.security.smuggling import ACCEPTED, REFUSED, TURNED_DOWN
from tests.security.wire import BODY, CHUNKED, LENGTH, MARKER, Answer, chunked, head, read_answers, talk

HIDDEN = head(LENGTH) + BODY + MARKER  # would reach an upstream
# The parser in Python alone takes these; both ends of the connection still agree where they end.
LENIENT = {"a length beyond 64 bits", "another protocol"}


def where(sidecar: Sidecar) -> tuple[str, int]:
    """Host and port of the data listener."""
    return sidecar.app.addresses[0].host, sidecar.app.addresses[0].port


async def test_refused(sidecar: Sidecar, simulator: Simulator) -> None:
    """One answer, the end of the connection, and nothing of it, or of what follows, reaches an upstream."""
    assert C_PARSER
    for case, request in REFUSED.items():
        answers = read_answers(await talk(where(sidecar), request + HIDDEN))
        assert [answer.status for answer in answers] == [400], case
        assert simulator.report.calls == 0, case
    assert sidecar.lines.kept == []
    assert await sidecar.metric("octet_refusals_total", reason="malformed") == len(REFUSED)


async def test_accepted(sidecar: Sidecar, simulator: Simulator) -> None:
    """One answer, and the next request begins where the body ends."""
    for number, (case, request) in enumerate(ACCEPTED.items(), 1):
        answers = read_answers(await talk(where(sidecar), request + MARKER))
        assert [answer.status for answer in answers] == [200, 200], case
        assert b'"chat.completion"' in answers[0].body, case
        assert b'"id":"gpt-4o-mini"' in answers[1].body, case
        assert simulator.report.dialects["openai"].calls == number, case


async def test_turned_down(sidecar: Sidecar, simulator: Simulator) -> None:
    """The body of what is not served is not read as the next request."""
    for case, (request, status) in TURNED_DOWN.items():
        answers = read_answers(await talk(where(sidecar), request + MARKER))
        assert [answer.status for answer in answers] == [status, 200], case
    assert simulator.report.calls == 0


async def test_a_body_that_is_a_request(sidecar: Sidecar, simulator: Simulator) -> None:
    """A request as the body of another is a body, whether or not that is wanted."""
    for target, status in (("/v1/nothing", 404), ("/v1/chat/completions", 400)):
        inner = head(LENGTH) + BODY
        for request in (
            head(b"Content-Length: %d" % len(inner), target=target) + inner,
            head(CHUNKED, target=target) + chunked(inner[:30], inner[30:]),
        ):
            first, second = read_answers(await talk(where(sidecar), request + MARKER))
            assert (first.status, second.status) == (status, 200)
    assert simulator.report.calls == 0


async def test_a_body_that_is_not_waited_for(sidecar: Sidecar, simulator: Simulator) -> None:
    """What is turned down before its body has come ends the connection: the body's rest is no request."""
    inner = head(LENGTH) + BODY
    for request in (head(b"Content-Length: 1000000", target="/v1/nothing"), head(CHUNKED, target="/v1/nothing")):
        async with asking(sidecar, request) as (reader, writer):
            answer, _ = await read_answer(reader)
            assert (answer.status, answer["connection"]) == (404, "close")
            writer.write(inner + MARKER)
            writer.write_eof()
            assert await reader.read() == b""
    assert simulator.report.calls == 0
    assert sidecar.lines.kept == []


async def test_many_at_once(sidecar: Sidecar, simulator: Simulator) -> None:
    """Requests sent without waiting are answered in their order, streams and errors among them."""
    stream = BODY[:-1] + b',"stream":true}'
    kinds = [
        (head(LENGTH) + BODY, 200),
        (head(b"Content-Length: %d" % len(stream)) + stream, 200),
        (head(LENGTH, target="/v1/nothing") + BODY, 404),
        (head(CHUNKED) + chunked(BODY), 200),
        (head(b"Content-Length: 2") + b"{}", 400),
    ] * 4
    answers = read_answers(await talk(where(sidecar), b"".join(request for request, _ in kinds) + MARKER))
    assert [answer.status for answer in answers] == [status for _, status in kinds] + [200]
    assert simulator.report.dialects["openai"].calls == 12


async def test_heads_alone(sidecar: Sidecar) -> None:
    """What HEAD is answered has no body, whatever its length says, and the next answer follows at once."""
    targets = ("/v1/models", "/v1/nothing", "/v1/chat/completions", "/healthz")
    asked = b"".join(head(method="HEAD", target=target) for target in targets)
    answers = read_answers(await talk(where(sidecar), asked + MARKER), bodiless=range(4))
    assert [answer.status for answer in answers] == [200, 404, 405, 200, 200]


async def test_chunks_in_http_1_0(sidecar: Sidecar) -> None:
    """HTTP/1.0 knows no chunks: whoever stands before us may see another end, so the connection is not used again."""
    request = head(CHUNKED, b"Connection: keep-alive", version="1.0") + chunked(BODY)
    assert len(read_answers(await talk(where(sidecar), request + MARKER))) == 1


@pytest.mark.parametrize("coding", [b"gzip, chunked", b"identity, chunked", b"xchunked, chunked"])
async def test_codings_that_are_not_known(sidecar: Sidecar, simulator: Simulator, coding: bytes) -> None:
    """A body in a coding that we do not read is refused (RFC 9112, 6.1), not taken for plain JSON."""
    (answer,) = read_answers(await talk(where(sidecar), head(b"Transfer-Encoding: " + coding) + chunked(BODY) + MARKER))
    assert answer.status in (400, 501)
    assert simulator.report.calls == 0


BROKEN_LATER = {
    "the first chunk": b"no size\r\n",
    "a later chunk": b"4\r\nabcd\r\nno size\r\n",
    "the trailer": chunked(BODY)[:-2] + b"no trailer\r\n\r\n",
}


async def broken_later(start: Start, data: bytes) -> tuple[Sidecar, list[Answer]]:
    """What is answered to a body that comes when its head has been read."""
    sidecar = await start(server={"body_timeout_seconds": 0.3})
    async with asking(sidecar, head(CHUNKED)) as (reader, writer):
        await (await sidecar.http.get(f"{sidecar.url}/healthz")).read()
        writer.write(data)
        told = await reader.readuntil(b"}}")
        writer.write_eof()  # or the connection would be open for what may still come of the body
        return sidecar, read_answers(told + await reader.read())


@pytest.mark.parametrize("case", BROKEN_LATER)
async def test_a_body_that_breaks_later(start: Start, case: str) -> None:
    """Chunks that turn out to be none when the call is already being read are a 400 at once."""
    _, (answer,) = await broken_later(start, BROKEN_LATER[case])
    assert answer.status == 400


async def test_a_body_that_breaks_later_is_no_request(start: Start, simulator: Simulator) -> None:
    """Whatever is said of it, what stands behind a chunk that is none is not read as the next request."""
    sidecar, (answer,) = await broken_later(start, b"4\r\nabcd\r\nno size\r\n" + HIDDEN)
    assert answer.status in (400, 408)
    assert answer.all("connection") == ["close"]
    assert simulator.report.calls == 0
    assert len(sidecar.lines.kept) == 1


async def test_the_parser_in_python(simulator: Simulator, tmp_path: Path) -> None:
    """Where aiohttp has no C parser, the same is refused and the same is served."""
    tree = {
        "upstreams": {"a": {"provider": "openai", "base_url": simulator.base_url("openai"), "api_key": "sk-ours"}},
        "routes": [{"match": {"model": "gpt-4o-mini"}, "targets": [{"upstream": "a"}], "retry": {"attempts": 1}}],
    }
    async with serving(tree, tmp_path, AIOHTTP_NO_EXTENSIONS="1") as served:
        assert "without its C parser" in served.beginning
        for case, request in REFUSED.items():
            if case not in LENIENT:
                answers = read_answers(await talk(served.address, request + HIDDEN))
                assert [answer.status for answer in answers] == [400], case
        assert simulator.report.calls == 0
        for case, request in ACCEPTED.items():
            answers = read_answers(await talk(served.address, request + MARKER))
            assert [answer.status for answer in answers] == [200, 200], case
        assert simulator.report.calls == len(ACCEPTED)
