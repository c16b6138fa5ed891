"""A deployment's stream is read as YAML says, in whatever pieces it comes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.admission.parsing import parse
from proxy.call import Call, Caller, Json
from proxy.config.load import build
from proxy.config.source import Document
from proxy.errors import Broken, CutShort, Limited, UpstreamError
from proxy.openai_format.chunks import ROLE, collect, usage
from proxy.providers import providers, traits
from proxy.providers.relay import open_parser
from proxy.providers.seam import StreamParser, Target

BENTOML = providers()["bentoml"]
SSE, JSON, TEXT = "text/event-stream", "application/json", "text/plain; charset=utf-8"
texts = st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8), min_size=1, max_size=5)
places = st.lists(st.integers(0, 120), max_size=8)


def target(**custom: Any) -> Target:
    """A deployment with a shape of its own."""
    upstream = {"provider": "bentoml", "base_url": "http://upstream.example", "settings": {"mode": "custom", **custom}}
    return Target("up", build(Document("octet.yaml", {"upstreams": {"up": upstream}}), traits()).upstreams["up"], "m")


def call(**fields: Any) -> Call:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **fields}
    return parse(json.dumps(body).encode(), caller=Caller(), headers={}, call_id="1", received_at=1.0)


def parser(kind: str, shape: Json, answer: Json | None = None, **fields: Any) -> StreamParser:
    where = target(stream=shape, **({"answer": answer} if answer else {}))
    return open_parser(BENTOML, call(stream=True, **fields), where, {"content-type": kind})


def told(data: bytes | str, kind: str, answer: Json | None = None, *, cuts: Any = (), **shape: Any) -> list[Json]:
    """The chunks of a stream that came in reads which end at the given places."""
    body = data if isinstance(data, bytes) else data.encode()
    ends = sorted(place for place in cuts if place < len(body))
    stream = parser(kind, shape, answer)
    read = [body[start:end] for start, end in zip([0, *ends], [*ends, len(body)], strict=True)]
    return [*(chunk for each in read for chunk in stream.feed(each)), *stream.finish()]


def streamed(data: bytes | str, kind: str = "application/x-ndjson", **shape: Any) -> str:
    """The text of a stream, which is the same byte by byte."""
    chunks = told(data, kind, **shape)
    by_bytes = told(data, kind, cuts=range(1, len(data.encode() if isinstance(data, str) else data)), **shape)
    text: str = collect(chunks)["choices"][0]["message"]["content"]
    assert collect(by_bytes) == collect(chunks)
    assert (chunks[0]["choices"][0]["delta"], chunks[-1]["choices"][0]["finish_reason"]) == (ROLE, "stop")
    return text


def lines(*items: Any) -> str:
    return "".join(json.dumps(item) + "\n" for item in items)


def events(*items: Any) -> str:
    return "".join(f"data: {json.dumps(item)}\n\n" for item in items)


FRAMINGS = [
    pytest.param("".join, TEXT, {}, id="text"),
    pytest.param("".join, "application/octet-stream", {"framing": "text"}, id="text by framing"),
    pytest.param(lambda said: events(*({"text": text} for text in said)), SSE, {}, id="sse"),
    pytest.param(lambda said: events(*said) + "data: [DONE]\n\n", SSE, {}, id="sse of strings"),
    pytest.param(
        lambda said: lines(*({"token": {"text": text}} for text in said)), "application/jsonl", {}, id="ndjson"
    ),
    pytest.param(lambda said: lines(*said).strip(), TEXT, {"framing": "ndjson"}, id="ndjson by framing"),
    pytest.param(
        lambda said: "".join(json.dumps({"delta": text}, ensure_ascii=False) for text in said),
        TEXT,
        {"framing": "json"},
        id="json",
    ),
]


@pytest.mark.parametrize(("written", "kind", "shape"), FRAMINGS)
@given(said=texts, cuts=places)
def test_every_framing_tells_the_text(written: Any, kind: str, shape: Json, said: list[str], cuts: list[int]) -> None:
    """Whatever frames it and however it is cut, the text arrives, and the end is a `stop`."""
    chunks = told(written(said), kind, cuts=cuts, **shape)
    choice = collect(chunks)["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("".join(said), "stop")
    assert [chunk["choices"][0]["delta"] for chunk in chunks].count(ROLE) == 1


def test_events_may_be_plain_text() -> None:
    """Data lines that are no JSON are the text; so is a number, and after [DONE] nothing is."""
    assert streamed("data: Hello\n\ndata:  there\n\ndata: 42\n\ndata: [DONE]\n\ndata: more\n\n", SSE) == "Hello there42"


def test_items_without_text_say_nothing() -> None:
    """Items that only tell of other things are passed over; what they tell of usage and end is kept."""
    answer = {"prompt_tokens": "in", "completion_tokens": "out", "finish_reason": "why"}
    body = lines({"status": "started"}, {"text": "a"}, {"in": 3, "out": 1}, {"why": "length"})
    chunks = told(body, "application/x-ndjson", answer)
    assert [choice["delta"] for chunk in chunks for choice in chunk["choices"]] == [ROLE, {"content": "a"}, {}]
    assert (chunks[-2]["choices"][0]["finish_reason"], chunks[-1]["usage"]) == ("length", usage(3, 1))


@given(texts)
def test_cumulative_texts_become_pieces(said: list[str]) -> None:
    """Each item holds all so far: only what is new is told (vector 35)."""
    so_far = ["".join(said[: number + 1]) for number in range(len(said))]
    chunks = told(lines(*so_far), "application/x-ndjson", cumulative=True)
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [ROLE, *({"content": text} for text in said), {}]


def test_a_cumulative_text_that_changes_is_broken() -> None:
    """What has been told cannot be taken back."""
    stream = parser("application/x-ndjson", {"cumulative": True})
    assert len(list(stream.feed(lines("ab", "abc").encode()))) == 3
    with pytest.raises(Broken, match="has changed"):
        list(stream.feed(lines("abd").encode()))


@pytest.mark.parametrize(
    ("body", "kind", "shape"),
    [
        ("Hello<END>more", TEXT, {"end": "<END>"}),
        (lines({"text": "Hello"}) + "END\n" + lines({"text": "more"}), "application/x-ndjson", {"end": "END"}),
        (lines({"text": "Hello"}) + "END", "application/x-ndjson", {"end": "END"}),
        ("data: Hello\n\ndata: END\n\ndata: more\n\n", SSE, {"end": "END"}),
        ("data: Hello\n\ndata: END", SSE, {"end": "END"}),
        (
            lines({"text": "Hel"}, {"text": "lo", "last": True}, {"text": "x"}),
            "application/x-ndjson",
            {"end_field": "last"},
        ),
    ],
)
def test_a_configured_end_ends_the_stream(body: str, kind: str, shape: Json) -> None:
    """The end itself is not told, nor what follows it; and the stream knows that it has ended."""
    assert streamed(body, kind, **shape) == "Hello"
    stream = parser(kind, shape)
    list(stream.feed(body.encode()))
    list(stream.finish())
    assert stream.ended


@pytest.mark.parametrize(
    ("body", "kind", "shape"),
    [
        ("Hello<EN", TEXT, {"end": "<END>"}),
        (lines({"text": "a"}), "application/x-ndjson", {"end": "END"}),
        (lines({"text": "a", "last": False}), "application/x-ndjson", {"end_field": "last"}),
        ('{"text":"a"}\n{"te', "application/x-ndjson", {}),
        ('{"text":"a"}{"te', TEXT, {"framing": "json"}),
        ('data: {"text":"a"}\n\ndata: {"te', SSE, {}),
    ],
)
def test_a_stream_without_its_end_was_cut(body: str, kind: str, shape: Json) -> None:
    """Where the end is known or an item is half, silence is no end."""
    stream = parser(kind, shape)
    list(stream.feed(body.encode()))
    with pytest.raises(CutShort):
        list(stream.finish())


def test_a_tail_is_told_before_the_failure() -> None:
    """What only looked like the beginning of the end is text, although the stream was cut."""
    stream = parser(TEXT, {"end": "<END>"})
    said = list(stream.feed(b"abc <E"))
    with pytest.raises(CutShort):
        said.extend(stream.finish())
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in said) == "abc <E"


@pytest.mark.parametrize(
    ("body", "kind", "shape"),
    [
        (lines({"wrong": "a"}, {"wrong": "b"}), "application/x-ndjson", {}),
        (events({"wrong": "a"}) + "data: [DONE]\n\n", SSE, {}),
        ('{"wrong":"a"}', TEXT, {"framing": "json"}),
        (lines({"wrong": "a"}) + "END\n", "application/x-ndjson", {"end": "END"}),
        ("", SSE, {"framing": "sse"}),
        ("", "application/x-ndjson", {}),
    ],
)
def test_a_stream_without_any_text_is_no_answer(body: str, kind: str, shape: Json) -> None:
    """Nothing is made up for a stream in which no item holds a text: it is the upstream's failure."""
    with pytest.raises(Broken) as caught:
        told(body, kind, **shape)
    assert (caught.value.status, caught.value.code) == (502, "upstream_bad_response")


def test_an_empty_text_is_a_text() -> None:
    """A model may say nothing; its answer is found all the same."""
    assert streamed(lines({"text": ""})) == ""


@pytest.mark.parametrize(
    ("item", "answer", "kind", "message"),
    [
        ('{"error": "out of memory"}', {}, Broken, "out of memory"),
        ('{"error": {"message": "slow down", "code": 429}}', {}, Limited, "slow down"),
        ('{"text": "b", "failed": true}', {"error": "failed"}, Broken, "failed"),
    ],
)
def test_an_error_after_text_is_an_error(item: str, answer: Json, kind: type[UpstreamError], message: str) -> None:
    """What stands at the error's path of an item fails the stream."""
    stream = parser("application/x-ndjson", {}, answer)
    assert len(list(stream.feed(b'{"text":"a"}\n'))) == 2
    with pytest.raises(kind, match=message):
        list(stream.feed(item.encode() + b"\n"))


@pytest.mark.parametrize(
    ("body", "kind", "text"),
    [
        ("é🦊".encode(), "text/plain", "é🦊"),
        ("é".encode("latin-1"), "text/plain; charset=ISO-8859-1; x=y", "é"),
        ("é".encode("utf-16"), 'text/plain; charset="utf-16"', "é"),
        ("é".encode(), "text/plain; charset=klingon", "é"),
        (b"Hi", "text/plain; charset=hex", "Hi"),
        (b"a\xffb", "text/plain", "a\ufffdb"),
    ],
)
def test_texts_are_read_in_their_charset(body: bytes, kind: str, text: str) -> None:
    """The declared charset counts, UTF-8 else; bytes that fit none are replaced, and no bytes are a text too."""
    assert streamed(body, kind) == text


def test_what_is_no_json_is_broken() -> None:
    """A line that should be JSON and is not is the upstream's failure."""
    with pytest.raises(Broken, match="not JSON"):
        told("nonsense\n", "application/x-ndjson")


@pytest.mark.parametrize(
    ("kind", "shape"),
    [(JSON, {}), (JSON, {"framing": "sse"}), (JSON, {"framing": "none"}), (TEXT, {"framing": "none"})],
)
def test_a_whole_answer_becomes_a_stream(kind: str, shape: Json) -> None:
    """A deployment that does not stream is answered for in one piece (vector 32)."""
    assert streamed('"Hello"' if kind == JSON else "Hello", kind, **shape) == "Hello"


def test_stops_are_cut_on_our_side() -> None:
    """Deployments know no stop strings: the text ends before the first, and the stream with it."""
    stream = parser(TEXT, {}, stop=["###", "!"])
    chunks = [chunk for piece in (b"Hello#", b"#", b"#more") for chunk in stream.feed(piece)]
    assert stream.ended
    assert collect([*chunks, *stream.finish()])["choices"][0]["message"]["content"] == "Hello"
