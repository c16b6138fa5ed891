"""A good answer is told from a bad one, and a bad one is named."""

import json
from typing import Any

import pytest

from tests.load.answers import NOT_OCTET, StreamSeen, fault_of_completion, fault_of_head, fault_of_health

OURS = {"x-octet-upstream": "openai"}
FAILED = b'{"error": {"message": "no", "type": "server_error", "code": "upstream_unreachable"}}'
CONTENT = 'data: {"choices": [{"delta": {"content": "x"}, "finish_reason": null}]}'
FINISH = 'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}'
USAGE = 'data: {"choices": [], "usage": {"completion_tokens": 5}}'
DONE = "data: [DONE]"
ROLE = 'data: {"choices": [{"delta": {"role": "assistant", "content": ""}, "finish_reason": null}], "usage": null}'


def seen(*events: str, end: str = "\n") -> StreamSeen:
    """A stream of events, each a second after the one before."""
    stream = StreamSeen(0.0)
    for second, event in enumerate(events, 1):
        for line in (event, ""):
            stream.feed(f"{line}{end}".encode(), float(second))
    return stream


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_whole_stream(end: str) -> None:
    """First content, gaps and tokens are measured; what holds no content does not count."""
    stream = seen(": ping", ROLE, CONTENT, CONTENT, ": ping", CONTENT, FINISH, USAGE, DONE, end=end)
    assert stream.fault() is None
    assert (stream.first, stream.gaps, stream.last) == (3.0, [1.0, 2.0], 6.0)
    assert stream.tokens == 5
    assert stream.per_second == pytest.approx(4 / 3)


def test_tokens_are_counted_where_no_usage_is_told() -> None:
    """Each content is one."""
    assert seen(CONTENT, CONTENT, FINISH, DONE).tokens == 2


def test_a_speed_needs_two_tokens() -> None:
    """With one there is no time between."""
    assert seen(CONTENT, FINISH, DONE).per_second is None
    assert seen().per_second is None


ERROR = 'data: {"error": {"code": "upstream_cut", "type": "server_error"}}'
INCOMPLETE = {
    "no finish_reason": (CONTENT, DONE),
    "no [DONE]": (CONTENT, FINISH),
    "no content": (ROLE, FINISH, DONE),
    "no finish_reason, no [DONE], no content": (),
    "error event upstream_cut": (CONTENT, ERROR),
    "error event server_error": (ERROR.replace('"code": "upstream_cut", ', ""), CONTENT, FINISH, DONE),
    "an event that is no JSON object": (CONTENT, "data: 7", FINISH, DONE),
    "something came after [DONE]": (CONTENT, FINISH, DONE, CONTENT),
}


@pytest.mark.parametrize("why", INCOMPLETE)
def test_a_stream_that_is_not_whole(why: str) -> None:
    """It says what was missing or wrong."""
    assert seen(*INCOMPLETE[why]).fault() == f"incomplete: {why}"


def test_an_event_needs_its_empty_line() -> None:
    """A stream that is cut within its last event is not whole."""
    stream = seen(CONTENT, FINISH)
    stream.feed(b"data: [DONE]\n", 9.0)
    assert stream.fault() == "incomplete: no [DONE]"


def test_the_first_fault_is_told() -> None:
    """A connection that is lost after an error event adds nothing."""
    stream = seen(CONTENT, ERROR)
    stream.broke("connection lost")
    assert stream.fault() == "incomplete: error event upstream_cut"


def test_a_comment_tells_who_answers() -> None:
    """Where the headers went out too early for that."""
    assert seen(": octet upstream=openai attempts=1").known
    assert not seen(": ping", CONTENT).known


HEADS: list[tuple[int, dict[str, str], bytes, str | None]] = [
    (200, OURS, b"", None),
    (200, {}, b"", f"no header x-octet-upstream: {NOT_OCTET}"),
    (502, {}, FAILED, "HTTP 502 upstream_unreachable"),
    (404, {}, b"<html>", f"HTTP 404 without an error in OpenAI's shape: {NOT_OCTET}"),
    (503, OURS, b"[]", f"HTTP 503 without an error in OpenAI's shape: {NOT_OCTET}"),
]


@pytest.mark.parametrize(("status", "headers", "body", "fault"), HEADS)
def test_heads(status: int, headers: dict[str, str], body: bytes, fault: str | None) -> None:
    """Whoever answers shows that it is Octet, or names the error."""
    assert fault_of_head(status, headers, body) == fault


COMPLETIONS: list[tuple[Any, str | None]] = [
    ({"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]}, None),
    ({"choices": [{"message": {"content": "x"}, "finish_reason": None}]}, "a completion without finish_reason"),
    ({"choices": []}, "not a chat completion"),
    ({"object": "list"}, "not a chat completion"),
    ([], "not a chat completion"),
    ("text", "not a chat completion"),
]


@pytest.mark.parametrize(("body", "fault"), COMPLETIONS)
def test_completions(body: Any, fault: str | None) -> None:
    """A JSON answer is a finished completion."""
    assert fault_of_completion(json.dumps(body).encode()) == fault


def test_a_completion_that_is_cut() -> None:
    """Half of one is none."""
    assert fault_of_completion(b'{"choices": [{"mess') == "not a chat completion"


def test_probes() -> None:
    """A healthy Octet says so, and that it is Octet."""
    assert fault_of_health(200, {"server": "octet"}) is None
    assert fault_of_health(503, {"server": "octet"}) == "HTTP 503"
    assert fault_of_health(200, {"server": "nginx"}) == f"no header server: octet: {NOT_OCTET}"
