"""A deployment's whole answer is found where YAML says."""

import json
from typing import Any

import pytest

from proxy.admission.parsing import parse
from proxy.call import Call, Caller, Json
from proxy.config.load import build
from proxy.config.source import Document
from proxy.errors import Broken, Limited, UpstreamError
from proxy.openai_format.chunks import usage
from proxy.providers import providers, traits
from proxy.providers.relay import read_whole
from proxy.providers.seam import Target

BENTOML = providers()["bentoml"]
JSON, TEXT = "application/json", "text/plain; charset=utf-8"


def target(**custom: Any) -> Target:
    """A deployment with a shape of its own."""
    upstream = {"provider": "bentoml", "base_url": "http://upstream.example", "settings": {"mode": "custom", **custom}}
    return Target("up", build(Document("octet.yaml", {"upstreams": {"up": upstream}}), traits()).upstreams["up"], "m")


def call(**fields: Any) -> Call:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **fields}
    return parse(json.dumps(body).encode(), caller=Caller(), headers={}, call_id="1", received_at=1.0)


def whole(body: bytes | str, kind: str = JSON, *, stop: Any = None, **answer: Any) -> Json:
    """The completion that a whole answer amounts to."""
    data = body if isinstance(body, bytes) else body.encode()
    return read_whole(BENTOML, call(stop=stop), target(answer=answer), {"content-type": kind}, data)


def text_of(body: bytes | str, kind: str = JSON, **answer: Any) -> Any:
    return whole(body, kind, **answer)["choices"][0]["message"]["content"]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        pytest.param("Hello", TEXT, id="text"),
        pytest.param('"Hello"', JSON, id="a JSON string"),
        pytest.param("Hello", "", id="text without a type"),
        pytest.param('{"text":"Hello"}', "", id="JSON without a type"),
        *(
            pytest.param(json.dumps(body), JSON, id=json.dumps(body))
            for body in (
                {"text": "Hello"},
                {"generated_text": "Hello"},
                {"response": "Hello"},
                {"output": "Hello", "text": None},
                {"choices": [{"message": {"content": "Hello"}}]},
                {"choices": [{"text": "Hello"}]},
                [{"generated_text": "Hello"}],
                {"text": "Hello", "error": None},
            )
        ),
    ],
)
def test_usual_answers_need_no_paths(body: str, kind: str) -> None:
    """Text is itself, and JSON is looked through in the usual places."""
    assert text_of(body, kind) == "Hello"


def test_the_first_path_that_hits_wins() -> None:
    """Paths are tried in turn; numbers count the items of lists, or are names in objects."""
    body = json.dumps({"a": {"0": "zero", "b": [{"c": 1}, {"c": "x"}]}, "d": "y"})
    assert text_of(body, text=["a.b.0.c", "a.b.7.c", "a.e", "a.b.1.c", "d"]) == "x"
    assert text_of(body, text=["a.0", "d"]) == "zero"


def test_one_path_needs_no_list() -> None:
    """A path may be written as a single string."""
    assert text_of('{"text": "wrong", "a": [{"b": "x"}]}', text="a.0.b") == "x"


def test_an_answer_is_a_whole_completion() -> None:
    """What YAML names of usage and end is told; it is OpenAI's completion in all other things."""
    body = '{"text": "Hello", "meta": {"in": 3, "out": 2, "why": "length"}}'
    answer = {"prompt_tokens": "meta.in", "completion_tokens": "meta.out", "finish_reason": "meta.why"}
    made = whole(body, **answer)
    assert (made["id"], made["object"], made["created"], made["model"]) == ("chatcmpl-1", "chat.completion", 1, "m")
    assert (made["usage"], made["choices"][0]["finish_reason"]) == (usage(3, 2), "length")


@pytest.mark.parametrize(
    "answer", [{}, {"prompt_tokens": "a"}, {"completion_tokens": "a"}, {"prompt_tokens": "a", "completion_tokens": "b"}]
)
def test_usage_is_never_invented(answer: Json) -> None:
    """Unless both counts are found there is none; without a reason the end is `stop`."""
    made = whole('{"text": "Hello", "a": 1, "b": "two"}', finish_reason="c", **answer)
    assert "usage" not in made
    assert made["choices"][0]["finish_reason"] == "stop"


NO_TEXT = [
    *((body, JSON) for body in ('{"wrong": "Hello"}', '{"text": 5}', "5", "null", "", '{"text": "Hel', b"\xff\xfe")),
    *(("", ""), ("<html>Hello</html>", "text/html; charset=utf-8")),
]


@pytest.mark.parametrize(("body", "kind"), NO_TEXT)
def test_an_answer_without_text_is_none(body: Any, kind: str) -> None:
    """Nothing is made up for an answer that holds no text: it is the upstream's failure."""
    with pytest.raises(Broken) as caught:
        whole(body, kind)
    assert (caught.value.status, caught.value.code) == (502, "upstream_bad_response")


@pytest.mark.parametrize(
    ("body", "answer", "kind", "message"),
    [
        ('{"error": "out of memory"}', {}, Broken, "out of memory"),
        ('{"error": {"message": "slow down", "code": 429}}', {}, Limited, "slow down"),
        ('{"text": "Hello", "status": {"problem": "no GPU"}}', {"error": "status.problem"}, Broken, "no GPU"),
        ('{"text": "Hello", "failed": true}', {"error": "failed"}, Broken, "failed"),
    ],
)
def test_an_error_in_a_success_is_an_error(body: str, answer: Json, kind: type[UpstreamError], message: str) -> None:
    """What stands at the error's path fails the attempt."""
    with pytest.raises(kind, match=message):
        whole(body, **answer)


@pytest.mark.parametrize(
    ("body", "kind", "text"),
    [
        ("é🦊".encode(), "text/plain", "é🦊"),
        ("é".encode("latin-1"), "text/plain; charset=ISO-8859-1", "é"),
        ("é".encode("utf-16"), 'text/plain; charset="utf-16"', "é"),
        ("é".encode("latin-1"), "text/plain; charset=iso-8859-1; x=y", "é"),
        ("é".encode(), "text/plain; charset=klingon", "é"),
        (b"Hi", "text/plain; charset=hex", "Hi"),
        (b"a\xffb", "text/plain", "a\ufffdb"),
    ],
)
def test_texts_are_read_in_their_charset(body: bytes, kind: str, text: str) -> None:
    """The declared charset counts, UTF-8 else; bytes that fit none are replaced, and no bytes are a text too."""
    assert text_of(body, kind) == text


def test_stops_are_cut_on_our_side() -> None:
    """Deployments know no stop strings: the text ends before the first."""
    assert whole("Hello###more", TEXT, stop="###")["choices"][0]["message"]["content"] == "Hello"


def test_a_text_under_the_name_of_json() -> None:
    """BentoML sends untyped texts so; what began as JSON, or as a page, is broken."""
    assert text_of("Once upon a time") == "Once upon a time"
    for broken in ('{"text": "On', "<html>"):
        with pytest.raises(Broken):
            whole(broken)
