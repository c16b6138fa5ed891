"""What a sidecar tells of itself, once every few seconds, and what that means after half an hour."""

import contextlib
import math
import re
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tests.load.verdict import Check

MIB = 2**20
LEAST_RISE_MIB = 2.0  # a slope over a short run says little: what has not risen so far has not risen
LEFT = ("open_streams", "caller_connections", "upstream_connections", "slots", "queued", "flights", "buffered_bytes")
_LINE = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")
_UP_TO = re.compile(r'le="([^"]+)"')
_LAG = "octet_loop_lag_seconds_bucket"


@dataclass(frozen=True, slots=True)
class Sample:
    """One look.

    Args:
        at: seconds since the first one.
        lag: how many looks of the loop at its lag were late by up to so many seconds.
        sockets: -1 where they cannot be counted, as `tasks`.
    """

    at: float
    rss_mib: float
    open_files: int
    sockets: int
    tasks: int
    calls: int
    gauges: Mapping[str, int]
    lag: Mapping[float, float]


class Looking:
    """Looks at a sidecar, through its admin side and, where its process is ours, through the system."""

    def __init__(self, admin: str, pid: int | None = None, tasks: Path | None = None) -> None:
        self._admin = admin
        self._pid = pid
        self._tasks = tasks

    def look(self, at: float) -> Sample:
        with urllib.request.urlopen(f"{self._admin}/metrics", timeout=30) as response:  # noqa: S310
            text = response.read().decode()
        return sample_of(text, at, self._sockets(), self._count_of_tasks())

    def is_complete(self) -> bool:
        """Whether all that can be looked at has told something."""
        return self._tasks is None or self._tasks.exists()

    def _sockets(self) -> int:
        if self._pid is None:
            return -1
        count = 0
        for descriptor in Path(f"/proc/{self._pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                count += str(descriptor.readlink()).startswith("socket:")
        return count

    def _count_of_tasks(self) -> int:
        with contextlib.suppress(OSError, ValueError):
            return int(self._tasks.read_text()) if self._tasks is not None else -1
        return -1


def sample_of(text: str, at: float, sockets: int = -1, tasks: int = -1) -> Sample:
    """Read a page of metrics."""
    sums: dict[str, float] = {}
    lag: dict[float, float] = {}
    for match in filter(None, map(_LINE.fullmatch, text.splitlines())):
        name, labels, value = match[1], match[2] or "", float(match[3])
        sums[name] = sums.get(name, 0.0) + value
        if name == _LAG and (bound := _UP_TO.search(labels)) is not None:
            lag[float(bound[1])] = value
    names = {
        "upstream_connections": "octet_connections",
        "slots": "octet_slots_in_use",
        "queued": "octet_queue_length",
    }
    gauges = {name: round(sums.get(names.get(name, f"octet_{name}"), 0)) for name in LEFT}
    rss, files = sums["process_resident_memory_bytes"] / MIB, round(sums["process_open_fds"])
    return Sample(at, rss, files, sockets, tasks, round(sums.get("octet_calls_total", 0)), gauges, lag)


def slope_per_hour(samples: Sequence[Sample]) -> float:
    """By how much the resident set grows, by least squares; MiB an hour."""
    count = len(samples)
    if count < 2:
        return 0.0
    middle = sum(each.at for each in samples) / count
    spread = sum((each.at - middle) ** 2 for each in samples)
    return 3600 * sum((each.at - middle) * each.rss_mib for each in samples) / spread


def lag_between(before: Sample, after: Sample, share: float) -> float:
    """The upper bound, in seconds, that this share of the loop's lags between two looks kept; 0 without any."""
    counts = {bound: count - before.lag.get(bound, 0.0) for bound, count in sorted(after.lag.items())}
    total = counts.get(math.inf, 0.0)
    return next((bound for bound, count in counts.items() if total and count >= share * total), 0.0)


def left(before: Sample, after: Sample) -> dict[str, int]:
    """What is there now and was not before."""
    gauges = {name: after.gauges[name] - before.gauges[name] for name in LEFT}
    found = {**gauges, "sockets": after.sockets - before.sockets, "tasks": after.tasks - before.tasks}
    return {name: count for name, count in found.items() if count > 0}


def judge(samples: Sequence[Sample], rested: Sample, warm_up: float, most: float) -> Iterator[Check]:
    """Judge a soak.

    Args:
        samples: the first before the load, the others under it.
        rested: the look after the rest.
        warm_up: seconds that the slope leaves out.
        most: the slope that is allowed; MiB an hour.
    """
    measured = [each for each in samples if each.at >= warm_up]
    slope = slope_per_hour(measured)
    rise = slope * (measured[-1].at - measured[0].at) / 3600 if measured else 0.0
    yield Check(len(measured) > 1, f"looks after the warm-up of {warm_up:.0f} s: {len(measured)}")
    yield Check(
        slope <= most or rise <= LEAST_RISE_MIB,
        f"resident set: {slope:+.2f} MiB an hour ({rise:+.2f} MiB in all), at most {most:g}",
    )
    remains = left(samples[0], rested)
    yield Check(not remains, f"left after the rest: {', '.join(f'{n} {c}' for n, c in remains.items()) or 'nothing'}")


def account(samples: Sequence[Sample], rested: Sample) -> Iterator[str]:
    """What was seen, in a few lines."""
    before, last = samples[0], samples[-1]
    for title, name in (("sockets", "sockets"), ("open files", "open_files"), ("tasks", "tasks")):
        most = max(getattr(each, name) for each in samples)
        counts = [getattr(each, name) for each in (before, last, rested)]
        if most >= 0:
            yield f"{title}: {counts[0]} before, at most {most}, {counts[1]} at the end, {counts[2]} after a rest"
    yield f"resident set: {before.rss_mib:.1f} MiB before, {last.rss_mib:.1f} at the end, {rested.rss_mib:.1f} rested"
    worst = max((lag_between(*pair, 0.99) for pair in pairwise(samples)), default=0.0)
    yield (
        f"loop lag: 99 % up to {lag_between(before, last, 0.99) * 1000:g} ms, in the worst interval {worst * 1000:g} ms"
    )
    yield f"calls: {rested.calls - before.calls}"
