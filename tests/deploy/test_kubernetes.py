"""What deploy/kubernetes and deploy/helm render to is what Kubernetes takes, and what we mean."""

import copy
from typing import Any

import pytest

from tests.deploy.manifest_relations import RELATIONS
from tests.deploy.manifest_rules import RULES, Rule
from tests.deploy.manifest_schemas import MINORS, OPERATOR, mistakes, of_kubernetes, operator_mistakes
from tests.deploy.manifests import CASES, GOLDEN, Manifests, cases, golden, named


def kinds(manifests: Manifests) -> set[str]:
    return {each["kind"] for each in manifests}


@pytest.mark.parametrize("minor", MINORS, ids=lambda minor: f"1.{minor}")
def test_each_version_takes_it(minor: int) -> None:
    """Nothing is unknown, missing or of a wrong type, from the first with native sidecars to the newest."""
    for manifests in cases().values():
        assert of_kubernetes(manifests)
        assert not list(mistakes(of_kubernetes(manifests), minor))


@pytest.mark.parametrize("minor", [MINORS[0], MINORS[-1]], ids=lambda minor: f"1.{minor}")
def test_the_schemas_see_mistakes(minor: int) -> None:
    """A misspelt key, a wrong type and a missing key are found."""
    deployment: Any = named(cases()["gateway"], "Deployment", "octet")
    broken = [copy.deepcopy(deployment) for _ in range(3)]
    broken[0]["sepc"] = {}
    broken[1]["spec"]["replicas"] = "two"
    del broken[2]["spec"]["selector"]
    assert not list(mistakes([deployment], minor))
    assert [len(list(mistakes([each], minor))) for each in broken] == [1, 1, 1]


@pytest.mark.parametrize("case", CASES)
def test_the_operator_takes_it(case: str) -> None:
    """Monitors and rules are what the Prometheus operator's definitions describe, and nothing beside."""
    for each in cases()[case]:
        if each["apiVersion"] == OPERATOR:
            assert not operator_mistakes(each)


@pytest.mark.parametrize(
    ("path", "value"),
    [(("intervall",), "10s"), (("interval",), "10 s"), (("port",), 8081), (("relabelings", 0, "action"), "kepp")],
    ids=str,
)
def test_the_operators_definitions_see_mistakes(path: tuple[Any, ...], value: object) -> None:
    """An unknown key, a bad duration, a wrong type and an unknown word are found."""
    broken: Any = copy.deepcopy(named(cases()["sidecar"], "PodMonitor", "octet"))
    assert not operator_mistakes(broken)
    place = broken["spec"]["podMetricsEndpoints"][0]
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert operator_mistakes(broken)


@pytest.mark.parametrize("rule", [*RULES, *RELATIONS], ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("case", CASES)
def test_what_schemas_do_not_see(case: str, rule: Rule) -> None:
    """Each rule of manifest_rules and manifest_relations holds."""
    assert not list(rule(cases()[case]))


@pytest.mark.parametrize("case", CASES)
def test_it_is_the_golden_one(case: str) -> None:
    """What users get changes only together with tests/golden/kubernetes: `python -m tests.deploy.manifests`."""
    assert golden(cases()[case]) == (GOLDEN / case / "rendered.yaml").read_text()


def test_everything_is_rendered() -> None:
    """A template that renders nothing would pass all else."""
    everything = {
        "ConfigMap", "Deployment", "HorizontalPodAutoscaler", "NetworkPolicy", "PodDisruptionBudget", "PrometheusRule",
        "Service", "ServiceAccount", "ServiceMonitor",
    }  # fmt: skip
    assert kinds(cases()["gateway-everything"]) == everything
    assert kinds(cases()["gateway"]) == everything - {"PrometheusRule", "ServiceMonitor"}
    assert kinds(cases()["sidecar"]) == {"ConfigMap", "Deployment", "PodMonitor"}
