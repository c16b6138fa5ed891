"""Many small cases in one test: what a test costs besides itself is more than they take."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import pytest

Test = TypeVar("Test", bound=Callable[..., None])


def together(name: str, groups: Mapping[str, Sequence[Any]]) -> Callable[[Test], Test]:
    """Run a test with each member of a group as the argument of that name; a test for each group.

    All members are tried; when some fail, the first one's failure is raised, and says how many more there are.
    """

    def over(test: Test) -> Test:
        @functools.wraps(test)
        def run(group: Sequence[Any], **others: Any) -> None:
            failed = []
            for member in group:
                try:
                    test(**{name: member}, **others)
                except Exception as error:  # noqa: BLE001  # raised below
                    error.add_note(f"{name}: {member}")
                    failed.append(error)
            if failed:
                failed[0].add_note(f"{len(failed)} of {len(group)} have failed")
                raise failed[0]

        taken = inspect.signature(test).parameters.values()
        others = [parameter for parameter in taken if parameter.name != name]
        first = inspect.Parameter("group", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        run.__signature__ = inspect.Signature([first, *others])  # type: ignore[attr-defined]
        made: Test = pytest.mark.parametrize("group", list(groups.values()), ids=list(groups))(run)
        return made

    return over
