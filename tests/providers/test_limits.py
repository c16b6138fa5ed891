"""What Anthropic says of its limits is told under OpenAI's names."""

import pytest

from proxy.providers.anthropic.limits import rate_limits
from tests.conftest import Sidecar

DATE = "Tue, 24 Nov 2026 10:00:00 GMT"


def told(reset: str = "2026-11-24T10:00:07.5Z", kind: str = "requests", **more: str) -> dict[str, str]:
    head = f"anthropic-ratelimit-{kind}"
    headers = {f"{head}-limit": "50", f"{head}-remaining": "49", f"{head}-reset": reset, "date": DATE, **more}
    return rate_limits(headers)


@pytest.mark.parametrize(
    ("reset", "duration"),
    [
        ("2026-11-24T10:00:07.5Z", "7.5s"),
        ("2026-11-24T10:00:00.012Z", "12ms"),
        ("2026-11-24T10:06:00Z", "6m0s"),
        ("2026-11-24T09:00:00Z", "0ms"),
        ("2026-11-24T12:00:01+02:00", "1s"),
    ],
)
def test_a_time_becomes_a_wait(reset: str, duration: str) -> None:
    """Counted from the answer's own date, and written as OpenAI writes durations."""
    assert told(reset) == {
        "x-ratelimit-limit-requests": "50",
        "x-ratelimit-remaining-requests": "49",
        "x-ratelimit-reset-requests": duration,
    }


@pytest.mark.parametrize("reset", ["", "soon", "2026-11-24T10:00:07", "\u0662"])
def test_a_time_that_is_none_is_left_out(reset: str) -> None:
    """The counts are told all the same."""
    assert told(reset).keys() == {"x-ratelimit-limit-requests", "x-ratelimit-remaining-requests"}


def test_input_tokens_stand_in_for_tokens() -> None:
    """Where only those are limited."""
    assert told(kind="input-tokens")["x-ratelimit-limit-tokens"] == "50"
    assert rate_limits({"date": DATE}) == {}


@pytest.mark.parametrize("stream", [False, True])
async def test_the_caller_sees_them(sidecar: Sidecar, stream: bool) -> None:
    """On every answer, streamed or not."""
    response = await sidecar.chat("claude-haiku-4-5", stream=stream)
    assert {"x-ratelimit-limit-requests", "x-ratelimit-remaining-tokens"} <= {name.lower() for name in response.headers}
    await response.read()
