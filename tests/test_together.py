"""Cases that are tried together fail as they would alone."""

from typing import Any

import pytest

from tests.together import together

tried: list[tuple[int, str]] = []


@pytest.mark.parametrize("more", ["a", "b"])
@together("number", {"few": [1, 2], "many": [3, 4, 5]})
def test_every_one_is_tried(number: int, more: str) -> None:
    """Each member with each other argument."""
    tried.append((number, more))
    assert number < 6


def test_that_was_all() -> None:
    """Nothing was left out, or tried twice."""
    assert sorted(tried) == [(number, more) for number in range(1, 6) for more in "ab"]


def test_a_failure_is_named() -> None:
    """The first, and how many; those behind it are tried all the same."""
    seen = []

    def check(number: Any) -> None:
        seen.append(number)
        assert number % 2

    with pytest.raises(AssertionError) as failure:
        together("number", {"all": [1, 2, 3, 4, 5]})(check)([1, 2, 3, 4, 5])
    assert seen == [1, 2, 3, 4, 5]
    assert failure.value.__notes__ == ["number: 2", "2 of 5 have failed"]
