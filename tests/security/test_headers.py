"""Header lines are ours: nothing that callers or upstreams say becomes one, in either direction."""

import json
from typing import Any

import pytest

from tests.conftest import DIALECTS, MODELS, Sidecar, Start
from tests.security.far_side import GOOD, FarSide, answer, far_side, openai
from tests.security.wire import Answer, head, lines_of, read_answers, talk

LOOK_ALIKES = "a\u010d\u010aset-cookie: x\u560d\u560aset-cookie: y"  # their low bytes are CR and LF
HOSTILE = [
    b"Cookie: canary",
    b"Authorization: Bearer canary",
    b"Api-Key: canary",
    b"X-Api-Key: canary",
    b"X-Goog-Api-Key: canary",
    b"Proxy-Authorization: Basic canary",
    b"Proxy-Connection: keep-alive",
    b"OpenAI-Organization: canary",
    b"OpenAI-Project: canary",
    b"OpenAI-Beta: canary",
    b"Anthropic-Version: canary",
    b"Anthropic-Beta: canary",
    b"X-Forwarded-For: canary",
    b"X-Forwarded-Host: canary",
    b"X-Forwarded-Proto: canary",
    b"X-Real-IP: canary",
    b"Forwarded: for=canary",
    b"Referer: http://canary/",
    b"User-Agent: canary",
    b"Accept: canary",
    b"Accept-Encoding: gzip",
    b"Range: bytes=0-1",
    b"If-None-Match: canary",
    b"TE: trailers, deflate",
    b"Keep-Alive: timeout=canary",
    b"Max-Forwards: 1",
    b"X-Octet-Key: canary",
    b"X-Octet-Route: canary",
    b"X-Octet-Upstream: canary",
    b"X-HTTP-Method-Override: DELETE",
    b"X-Original-URL: /canary",
    b"Idempotency-Key: canary",
    b"Baggage: canary=1",
    b"X-B3-TraceId: canary",
    b"Tracestate: canary=1",
    b"Connection: authorization, content-type, host, via, x-api-key, content-length, keep-alive",
]

MAY_TRAVEL = set(
    """host accept content-type accept-encoding user-agent via authorization content-length openai-organization
    openai-project traceparent tracestate""".split()
)
MAY_COME_BACK = set(
    """content-type content-length connection date server server-timing x-request-id openai-version retry-after
    retry-after-ms x-ratelimit-remaining-requests x-should-retry""".split()
)


async def ask(sidecar: Sidecar, *lines: bytes, **fields: Any) -> Answer:
    """One call by hand."""
    body = json.dumps({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}], **fields}).encode()
    address = sidecar.app.addresses[0]
    whole = head(*lines, b"Content-Length: %d" % len(body), b"Connection: close") + body
    (answered,) = read_answers(await talk((address.host, address.port), whole))
    return answered


async def plain(start: Start, side: FarSide, **more: Any) -> Sidecar:
    """A sidecar whose every call goes there."""
    route = {"name": "r", "targets": [{"upstream": "openai"}], "retry": {"attempts": 1}}
    return await start(upstreams={"openai": openai(side, **more)}, routes=[route])


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_no_header_of_a_caller_travels_on(start: Start, dialect: str, stream: bool) -> None:
    """An upstream sees the same lines whatever the caller adds, names as hop-by-hop, or claims to be."""
    async with far_side(answer(b"{}", status=b"500 No")) as side:
        sidecar = await start(upstreams={dialect: {"base_url": side.url, "list_models": False}})
        for lines in ([], HOSTILE):
            assert (await ask(sidecar, *lines, model=MODELS[dialect], stream=stream)).status == 502
    first, second = (list(lines_of(seen)) for seen in side.seen)
    assert first == second
    assert len({name for name, _ in first}) == len(first)
    assert b"canary" not in side.seen[1]


async def test_a_key_that_travels_on(start: Start) -> None:
    """`credential: caller` sends the caller's key and its organization, and nothing else of it."""
    async with far_side() as side:
        sidecar = await plain(start, side, api_key=None, credential="caller")
        assert (await ask(sidecar, b"Authorization: Bearer canary-key")).status == 200
        assert (await ask(sidecar, *(line for line in HOSTILE if b"Tracestate" not in line))).status == 200
    first, second = (dict(lines_of(seen)) for seen in side.seen)
    assert first[b"authorization"] == b"Bearer canary-key"
    added = {b"openai-organization": b"canary", b"openai-project": b"canary", b"authorization": b"Bearer canary"}
    assert second == {**first, **added}


@pytest.mark.parametrize(
    "value", ["a\u010d\u010ab", "a\x85b", "a\u2028b", "a%0d%0aset-cookie: b", "a\tb", "\u202eb", "a" * 600]
)
async def test_what_may_travel_on_is_looked_at(start: Start, value: str) -> None:
    """A trace, a via or an organization that is no short printable text is left out, or stays one line."""
    async with far_side() as side:
        sidecar = await plain(start, side, api_key=None, credential="caller")
        names = ("traceparent", "tracestate", "via", "openai-organization", "openai-project")
        lines = [f"{name}: {value}".encode() for name in names]
        told = await ask(sidecar, *lines, f"x-request-id: {value}".encode(), b"Authorization: Bearer k")
    assert told.status == 200
    assert told.all("x-request-id") != [value]
    assert "set-cookie" not in told.names
    for name, line in lines_of(side.seen[0]):
        assert name.decode() in MAY_TRAVEL
        assert line.isascii()
        assert line.decode().isprintable()
        assert len(line) < 300


@pytest.mark.parametrize("model", [LOOK_ALIKES, "a%0d%0aset-cookie: b", "a\u00e9\u4e2d", "<script>", "a: b"])
async def test_a_models_name(start: Start, model: str) -> None:
    """It stands in `x-octet-model` as one line of ASCII, in answers good and bad, and in no other header."""
    for said, status in ((answer(), 200), (answer(b"{}", status=b"500 No"), 502)):
        async with far_side(said) as side:
            told = await ask(await plain(start, side), model=model)
        assert told.status == status
        (shown,) = told.all("x-octet-model")
        assert shown == "".join(letter if letter.isascii() else "?" for letter in model)
        assert "set-cookie" not in told.names


@pytest.mark.parametrize(
    "model", ["a\r\nset-cookie: b", "a\nb", "a\0b", "a\x1b[31m", "a\x85b", "a\u2028b", "a\u202eb", "\x7f"]
)
async def test_a_models_name_that_is_none(start: Start, model: str) -> None:
    """What would move a terminal's cursor, or begin a line, is no model, and is in no log."""
    async with far_side() as side:
        sidecar = await plain(start, side)
        told = await ask(sidecar, model=model)
    assert (told.status, side.met) == (400, 0)
    (line,) = await sidecar.lines.wait_for(1)
    assert line["model_asked"] is None


async def test_members_that_are_dropped(sidecar: Sidecar) -> None:
    """`x-octet-dropped` names callers' fields only where they are names."""
    fields = {"a\r\nset-cookie: b": 1, LOOK_ALIKES: 1, "logit_bias": {"1": 1}, "x" * 500: 1}
    told = await ask(sidecar, model=MODELS["anthropic"], **fields)
    assert told.status == 200
    assert "set-cookie" not in told.names
    (value,) = told.all("x-octet-dropped")
    assert set(value.split(", ")) == {"other", "logit_bias"}


FROM_UPSTREAM = [
    b"Set-Cookie: canary",
    b"Set-Cookie2: canary",
    b"Location: http://canary/",
    b"Access-Control-Allow-Origin: *",
    b"Access-Control-Allow-Credentials: true",
    b"Strict-Transport-Security: max-age=1",
    b"Content-Security-Policy: canary",
    b"WWW-Authenticate: canary",
    b"Server: canary",
    b"X-Powered-By: canary",
    b"Via: canary",
    b"Age: 7",
    b"X-Octet-Route: canary",
    b"X-Octet-Upstream: canary",
    b"X-Octet-Model: canary",
    b"X-Octet-Cache: canary",
    b"Server-Timing: canary",
    b"X-Should-Retry: true",
    b"Alt-Svc: canary",
    b"Refresh: 0; url=http://canary/",
    b"Link: <http://canary/>",
    b"X-Accel-Redirect: /canary",
    b"X-Request-Id: a\tset-cookie",
    b"X-Ratelimit-Odd: a\x85b",
    b"X-Ratelimit-High: \xff\xfe",
    b"X-Ratelimit-Tab: a\tb",
    b"OpenAI-Long: " + b"a" * 600,
    b"OpenAI-Version: 2020-10-01",
    b"X-Ratelimit-Remaining-Requests: 7",
]


@pytest.mark.parametrize("status", [200, 400, 401, 404, 429, 500, 503])
async def test_no_header_of_an_upstream_comes_back(start: Start, status: int) -> None:
    """But for its limits and versions, and those only when they are printable and short."""
    body = GOOD if status == 200 else b'{"error":{"message":"no","type":"x"}}'
    async with far_side(answer(body, *FROM_UPSTREAM, status=b"%d Oh" % status)) as side:
        told = await ask(await plain(start, side), model="gpt-4o-mini")
    assert "canary" not in str(told.headers)
    assert {name for name in told.names if not name.startswith("x-octet-")} <= MAY_COME_BACK
    assert told.all("server") == ["octet"]
    if status == 200:
        assert {"openai-version", "x-ratelimit-remaining-requests"} <= told.names


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_id_of_an_upstream(start: Start, stream: bool) -> None:
    """It comes back under a name of ours, when it is one; the access line has the same."""
    for given, shown in ((b"req_1", ["req_1"]), (b"a\xffb", []), (b"a\tb", []), (b"x" * 300, [])):
        lines = [b"X-Request-Id: " + given]
        async with far_side(answer(GOOD, *lines)) as side:
            sidecar = await plain(start, side)
            told = await ask(sidecar, stream=stream)
        assert told.status == 200
        assert told.all("x-upstream-request-id") == shown
        (line,) = await sidecar.lines.wait_for(1)
        assert line["upstream_request_id"] == (shown[0] if shown else None)
