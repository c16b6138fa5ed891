"""Several processes' metrics and answers as one."""

import pickle
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.exposition import generate_latest

from proxy.telemetry import tallies
from proxy.workers.merging import Merged, added, listed

counts = st.integers(0, 10**6)
routes = st.sampled_from(["a", "b", 'quo"te', "back\\slash", "new\nline", "ü"])
BUCKETS = (0.1, 1.0, 10.0)


def told(counted: Sequence[tuple[str, int]], observed: Sequence[float], gauges: dict[str, float]) -> list[Metric]:
    """What a worker tells that has counted so much."""
    registry = CollectorRegistry()
    counter = Counter("octet_calls", "Calls.", ["route"], registry=registry)
    histogram = Histogram("octet_wait_seconds", "Waits.", buckets=BUCKETS, registry=registry)
    for route, more in counted:
        counter.labels(route).inc(more)
    for value in observed:
        histogram.observe(value)
    for name, value in gauges.items():
        Gauge(name, "A gauge.", registry=registry).set(value)
    sent = pickle.dumps(list(registry.collect()))  # as they come through a channel
    families: list[Metric] = pickle.loads(sent)  # noqa: S301
    return families


def merged(*workers: list[Metric], shared: bool = False) -> dict[str, Metric]:
    """The families of all."""
    return {family.name: family for family in Merged(workers, [], shared=shared).collect()}


def one_value(family: Metric) -> float:
    (sample,) = family.samples
    return float(sample.value)


@given(st.lists(st.lists(st.tuples(routes, counts), max_size=6), min_size=1, max_size=5))
def test_counters_are_the_sums(workers: list[list[tuple[str, int]]]) -> None:
    """Each series is the sum of all workers' that have it, whatever its labels hold, and stands there once."""
    family = merged(*(told(counted, [], {}) for counted in workers))["octet_calls"]
    sums: dict[str, int] = {}
    for counted in workers:
        for route, more in counted:
            sums[route] = sums.get(route, 0) + more
    totals = [sample for sample in family.samples if sample.name == "octet_calls_total"]
    assert {sample.labels["route"]: sample.value for sample in totals} == sums
    assert len(totals) == len(sums)
    assert (family.type, family.documentation) == ("counter", "Calls.")


@given(st.lists(st.lists(st.sampled_from([0.0625, 0.5, 4.0, 64.0]), max_size=8), min_size=1, max_size=5))
def test_histograms_are_those_of_all_values(workers: list[list[float]]) -> None:
    """Buckets, count and sum are what one process would have that saw all the values."""
    family = merged(*(told([], observed, {}) for observed in workers))["octet_wait_seconds"]
    alone = merged(told([], [value for observed in workers for value in observed], {}))["octet_wait_seconds"]

    def numbers(metric: Metric) -> list[tuple[str, dict[str, str], float]]:
        return [(each.name, each.labels, each.value) for each in metric.samples if not each.name.endswith("_created")]

    assert numbers(family) == numbers(alone)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=6))
def test_gauges_by_their_kind(values: list[int]) -> None:
    """States and generations are the greatest, what is up is the least, what is in use the sum."""
    kinds: dict[str, Any] = {"octet_circuit_state": max, "octet_config_generation": max, "process_max_fds": max}
    kinds |= {"octet_redis_up": min, "process_start_time_seconds": min, "octet_open_streams": sum}
    families = merged(*(told([], [], dict.fromkeys(kinds, float(value))) for value in values))
    assert {name: one_value(families[name]) for name in kinds} == {name: kind(values) for name, kind in kinds.items()}


def test_what_the_parent_tells_itself_is_told_once() -> None:
    """Families of reloads are the parent's own, and those of workers are left out."""
    registry = CollectorRegistry()
    Gauge("octet_config_last_reload_successful", "Own.", registry=registry).set(1)
    worker = told([], [], {"octet_config_last_reload_successful": 0})
    families = list(Merged([worker, worker], registry.collect()).collect())
    (family,) = (each for each in families if each.name == "octet_config_last_reload_successful")
    assert (one_value(family), family.documentation) == (1, "Own.")


def test_merged_can_be_merged_again() -> None:
    """What is written out of a merged registry is what was told: nothing is lost or renamed on the way."""
    worker = told([("a", 3), ('quo"te', 4)], [0.5, 4.0], {"octet_open_streams": 2})
    again = generate_latest(Merged([worker], [])).decode()
    text = generate_latest(Merged([list(Merged([worker], []).collect())], [])).decode()
    assert 'octet_calls_total{route="quo\\"te"} 4.0' in again
    assert again == text


def test_budgets_are_parts_or_the_whole() -> None:
    """Without Redis each worker has a part of a budget; with it, all tell what all have spent."""
    gauges = {"octet_budget_spent_usd": 2.0, "octet_budget_limit_usd": 5.0}
    for shared, spent, limit in ((False, 4.0, 10.0), (True, 2.0, 5.0)):
        families = merged(told([], [], gauges), told([], [], gauges), shared=shared)
        assert one_value(families["octet_budget_spent_usd"]) == spent
        assert one_value(families["octet_budget_limit_usd"]) == limit


def test_units_and_exemplars_come_through() -> None:
    """A traced call is told of whichever worker served it."""
    registry = CollectorRegistry()
    waits = tallies.Histogram(registry, "octet_wait_seconds", "Waits.", ("route",), BUCKETS)
    waits.bind(("a",)).observe(0.5)
    plain = list(registry.collect())
    waits.bind(("a",)).observe(0.5, "0af7651916cd43dd8448eb211c80319c")
    family = merged(plain, list(registry.collect()))["octet_wait_seconds"]
    assert family.unit == "seconds"
    assert [each.exemplar.labels for each in family.samples if each.exemplar is not None] == [
        {"trace_id": "0af7651916cd43dd8448eb211c80319c"}
    ]


def test_no_worker_is_nothing() -> None:
    """Without workers there is what the parent tells alone."""
    assert merged() == {}


TREES: list[tuple[list[Any], Any]] = [
    ([1, 2, 3], 6),
    ([True, True], True),
    ([True, False], False),
    (["x", "y"], "x"),
    ([None, None], None),
    ([{"a": 1}, {"a": 2, "b": 3}], {"a": 3, "b": 3}),
    ([{"up": True, "n": {"m": 1.5}}, {"up": False, "n": {"m": 0.5}}], {"up": False, "n": {"m": 2.0}}),
    ([{"redis": None}, {"redis": {"up": True}}], {"redis": {"up": True}}),
]


@pytest.mark.parametrize(("several", "one"), TREES)
def test_answers_are_added_up(several: list[Any], one: Any) -> None:
    """Numbers are added, claims hold if all make them, and what only some tell is kept."""
    assert added(several) == one


def test_numbers_that_the_first_does_not_have() -> None:
    """Numbers are added up whichever worker has none."""
    assert added([None, 2, 3]) == added([2, None, 3]) == 5


def test_lists_say_whose_items_they_hold() -> None:
    """Each item has its worker's number."""
    told_by = {0: {"calls": [{"id": "x"}]}, 2: {"calls": [{"id": "y"}, {"id": "z"}]}}
    assert listed(told_by, "calls") == {
        "calls": [{"worker": 0, "id": "x"}, {"worker": 2, "id": "y"}, {"worker": 2, "id": "z"}]
    }
