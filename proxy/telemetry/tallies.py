"""Counters and histograms as plain numbers, read when somebody scrapes.

The client library takes a lock for every number and runs through a histogram's buckets in Python: 7 us of a call. These
are written by the loop's thread alone, and cost a tenth. Names, labels and exposition are the library's all the same.
"""

from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from proxy.call import Json

Labels = tuple[str, ...]
Cell = list[float]  # one number that can be added to
Known = Mapping[str, Collection[str]]  # values that a label may have; one that does not stand there may have any


class Counter(Collector):
    """A counter with labels."""

    def __init__(self, registry: CollectorRegistry, name: str, text: str, labels: Sequence[str]) -> None:
        self._family = (name, text, labels)
        self._cells: dict[Labels, Cell] = {}
        registry.register(self)

    def bind(self, labels: Labels) -> Cell:
        """Begin a series at 0; its value is in the cell."""
        return self._cells.setdefault(labels, [0.0])

    def add(self, labels: Labels, more: float = 1.0) -> None:
        self.bind(labels)[0] += more

    def prune(self, known: Known) -> None:
        """Forget the series of what is known no longer."""
        _prune(self._cells, self._family[2], known)

    def tree(self) -> Json:
        """The values by their labels, one level for each."""
        tree: Json = {}
        for labels, cell in list(self._cells.items()):
            place = tree
            for label in labels[:-1]:
                place = place.setdefault(label, {})
            place[labels[-1]] = cell[0]
        return tree

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(self._family[0], self._family[1], labels=self._family[2])
        for labels, cell in list(self._cells.items()):
            family.add_metric(labels, cell[0])
        yield family


class Series:
    """One histogram: how many values fell into each bucket, and their sum."""

    __slots__ = ("buckets", "counts", "total")

    def __init__(self, buckets: Sequence[float]) -> None:
        self.buckets = buckets
        self.counts = [0] * (len(buckets) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.buckets, value)] += 1
        self.total += value


class Histogram(Collector):
    """A histogram with labels."""

    def __init__(
        self, registry: CollectorRegistry, name: str, text: str, labels: Sequence[str], buckets: Sequence[float]
    ) -> None:
        self._family = (name, text, labels)
        self._buckets = buckets
        self._series: dict[Labels, Series] = {}
        registry.register(self)

    def bind(self, labels: Labels) -> Series:
        """Begin a series at 0."""
        return self._series.setdefault(labels, Series(self._buckets))

    def prune(self, known: Known) -> None:
        """Forget the series of what is known no longer."""
        _prune(self._series, self._family[2], known)

    def observe(self, labels: Labels, value: float) -> None:
        self.bind(labels).observe(value)

    def collect(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(self._family[0], self._family[1], labels=self._family[2])
        bounds = [*map(str, map(float, self._buckets)), "+Inf"]
        for labels, series in list(self._series.items()):
            so_far, buckets = 0, []
            for bound, count in zip(bounds, list(series.counts), strict=True):
                so_far += count
                buckets.append((bound, so_far))
            family.add_metric(labels, buckets, series.total)
        yield family


def _prune(series: dict[Labels, Any], names: Sequence[str], known: Known) -> None:
    places = [(place, known[name]) for place, name in enumerate(names) if name in known]
    for labels in [each for each in series if any(each[place] not in values for place, values in places)]:
        del series[labels]
