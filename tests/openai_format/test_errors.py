"""What an upstream's error says, whatever its shape, and what it means."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.errors import (
    MAX_MESSAGE,
    Broken,
    ContentRefused,
    ContextExceeded,
    CredentialRefused,
    InvalidRequest,
    Limited,
    ModelMissing,
    Overloaded,
    PaidOut,
    PermissionRefused,
    RequestRefused,
    TooSlow,
    UpstreamError,
)
from proxy.openai_format.errors import ErrorFacts, classify, error_object, in_stream_error, read_error, retry_after

unhurried = settings(suppress_health_check=[HealthCheck.too_slow])

TRACEBACK = 'Traceback (most recent call last):\n  File "/srv/secret.py", line 1\nKeyError: 1'
PAGE = "<!DOCTYPE html><html><head><title> 502 Bad Gateway </title></head><body>internal host</body></html>"


@pytest.mark.parametrize(
    ("body", "message", "code", "param"),
    [
        ({"error": {"message": "m", "type": "t", "param": "p", "code": "c"}}, "m", "c", "p"),
        ({"type": "error", "error": {"type": "api_error", "message": "m"}}, "m", None, None),
        ({"error": {"message": "m", "http_status_code": 429}}, "m", None, None),
        ({"error": {"message": "m", "code": 400, "param": {"a": 1}}}, "m", None, None),
        ({"error": "m", "error_type": "overloaded"}, "m", None, None),
        ({"error": "m", "estimated_time": 20.0}, "m", None, None),
        ({"error": "m"}, "m", None, None),
        ({"error": "m", "detail": [{"loc": ["a"], "msg": "n"}]}, "m", None, "a"),
        ([{"error": "m"}], "m", None, None),
        ([{"error": {"message": "m", "code": "c"}}, {"error": "n"}], "m", "c", None),
        ({"error": ["m", "n"]}, "m; n", None, None),
        ({"detail": "m"}, "m", None, None),
        ({"detail": [{"loc": ["body", "messages", 0], "msg": "m"}]}, "m", None, "body.messages.0"),
        ({"message": "m"}, "m", None, None),
        ({"object": "error", "message": "m", "type": "T", "param": None, "code": 40001}, "m", None, None),
        ({"error": "", "message": "m"}, "m", None, None),
        ({"error": None, "detail": "m"}, "m", None, None),
        ("m", "m", None, None),
    ],
)
def test_every_shape_of_json_is_read(body: Any, message: str, code: str | None, param: str | None) -> None:
    """Message, code and param are found in each shape of the reference §13.2; integers are no codes."""
    facts = read_error(json.dumps(body).encode())
    assert (facts.message, facts.code, facts.param) == (message, code, param)
    assert facts.structured is not isinstance(body, str)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"plain text\n", "plain text"),
        (b"", ""),
        (b"[]", ""),
        (b"17", ""),
        (b"{}", ""),
        (b"\xff broken", "\ufffd broken"),
        (PAGE.encode(), "an HTML page titled '502 Bad Gateway'"),
        (b"<HTML><body>internal host</body></HTML>", "an HTML page"),
        (f"it failed\n{TRACEBACK}".encode(), "it failed"),
        (json.dumps({"error": f"it failed {TRACEBACK}"}).encode(), "it failed"),
    ],
)
def test_every_other_body_is_read(body: bytes, message: str) -> None:
    """Text is taken, a page only by its title, a traceback never; nothing of these is the provider's own word."""
    facts = read_error(body)
    assert facts.message == message
    assert (facts.code, facts.param) == (None, None)


@unhurried
@given(st.binary() | st.recursive(st.none() | st.text() | st.integers(), lambda inner: st.lists(inner)).map(json.dumps))
def test_no_body_surprises(body: bytes | str) -> None:
    """Whatever comes, reading it never fails, and every status has a meaning."""
    facts = read_error(body if isinstance(body, bytes) else body.encode())
    for status in (300, 400, 404, 429, 500, 599):
        assert isinstance(classify(status, facts), UpstreamError)


def test_long_texts_are_cut() -> None:
    """At most 2000 characters of an upstream's text are passed on."""
    assert len(classify(400, read_error(b"x" * 5000)).message) == MAX_MESSAGE == 2000


@pytest.mark.parametrize(
    ("status", "facts", "kind", "told", "code"),
    [
        (400, ErrorFacts("m"), RequestRefused, 400, None),
        (400, ErrorFacts("m", code="invalid_value"), RequestRefused, 400, "invalid_value"),
        (422, ErrorFacts("m"), RequestRefused, 400, None),
        (413, ErrorFacts("m"), RequestRefused, 413, "request_too_large"),
        (400, ErrorFacts("m", code="context_length_exceeded"), ContextExceeded, 400, "context_length_exceeded"),
        (400, ErrorFacts("Prompt is too long: 9 > 8"), ContextExceeded, 400, "context_length_exceeded"),
        (422, ErrorFacts("`inputs tokens` must be <= 8"), ContextExceeded, 400, "context_length_exceeded"),
        (413, ErrorFacts("maximum context length is 8"), ContextExceeded, 400, "context_length_exceeded"),
        (400, ErrorFacts("m", code="content_filter"), ContentRefused, 400, "content_filter"),
        (400, ErrorFacts("m", code="content_policy_violation"), ContentRefused, 400, "content_policy_violation"),
        (401, ErrorFacts("m"), CredentialRefused, 502, "upstream_auth_failed"),
        (403, ErrorFacts("m"), PermissionRefused, 502, "upstream_auth_failed"),
        (402, ErrorFacts(), PaidOut, 429, "insufficient_quota"),
        (429, ErrorFacts(code="insufficient_quota"), PaidOut, 429, "insufficient_quota"),
        (429, ErrorFacts(type="insufficient_quota"), PaidOut, 429, "insufficient_quota"),
        (429, ErrorFacts("m", code="rate_limit_exceeded"), Limited, 429, "rate_limit_exceeded"),
        (429, ErrorFacts(), Limited, 429, "rate_limit_exceeded"),
        (404, ErrorFacts("m", code="model_not_found"), ModelMissing, 404, "model_not_found"),
        (404, ErrorFacts("m", type="not_found_error"), ModelMissing, 404, "model_not_found"),
        (404, ErrorFacts("m", type="NotFoundError"), ModelMissing, 404, "model_not_found"),
        (404, ErrorFacts("Not Found"), Broken, 502, "upstream_misconfigured"),
        (405, ErrorFacts(), Broken, 502, "upstream_misconfigured"),
        (415, ErrorFacts(), Broken, 502, "upstream_misconfigured"),
        (301, ErrorFacts(), Broken, 502, "upstream_misconfigured"),
        (408, ErrorFacts(), TooSlow, 504, "upstream_timeout"),
        (504, ErrorFacts(), TooSlow, 504, "upstream_timeout"),
        (409, ErrorFacts("m"), Broken, 502, "upstream_error"),
        (424, ErrorFacts("m"), Broken, 502, "upstream_error"),
        (500, ErrorFacts(), Broken, 502, "upstream_error"),
        (502, ErrorFacts(), Broken, 502, "upstream_error"),
        (503, ErrorFacts(), Overloaded, 503, "overloaded"),
        (529, ErrorFacts("m"), Overloaded, 503, "overloaded"),
        (508, ErrorFacts(), Broken, 508, "loop_detected"),
    ],
)
def test_what_a_status_means(
    status: int, facts: ErrorFacts, kind: type[UpstreamError], told: int, code: str | None
) -> None:
    """Each status is one kind of failure, with its own status and code for the caller."""
    error = classify(status, facts)
    assert (type(error), error.status, error.code) == (kind, told, code)
    assert error.message


def test_a_context_refusal_names_the_messages() -> None:
    """A conversation that is too long is the fault of `messages`."""
    assert classify(400, ErrorFacts("context window", param="p")).param == "messages"
    assert classify(400, ErrorFacts("m", param="p")).param == "p"


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_not_described(status: int) -> None:
    """What the upstream says of our key stays out of the message; it is kept for the owner of a key passed through."""
    error = classify(status, ErrorFacts("Incorrect API key provided: sk-ab***yz"))
    assert isinstance(error, CredentialRefused)
    assert "sk-" not in str(error) + error.message
    assert error.theirs.startswith("Incorrect")


@pytest.mark.parametrize(("status", "waits"), [(429, True), (503, True), (529, True), (500, True), (400, False)])
def test_the_wait_is_kept(status: int, waits: bool) -> None:
    """Where waiting helps, the upstream's Retry-After goes with the failure."""
    assert classify(status, ErrorFacts("m"), 7.0).retry_after == (7.0 if waits else None)


def test_paid_out_is_not_to_be_repeated() -> None:
    """Vector 30: clients are told not to try again when the quota is gone."""
    assert classify(402, ErrorFacts()).headers == {"x-should-retry": "false"}
    assert classify(429, ErrorFacts()).headers == {}


START = "Tue, 01 Dec 2026 00:00:00 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "5"}, 5.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "5"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "5"}, 5.0),
        ({"retry-after-ms": "-1", "retry-after": "5"}, 5.0),
        ({"retry-after": "Tue, 01 Dec 2026 00:00:07 GMT", "date": START}, 7.0),
        ({"retry-after": START, "date": START}, 0.0),
        ({"retry-after": "Mon, 30 Nov 2026 23:59:59 GMT", "date": START}, None),
        ({"retry-after": "Tue, 01 Dec 2026 00:00:07 GMT"}, None),
        ({"retry-after": "Tue, 01 Dec 2026 00:00:07 GMT", "date": "today"}, None),
        ({"retry-after": "Tue, 01 Dec 2026 00:00:07 -0000", "date": START}, None),
        ({"retry-after": "Tue, 01 Dec 99999999999999999999 00:00:00 GMT", "date": START}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "tomorrow"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "-inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e999"}, None),
    ],
)
def test_how_long_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    """Milliseconds win over seconds, a date is measured from the answer's own, and nonsense is no advice."""
    assert retry_after(headers) == seconds


def test_an_absurd_wait_is_a_number_or_nothing() -> None:
    """A billion seconds is bounded where it is used; here it only must not be mistaken."""
    assert retry_after({"retry-after": "1e9"}) in (None, 1e9)


@unhurried
@given(st.text(), st.text())
def test_no_header_surprises(wait: str, date: str) -> None:
    """Whatever the headers hold, the answer is a finite wait or none."""
    seconds = retry_after({"retry-after": wait, "retry-after-ms": date, "date": date})
    assert seconds is None or 0 <= seconds < float("inf")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"message": "m", "http_status_code": 429}, Limited),
        ({"message": "m", "http_status_code": 422}, RequestRefused),
        ({"message": "m", "code": 503}, Overloaded),
        ({"message": "m", "code": 7}, Broken),
        ({"message": "m", "type": "overloaded_error"}, Overloaded),
        ({"message": "m", "type": "rate_limit_error"}, Limited),
        ({"message": "m", "code": "rate_limit_exceeded"}, Limited),
        ({"message": "m", "type": "insufficient_quota"}, PaidOut),
        ({"message": "m", "type": "authentication_error"}, CredentialRefused),
        ({"message": "m", "code": "context_length_exceeded", "type": "invalid_request_error"}, ContextExceeded),
        ({"message": "m", "type": "timeout_error"}, TooSlow),
        ({"message": "m", "type": "unheard_of"}, Broken),
        ("m", Broken),
        (True, Broken),
    ],
)
def test_an_error_inside_a_stream(error: Any, kind: type[UpstreamError]) -> None:
    """An error in a 200 answer is judged by its own status, else by its code or type."""
    assert type(in_stream_error(json.dumps({"error": error}).encode())) is kind


def test_our_words_name_the_request() -> None:
    """Texts of our own making name the request; a provider's refusal is passed on as it is."""
    refused = RequestRefused("theirs", param="p", code="c")
    assert error_object(refused, "req-1") == {
        "error": {"message": "theirs", "type": "invalid_request_error", "param": "p", "code": "c"}
    }
    assert "req-1" in error_object(InvalidRequest("ours"), "req-1")["error"]["message"]
