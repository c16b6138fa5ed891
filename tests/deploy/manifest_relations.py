"""What schemas do not see between objects: whatever one names or selects is there."""

from collections.abc import Iterator, Mapping
from typing import Any

from tests.deploy.manifest_rules import Rule, read_config
from tests.deploy.manifests import Manifest, Manifests, Workload, name_of, named, of_kind, selects, workloads

LONGEST_WINDOW_SECONDS = 3600  # of an autoscaler


def selectors(manifests: Manifests) -> Iterator[str]:
    """Whatever selects pods selects some, and a workload its own."""
    for workload in workloads(manifests):
        if workload.object["kind"] in {"Deployment", "StatefulSet", "DaemonSet"} and not _fits(
            workload.object["spec"]["selector"], workload
        ):
            yield f"{workload.name}: does not select its own pods"
        for spread in workload.spec.get("topologySpreadConstraints", ()):
            if not _fits(spread["labelSelector"], workload):
                yield f"{workload.name}: spreads pods of others"
    for kind, path in {
        "PodDisruptionBudget": "selector",
        "NetworkPolicy": "podSelector",
        "PodMonitor": "selector",
    }.items():
        for each in of_kind(manifests, kind):
            if not any(_fits(each["spec"][path], workload) for workload in workloads(manifests)):
                yield f"{kind}/{name_of(each)}: selects no pod"
    for each in of_kind(manifests, "Service"):
        if not any(_fits({"matchLabels": each["spec"]["selector"]}, workload) for workload in workloads(manifests)):
            yield f"Service/{name_of(each)}: selects no pod"


def _fits(selector: Mapping[str, Any], workload: Workload) -> bool:
    return bool(selector.get("matchLabels")) and selects(selector, workload.labels)


def ports(manifests: Manifests) -> Iterator[str]:
    """A port that is named is one of a container that is selected."""
    for each in of_kind(manifests, "Service", "PodMonitor", "NetworkPolicy"):
        spec = each["spec"]
        if each["kind"] == "Service":
            selector, asked = {"matchLabels": spec["selector"]}, [port.get("targetPort") for port in spec["ports"]]
        elif each["kind"] == "PodMonitor":
            selector, asked = spec["selector"], [endpoint.get("port") for endpoint in spec["podMetricsEndpoints"]]
        else:
            selector = spec["podSelector"]
            asked = [port.get("port") for rule in spec.get("ingress", ()) for port in rule.get("ports", ())]
        for port in asked:
            if port not in _ports(manifests, selector):
                yield f"{each['kind']}/{name_of(each)}: there is no port {port}"


def _ports(manifests: Manifests, selector: Mapping[str, Any]) -> set[str]:
    return {
        port["name"]
        for workload in workloads(manifests)
        if selects(selector, workload.labels)
        for container in workload.containers
        for port in container.get("ports", ())
        if "name" in port
    }


def scraped(manifests: Manifests) -> Iterator[str]:
    """Monitors read the admin side of Octet, and call the job what the alerts call it."""
    for each in of_kind(manifests, "ServiceMonitor"):
        services = [
            service
            for service in of_kind(manifests, "Service")
            if selects(each["spec"]["selector"], service["metadata"]["labels"])
        ]
        offered = [port["name"] for service in services for port in service["spec"]["ports"]]
        if offered != ["admin"]:
            yield f"ServiceMonitor/{name_of(each)}: finds ports {offered}"
        yield from _endpoints(each, each["spec"]["endpoints"])
    for each in of_kind(manifests, "PodMonitor"):
        yield from _endpoints(each, each["spec"]["podMetricsEndpoints"])


def _endpoints(monitor: Manifest, endpoints: list[Mapping[str, Any]]) -> Iterator[str]:
    for endpoint in endpoints:
        jobs = [each.get("replacement") for each in endpoint.get("relabelings", ()) if each.get("targetLabel") == "job"]
        if (endpoint.get("port"), endpoint.get("path"), jobs) != ("admin", "/metrics", ["octet"]):
            yield f"{monitor['kind']}/{name_of(monitor)}: reads {endpoint}"


def scaled(manifests: Manifests) -> Iterator[str]:
    """An autoscaler has its target, which leaves the number of pods to it, and takes pods away slowly enough."""
    for each in of_kind(manifests, "HorizontalPodAutoscaler"):
        aim = each["spec"]["scaleTargetRef"]
        target = named(manifests, aim["kind"], aim["name"])
        if target is None or target["apiVersion"] != aim["apiVersion"]:
            yield f"HorizontalPodAutoscaler/{name_of(each)}: there is no {aim}"
            continue
        if "replicas" in target["spec"]:
            yield f"{name_of(target)}: replicas would undo what the autoscaler does at each upgrade"
        if not 1 <= each["spec"]["minReplicas"] <= each["spec"]["maxReplicas"]:
            yield f"HorizontalPodAutoscaler/{name_of(each)}: scales to nothing"
        window = each["spec"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"]
        for workload in workloads([target]):
            config, _ = read_config(workload, manifests)
            if config and window < min(config.server.drain_seconds, LONGEST_WINDOW_SECONDS):
                yield f"HorizontalPodAutoscaler/{name_of(each)}: takes pods away faster than streams end"


def available(manifests: Manifests) -> Iterator[str]:
    """A rollout, and a node's drain, leave callers served; a pod that never gets ready holds up no drain."""
    for each in of_kind(manifests, "Deployment"):
        kept = each["spec"].get("strategy", {}).get("rollingUpdate", {}).get("maxUnavailable")
        if any(workload.octets[:1] == workload.spec["containers"][:1] for workload in workloads([each])) and kept != 0:
            yield f"Deployment/{name_of(each)}: a rollout takes pods away first"
    for each in of_kind(manifests, "PodDisruptionBudget"):
        if each["spec"].get("maxUnavailable") != 1 or each["spec"].get("unhealthyPodEvictionPolicy") != "AlwaysAllow":
            yield f"PodDisruptionBudget/{name_of(each)}: {each['spec']}"


def references(manifests: Manifests) -> Iterator[str]:
    """A volume's ConfigMap and a service account are among the objects, the map with octet.yaml and not frozen."""
    for workload in workloads(manifests):
        account = workload.spec.get("serviceAccountName", "default")
        held = named(manifests, "ServiceAccount", account)
        if account != "default" and (held is None or held.get("automountServiceAccountToken") is not False):
            yield f"{workload.name}: there is no service account {account} without a token"
        for volume in workload.spec.get("volumes", ()):
            if "configMap" in volume:
                config = named(manifests, "ConfigMap", volume["configMap"]["name"])
                if config is None or "octet.yaml" not in config.get("data", {}) or config.get("immutable"):
                    yield f"{workload.name}: no octet.yaml in {volume['configMap']['name']} that can be edited"
        names = {volume["name"] for volume in workload.spec.get("volumes", ())}
        for container in workload.containers:
            for mount in container.get("volumeMounts", ()):
                if mount["name"] not in names:
                    yield f"{workload.name}: there is no volume {mount['name']}"


RELATIONS: tuple[Rule, ...] = (selectors, ports, scraped, scaled, available, references)
