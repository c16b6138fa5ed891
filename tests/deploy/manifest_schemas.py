"""The schemas of Kubernetes and of the Prometheus operator: what a kind may hold."""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from tests.deploy.manifests import Manifest, Manifests, name_of, run
from tests.programs import TOOLS, missing, tool

MINORS = range(29, 38)  # of Kubernetes 1: from the first with native sidecars to the newest
OPERATOR = "monitoring.coreos.com/v1"


def of_kubernetes(manifests: Manifests) -> Manifests:
    """Those that Kubernetes itself knows; the operator's have schemas of their own."""
    return [each for each in manifests if each["apiVersion"] != OPERATOR]


def schemas(minor: int) -> Path:
    """The folder of strict JSON Schemas that kubernetes-validate brings for Kubernetes 1.minor."""
    tool("kubernetes-validate")
    places = TOOLS.glob("lib/python*/site-packages/kubernetes_validate/kubernetes-json-schema")
    folder = next(places) / f"v1.{minor}.0-local-strict"
    assert folder.is_dir(), folder
    return folder


def schema_name(manifest: Manifest) -> str:
    """As kubernetes-validate names its files."""
    group, _, version = manifest["apiVersion"].rpartition("/")
    short = f"{group.split('.')[0]}-{version}" if group else version
    return f"{manifest['kind'].lower()}-{short}.json"


def mistakes(manifests: Manifests, minor: int) -> Iterator[str]:
    """What Kubernetes 1.minor's strict schemas say; a kind that they do not know is a failure.

    One process for all, with the schemas, the validator and the settings of `kubernetes-validate --strict -k 1.minor`,
    which reads its 1.4 MB of definitions anew for each object.
    """
    folder = schemas(minor)
    definitions = DRAFT202012.create_resource(json.loads((folder / "_definitions.json").read_text()))
    registry: Registry[Any] = Registry().with_resource("_definitions.json", definitions)
    for each in manifests:
        schema = json.loads((folder / schema_name(each)).read_text())
        for error in Draft202012Validator(schema, registry=registry).iter_errors(each):
            yield f"{each['kind']}/{name_of(each)}: {error.json_path}: {error.message}"


@cache
def operator_schemas() -> Mapping[str, Any]:
    """JSON Schemas of the Prometheus operator's kinds, made of its custom resource definitions."""
    code = (
        "import json\nfrom cloudcoil.models.prometheus_operator import v1\n"
        "kinds = (v1.PodMonitor, v1.ServiceMonitor, v1.PrometheusRule)\n"
        "print(json.dumps({kind.__name__: kind.model_json_schema() for kind in kinds}))"
    )
    done = run(tool("python"), "-c", code)
    if "No module named 'cloudcoil" in done.stderr:
        missing("cloudcoil-models-prometheus-operator")
    assert done.returncode == 0, done.stderr
    told: Mapping[str, Any] = json.loads(done.stdout)
    return told


def closed(node: Any) -> Any:
    """A schema that takes no key that it does not name."""
    if isinstance(node, list):
        return [closed(each) for each in node]
    if not isinstance(node, dict):
        return node
    shut = {key: closed(value) for key, value in node.items()}
    return {**shut, "additionalProperties": False} if "properties" in node else shut


def operator_mistakes(manifest: Manifest) -> list[str]:
    """What the operator's definitions say, which let nothing pass that they do not name."""
    schema = closed(operator_schemas()[manifest["kind"]])
    return [f"{error.json_path}: {error.message}" for error in Draft202012Validator(schema).iter_errors(manifest)]
