"""What must hold in the end is looked at, one by one."""

from collections.abc import Mapping

from tests.load.settings import settings_from
from tests.load.verdict import FIRST_TOKEN, Figures, judge, told

SETTINGS = settings_from({"OCTET_LOAD_MAX_SECONDS": "2", "OCTET_LOAD_FIRST_TOKEN_SECONDS": "1"})
GOOD = {
    "generation": Figures(100, 5 - 1, 1999.0, 500.0),
    "streaming": Figures(100, 0, 2000.0, 500.0),
    "health": Figures(20, 0, 5.0, 5.0),
    FIRST_TOKEN: Figures(100, 0, 9000.0, 1000.0),
}


def broken(
    figures: Mapping[str, Figures] = GOOD, faults: Mapping[tuple[str, str], int] | None = None, crash: str = ""
) -> list[str]:
    """What did not hold."""
    checks = judge(figures, faults or {}, [crash] if crash else [], SETTINGS)
    assert checks
    return [check.text for check in checks if not check.held]


def test_all_holds() -> None:
    """At its limits, too."""
    assert broken() == []


def test_success_is_exceeded_by_each_scenario() -> None:
    """95 % is not more than 95 %."""
    assert broken({**GOOD, "generation": Figures(100, 5, 1.0, 1.0)}) == [
        "generation: 95.00% of 100 succeeded, more than 95%"
    ]


def test_the_slowest_counts() -> None:
    """Of calls that wait for their answer."""
    assert broken({**GOOD, "streaming": Figures(100, 0, 2001.0, 1.0)}) == [
        "streaming: the slowest took 2.001 s, at most 2 s"
    ]
    assert broken({**GOOD, "hangup": Figures(100, 0, 9000.0, 1.0)}) == []


def test_the_first_token_counts() -> None:
    """Its 95th percentile."""
    assert broken({**GOOD, FIRST_TOKEN: Figures(100, 0, 1.0, 1001.0)}) == [
        "first token, 95th percentile: 1.001 s, at most 1 s"
    ]


def test_one_incomplete_stream_is_too_many() -> None:
    """However many were good; other faults are a matter of the share."""
    faults = {
        ("streaming", "incomplete: no [DONE]"): 1,
        ("generation", "incomplete"): 2,
        ("streaming", "HTTP 503 x"): 1,
    }
    assert broken(faults=faults) == ["incomplete streams: 1"]


def test_nothing_is_not_good() -> None:
    """A run without any answer has not held anything."""
    assert broken({}) == [
        "nothing was answered: no call ended well",
        "generation: nothing was answered",
        "streaming: nothing was answered",
        "health: nothing was answered",
    ]
    assert broken({"generation": Figures(3, 3, 1.0, 1.0)})[0] == "nothing was answered: no call ended well"


def test_a_scenario_without_users_is_not_missed() -> None:
    """Ten users make one for health; five make none."""
    few = settings_from({"OCTET_LOAD_USERS": "5", "OCTET_LOAD_MAX_SECONDS": "2"})
    figures = {name: each for name, each in GOOD.items() if name != "health"}
    assert broken(figures) == ["health: nothing was answered"]
    assert all(check.held for check in judge(figures, {}, [], few))


def test_a_mistake_in_the_suite_is_no_success() -> None:
    """Its users' exceptions are told."""
    assert broken(crash="KeyError: 'x'") == ["the load suite itself failed: KeyError: 'x'"]


def test_what_was_wrong_is_told_first() -> None:
    """The most frequent fault on top, the verdict below."""
    lines = list(told(judge({}, {}, [], SETTINGS)[:1], {("a", "rare"): 1, ("b", "often"): 30}))
    assert lines == ["      30  b: often", "       1  a: rare", "NOT HELD  nothing was answered: no call ended well"]
