"""What several processes tell, as one: metrics, and the admin side's answers."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import Metric
from prometheus_client.samples import Sample

from proxy.call import Json

_GREATEST = frozenset(
    {
        "octet_circuit_state",
        "octet_config_generation",
        "octet_memory_limit_bytes",
        "octet_redis_configured",
        "process_max_fds",
    }
)
_OF_ALL = frozenset({"octet_budget_spent_usd", "octet_budget_limit_usd"})  # with Redis, all tell the same
_LEAST = frozenset({"octet_redis_up", "process_start_time_seconds"})
_FIRST = frozenset({"python_info", "octet_build_info"})
_PARENTS = frozenset({"octet_config_reloads", "octet_config_last_reload_successful"})  # the parent tells these itself


Samples = dict[tuple[str, tuple[tuple[str, str], ...]], Sample]


class Past:
    """What workers that have ended had counted: sums must not fall, or they would be taken for begun anew."""

    def __init__(self) -> None:
        self.families: dict[str, Metric] = {}
        self.samples: dict[str, Samples] = {}

    def add(self, told: Iterable[Metric]) -> None:
        """One more has ended; this is what it told last."""
        for family in told:
            if family.type in ("counter", "histogram"):
                self.families.setdefault(family.name, family)
                _add(self.samples.setdefault(family.name, {}), family)


class Merged:
    """The metrics of all workers as one registry.

    Args:
        told: what each has told.
        own: families that the parent tells itself.
        shared: Redis keeps limits and budgets for all of them.
    """

    def __init__(
        self, told: Sequence[Iterable[Metric]], own: Iterable[Metric], past: Past | None = None, *, shared: bool = False
    ) -> None:
        self._told = told
        self._greatest = _GREATEST | _OF_ALL if shared else _GREATEST
        self._own = list(own)
        self._past = past or Past()

    def collect(self) -> Iterator[Metric]:
        """Counters, histograms and most gauges are added up."""
        families = dict(self._past.families)
        samples = {name: dict(each) for name, each in self._past.samples.items()}
        for told in self._told:
            for family in told:
                families.setdefault(family.name, family)
                _add(samples.setdefault(family.name, {}), family, self._greatest)
        for name, family in families.items():
            if name not in _PARENTS:
                merged = Metric(name, family.documentation, family.type, family.unit)
                merged.samples = list(samples[name].values())
                yield merged
        yield from self._own


def _add(known: Samples, family: Metric, greatest: Collection[str] = _GREATEST) -> None:
    for sample in family.samples:
        key = sample.name, tuple(sorted(sample.labels.items()))
        before = known.get(key)
        if before is None:
            known[key] = sample
        elif family.name in greatest:
            known[key] = before._replace(value=max(before.value, sample.value))
        elif family.name in _LEAST:
            known[key] = before._replace(value=min(before.value, sample.value))
        elif family.name not in _FIRST:
            exemplar = sample.exemplar or before.exemplar
            known[key] = before._replace(value=before.value + sample.value, exemplar=exemplar)


def added(several: Sequence[Any]) -> Any:
    """Answers as one: numbers are added up, a claim holds if it holds for all."""
    first = next((each for each in several if each is not None), None)
    if isinstance(first, Mapping):
        names = dict.fromkeys(name for each in several if isinstance(each, Mapping) for name in each)
        return {
            name: added([each[name] for each in several if isinstance(each, Mapping) and name in each])
            for name in names
        }
    if isinstance(first, bool):
        return all(each for each in several if each is not None)
    if isinstance(first, int | float):
        return sum(each for each in several if isinstance(each, int | float))
    return first


def listed(several: Mapping[int, Json], name: str) -> Json:
    """Lists as one, each item with the number of its worker."""
    return {name: [{"worker": number, **item} for number, told in several.items() for item in told[name]]}
