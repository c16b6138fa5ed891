"""What an upstream says of its own limits slows us down before it has to refuse, and for no longer than a minute."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.limits.pace import MOST_MODELS, Pace

NOW = 1000.0


def tokens(amount: int) -> Callable[[], int]:
    return lambda: amount


ONE = tokens(1)


def said(kind: str, limit: int | None, remaining: object, reset: str) -> dict[str, str]:
    """Headers in OpenAI's names."""
    headers = {f"x-ratelimit-remaining-{kind}": str(remaining), f"x-ratelimit-reset-{kind}": reset}
    return headers if limit is None else headers | {f"x-ratelimit-limit-{kind}": str(limit)}


def pace(headers: dict[str, str]) -> Pace:
    """An upstream that has just said so of model m."""
    one = Pace()
    one.heard("m", headers, lambda: NOW)
    return one


def test_who_says_nothing_does_not_slow_us_down() -> None:
    """No headers, no wait."""
    one = pace({"content-type": "application/json"})
    one.sent("m", ONE)
    assert one.wait("m", ONE, NOW) == 0.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("6m0s", 60.0),  # no longer than a minute
        ("1h2m3.5s", 60.0),
        ("1m", 60.0),
        ("0m59s", 59.0),
        ("12ms", 0.012),
        ("1.5ms", 0.0015),
        ("7.66s", 7.66),
        ("8s", 8.0),
        ("1s500ms", 1.5),
        ("8", 8.0),
        ("8.25", 8.25),
        ("0", 0.0),
        ("0s", 0.0),
        ("9" * 30, 60.0),
        *((text, 0.0) for text in ("", " ", "soon", "-5", "-5s", "1e3", "nan", "inf", ".", "5 s", "s", "m", "5x")),
        ("2026-05-01T00:00:00Z", 0.0),
        ("1" * 5000, 0.0),
        ("\u0665\u00b2", 0.0),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    """OpenAI's spelling and plain seconds; what is neither is as if nothing had been said."""
    one = pace(said("requests", None, 0, text))
    assert one.wait("m", ONE, NOW) == pytest.approx(seconds)


@pytest.mark.parametrize("remaining", ["", "-1", "many", "1.5", "\u00b2", "1" * 16])
def test_what_remains_must_be_a_number(remaining: str) -> None:
    """Else nothing was said."""
    assert pace(said("requests", 10, remaining, "10s")).wait("m", ONE, NOW) == 0.0


@pytest.mark.parametrize("kind", ["requests", "tokens"])
def test_what_remains_is_counted_down(kind: str) -> None:
    """Calls that go out before the next answer are taken off, each with what it needs."""
    one = pace(said(kind, 100, 3 if kind == "requests" else 36, "10s"))
    for _ in range(3):
        assert one.wait("m", tokens(12), NOW) == 0.0
        one.sent("m", tokens(12))
    assert one.wait("m", tokens(12), NOW) > 0
    one.heard("m", said(kind, 100, 100, "0s"), lambda: NOW)
    assert one.wait("m", tokens(12), NOW) == 0.0


def test_a_call_that_fits_goes_before_one_that_does_not() -> None:
    """Tokens are compared with what the call needs."""
    one = pace(said("tokens", 100, 20, "8s"))
    assert one.wait("m", tokens(20), NOW) == 0.0
    assert one.wait("m", tokens(21), NOW) == pytest.approx(0.1)


def test_what_was_used_comes_back_steadily() -> None:
    """Until `reset` all of it: so a call waits for its part, and no longer than for all."""
    one = pace(said("tokens", 1000, 200, "40s"))  # 800 in 40 s: 20 in each
    assert one.wait("m", tokens(300), NOW) == pytest.approx(5.0)
    assert one.wait("m", tokens(300), NOW + 3) == pytest.approx(2.0)
    assert one.wait("m", tokens(300), NOW + 5) == pytest.approx(0.0)
    assert one.wait("m", tokens(1000), NOW) == pytest.approx(40.0)
    assert one.wait("m", tokens(9000), NOW) == pytest.approx(40.0)
    one.sent("m", tokens(400))
    assert one.wait("m", tokens(300), NOW) == pytest.approx(25.0)


def test_without_a_limit_all_comes_back_at_once() -> None:
    """Who does not say how much there is in all is believed the time."""
    one = pace(said("requests", None, 0, "10s"))
    assert one.wait("m", ONE, NOW + 9.5) == pytest.approx(0.5)
    assert one.wait("m", ONE, NOW + 10) == 0.0


def test_requests_and_tokens_are_two_limits() -> None:
    """The one that takes longer decides."""
    one = pace(said("requests", 10, 0, "10s") | said("tokens", 100, 0, "40s"))
    assert one.wait("m", ONE, NOW) == pytest.approx(1.0)
    assert one.wait("m", tokens(50), NOW) == pytest.approx(20.0)
    one.heard("m", said("tokens", 100, 100, "0s"), lambda: NOW)
    assert one.wait("m", tokens(50), NOW) == pytest.approx(1.0), "what is not said again still holds"


def test_a_refusal_says_until_when() -> None:
    """Retry-After, at most a minute; a second where it is not said."""
    one = Pace()
    one.refused("m", 8.0, NOW)
    assert (one.wait("m", ONE, NOW), one.wait("m", ONE, NOW + 8)) == (8.0, 0.0)
    one.refused("m", 3600.0, NOW + 8)
    assert one.wait("m", ONE, NOW + 8) == 60.0
    one.refused("n", None, NOW)
    assert one.wait("n", ONE, NOW) == 1.0
    one.refused("o", 0.0, NOW)
    assert one.wait("o", ONE, NOW) == 0.0


def test_a_refusal_without_a_time_shortens_nothing() -> None:
    """Of two calls that were refused together, one heard 30 s: the target is left alone for 30 s."""
    one = Pace()
    one.refused("m", 30.0, NOW)
    one.refused("m", None, NOW)
    assert one.wait("m", ONE, NOW) == 30.0
    one.refused("m", None, NOW + 29.5)
    assert one.wait("m", ONE, NOW + 29.5) == 1.0
    one.refused("m", 5.0, NOW)
    assert one.wait("m", ONE, NOW) == 5.0, "its last word"


def test_models_are_limited_each_for_itself() -> None:
    """What was said of one says nothing of another."""
    one = pace(said("requests", 10, 0, "10s"))
    one.refused("n", 5.0, NOW)
    one.sent("n", ONE)
    assert [one.wait(model, ONE, NOW) > 0 for model in "mno"] == [True, True, False]


def test_models_that_callers_invent_do_not_pile_up() -> None:
    """There are never more than so many, and the newest is always known."""
    one = Pace()
    for number in range(3 * MOST_MODELS + 7):
        model = f"m{number}"
        one.refused(model, 9.0, NOW)
        one.heard(model, said("requests", 10, 0, "10s"), lambda: NOW)
        assert one.wait(model, ONE, NOW) == 9.0
        assert one.wait(model, ONE, NOW + 9) == 0.0
        assert len(one._until) <= MOST_MODELS
        assert len(one._left) <= MOST_MODELS


def test_the_newest_model_is_known_whole() -> None:
    """Both its limits hold, however many models there were before."""
    one = Pace()
    for number in range(MOST_MODELS + 1):
        one.heard(f"m{number}", said("requests", 10, 0, "60s") | said("tokens", 100, 100, "0s"), lambda: NOW)
        assert one.wait(f"m{number}", ONE, NOW) > 0


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.floats(0, 10**5), st.integers(1, 10**7), st.integers(0, 10**6))
def test_no_wait_is_negative_or_longer_than_a_minute(
    limit: int, remaining: int, reset: float, need: int, sent: int
) -> None:
    """Whatever an upstream says; and when the minute is over, the call goes out."""
    one = pace(said("tokens", limit, remaining, f"{reset:.3f}s"))
    one.sent("m", tokens(sent))
    assert 0 <= one.wait("m", tokens(need), NOW) <= 60
    assert one.wait("m", tokens(need), NOW + 60) == 0


def test_what_was_said_can_be_read() -> None:
    """As long as it holds, by model."""
    one = pace(said("requests", 10, 4, "10s"))
    one.refused("n", 5.0, NOW)
    assert one.describe(NOW + 1) == {
        "m": {"refuses_for_seconds": 0, "left": {"requests": 4}},
        "n": {"refuses_for_seconds": 4.0, "left": {}},
    }
    assert one.describe(NOW + 6).keys() == {"m"}
    assert one.describe(NOW + 11) == {}
