"""What must hold in the end, and whether it did."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.load.answers import INCOMPLETE
from tests.load.settings import Settings

FIRST_TOKEN = "first token"
LONGEST_GAP = "longest gap"
GAP = "gap"
TOKENS_PER_SECOND = "tokens per second"
_CALLS = ("generation", "streaming", "health")  # whoever hangs up has not waited for anything


@dataclass(frozen=True, slots=True)
class Figures:
    """One line of the statistics; times are milliseconds, as Locust counts them."""

    finished: int
    failed: int
    longest: float
    p95: float


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must hold."""

    held: bool
    text: str

    def __str__(self) -> str:
        return f"{'held    ' if self.held else 'NOT HELD'}  {self.text}"


def judge(
    figures: Mapping[str, Figures], faults: Mapping[tuple[str, str], int], crashes: Sequence[str], settings: Settings
) -> list[Check]:
    """Judge a run.

    Args:
        figures: by scenario, and FIRST_TOKEN.
        faults: how often, by scenario and what was wrong.
        crashes: what went wrong in the suite itself.
    """
    checks = [Check(False, f"the load suite itself failed: {crash}") for crash in crashes]
    if not any(each.finished - each.failed for name, each in figures.items() if name in settings.weights):
        checks.append(Check(False, "nothing was answered: no call ended well"))
    for name in settings.weights:
        checks += _of_scenario(name, figures.get(name), settings)
    incomplete = sum(
        count for (name, fault), count in faults.items() if name == "streaming" and fault.startswith(INCOMPLETE)
    )
    if "streaming" in figures:
        checks.append(Check(incomplete == 0, f"incomplete streams: {incomplete}"))
    if FIRST_TOKEN in figures:
        seconds, most = figures[FIRST_TOKEN].p95 / 1000, settings.first_token_seconds
        checks.append(Check(seconds <= most, f"first token, 95th percentile: {seconds:.3f} s, at most {most:g} s"))
    return checks


def _of_scenario(name: str, seen: Figures | None, settings: Settings) -> Iterator[Check]:
    users = settings.users * settings.weights[name] // sum(settings.weights.values())
    if seen is None:
        if users:
            yield Check(False, f"{name}: nothing was answered")
        return
    share = (seen.finished - seen.failed) / seen.finished
    yield Check(
        share > settings.success, f"{name}: {share:.2%} of {seen.finished} succeeded, more than {settings.success:.0%}"
    )
    if name in _CALLS:
        longest, most = seen.longest / 1000, settings.max_seconds
        yield Check(longest <= most, f"{name}: the slowest took {longest:.3f} s, at most {most:g} s")


def told(checks: Sequence[Check], faults: Mapping[tuple[str, str], int]) -> Iterator[str]:
    """The verdict, line by line: what was wrong with calls, then what held."""
    for (name, fault), count in sorted(faults.items(), key=lambda each: -each[1]):
        yield f"{count:8}  {name}: {fault}"
    yield from map(str, checks)
