"""Each rule about manifests finds what it is there for: what is shipped, with one thing broken."""

import copy
from typing import Any

import pytest

from tests.deploy.manifest_relations import RELATIONS
from tests.deploy.manifest_rules import RULES, Rule
from tests.deploy.manifests import cases

ALL: dict[str, Rule] = {rule.__name__: rule for rule in (*RULES, *RELATIONS)}
GONE = object()
POD = "spec/template/spec"
SIDECAR = f"{POD}/initContainers/0"
GATEWAY = f"{POD}/containers/0"
CONFIG = "data/octet.yaml"
OPEN = "upstreams: {o: {provider: openai, credential: caller}}\nserver: "

# The rule, the golden case, the kind of object (the first of it), the path in it, what stands there then.
BROKEN: list[tuple[str, str, str, str, Any]] = [
    ("words", "sidecar", "Deployment", f"{SIDECAR}/restartPolicy", "Alwys"),
    ("words", "sidecar", "Deployment", f"{SIDECAR}/restartPolicy", "OnFailure"),
    ("words", "gateway", "Deployment", f"{POD}/restartPolicy", "Never"),
    ("words", "gateway", "Deployment", f"{GATEWAY}/imagePullPolicy", "ifNotPresent"),
    ("words", "gateway", "Deployment", f"{POD}/topologySpreadConstraints/0/whenUnsatisfiable", "Schedule"),
    ("words", "gateway", "Deployment", "spec/strategy/type", "Rolling"),
    ("words", "gateway", "PodDisruptionBudget", "spec/unhealthyPodEvictionPolicy", "Always"),
    ("words", "gateway", "NetworkPolicy", "spec/policyTypes/0", "ingress"),
    ("words", "gateway", "NetworkPolicy", "spec/egress/0/ports/0/protocol", "udp"),
    ("words", "gateway", "HorizontalPodAutoscaler", "spec/metrics/0/type", "CPU"),
    ("words", "gateway", "Service", "spec/type", "Internal"),
    ("probes", "sidecar", "Deployment", f"{SIDECAR}/startupProbe", GONE),
    ("probes", "sidecar", "Deployment", f"{SIDECAR}/livenessProbe/httpGet/path", "/readyz"),
    ("probes", "gateway", "Deployment", f"{GATEWAY}/readinessProbe/httpGet/port", 8081),
    ("probes", "gateway", "Deployment", f"{GATEWAY}/ports/1/name", "metrics"),
    ("grace", "sidecar", "Deployment", f"{POD}/terminationGracePeriodSeconds", 24),
    ("grace", "sidecar", "Deployment", f"{SIDECAR}/lifecycle", {"preStop": {"sleep": {"seconds": 6}}}),
    ("grace", "sidecar", "ConfigMap", CONFIG, f"{OPEN}{{drain_seconds: 26}}"),
    ("grace", "gateway", "Deployment", f"{POD}/terminationGracePeriodSeconds", 309),
    ("grace", "gateway", "ConfigMap", CONFIG, f"{OPEN}{{drain_delay_seconds: 4}}"),
    ("reloadable", "sidecar", "Deployment", f"{SIDECAR}/volumeMounts/0/subPath", "octet.yaml"),
    ("reloadable", "gateway", "Deployment", f"{GATEWAY}/volumeMounts/0/mountPath", "/etc/octet/octet.yaml"),
    ("reloadable", "gateway", "Deployment", f"{GATEWAY}/volumeMounts/0/readOnly", False),
    ("restricted", "sidecar", "Deployment", f"{SIDECAR}/securityContext/runAsNonRoot", GONE),
    ("restricted", "sidecar", "Deployment", f"{SIDECAR}/securityContext/runAsUser", 0),
    ("restricted", "sidecar", "Deployment", f"{SIDECAR}/securityContext/seccompProfile", GONE),
    ("restricted", "sidecar", "Deployment", f"{SIDECAR}/securityContext/readOnlyRootFilesystem", False),
    ("restricted", "sidecar", "Deployment", f"{POD}/containers/0/securityContext/allowPrivilegeEscalation", True),
    ("restricted", "sidecar", "Deployment", f"{POD}/containers/0/securityContext", GONE),
    ("restricted", "gateway", "Deployment", f"{GATEWAY}/securityContext/capabilities/add", ["NET_ADMIN"]),
    ("restricted", "gateway", "Deployment", f"{GATEWAY}/securityContext/privileged", True),
    ("restricted", "gateway", "Deployment", f"{GATEWAY}/ports/0/hostPort", 8080),
    ("restricted", "gateway", "Deployment", f"{POD}/hostNetwork", True),
    ("restricted", "gateway", "Deployment", f"{POD}/volumes/0", {"name": "config", "hostPath": {"path": "/etc"}}),
    ("pinned", "sidecar", "Deployment", f"{SIDECAR}/image", "octet"),
    ("pinned", "gateway", "Deployment", f"{GATEWAY}/image", "host:5000/octet:latest"),
    ("pinned", "gateway", "Deployment", f"{GATEWAY}/image", "host:5000/octet"),
    ("resources", "sidecar", "Deployment", f"{SIDECAR}/resources/requests/cpu", GONE),
    ("resources", "sidecar", "Deployment", f"{SIDECAR}/resources/limits/cpu", "1"),
    ("resources", "sidecar", "Deployment", f"{SIDECAR}/resources/limits/memory", "512Mi"),
    ("resources", "gateway", "ConfigMap", CONFIG, f"{OPEN}{{max_buffered_bytes: 1GiB}}"),
    ("resources", "gateway", "Deployment", f"{GATEWAY}/resources/limits", GONE),
    ("tokenless", "gateway", "Deployment", f"{POD}/automountServiceAccountToken", GONE),
    ("secrets", "sidecar", "Deployment", f"{POD}/volumes/1/secret/defaultMode", 0o440),
    ("secrets", "gateway-everything", "Deployment", f"{POD}/volumes/1/secret/defaultMode", 0o444),
    ("secrets", "gateway-everything", "Deployment", f"{POD}/securityContext/fsGroup", GONE),
    ("secrets", "gateway-everything", "Deployment", f"{GATEWAY}/env", [{"name": "OPENAI_API_KEY", "value": "sk-1"}]),
    ("secrets", "gateway", "Deployment", f"{GATEWAY}/envFrom", [{"secretRef": {"name": "keys"}}]),
    (
        "secrets", "sidecar", "Deployment", f"{POD}/containers/0/volumeMounts",
        [{"name": "octet-secrets", "mountPath": "/keys"}],
    ),
    ("command_line", "sidecar", "Deployment", f"{SIDECAR}/args/3", "127.0.0.1:8081"),
    ("command_line", "sidecar", "Deployment", f"{SIDECAR}/command", ["octet"]),
    ("command_line", "sidecar", "Deployment", f"{SIDECAR}/ports/0/containerPort", 8080),
    ("command_line", "gateway", "Deployment", f"{GATEWAY}/args/5", "[::]:8080"),
    ("config", "sidecar", "ConfigMap", CONFIG, "upstreams: {openai: {provider: opnai}}"),
    ("config", "sidecar", "Deployment", f"{SIDECAR}/volumeMounts/1", GONE),
    ("config", "gateway-everything", "Deployment", f"{GATEWAY}/volumeMounts/1", GONE),
    ("config", "gateway", "ConfigMap", "metadata/name", "other"),
    ("selectors", "gateway", "Deployment", "spec/template/metadata/labels/app.kubernetes.io~1name", "other"),
    ("selectors", "gateway", "Service", "spec/selector/app.kubernetes.io~1name", "other"),
    ("selectors", "gateway", "NetworkPolicy", "spec/podSelector/matchLabels", {}),
    ("selectors", "gateway", "PodDisruptionBudget", "spec/selector/matchLabels/app", "octet"),
    ("selectors", "gateway", "Deployment", f"{POD}/topologySpreadConstraints/1/labelSelector/matchLabels/app", "o"),
    ("selectors", "sidecar", "PodMonitor", "spec/selector/matchLabels/octet~1sidecar", "yes"),
    ("ports", "gateway", "Service", "spec/ports/0/targetPort", "web"),
    ("ports", "gateway", "NetworkPolicy", "spec/ingress/0/ports/0/port", "web"),
    ("ports", "sidecar", "PodMonitor", "spec/podMetricsEndpoints/0/port", "metrics"),
    ("scraped", "gateway-everything", "ServiceMonitor", "spec/selector/matchLabels/app.kubernetes.io~1component", GONE),
    ("scraped", "gateway-everything", "ServiceMonitor", "spec/endpoints/0/relabelings", GONE),
    ("scraped", "sidecar", "PodMonitor", "spec/podMetricsEndpoints/0/path", "/"),
    ("scaled", "gateway", "HorizontalPodAutoscaler", "spec/scaleTargetRef/name", "other"),
    ("scaled", "gateway", "HorizontalPodAutoscaler", "spec/scaleTargetRef/apiVersion", "apps/v1beta1"),
    ("scaled", "gateway", "HorizontalPodAutoscaler", "spec/minReplicas", 11),
    ("scaled", "gateway", "HorizontalPodAutoscaler", "spec/behavior/scaleDown/stabilizationWindowSeconds", 60),
    ("scaled", "gateway", "Deployment", "spec/replicas", 2),
    ("available", "gateway", "Deployment", "spec/strategy/rollingUpdate/maxUnavailable", 1),
    ("available", "gateway", "PodDisruptionBudget", "spec/unhealthyPodEvictionPolicy", GONE),
    ("references", "gateway", "ConfigMap", "immutable", True),
    ("references", "gateway", "ConfigMap", "data", {"config.yaml": ""}),
    ("references", "gateway", "Deployment", f"{POD}/serviceAccountName", "other"),
    ("references", "gateway", "ServiceAccount", "automountServiceAccountToken", GONE),
    ("references", "sidecar", "Deployment", f"{POD}/volumes/2", GONE),
]  # fmt: skip


def broken(case: str, kind: str, path: str, value: object) -> list[Any]:
    """A rendered case with one thing changed."""
    manifests: list[Any] = copy.deepcopy(list(cases()[case]))
    place: Any = next(each for each in manifests if each["kind"] == kind)
    *way, last = (part.replace("~1", "/") for part in path.split("/"))
    for step in way:
        place = place[int(step) if isinstance(place, list) else step]
    key: int | str = int(last) if isinstance(place, list) else last
    if value is GONE:
        del place[key]
    else:
        place[key] = value
    return manifests


@pytest.mark.parametrize(("rule", "case", "kind", "path", "value"), BROKEN)
def test_a_broken_manifest_is_found(rule: str, case: str, kind: str, path: str, value: object) -> None:
    """The rule complains of it, and of nothing before it was broken."""
    assert not list(ALL[rule](cases()[case]))
    assert list(ALL[rule](broken(case, kind, path, value)))


def test_every_rule_is_tried() -> None:
    """A rule that nothing breaks may be one that cannot be broken."""
    assert {rule for rule, *_ in BROKEN} == set(ALL)


def test_a_masked_token_must_be_masked_by_nothing() -> None:
    """Where the pod has a token, an empty directory over it is what hides it from Octet."""
    tokens = broken("sidecar", "Deployment", f"{POD}/automountServiceAccountToken", GONE)
    assert not list(ALL["tokenless"](tokens))
    deployment = next(each for each in tokens if each["kind"] == "Deployment")
    del deployment["spec"]["template"]["spec"]["initContainers"][0]["volumeMounts"][2]
    assert list(ALL["tokenless"](tokens))
