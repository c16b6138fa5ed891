"""Repeats and second attempts are a share of what is sent anyway."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.resilience.budget import HedgeBudget, RetryBudget


def repeated(budget: RetryBudget, share: float, now: float) -> bool:
    """Make a repeat, if there is budget for it."""
    if not budget.allows(share, now):
        return False
    budget.spend(now)
    return True


def hedged(budget: HedgeBudget) -> bool:
    """Make a second attempt, if there is budget for it."""
    if not budget.allows:
        return False
    budget.spend()
    return True


def spent(budget: RetryBudget, share: float, now: float, asked: int = 100) -> int:
    """How many of so many repeats there is budget for."""
    return sum(repeated(budget, share, now) for _ in range(asked))


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_three_repeats_are_always_possible(share: float) -> None:
    """Where hardly anything is sent, a share of it would be nothing."""
    budget = RetryBudget()
    budget.attempted(100.0)
    assert spent(budget, share, 100.0) == 3


@pytest.mark.parametrize(("attempts", "share", "repeats"), [(100, 0.2, 20), (15, 0.2, 3), (50, 0.0, 3), (20, 1.0, 20)])
def test_repeats_are_a_share_of_attempts(attempts: int, share: float, repeats: int) -> None:
    """With more attempts come more repeats."""
    budget = RetryBudget()
    for number in range(attempts):
        budget.attempted(100.0 + number / 100)
    assert spent(budget, share, 101.0) == repeats


def test_old_repeats_come_back() -> None:
    """Ten seconds after they were spent, one by one."""
    budget = RetryBudget()
    for now in (100.0, 101.0, 102.0):
        assert repeated(budget, 0.2, now)
    assert not repeated(budget, 0.2, 109.75)
    assert spent(budget, 0.2, 110.25) == 1
    assert spent(budget, 0.2, 112.25) == 2
    assert spent(budget, 0.2, 200.0) == 3


def test_old_attempts_do_not_count() -> None:
    """A busy time long ago allows nothing now; one of a few seconds ago does."""
    budget = RetryBudget()
    for _ in range(100):
        budget.attempted(100.0)
    assert spent(budget, 0.2, 109.0) == 20
    assert spent(budget, 0.2, 121.0) == 3


def test_attempts_are_kept_by_the_second() -> None:
    """However many there are, and for however long, what is remembered is small."""
    budget = RetryBudget()
    for number in range(10_000):
        budget.attempted(100.0 + number / 100)
    assert len(budget._seconds) <= 12
    assert sum(count for _, count in budget._seconds) <= 1200


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.25, 1.0, 4.0, 11.0]), st.booleans()), max_size=200))
def test_no_repeat_is_above_the_budget(steps: list[tuple[float, bool]]) -> None:
    """In any ten seconds: three are possible, and more only as a share of the attempts of that time."""
    budget, now = RetryBudget(), 1000.0
    attempts: list[float] = []
    repeats: list[float] = []
    for seconds, repeats_now in steps:
        now += seconds
        if not repeats_now:
            budget.attempted(now)
            attempts.append(now)
            continue
        before = sum(now - at <= 10 for at in repeats)
        recent, lately = sum(now - at <= 10 for at in attempts), sum(now - at <= 11 for at in attempts)
        granted = repeated(budget, 0.5, now)
        if before < max(3, math.floor(0.5 * recent)):
            assert granted
        if before >= max(3, math.floor(0.5 * lately)):
            assert not granted
        repeats += [now] * granted
        assert sum(now - at <= 10 for at in repeats) <= max(3, math.floor(0.5 * lately))


def test_second_attempts_are_a_share_of_calls() -> None:
    """At 5 %, one in twenty: none before the twentieth call, and then one."""
    budget = HedgeBudget()
    granted = []
    for _ in range(60):
        budget.called(0.05)
        granted.append(hedged(budget))
    assert [number for number, is_granted in enumerate(granted, 1) if is_granted] == [20, 40, 60]


@pytest.mark.parametrize(("share", "calls"), [(0.1, 10), (0.05, 20), (0.01, 100), (1.0, 1)])
def test_a_share_is_kept_to_the_call(share: float, calls: int) -> None:
    """Ten times 10 % is one, however floats add up."""
    budget = HedgeBudget()
    for _ in range(calls - 1):
        budget.called(share)
    assert not hedged(budget)
    budget.called(share)
    assert hedged(budget)


def test_unused_second_attempts_are_kept_but_few() -> None:
    """After a quiet day there are ten at once, and no more."""
    budget = HedgeBudget()
    for _ in range(100_000):
        budget.called(0.05)
    assert sum(hedged(budget) for _ in range(100)) == 10


def test_without_a_share_there_are_no_second_attempts() -> None:
    """A budget of 0 is none."""
    budget = HedgeBudget()
    for _ in range(1000):
        budget.called(0.0)
        assert not hedged(budget)


@given(st.lists(st.booleans(), max_size=300), st.sampled_from([0.05, 0.1, 0.3, 1.0]))
def test_second_attempts_never_exceed_their_share(calls: list[bool], share: float) -> None:
    """Whatever the order of calls and wishes."""
    budget, called, granted = HedgeBudget(), 0, 0
    for is_call in calls:
        if is_call:
            budget.called(share)
            called += 1
        else:
            granted += hedged(budget)
        assert granted <= share * called + 1e-6
