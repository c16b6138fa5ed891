"""The Kustomize component: which workloads it touches, and what it leaves alone."""

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy import __version__
from tests.deploy.manifest_relations import RELATIONS
from tests.deploy.manifest_rules import COMMAND, RULES
from tests.deploy.manifest_schemas import MINORS, mistakes, of_kubernetes
from tests.deploy.manifests import (
    CHART,
    KUBERNETES,
    ROOT,
    TEMPLATE_PATHS,
    Manifests,
    Workload,
    cases,
    kustomized,
    named,
    workloads,
)

KINDS = tuple(TEMPLATE_PATHS)
HARD = {
    "runAsNonRoot": True,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
SIZE = {"requests": {"cpu": "1m", "memory": "1Mi"}, "limits": {"memory": "1Mi"}}
CONFIG = "upstreams: {openai: {provider: openai, api_key_file: /run/secrets/octet/openai}}\n"
BASE_URL = {"name": "OPENAI_BASE_URL", "value": "http://127.0.0.1:8080/v1"}


def container(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "image": f"{name}:1", "resources": SIZE, "securityContext": HARD, **more}


def application(kind: str, *, label: bool = True) -> dict[str, Any]:
    """A workload as somebody else wrote it."""
    name = kind.lower()
    env = [{"name": "OPENAI_BASE_URL", "value": "https://elsewhere/v1"}, {"name": "A", "value": "b"}]
    pod: dict[str, Any] = {
        "metadata": {"labels": {"app": name}},
        "spec": {
            "terminationGracePeriodSeconds": 120,
            "initContainers": [container("migrate")],
            "containers": [container("web", env=env), container("worker")],
            "volumes": [{"name": "data", "emptyDir": {}}],
        },
    }  # fmt: skip
    if kind in {"Job", "CronJob"}:
        pod["spec"]["restartPolicy"] = "Never"
        spec: dict[str, Any] = {"template": pod}
    else:
        spec = {"selector": {"matchLabels": {"app": name}}, "template": pod}
    if kind == "StatefulSet":
        spec["serviceName"] = name
    if kind == "CronJob":
        spec = {"schedule": "0 1 * * *", "jobTemplate": {"spec": spec}}
    return {
        "apiVersion": "batch/v1" if kind in {"Job", "CronJob"} else "apps/v1",
        "kind": kind,
        "metadata": {"name": name, "labels": {"octet/sidecar": "true"} if label else {}},
        "spec": spec,
    }


def overlay(folder: Path, objects: Sequence[dict[str, Any]], **more: Any) -> Manifests:
    """What the component makes of these objects."""
    (folder / "app.yaml").write_text(yaml.safe_dump_all(objects))
    (folder / "octet.yaml").write_text(CONFIG)
    options = {"disableNameSuffixHash": True}
    component = os.path.relpath(KUBERNETES / "sidecar", folder)
    settings = {
        "resources": ["app.yaml"],
        "components": [component],
        "configMapGenerator": [{"name": "octet-config", "files": ["octet.yaml"], "options": options}],
        **more,
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(settings))
    return kustomized(folder)


def only(manifests: Manifests) -> Workload:
    (found,) = workloads(manifests)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_it_joins_every_kind_of_workload(kind: str, tmp_path: Path) -> None:
    """Octet comes first, as a native sidecar; the application's containers get its address, and keep all else."""
    before, after = application(kind), only(overlay(tmp_path, [application(kind)]))
    own = only([before])
    sidecar, *rest = after.spec["initContainers"]
    assert (sidecar["name"], sidecar["restartPolicy"]) == ("octet", "Always")
    assert rest == own.spec["initContainers"]
    web, worker = after.spec["containers"]
    assert web == {**own.spec["containers"][0], "env": [BASE_URL, {"name": "A", "value": "b"}]}
    assert worker == {**own.spec["containers"][1], "env": [BASE_URL]}
    assert after.volume("data") == {"name": "data", "emptyDir": {}}
    assert after.spec["terminationGracePeriodSeconds"] == 120
    assert after.labels == {"app": kind.lower(), "octet/sidecar": "true"}


def test_it_is_the_same_sidecar_everywhere(tmp_path: Path) -> None:
    """The two patches of the component differ in where the pod template is, and in nothing else."""
    found = list(workloads(overlay(tmp_path, [application(kind) for kind in KINDS])))
    assert len(found) == len(KINDS)
    first = found[0]
    for other in found[1:]:
        assert other.octets == first.octets
        names = ("octet-config", "octet-secrets", "octet-no-token")
        assert [other.volume(name) for name in names] == [first.volume(name) for name in names]


def test_every_kind_is_sound(tmp_path: Path) -> None:
    """Schemas of the oldest and newest Kubernetes, and our rules, have nothing to say about any of them."""
    manifests = overlay(tmp_path, [application(kind) for kind in KINDS])
    for minor in (MINORS[0], MINORS[-1]):
        assert not list(mistakes(of_kubernetes(manifests), minor))
    assert not [complaint for rule in (*RULES, *RELATIONS) for complaint in rule(manifests)]


def test_workloads_without_the_label_are_left_alone(tmp_path: Path) -> None:
    """Only who asks for it gets one."""
    others = {kind: application(kind, label=False) for kind in KINDS}
    assert {each["kind"]: each for each in overlay(tmp_path, list(others.values())) if each["kind"] in KINDS} == others


def test_a_label_that_the_overlay_adds_comes_too_late(tmp_path: Path) -> None:
    """As the component's first lines say: the label stands in the base."""
    labels = [{"pairs": {"octet/sidecar": "true"}}]
    assert not only(overlay(tmp_path, [application("Deployment", label=False)], labels=labels)).octets


def test_only_the_overlays_own_objects_reach_the_cluster(tmp_path: Path) -> None:
    """The map that the address is taken from stays behind; the configuration keeps its name when it changes."""
    manifests = overlay(tmp_path, [application("Deployment")])
    assert [each["metadata"]["name"] for each in manifests] == ["octet-config", "deployment"]


def test_the_overlay_has_the_last_word(tmp_path: Path) -> None:
    """Its images, its resources and its own grace period win over the component's."""
    patch = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "deployment"},
        "spec": {"template": {"spec": {"terminationGracePeriodSeconds": 60, "initContainers": [
            {"name": "octet", "resources": {"limits": {"memory": "2Gi"}}}
        ]}}},
    }  # fmt: skip
    images = [{"name": "octet", "newName": "images.example/octet", "newTag": "9.9"}]
    workload = only(
        overlay(tmp_path, [application("Deployment")], images=images, patches=[{"patch": json.dumps(patch)}])
    )
    (sidecar,) = workload.octets
    assert sidecar["image"] == "images.example/octet:9.9"
    assert sidecar["resources"]["limits"] == {"memory": "2Gi"}
    assert sidecar["resources"]["requests"] == {"cpu": "100m", "memory": "128Mi"}
    assert workload.spec["terminationGracePeriodSeconds"] == 60


def test_image_manifests_and_docs_say_the_same_command() -> None:
    """What runs in Kubernetes is what the image runs by itself, and what the page explains."""
    found = re.search(r"^CMD (\[.*\])$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert found is not None
    assert tuple(json.loads(found[1])) == COMMAND
    (sidecar,) = only(cases()["sidecar"]).octets
    assert tuple(sidecar["args"]) == COMMAND
    assert f"octet {' '.join(COMMAND)}" in (ROOT / "docs/kubernetes.md").read_text()


def test_every_manifest_names_this_version() -> None:
    """A release changes all of them, or this fails."""
    (sidecar,) = only(kustomized(KUBERNETES / "example")).octets
    assert sidecar["image"] == f"octet:{__version__}"
    assert f"image: octet:{__version__}\n" in (KUBERNETES / "sidecar/workload.yaml").read_text()
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == chart["version"] == __version__


TEXTS = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/kubernetes.md").read_text(), re.DOTALL)
BLOCKS = {text.split()[1]: text for text in TEXTS if text.startswith("# ")}  # by the file's name in the first line


def test_what_the_page_says_about_sidecars_works(tmp_path: Path) -> None:
    """The overlay that docs/kubernetes.md has people write puts Octet beside their application."""
    settings = yaml.safe_load(BLOCKS["kustomization.yaml"])
    components = [os.path.relpath(ROOT / path, tmp_path) for path in settings["components"]]
    assert all((tmp_path / path / "kustomization.yaml").exists() for path in components)
    (tmp_path / "deployment.yaml").write_text(yaml.safe_dump(application("Deployment")))
    (tmp_path / "octet.yaml").write_text(BLOCKS["octet.yaml"])
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump({**settings, "components": components}))
    manifests = kustomized(tmp_path)
    assert only(manifests).octets
    assert named(manifests, "PodMonitor", "octet")
    assert not [complaint for rule in (*RULES, *RELATIONS) for complaint in rule(manifests)]


def test_what_the_page_says_about_addresses_works(tmp_path: Path) -> None:
    """Its patch has the admin side listen for IPv6; everything else there is YAML too."""
    (patch,) = (text for text in map(yaml.safe_load, TEXTS) if "patches" in text)
    manifests = overlay(tmp_path, [application("Deployment")], **patch)
    assert only(manifests).octets[0]["args"] == [*COMMAND[:-1], "[::]:8081"]
    assert not [complaint for rule in (*RULES, *RELATIONS) for complaint in rule(manifests)]
