"""In which order targets are tried: by turns, by hash, by how they stand, by price."""

from collections import Counter
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as some

from proxy.routing.strategies import (
    Turns,
    better_of_two,
    drawn,
    latency_scores,
    least_first,
    share_of,
    sticky_scores,
)

DRAWS = 20_000
KEYS = [f"user-{number}" for number in range(DRAWS)]


@given(some.lists(some.integers(0, 12), min_size=1, max_size=6).filter(any), some.floats(0, 1, exclude_max=True))
def test_every_cycle_is_exact(weights: list[int], start: float) -> None:
    """In any stretch as long as the sum of the weights, each comes as often as its weight says."""
    turns = Turns(weights, lambda: start)
    cycle = sum(weights)
    taken = [turns.take() for _ in range(3 * cycle)]
    for begin in range(0, 2 * cycle, max(1, cycle // 3)):
        seen = Counter(taken[begin : begin + cycle])
        assert [seen[place] for place in range(len(weights))] == weights


def test_turns_are_smooth() -> None:
    """The rare one comes evenly, not in a row: with 9 to 1, every tenth time."""
    turns = Turns([9, 1], lambda: 0.3)
    rare = [number for number in range(1000) if turns.take() == 1]
    assert {later - earlier for earlier, later in pairwise(rare)} == {10}


def test_a_look_changes_nothing() -> None:
    """What is only asked does not take the turn."""
    turns = Turns([3, 2, 1], lambda: 0.0)
    for _ in range(60):
        assert turns.peek() == turns.peek() == turns.take()


def test_processes_begin_at_different_places() -> None:
    """Many that start at once do not all begin with the heaviest."""
    firsts = Counter(Turns([9, 1], Random(seed).random).take() for seed in range(300))
    assert 10 < firsts[1] < 60


def test_fractions_take_turns_too() -> None:
    """A share of 5 % is one in twenty."""
    turns = Turns([0.05, 0.95], lambda: 0.0)
    assert Counter(turns.take() for _ in range(2000))[0] == 100


def test_the_rest_is_drawn_by_its_weights() -> None:
    """Where the first target fails, the odds among those left are those of their weights."""
    chance = Random(11).random
    orders = Counter(tuple(drawn([5, 3, 2], 0, chance)) for _ in range(DRAWS))
    assert set(orders) == {(0, 1, 2), (0, 2, 1)}
    assert abs(orders[0, 1, 2] / DRAWS - 3 / 5) < 0.01


@pytest.mark.parametrize("chance", [0.0, 0.5, 1 - 2**-53])
def test_every_target_comes_once_and_weight_0_last(chance: float) -> None:
    """No value of chance leaves a target out; those of weight 0 are tried when all others failed, in their order."""
    order = drawn([0, 3, 0, 7, 1], 3, lambda: chance)
    assert order[0] == 3
    assert sorted(order[1:3]) == [1, 4]
    assert order[3:] == [0, 2]


@pytest.mark.parametrize("weights", [[9, 1], [1, 1, 1], [5, 3, 2, 0]])
def test_sticky_shares_are_weights(weights: list[int]) -> None:
    """Over 20,000 keys each target gets what its weight says, within 1 %."""
    names = [f"up-{number}/m" for number in range(len(weights))]
    first = Counter(min(range(len(weights)), key=sticky_scores(key, names, weights).__getitem__) for key in KEYS)
    for place, weight in enumerate(weights):
        assert abs(first[place] / DRAWS - weight / sum(weights)) < 0.01


def test_no_more_keys_move_than_must() -> None:
    """When a target goes, only its keys go elsewhere; when weights change, only towards the heavier."""

    def places(names: list[str], weights: list[int]) -> list[str]:
        return [min(zip(sticky_scores(key, names, weights), names, strict=True))[1] for key in KEYS[:4000]]

    three, two = places(["a", "b", "c"], [1, 1, 1]), places(["a", "b"], [1, 1])
    assert all(before in (after, "c") for before, after in zip(three, two, strict=True))
    heavier = places(["a", "b", "c"], [1, 1, 3])
    assert all(after in (before, "c") for before, after in zip(three, heavier, strict=True))


def test_hashes_are_what_they_were() -> None:
    """Sidecars of different versions, and processes of one, agree: the hash is part of the contract."""
    assert share_of("ada", "up/m") == pytest.approx(0.8726171, abs=1e-6)
    assert 0 < share_of("", "") < 1
    assert share_of("\ud800", "x") != share_of("\ud801", "x")


def test_what_is_unknown_gets_one_call() -> None:
    """A target that has not answered yet gets a call at once, and no second before the first is answered."""
    assert latency_scores([0.5, None], [3, 0]) == [2.0, 0.0]
    fresh_busy = latency_scores([0.5, None], [3, 1])
    assert fresh_busy[1] > fresh_busy[0]


def test_load_spreads() -> None:
    """Twice as slow with none in flight is better than quick with two."""
    scores = latency_scores([0.1, 0.25], [2, 0])
    assert better_of_two(scores, lambda: 0.0) == [1, 0]


def test_two_choices_leave_no_herd() -> None:
    """Of many, the best is not everybody's: it is taken when it is among the two drawn; the worst never is."""
    chance, scores = Random(5).random, [1.0, 2.0, 3.0, 4.0, 5.0]
    first = Counter(better_of_two(scores, chance)[0] for _ in range(DRAWS))
    assert abs(first[0] / DRAWS - 2 / 5) < 0.02
    assert first[4] == 0
    assert better_of_two(scores, lambda: 0.99)[1:] == [0, 1, 2, 4]


def test_least_first() -> None:
    """The lowest comes first, and equals are in no fixed order."""
    assert least_first([3.0, 1.0, 2.0], lambda: 0.0) == [1, 2, 0]
    chance = Random(2).random
    assert Counter(least_first([1.0, 1.0, 2.0], chance)[0] for _ in range(1000)).keys() == {0, 1}
