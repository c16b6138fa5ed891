"""Manifests as kubectl and Helm render them, and how to look into them. Run as a module it renews the golden ones."""

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.programs import tool

ROOT = Path(__file__).parent.parent.parent
KUBERNETES = ROOT / "deploy" / "kubernetes"
CHART = ROOT / "deploy" / "helm" / "octet"
GOLDEN = ROOT / "tests" / "golden" / "kubernetes"
TEMPLATE_PATHS = {
    "Deployment": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "DaemonSet": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}

Manifest = Mapping[str, Any]
Manifests = Sequence[Manifest]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, in an environment that tells it of no cluster."""
    environ = {"PATH": os.defpath, "HOME": "/nonexistent"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environ, timeout=50)


def rendered(*command: str) -> Manifests:
    """The objects that a command prints."""
    done = run(*command)
    assert done.returncode == 0, done.stderr
    return tuple(each for each in yaml.safe_load_all(done.stdout) if each)


@cache
def kustomized(folder: Path) -> Manifests:
    """What `kubectl kustomize` makes of a folder."""
    return rendered(tool("kubectl"), "kustomize", str(folder))


@cache
def charted(*options: str) -> Manifests:
    """What `helm template` makes of the chart; its options as on the command line."""
    return rendered(tool("helm"), "template", "octet", str(CHART), "--namespace", "llm", *options)


def values(case: str) -> str:
    """The path of a golden case's values."""
    return str(GOLDEN / case / "values.yaml")


def cases() -> Mapping[str, Manifests]:
    """What is shipped, rendered: by the name of its golden folder."""
    return {
        "sidecar": kustomized(KUBERNETES / "example"),
        "gateway": charted("--values", values("gateway")),
        "gateway-everything": charted("--values", values("gateway-everything")),
    }


CASES = ("sidecar", "gateway", "gateway-everything")


def golden(manifests: Manifests) -> str:
    """Manifests as a golden file holds them: in order, without what stands word for word elsewhere in the tree."""
    shown = [each for each in manifests if each["kind"] != "PrometheusRule" and "dashboard" not in name_of(each)]
    ordered = sorted(shown, key=lambda each: (each["kind"], name_of(each)))
    return yaml.dump_all(ordered, Dumper=_Dumper, sort_keys=True, width=120)


class _Dumper(yaml.SafeDumper):
    """Shows text of several lines as lines, and each list on its own."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


@dataclass(frozen=True, slots=True)
class Workload:
    """What makes pods.

    Args:
        spec: of its pods.
        labels: of its pods.
    """

    object: Manifest
    labels: Mapping[str, str]
    spec: Mapping[str, Any]

    @property
    def name(self) -> str:
        """For complaints."""
        return f"{self.object['kind']}/{name_of(self.object)}"

    @property
    def containers(self) -> Sequence[Mapping[str, Any]]:
        """All of them, those that run first at the front."""
        return [*self.spec.get("initContainers", ()), *self.spec.get("containers", ())]

    @property
    def octets(self) -> Sequence[Mapping[str, Any]]:
        """Those that are ours."""
        return [each for each in self.containers if each["name"] == "octet"]

    def volume(self, name: str) -> Mapping[str, Any]:
        """A volume by its name; empty without one."""
        return next((each for each in self.spec.get("volumes", ()) if each["name"] == name), {})


def name_of(manifest: Manifest) -> str:
    """An object's name."""
    name: str = manifest["metadata"]["name"]
    return name


def of_kind(manifests: Manifests, *kinds: str) -> Iterator[Manifest]:
    """The objects of these kinds."""
    return (each for each in manifests if each["kind"] in kinds)


def named(manifests: Manifests, kind: str, name: str) -> Manifest | None:
    """One object, if it is there."""
    return next((each for each in of_kind(manifests, kind) if name_of(each) == name), None)


def template_of(manifest: Manifest) -> Mapping[str, Any]:
    """A workload's pod template."""
    found: Any = manifest
    for key in TEMPLATE_PATHS[manifest["kind"]]:
        found = found[key]
    template: Mapping[str, Any] = found
    return template


def workloads(manifests: Manifests) -> Iterator[Workload]:
    """Everything that makes pods."""
    for each in of_kind(manifests, *TEMPLATE_PATHS):
        template = template_of(each)
        yield Workload(each, template.get("metadata", {}).get("labels", {}), template["spec"])


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a label selector, which must be one of matchLabels alone, fits; an empty one fits all."""
    assert set(selector) <= {"matchLabels"}, selector
    return set(selector.get("matchLabels", {}).items()) <= set(labels.items())


def mounted_config(workload: Workload, manifests: Manifests) -> str | None:
    """The octet.yaml that a workload's sidecar or gateway reads, if it is among the objects."""
    for octet in workload.octets:
        for mount in octet.get("volumeMounts", ()):
            if mount["mountPath"] == "/etc/octet":
                source = workload.volume(mount["name"]).get("configMap", {}).get("name", "")
                held = named(manifests, "ConfigMap", source)
                return None if held is None else held.get("data", {}).get("octet.yaml")
    return None


def renew() -> None:
    """Write the golden files anew."""
    for case, manifests in cases().items():
        (GOLDEN / case).mkdir(exist_ok=True)
        (GOLDEN / case / "rendered.yaml").write_text(golden(manifests))


if __name__ == "__main__":
    renew()
