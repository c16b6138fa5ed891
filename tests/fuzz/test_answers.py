"""Whatever an upstream sends, it is an answer in OpenAI's shape, or a failure of the upstream's; no end is invented."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.call import Call
from proxy.errors import UpstreamError
from proxy.openai_format.encoding import encode
from proxy.openai_format.errors import error_object
from proxy.providers import providers
from proxy.providers.relay import Relay, open_relay, read_completion
from tests.fuzz.effort import tries
from tests.fuzz.goldens import ERRORS, STREAMS, WHOLE, Golden
from tests.fuzz.mutations import Members, cuts, pieces, read, spoilt_bytes, spoilt_json, trees, write
from tests.fuzz.shapes import assert_chunk, assert_completion, assert_usage

DIALECTS = tuple(providers())
by_dialect = pytest.mark.parametrize("dialect", DIALECTS)


def those(goldens: tuple[Golden, ...], dialect: str) -> st.SearchStrategy[Golden]:
    return st.sampled_from([golden for golden in goldens if golden.dialect == dialect])


def frames_of(golden: Golden) -> list[bytes]:
    """The frames of a stream, found without our own splitter; each with its end."""
    if golden.suffix == ".sse":
        return [part for part in re.split(rb"(?<=\n\n)|(?<=\r\n\r\n)", golden.reply) if part]
    return golden.reply.splitlines(keepends=True)


def relayed(golden: Golden, call: Call, data: bytes, places: list[int]) -> tuple[bytes, Relay | None, Any]:
    """What the caller gets of these bytes, by which relay, and what fails."""
    try:
        relay = open_relay(golden.provider, call, golden.target(), golden.headers)
    except UpstreamError as error:
        return b"", None, error
    out = b""
    for piece in pieces(data, places):
        out += relay.feed(piece)
        if relay.failure is not None:
            return out, relay, relay.failure
    return out + relay.finish(), relay, relay.failure


def assert_failure(error: Any) -> None:
    """It is the upstream's, and can be told."""
    assert isinstance(error, UpstreamError)
    assert 400 <= error.status < 600
    json.loads(encode(error_object(error, "fuzz")))


def assert_stream(out: bytes, relay: Relay | None, failure: Any) -> None:
    """What left is sound, and ends only where nothing failed."""
    assert relay is not None or failure is not None
    if failure is not None:
        assert_failure(failure)
    else:
        assert relay is not None
        assert relay.facts.finished
        assert re.search(rb"data: ?\[DONE\]", out)
    if relay is None or not relay.encoded:
        return
    events = out.split(b"\n\n")
    assert events.pop() == b""
    if failure is None:
        assert events.pop() == b"data: [DONE]"
    for event in events:
        assert event.startswith(b"data: {")
        assert_chunk(json.loads(event.removeprefix(b"data: ")))


@st.composite
def disordered(draw: st.DrawFn, golden: Golden) -> bytes:
    """A stream whose frames are fewer, more, in another order, or of another content."""
    frames = frames_of(golden)
    for _ in range(draw(st.integers(1, 3))):
        if not frames:
            break
        place = draw(st.integers(0, len(frames) - 1))
        act = draw(st.sampled_from(("drop", "double", "move", "spoil", "spoil", "break")))
        frame = frames.pop(place)
        if act in ("double", "move"):
            frames.insert(draw(st.integers(0, len(frames))), frame)
        if act in ("double", "break"):
            frames.insert(place, frame if act == "double" else frame.rstrip(b"\r\n"))
        if act == "spoil":
            frames.insert(place, draw(other_content(frame)))
    return b"".join(frames)


@st.composite
def other_content(draw: st.DrawFn, frame: bytes) -> bytes:
    """A frame whose JSON holds something else."""
    found = re.search(rb"\{.*\}", frame, re.DOTALL)
    try:
        tree = read(found[0].decode()) if found else None
    except ValueError:
        tree = None
    if found is None or not isinstance(tree, Members):
        return frame
    spoilt = draw(spoilt_json(st.just(write(tree))))
    return frame[: found.start()] + spoilt.replace(b"\n", b" ") + frame[found.end() :]


@by_dialect
@tries(70)
@given(data=st.data())
def test_a_spoilt_stream(dialect: str, data: st.DataObject) -> None:
    """Its chunks are OpenAI's as far as it goes, and it ends well or fails; how it was cut makes no difference."""
    golden = data.draw(those(STREAMS, dialect))
    call = golden.call()
    raw = data.draw(disordered(golden) | spoilt_bytes(st.just(golden.reply)))
    out, relay, failure = relayed(golden, call, raw, [])
    assert_stream(out, relay, failure)
    again, second, other = relayed(golden, call, raw, data.draw(cuts))
    assert_stream(again, second, other)
    assert (type(other), said(again, second)) == (type(failure), said(out, relay))


def said(out: bytes, relay: Relay | None) -> Any:
    """What a stream said: its bytes, or its texts joined where they are written by us."""
    if relay is None or not relay.encoded:
        return out
    text, rest = "", list[Any]()
    for event in out.split(b"\n\n")[:-1]:
        chunk = json.loads(event.removeprefix(b"data: ")) if event != b"data: [DONE]" else {"choices": []}
        for choice in chunk["choices"]:
            text += choice["delta"].pop("content", None) or ""
            rest.append(choice)
    return text, [choice for choice in rest if choice["delta"] or choice["finish_reason"]]


# What says that an answer is at its end, in every dialect that says it.
_END = re.compile(
    rb"\[DONE\]|message_stop|message_delta|\"done\"\s*:\s*true|\"generated_text\"\s*:\s*\""
    rb"|\"(?:finish_reason|stop_reason|done_reason)\"\s*:\s*\"[a-z]"
)


def says_its_end(golden: Golden) -> bool:
    """Whether the stream goes well only because it says that it is over."""
    return golden.settings.get("mode") != "custom" and not golden.fails and golden.suffix in (".sse", ".ndjson")


ENDED = tuple(filter(says_its_end, STREAMS))


@by_dialect
@tries(35)
@given(data=st.data())
def test_no_end_is_invented(dialect: str, data: st.DataObject) -> None:
    """A stream without what said its end is cut short, and nothing of it says `stop` or `[DONE]` by itself."""
    golden = data.draw(those(ENDED, dialect))
    frames = [frame for frame in frames_of(golden) if not _END.search(frame)]
    most = len(frames) if len(frames) < len(frames_of(golden)) else 0
    kept = b"".join(frames[: data.draw(st.integers(0, most))]) or b"data: [DONE]\n\n"  # an end without a beginning
    out, relay, failure = relayed(golden, golden.call(), kept, data.draw(cuts))
    assert_failure(failure)
    assert b"[DONE]" not in out
    assert relay is None or not relay.facts.finished
    assert not re.search(rb'"finish_reason": ?"', out)


@by_dialect
@tries(45)
@given(data=st.data())
def test_a_spoilt_answer(dialect: str, data: st.DataObject) -> None:
    """A whole answer is OpenAI's completion, or on the exact wire what the upstream wrote; or it fails."""
    golden = data.draw(those(WHOLE, dialect).filter(lambda golden: not golden.call().stream))
    raw = data.draw(spoilt_json(st.just(golden.reply.decode())) | spoilt_bytes(st.just(golden.reply)))
    call, target = golden.call(), golden.target()
    try:
        body, facts = read_completion(golden.provider, call, target, golden.headers, raw)
    except UpstreamError as error:
        assert_failure(error)
        return
    if call.operation == "chat" and target.upstream.wire == "normalise":
        whole = json.loads(body)
        assert_completion(whole)
        assert facts.usage == (whole.get("usage") or None)
    elif call.operation == "embeddings":
        assert json.loads(body.decode("utf-8", "replace"))["data"]
    elif target.model == call.model:
        assert body == raw
    else:
        members = [(name, call.model if name == "model" else value) for name, value in read(raw)]
        assert read(body) == Members(members)


odd_texts = st.text(st.characters(max_codepoint=255), max_size=30)
numbers = st.integers().map(str) | st.floats().map(str) | st.sampled_from(["1_0", "²", "+1", " 5 ", "1e400", "0x1"])
dates = st.builds(
    "{}{} {} {} {}:{}:{} {}".format,
    st.sampled_from(["", "Mon, "]),
    st.integers(-1, 40),
    st.sampled_from(["Jan", "Feb", "Xyz"]),
    st.sampled_from([0, 99, 1970, 2026, 9999, 10**9, 10**30]),
    st.integers(0, 99),
    st.integers(0, 99),
    st.sampled_from(["", "0", "59", "61", "9" * 30]),
    st.sampled_from(["", "GMT", "+0000", "-9999", "+" + "9" * 20]),
)
times = st.sampled_from(["2026-11-27T10:00:00Z", "2026-11-27T10:00:00", "0001-01-01T00:00:00+23:59", "2026-11-27"])
values = odd_texts | numbers | dates | times
RATES = [
    f"anthropic-ratelimit-{kind}-{what}"
    for kind in ("requests", "tokens", "input-tokens")
    for what in ("limit", "remaining", "reset")
]
WAITS = ["retry-after", "retry-after-ms", "date", "x-should-retry", "content-type"]
headers = st.dictionaries(st.sampled_from(WAITS), values)


@by_dialect
@tries(45)
@given(data=st.data(), status=st.integers(300, 599), headers=headers)
def test_a_spoilt_error(dialect: str, data: st.DataObject, status: int, headers: dict[str, str]) -> None:
    """Whatever an upstream's error says, and in whatever form, it is one of our failures, with a wait that is one."""
    golden = data.draw(those(ERRORS, dialect))
    seed = golden.reply.decode("utf-8", "replace")
    structural = spoilt_json(st.just(seed)) if golden.suffix == ".json" else st.just(golden.reply)
    raw = data.draw(structural | spoilt_bytes(st.just(golden.reply)))
    error = golden.provider.parse_error(golden.target(), status, headers, raw)
    assert_failure(error)
    assert error.retry_after is None or 0 <= error.retry_after < float("inf")
    golden.provider.amend(golden.call(), golden.target(), error)


@by_dialect
@tries(35)
@given(
    body=spoilt_json(
        st.just('{"object":"list","data":[{"id":"a","object":"model","created":1}],"models":[{"name":"a"}]}')
    )
)
def test_a_spoilt_list_of_models(dialect: str, body: bytes) -> None:
    """It is model objects, or no list of models."""
    try:
        models = list(providers()[dialect].parse_models(body))
    except (ValueError, TypeError):  # which whoever asks takes for none
        return
    assert all(isinstance(model["id"], str) and isinstance(model["created"], int) for model in models)
    encode(models)


@tries(150)
@given(headers=st.dictionaries(st.sampled_from(RATES), values), date=dates | values)
def test_what_an_answer_says_of_limits(headers: dict[str, str], date: str) -> None:
    """It is told in texts, or not at all."""
    for provider in providers().values():
        told = provider.rate_limits({**headers, "date": date})
        assert all(isinstance(value, str) for value in told.values())


@pytest.mark.parametrize(
    "date", ["Mon, 1 Jan 99999999999999999999 00:00:00 GMT", "Mon, 1 Jan 2026 00:00:00 +" + "9" * 20]
)
def test_a_date_that_no_clock_shows(date: str) -> None:
    """It says nothing of when limits are whole again, and harms no answer."""
    told = {f"anthropic-ratelimit-requests-{what}": "2026-11-27T10:00:00Z" for what in ("limit", "reset")}
    assert providers()["anthropic"].rate_limits({**told, "date": date}) == {}


@tries(45)
@given(usage=trees(st.just('{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}')))
def test_counts_that_are_none(usage: Any) -> None:
    """A stream written by us holds a usage of three counts, or none."""
    golden = next(golden for golden in STREAMS if golden.dialect == "vllm" and not golden.fails)
    chunk = Members([("id", "c"), ("choices", []), ("usage", usage)])
    raw = golden.reply.replace(
        b"data: [DONE]", b"data: " + write(chunk).encode("utf-8", "surrogatepass") + b"\n\ndata: [DONE]"
    )
    out, relay, _ = relayed(golden, golden.call(), raw, [])
    for event in out.split(b"\n\n") if relay is not None and relay.encoded else ():
        if event.startswith(b"data: {") and json.loads(event[6:]).get("usage"):
            assert_usage(json.loads(event[6:])["usage"])
