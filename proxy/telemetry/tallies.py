"""Counters and histograms as plain numbers, read when somebody scrapes.

The client library takes a lock for every number and runs through a histogram's buckets in Python: 7 us of a call. These
are written by the loop's thread alone, and cost a tenth. Names, labels and exposition are the library's all the same.
"""

import time
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

from prometheus_client.core import CounterMetricFamily, Exemplar, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from proxy.call import Json

Labels = tuple[str, ...]
Cell = list[float]  # one number that can be added to
Told = TypeVar("Told")  # what a series is
Known = Mapping[str, Collection[str]]  # values that a label may have; one that does not stand there may have any
UNITS = ("seconds", "bytes", "usd")


def unit_of(name: str) -> str:
    """The unit that a metric's name ends with; "" when it has none."""
    return next((unit for unit in UNITS if name.endswith(f"_{unit}")), "")


class Tally(Collector, Generic[Told]):
    """A metric with labels, and its series.

    Args:
        name: without suffixes.
    """

    def __init__(self, registry: CollectorRegistry, name: str, text: str, labels: Sequence[str]) -> None:
        self.name, self.text, self.labels = name, text, tuple(labels)
        self._series: dict[Labels, Told] = {}
        registry.register(self)

    def __len__(self) -> int:
        return len(self._series)

    def __contains__(self, labels: Labels) -> bool:
        return labels in self._series

    def prune(self, known: Known) -> None:
        """Forget the series of what is known no longer."""
        places = [(place, known[name]) for place, name in enumerate(self.labels) if name in known]
        for labels in [each for each in self._series if any(each[place] not in values for place, values in places)]:
            del self._series[labels]


class Counter(Tally[Cell]):
    """A counter."""

    def bind(self, labels: Labels) -> Cell:
        """Begin a series at 0; its value is in the cell."""
        return self._series.setdefault(labels, [0.0])

    def add(self, labels: Labels, more: float = 1.0) -> None:
        self.bind(labels)[0] += more

    def tree(self) -> Json:
        """The values by their labels, one level for each."""
        tree: Json = {}
        for labels, cell in list(self._series.items()):
            place = tree
            for label in labels[:-1]:
                place = place.setdefault(label, {})
            place[labels[-1]] = cell[0]
        return tree

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(self.name, self.text, labels=self.labels, unit=unit_of(self.name))
        for labels, cell in list(self._series.items()):
            family.add_metric(labels, cell[0])
        yield family


class Series:
    """One histogram: how many values fell into each bucket, their sum, and the last traced call of each bucket."""

    __slots__ = ("buckets", "counts", "exemplars", "total")

    def __init__(self, buckets: Sequence[float]) -> None:
        self.buckets = buckets
        self.counts = [0] * (len(buckets) + 1)
        self.total = 0.0
        self.exemplars: dict[int, Exemplar] = {}  # by the bucket's place

    def observe(self, value: float, trace_id: str = "") -> None:
        place = bisect_left(self.buckets, value)
        self.counts[place] += 1
        self.total += value
        if trace_id:
            self.exemplars[place] = Exemplar({"trace_id": trace_id}, value, time.time())


class Histogram(Tally[Series]):
    """A histogram."""

    def __init__(
        self, registry: CollectorRegistry, name: str, text: str, labels: Sequence[str], buckets: Sequence[float]
    ) -> None:
        self._buckets = buckets
        super().__init__(registry, name, text, labels)

    def bind(self, labels: Labels) -> Series:
        """Begin a series at 0."""
        return self._series.setdefault(labels, Series(self._buckets))

    def observe(self, labels: Labels, value: float) -> None:
        self.bind(labels).observe(value)

    def collect(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(self.name, self.text, labels=self.labels, unit=unit_of(self.name))
        bounds = [*map(str, map(float, self._buckets)), "+Inf"]
        for labels, series in list(self._series.items()):
            so_far, buckets = 0, list[Any]()
            for place, (bound, count) in enumerate(zip(bounds, list(series.counts), strict=True)):
                so_far += count
                exemplar = series.exemplars.get(place)
                buckets.append((bound, so_far) if exemplar is None else (bound, so_far, exemplar))
            family.add_metric(labels, buckets, series.total)
        yield family


class Reading(Collector):
    """A number that somebody else keeps; there is none while it is None.

    Args:
        name: without `_total`, of a counter.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        name: str,
        text: str,
        read: Callable[[], float | None],
        *,
        counts: bool = False,
    ) -> None:
        self._name, self._text, self._read, self._counts = name, text, read, counts
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        family = (CounterMetricFamily if self._counts else GaugeMetricFamily)(
            self._name, self._text, labels=(), unit=unit_of(self._name)
        )
        value = self._read()
        if value is not None:
            family.add_metric((), value)
        yield family
