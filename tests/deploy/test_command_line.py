"""The sidecar's command line is the same in the image, the manifests, compose and the documentation."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent.parent
SIDECAR = ["serve", "/etc/octet/octet.yaml", "--admin", "0.0.0.0:8081"]
GATEWAY = [*SIDECAR, "--listen", "0.0.0.0:8080"]


def test_the_image_runs_it() -> None:
    """Without a word more: `docker run octet:local` is a sidecar."""
    text = ROOT.joinpath("Dockerfile").read_text()
    assert json.loads(re.findall(r"^CMD (.*)$", text, re.MULTILINE)[-1]) == SIDECAR
    assert json.loads(re.findall(r"^ENTRYPOINT (.*)$", text, re.MULTILINE)[-1]) == ["octet"]


def test_the_manifests_run_it() -> None:
    """The component for either kind of workload, and the chart with its listener."""
    for name, path in (("workload", ("spec",)), ("cronjob", ("spec", "jobTemplate", "spec"))):
        found: Any = yaml.safe_load(ROOT.joinpath(f"deploy/kubernetes/sidecar/{name}.yaml").read_text())
        for key in (*path, "template", "spec"):
            found = found[key]
        assert found["initContainers"][0]["args"] == SIDECAR
    rendered = ROOT.joinpath("tests/golden/kubernetes/gateway/rendered.yaml").read_text()
    (deployment,) = (each for each in yaml.safe_load_all(rendered) if each["kind"] == "Deployment")
    assert deployment["spec"]["template"]["spec"]["containers"][0]["args"] == GATEWAY


def test_compose_runs_it() -> None:
    """With a listener that can be published."""
    services = yaml.safe_load(ROOT.joinpath("deploy/compose/compose.yaml").read_text())["services"]
    assert services["octet"]["command"] == GATEWAY


def test_the_documentation_tells_it() -> None:
    """Word for word, wherever it is told how to ship it."""
    for page in ("README.md", "docs/kubernetes.md"):
        assert f"octet {' '.join(SIDECAR)}" in ROOT.joinpath(page).read_text(), page
    assert f"octet:local {' '.join(GATEWAY)}" in " ".join(ROOT.joinpath("docs/image.md").read_text().split())
