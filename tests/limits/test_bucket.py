"""A bucket fills steadily, says honestly how long a wait is, and goes into debt when a call used more than it said."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.limits.bucket import SOON, Bucket

AMOUNTS = st.floats(0.1, 60.0)


def test_a_new_bucket_is_full() -> None:
    """A minute's worth at once, and then nothing."""
    bucket = Bucket(60, 1000.0)
    for _ in range(60):
        assert bucket.wait(1, 1000.0) == 0
        bucket.take(1, 1000.0)
    assert bucket.wait(1, 1000.0) == 1.0
    assert bucket.now(1000.0) == 0.0


def test_it_fills_steadily_and_no_further_than_full() -> None:
    """A minute fills it; what comes later is lost."""
    bucket = Bucket(120, 1000.0)
    bucket.take(120, 1000.0)
    assert bucket.now(1000.25) == 0.5
    assert bucket.now(1030.0) == 60.0
    assert bucket.now(1060.0) == 120.0
    assert bucket.now(9999.0) == 120.0


@given(st.lists(AMOUNTS, max_size=10), AMOUNTS)
def test_waits_are_honest(taken: list[float], amount: float) -> None:
    """After the wait it can be taken; a moment before it cannot."""
    bucket = Bucket(60, 0.0)
    for each in taken:
        bucket.take(each, 0.0)
    wait = bucket.wait(amount, 0.0)
    if wait > 1e-3:
        assert bucket.wait(amount, wait - 1e-3) == pytest.approx(1e-3)
    assert bucket.wait(amount, wait) == pytest.approx(0.0, abs=1e-9)


@given(st.lists(st.tuples(AMOUNTS, st.floats(0.0, 3.0)), max_size=60))
def test_who_obeys_stays_within_the_limit(steps: list[tuple[float, float]]) -> None:
    """All that is taken when `wait` allows it is no more than a full bucket and what has come since."""
    bucket, now, taken = Bucket(60, 0.0), 0.0, 0.0
    for amount, seconds in steps:
        now += seconds
        if not bucket.wait(amount, now):
            bucket.take(amount, now)
            taken += amount
        assert taken <= 60 + now + 1e-6


def test_a_clock_that_steps_back_gives_and_takes_nothing() -> None:
    """What is left stays, and from then on time counts anew."""
    bucket = Bucket(60, 1000.0)
    bucket.take(60, 1000.0)
    assert bucket.now(400.0) == 0.0
    assert bucket.wait(5, 400.0) == 5.0
    assert bucket.now(405.0) == 5.0


def test_a_full_bucket_does_not_save_up_time() -> None:
    """Hours of silence are worth no more than a full bucket."""
    bucket = Bucket(60, 0.0)
    assert bucket.now(3600.0) == 60.0
    bucket.take(60, 3600.0)
    assert bucket.now(3600.0) == 0.0
    assert bucket.now(3601.0) == 1.0


def test_a_call_bigger_than_the_bucket() -> None:
    """It waits until the bucket is full, is let through, and those after it wait for what it took too much."""
    bucket = Bucket(60, 1000.0)
    bucket.take(1, 1000.0)
    assert bucket.wait(150, 1000.0) == 1.0
    assert bucket.wait(150, 1001.0) == 0.0
    bucket.take(150, 1001.0)
    assert bucket.now(1001.0) == -90.0
    assert bucket.wait(1, 1001.0) == 91.0
    assert bucket.wait(150, 1001.0) == 150.0


def test_what_is_given_back_is_there_again() -> None:
    """But never more than a full bucket."""
    bucket = Bucket(60, 1000.0)
    bucket.take(50, 1000.0)
    bucket.give(20, 1000.0)
    assert bucket.now(1000.0) == 30.0
    bucket.give(50, 1000.0)
    assert bucket.now(1000.0) == 60.0


def test_a_debt_is_worked_off() -> None:
    """A call that used more than it had reserved makes the next one wait."""
    bucket = Bucket(60, 1000.0)
    bucket.take(60, 1000.0)
    bucket.give(-30, 1000.0)
    assert bucket.wait(1, 1000.0) == 31.0
    assert bucket.now(1030.0) == 0.0


def test_a_debt_is_taken_off_what_is_there_by_then() -> None:
    """A full bucket that is charged 30 of its 60 holds 30, however long nobody had looked at it."""
    bucket = Bucket(60, 1000.0)
    bucket.take(10, 1000.0)
    bucket.give(-30, 1060.0)  # the bucket was full again by then
    assert bucket.now(1060.0) == 30.0


def test_what_was_used_is_counted() -> None:
    """For who shares the limit: taken, less what was given back."""
    bucket = Bucket(60, 1000.0)
    bucket.take(50, 1000.0)
    bucket.give(20, 1000.0)
    assert bucket.used == 30.0


def test_a_leased_bucket_fills_by_what_is_granted() -> None:
    """Time alone brings nothing; how long a wait may be is told by who grants."""
    bucket = Bucket(60, 1000.0)
    bucket.lease(5.0, 1000.0)
    assert bucket.wait(5, 1000.0) == 0.0
    bucket.take(5, 1000.0)
    assert bucket.now(2000.0) == 0.0
    assert bucket.wait(1, 2000.0) == SOON
    bucket.ready_at = 2004.0
    assert bucket.wait(1, 2000.0) == 4.0
    assert bucket.wait(1, 2003.0) == 1.0
    assert bucket.wait(1, 2010.0) == SOON, "it is time to ask again"
    bucket.lease(2.0, 2000.0)
    assert bucket.now(2000.0) == 2.0


def test_a_bucket_that_stands_alone_fills_at_its_share() -> None:
    """From that moment on, and not for the time that it was leased."""
    bucket = Bucket(60, 1000.0)
    bucket.lease(0.0, 1000.0)
    bucket.stand_alone(0.25, 2000.0)
    assert bucket.now(2000.0) == 0.0
    assert bucket.now(2004.0) == 1.0
    assert bucket.wait(2, 2004.0) == 4.0
    assert bucket.believed(2004.0) == 4.0, "the others have as much each"
    assert bucket.now(9000.0) == 15.0, "its part of all, however long it rests"
    assert bucket.believed(9000.0) == 60.0
    assert bucket.wait(20, 9000.0) == 0.0, "a call that is larger takes all of it, and more"
