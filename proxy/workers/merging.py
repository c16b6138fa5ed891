"""What several processes tell, as one: metrics, and the admin side's answers."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from proxy.call import Json

_GREATEST = frozenset({"octet_circuit_state", "octet_config_generation", "process_max_fds"})
_LEAST = frozenset({"octet_redis_up", "process_start_time_seconds"})
_FIRST = frozenset({"python_info"})
_PARENTS = frozenset({"octet_config_reloads", "octet_config_last_reload_successful"})  # the parent tells these itself


class Merged:
    """The metrics of all workers as one registry.

    Args:
        texts: what each has told, in Prometheus' text format.
        own: families that the parent tells itself.
    """

    def __init__(self, texts: Sequence[str], own: Iterable[Metric]) -> None:
        self._texts = texts
        self._own = list(own)

    def collect(self) -> Iterator[Metric]:
        """Counters, histograms and most gauges are added up."""
        families: dict[str, Metric] = {}
        samples: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], Sample]] = {}
        for text in self._texts:
            for family in text_string_to_metric_families(text):
                if family.name not in _PARENTS:
                    families.setdefault(family.name, family)
                    _add(samples.setdefault(family.name, {}), family)
        for name, family in families.items():
            merged = Metric(name, family.documentation, family.type)
            merged.samples = list(samples[name].values())
            yield merged
        yield from self._own


def _add(known: dict[tuple[str, tuple[tuple[str, str], ...]], Sample], family: Metric) -> None:
    for sample in family.samples:
        key = sample.name, tuple(sorted(sample.labels.items()))
        before = known.get(key)
        if before is None:
            known[key] = sample
        elif family.name in _GREATEST:
            known[key] = before._replace(value=max(before.value, sample.value))
        elif family.name in _LEAST:
            known[key] = before._replace(value=min(before.value, sample.value))
        elif family.name not in _FIRST:
            known[key] = before._replace(value=before.value + sample.value)


def added(several: Sequence[Any]) -> Any:
    """Answers as one: numbers are added up, a claim holds if it holds for all."""
    first = several[0]
    if isinstance(first, Mapping):
        names = dict.fromkeys(name for each in several if isinstance(each, Mapping) for name in each)
        return {
            name: added([each[name] for each in several if isinstance(each, Mapping) and name in each])
            for name in names
        }
    if isinstance(first, bool):
        return all(several)
    if isinstance(first, int | float):
        return sum(each for each in several if isinstance(each, int | float))
    return next((each for each in several if each is not None), None)


def listed(several: Mapping[int, Json], name: str) -> Json:
    """Lists as one, each item with the number of its worker."""
    return {name: [{"worker": number, **item} for number, told in several.items() for item in told[name]]}
