"""What schemas do not see in a pod: each rule names what is wrong with it, and says nothing where all is well."""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from proxy.config import Config, ConfigError, load
from proxy.providers import traits
from tests.deploy.manifests import Manifests, Workload, mounted_config, workloads

COMMAND = ("serve", "/etc/octet/octet.yaml", "--admin", "0.0.0.0:8081")
SECRETS = "/run/secrets/octet"
TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount"
UID = 10001
SPARE_SECONDS = 5
AT_REST_BYTES = 64 * 1024**2  # resident, of a process that serves nobody: docs/performance.md
UNITS = {"": 1, "Ki": 1024, "Mi": 1024**2, "Gi": 1024**3}
WORDS = {
    "restartPolicy": {"Always", "OnFailure", "Never"},
    "imagePullPolicy": {"Always", "IfNotPresent", "Never"},
    "protocol": {"TCP", "UDP"},
    "whenUnsatisfiable": {"DoNotSchedule", "ScheduleAnyway"},
    "unhealthyPodEvictionPolicy": {"AlwaysAllow", "IfHealthyBudget"},
    "concurrencyPolicy": {"Allow", "Forbid", "Replace"},
    "policyTypes": {"Ingress", "Egress"},
}
TYPES = {  # what `type` may be, by the key that it stands under
    "seccompProfile": {"RuntimeDefault", "Localhost"},
    "strategy": {"RollingUpdate", "Recreate"},
    "target": {"Utilization", "AverageValue", "Value"},
    "metrics": {"Resource", "Pods", "ContainerResource", "Object", "External"},
    "policies": {"Pods", "Percent"},
    "Service": {"ClusterIP", "NodePort", "LoadBalancer", "ExternalName"},
}

Rule = Callable[[Manifests], Iterator[str]]


def per_workload(rule: Callable[[Workload], Iterator[str]]) -> Rule:
    """A rule that looks at one workload at a time."""

    def whole(manifests: Manifests) -> Iterator[str]:
        for workload in workloads(manifests):
            for complaint in rule(workload):
                yield f"{workload.name}: {complaint}"

    whole.__name__, whole.__doc__ = rule.__name__, rule.__doc__
    return whole


def words(manifests: Manifests) -> Iterator[str]:
    """Where Kubernetes knows a few words only, it is one of them."""
    for manifest in manifests:
        yield from _words(manifest, "", manifest["kind"])
    for workload in workloads(manifests):
        wanted = {"Always"} if workload.object["kind"] not in {"Job", "CronJob"} else {"OnFailure", "Never"}
        if workload.spec.get("restartPolicy", "Always") not in wanted:
            yield f"{workload.name}: restartPolicy is none of {wanted}"
        for container in workload.spec.get("initContainers", ()):
            if container.get("restartPolicy", "Always") != "Always":
                yield f"{workload.name}: an init container's restartPolicy can only be Always"


def _words(node: Any, key: str, kind: str) -> Iterator[str]:
    if isinstance(node, Mapping):
        known = TYPES.get(kind if key == "spec" else key)
        if known is not None and "type" in node and node["type"] not in known:
            yield f"{kind}: {key}.type is {node['type']}"
        for name, value in node.items():
            yield from _words(value, name, kind)
    elif isinstance(node, list):
        for value in node:
            yield from _words(value, key, kind)
    elif key in WORDS and node not in WORDS[key]:
        yield f"{kind}: {key} is {node}"


@per_workload
def probes(workload: Workload) -> Iterator[str]:
    """Octet has its three probes, and every probe asks a port that its container names."""
    for container in workload.containers:
        ports = {port.get("name") for port in container.get("ports", ())}
        asked = {
            kind: container.get(f"{kind}Probe", {}).get("httpGet", {}) for kind in ("startup", "readiness", "liveness")
        }
        for kind, get in asked.items():
            if get and get.get("port") not in ports:
                yield f"{container['name']}: {kind} asks port {get.get('port')}, which is none of {ports}"
        if container in workload.octets:
            paths = {kind: (get.get("path"), get.get("port")) for kind, get in asked.items()}
            ready = ("/readyz", "admin")
            if paths != {"startup": ready, "readiness": ready, "liveness": ("/healthz", "admin")}:
                yield f"{container['name']}: probes are {paths}"


def grace(manifests: Manifests) -> Iterator[str]:
    """The time that Kubernetes gives holds all that stopping may take."""
    for workload in workloads(manifests):
        config, _ = read_config(workload, manifests)
        if config is None or not workload.octets:
            continue
        hook = workload.octets[0].get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        needed = hook + config.server.drain_delay_seconds + config.server.drain_seconds + SPARE_SECONDS
        given = workload.spec.get("terminationGracePeriodSeconds", 30)
        if needed > given:
            yield f"{workload.name}: stopping may take {needed} s, and has {given}"
        if (
            workload.octets[0] in workload.spec["containers"]
            and config.server.drain_delay_seconds + hook < SPARE_SECONDS
        ):
            yield f"{workload.name}: calls still come when the listener has closed"


@per_workload
def reloadable(workload: Workload) -> Iterator[str]:
    """An edit reaches the process: whole directories are mounted, where Octet looks."""
    for octet in workload.octets:
        mounts = {mount["mountPath"]: mount for mount in octet.get("volumeMounts", ())}
        if "configMap" not in workload.volume(mounts.get("/etc/octet", {}).get("name", "")):
            yield "no ConfigMap at /etc/octet"
        for path, mount in mounts.items():
            if "subPath" in mount or "subPathExpr" in mount:
                yield f"{path} is a subPath, which never changes"
            if not mount.get("readOnly"):
                yield f"{path} is writable"


@per_workload
def restricted(workload: Workload) -> Iterator[str]:
    """Every container fits Kubernetes' profile `restricted`; ours have their own user, and cannot write."""
    pod = workload.spec.get("securityContext", {})
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if workload.spec.get(key):
            yield f"{key} is set"
    for container in workload.containers:
        own = container.get("securityContext", {})
        both = {**pod, **own}
        wanted = {
            "runAsNonRoot": both.get("runAsNonRoot") is True and both.get("runAsUser") != 0,
            "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
            "privileged": not own.get("privileged"),
            "capabilities": own.get("capabilities") == {"drop": ["ALL"]},
            "seccompProfile": both.get("seccompProfile", {}).get("type") in TYPES["seccompProfile"],
            "hostPort": not any("hostPort" in port for port in container.get("ports", ())),
        }
        if container in workload.octets:
            wanted["readOnlyRootFilesystem"] = own.get("readOnlyRootFilesystem") is True
            wanted["runAsUser"] = both.get("runAsUser") == both.get("runAsGroup") == UID
        yield from (f"{container['name']}: {key}" for key, holds in wanted.items() if not holds)
    for volume in workload.spec.get("volumes", ()):
        if not {"configMap", "secret", "emptyDir", "projected", "persistentVolumeClaim"} & set(volume):
            yield f"volume {volume['name']} is of a kind that is not allowed"


@per_workload
def pinned(workload: Workload) -> Iterator[str]:
    """Every image has a tag or digest that says which it is."""
    for container in workload.containers:
        image = container["image"]
        if not re.search(r"(:(?!latest$)[\w.-]+|@sha256:[0-9a-f]{64})$", image):
            yield f"{container['name']}: {image} may be another tomorrow"


def resources(manifests: Manifests) -> Iterator[str]:
    """Every container asks for what it needs; ours has room for what it may hold, and is not throttled."""
    for workload in workloads(manifests):
        for container in workload.containers:
            told = container.get("resources", {})
            if not {"cpu", "memory"} <= set(told.get("requests", {})) or "memory" not in told.get("limits", {}):
                yield f"{workload.name}: {container['name']} says too little: {told}"
            elif container in workload.octets:
                config, _ = read_config(workload, manifests)
                yield from (f"{workload.name}: {complaint}" for complaint in _room(told, config))


def _room(told: Mapping[str, Any], config: Config | None) -> Iterator[str]:
    if "cpu" in told["limits"]:
        yield "a CPU limit throttles every call"
    number, unit = re.fullmatch(r"(\d+)(\D*)", str(told["limits"]["memory"])).groups()  # type: ignore[union-attr]
    server = config.server if config else None
    if config and server:
        held = AT_REST_BYTES * server.workers + server.max_buffered_bytes + config.cache.memory.max_bytes
        if held > int(number) * UNITS[unit]:
            yield f"may hold {held} bytes, above its limit of {told['limits']['memory']}"


@per_workload
def tokenless(workload: Workload) -> Iterator[str]:
    """Octet has no way to ask Kubernetes for anything."""
    if workload.spec.get("automountServiceAccountToken") is False:
        return
    for octet in workload.octets:
        masks = [mount for mount in octet.get("volumeMounts", ()) if mount["mountPath"] == TOKEN]
        if not masks or workload.volume(masks[0]["name"]).get("emptyDir") != {}:
            yield "the service account's token can be read"


def secrets(manifests: Manifests) -> Iterator[str]:
    """Keys are files that Octet alone can read; nothing of its own stands in the environment."""
    for workload in workloads(manifests):
        held = {volume["name"] for volume in workload.spec.get("volumes", ()) if "secret" in volume}
        for container in workload.containers:
            mounts = {mount["name"]: mount["mountPath"] for mount in container.get("volumeMounts", ())}
            if container not in workload.octets:
                if any(mounts.get(name) == SECRETS or name == "octet-secrets" for name in held & set(mounts)):
                    yield f"{workload.name}: {container['name']} sees Octet's keys"
                continue
            if "envFrom" in container or container.get("env"):
                yield f"{workload.name}: something stands in the environment"
            for name in held & set(mounts):
                if not _readable(workload, workload.volume(name)["secret"].get("defaultMode", 0o644)):
                    yield f"{workload.name}: {name} cannot be read by user {UID}, or by everybody although it is ours"


def _readable(workload: Workload, mode: int) -> bool:
    """Files are root's: the group may read them where the pod says so, else all must."""
    if workload.spec.get("securityContext", {}).get("fsGroup") == UID:
        return mode & 0o777 == 0o440
    return mode & 0o777 == 0o444


def command_line(manifests: Manifests) -> Iterator[str]:
    """It is the one that the image has too; a gateway listens for others beside."""
    for workload in workloads(manifests):
        for octet in workload.octets:
            args, host = tuple(octet.get("args", ())), _host(octet)
            wanted: tuple[str, ...] = (*COMMAND[:-1], f"{host}:8081")
            if octet in workload.spec["containers"]:
                wanted = (*wanted, "--listen", f"{host}:8080")
            ports = {port.get("name"): port["containerPort"] for port in octet.get("ports", ())}
            open_ports = {"admin": 8081} | ({"http": 8080} if "--listen" in wanted else {})
            if args != wanted or "command" in octet or ports != open_ports:
                yield f"{workload.name}: {args}, ports {ports}"


def _host(octet: Mapping[str, Any]) -> str:
    return "[::]" if "[::]:8081" in octet.get("args", ()) else "0.0.0.0"  # noqa: S104  # in a pod


def config(manifests: Manifests) -> Iterator[str]:
    """The octet.yaml that is mounted is one that `octet check` accepts, with the files that there are."""
    for workload in workloads(manifests):
        if workload.octets:
            _, complaint = read_config(workload, manifests)
            if complaint:
                yield f"{workload.name}: {complaint}"


def read_config(workload: Workload, manifests: Manifests) -> tuple[Config | None, str]:
    """The configuration that a workload runs with, or what is wrong with it."""
    text = mounted_config(workload, manifests)
    if text is None:
        return None, "there is no octet.yaml where it looks"
    octet = workload.octets[0]
    has_secrets = any(mount["mountPath"] == SECRETS for mount in octet.get("volumeMounts", ()))
    with TemporaryDirectory() as folder:
        for name in re.findall(rf"{SECRETS}/([\w.-]+)", text) if has_secrets else ():
            Path(folder, name).write_text("redis://redis:6379/0" if name == "redis" else name)
        Path(folder, "octet.yaml").write_text(text.replace(SECRETS, folder))
        try:
            return load(str(Path(folder, "octet.yaml")), traits(), {}), ""
        except ConfigError as error:
            return None, str(error)


RULES: tuple[Rule, ...] = (
    words, probes, grace, reloadable, restricted, pinned, resources, tokenless, secrets, command_line, config,
)  # fmt: skip
