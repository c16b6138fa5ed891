"""Counters and histograms as plain numbers, read when somebody scrapes.

The client library takes a lock for every number and runs through a histogram's buckets in Python: 7 us of a call. These
are written by the loop's thread alone, and cost a tenth. Names, labels and exposition are the library's all the same.
"""

import time
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client.core import CounterMetricFamily, Exemplar, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from proxy.call import Json

Labels = tuple[str, ...]
Cell = list[float]  # one number that can be added to
Known = Mapping[str, Collection[str]]  # values that a label may have; one that does not stand there may have any
UNITS = ("seconds", "bytes", "usd")


def unit_of(name: str) -> str:
    """The unit that a metric's name ends with; "" when it has none."""
    return next((unit for unit in UNITS if name.endswith(f"_{unit}")), "")


class Counter(Collector):
    """A counter with labels; its name is without `_total`."""

    def __init__(self, registry: CollectorRegistry, name: str, text: str, labels: Sequence[str]) -> None:
        self._family = (name, text, labels)
        self._cells: dict[Labels, Cell] = {}
        registry.register(self)

    @property
    def name(self) -> str:
        """Without suffixes."""
        return self._family[0]

    @property
    def labels(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(self._family[2])

    def __len__(self) -> int:
        return len(self._cells)

    def has(self, labels: Labels) -> bool:
        """Whether this series has begun."""
        return labels in self._cells

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
        name, text, labels = self._family
        family = CounterMetricFamily(name, text, labels=labels, unit=unit_of(name))
        for labels, cell in list(self._cells.items()):
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


class Histogram(Collector):
    """A histogram with labels."""

    def __init__(
        self, registry: CollectorRegistry, name: str, text: str, labels: Sequence[str], buckets: Sequence[float]
    ) -> None:
        self._family = (name, text, labels)
        self._buckets = buckets
        self._series: dict[Labels, Series] = {}
        registry.register(self)

    @property
    def name(self) -> str:
        """Without suffixes."""
        return self._family[0]

    @property
    def labels(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(self._family[2])

    def bind(self, labels: Labels) -> Series:
        """Begin a series at 0."""
        return self._series.setdefault(labels, Series(self._buckets))

    def prune(self, known: Known) -> None:
        """Forget the series of what is known no longer."""
        _prune(self._series, self._family[2], known)

    def observe(self, labels: Labels, value: float) -> None:
        self.bind(labels).observe(value)

    def collect(self) -> Iterator[Metric]:
        name, text, names = self._family
        family = HistogramMetricFamily(name, text, labels=names, unit=unit_of(name))
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


def _prune(series: dict[Labels, Any], names: Sequence[str], known: Known) -> None:
    places = [(place, known[name]) for place, name in enumerate(names) if name in known]
    for labels in [each for each in series if any(each[place] not in values for place, values in places)]:
        del series[labels]
