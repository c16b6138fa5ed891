"""A program that is missing is never passed over in silence."""

import pytest

from tests.programs import STRICT, tool

MISSING = "a-program-that-nobody-has"


def test_without_it_a_test_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a reason."""
    for name in STRICT:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(pytest.skip.Exception, match=f"{MISSING} is not installed"):
        tool(MISSING)


@pytest.mark.parametrize("name", STRICT)
def test_without_it_a_test_fails_where_all_must_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loudly."""
    monkeypatch.setenv(name, "1")
    with pytest.raises(pytest.fail.Exception, match=f"{MISSING} is not installed"):
        tool(MISSING)


def test_one_of_its_names_is_enough() -> None:
    """Systems name the same program differently."""
    assert tool(MISSING, "python3", "python")
