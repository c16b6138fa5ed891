"""What an upstream's last times tell, once there are enough of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.resilience.latency import Latency


def latency(times: list[float]) -> Latency:
    one = Latency()
    for seconds in times:
        one.add(seconds)
    return one


@pytest.mark.parametrize("count", [0, 1, 19])
def test_few_times_tell_nothing(count: int) -> None:
    """Fewer than twenty are no percentile."""
    one = latency([1.0] * count)
    assert one.quantile(0.5) is None
    assert one.p95 is None
    assert one.count == count


def test_twenty_times_tell() -> None:
    """With the twentieth there is one, also for who has asked in vain before."""
    one = latency([1.0] * 19)
    asked_in_vain = one.p95
    assert asked_in_vain is None
    one.add(3.0)
    assert one.p95 == 3.0
    assert one.quantile(0.5) == 1.0


@pytest.mark.parametrize(("share", "low", "high"), [(0.0, 1, 1), (0.5, 50, 51), (0.95, 95, 96), (1.0, 100, 100)])
def test_a_quantile_is_the_time_that_the_share_stays_within(share: float, low: float, high: float) -> None:
    """Of 1 to 100 seconds, in any order."""
    found = latency([float(number * 37 % 101) for number in range(1, 101)]).quantile(share)
    assert found is not None
    assert low <= found <= high


@given(st.lists(st.floats(0, 100), min_size=20, max_size=250), st.floats(0, 1))
def test_a_quantile_is_one_of_the_last_times(times: list[float], share: float) -> None:
    """At least the share of the last two hundred is within it, and not everything is below it."""
    found, last = latency(times).quantile(share), times[-200:]
    assert found in last
    assert sum(seconds <= found for seconds in last) >= share * len(last)
    assert sum(seconds < found for seconds in last) <= share * len(last)


def test_only_the_last_times_count() -> None:
    """Two hundred are remembered: an upstream that has become fast is fast."""
    one = latency([50.0] * 1000 + [1.0] * 199)
    assert one.quantile(1.0) == 50.0
    one.add(1.0)
    assert one.quantile(1.0) == 1.0
    assert one.count == 200


def test_the_percentile_is_renewed_now_and_then() -> None:
    """It follows at the latest after sixteen more times, and is not reckoned for each call."""
    one = latency([1.0] * 20)
    assert one.p95 == 1.0
    for _ in range(15):
        one.add(9.0)
    assert one.p95 == 1.0
    one.add(9.0)
    assert one.p95 == 9.0
