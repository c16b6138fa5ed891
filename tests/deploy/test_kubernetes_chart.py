"""The Helm chart: what it refuses, what follows from its values, and that its copies are copies."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.manifest_relations import RELATIONS
from tests.deploy.manifest_rules import RULES
from tests.deploy.manifest_schemas import MINORS, mistakes, of_kubernetes
from tests.deploy.manifests import CHART, ROOT, cases, charted, named, run, values, workloads
from tests.deploy.test_kubernetes_sidecar import BLOCKS
from tests.programs import tool

APPLY_BYTES = 256 * 1024  # of an object, in the annotation that `kubectl apply` keeps
LEAST = ("--values", values("gateway"))
COPIES = {
    "alerts.yml": ROOT / "deploy/prometheus/rules/alerts.yml",
    "recording.yml": ROOT / "deploy/prometheus/rules/recording.yml",
    "octet.json": ROOT / "grafana/octet.json",
}


def refusal(*options: str) -> str:
    """What Helm says to values that it does not render."""
    done = run(tool("helm"), "template", "octet", str(CHART), *options)
    assert done.returncode != 0
    assert not done.stdout
    return done.stderr


def test_nothing_is_rendered_until_the_operator_has_decided() -> None:
    """Where calls go is nobody else's to say."""
    assert "config.upstreams is empty: say where calls go" in refusal()


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("openToAll=false", "name callers in config.server.callers, or set openToAll: true"),
        ("config.server.callers[0].name=a", "keep one of the two"),
        ("config.server.listen=[::]:1", "set host and service.port"),
        ("config.server.admin=[::]:1", "set host and service.port"),
        ("config.server.admin_token=word", "admin_token would stand in a ConfigMap: keep it in the Secret"),
        ("config.upstreams.openai.api_key=sk-1", "config.upstreams.openai.api_key would stand in a ConfigMap"),
        ("redis.url=redis://:word@redis", "the password in redis.url would stand in a ConfigMap"),
        ("redis.url=http://redis", "/redis/url"),
        ("imagee.tag=1", "additional properties 'imagee' not allowed"),
        ("image.tga=1", "additional properties 'tga' not allowed"),
        ("image.tag=latest", "/image/tag"),
        ("image.pullPolicy=Sometimes", "/image/pullPolicy"),
        ("service.port=70000", "/service/port"),
        ("resources.limits=null", "missing property 'limits'"),
        ("config.server.drain_seconds=long", "/config/server/drain_seconds"),
    ],
)  # fmt: skip
def test_what_it_refuses(option: str, words: str) -> None:
    """With the place, and where it helps with a remedy."""
    assert words in refusal(*LEAST, "--set", option)


def test_a_callers_key_stays_out_of_the_config_map() -> None:
    """It is asked for by name, or not rendered."""
    caller = '[{"name": "search", "key": "sk-1"}]'
    told = refusal(*LEAST, "--set", "openToAll=false", "--set-json", f"config.server.callers={caller}")
    assert "the key of caller search would stand in a ConfigMap" in told
    assert "sk-1" not in told


@pytest.mark.parametrize("options", [(), LEAST, ("--values", values("gateway-everything"))], ids=str)
def test_lint_has_nothing_to_say(options: tuple[str, ...]) -> None:
    """Warnings count as mistakes."""
    done = run(tool("helm"), "lint", "--strict", str(CHART), *options)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", COPIES)
def test_the_charts_files_are_those_of_the_tree(name: str) -> None:
    """A chart that is packaged, or fetched by itself, has nothing beside it; `make docs` copies them."""
    assert (CHART / "files" / name).read_bytes() == COPIES[name].read_bytes()


def test_no_file_of_the_chart_is_left_over() -> None:
    """Each is a copy of something."""
    assert {path.name for path in (CHART / "files").iterdir()} == set(COPIES)


def groups(text: str) -> Any:
    return yaml.safe_load(text)["groups"]


def test_the_rules_are_rendered_as_they_are() -> None:
    """All groups of both files, and only their addresses are the operator's."""
    files = [COPIES["recording.yml"].read_text(), COPIES["alerts.yml"].read_text()]
    plain: Any = named(charted(*LEAST, "--set", "monitoring.rules=true"), "PrometheusRule", "octet")
    assert plain["spec"]["groups"] == [group for text in files for group in groups(text)]
    moved = [
        text.replace("docs/operations.md#", "https://git.example/octet/docs/operations.md#").replace(
            "http://127.0.0.1:3000", "https://grafana.example"
        )
        for text in files
    ]
    assert moved != files
    own: Any = named(cases()["gateway-everything"], "PrometheusRule", "llm")
    assert own["spec"]["groups"] == [group for text in moved for group in groups(text)]
    assert own["metadata"]["labels"]["release"] == "prometheus"


def test_the_dashboard_is_rendered_as_it_is() -> None:
    """Grafana's sidecar finds it, and it is small enough for `kubectl apply`."""
    found: Any = named(cases()["gateway-everything"], "ConfigMap", "llm-dashboard")
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(found["data"]["octet.json"]) == json.loads(COPIES["octet.json"].read_text())
    assert len(json.dumps(found)) < APPLY_BYTES


def test_the_configuration_is_the_operators() -> None:
    """Numbers, words and nested keys arrive as they were written; Redis is added."""
    given = yaml.safe_load(Path(values("gateway-everything")).read_text())["config"]
    told: Any = named(cases()["gateway-everything"], "ConfigMap", "llm")
    held = yaml.safe_load(told["data"]["octet.yaml"].replace("1e-06", "0.000001"))  # PyYAML knows YAML 1.1 alone
    assert held == {**given, "redis": {**given["redis"], "url": "${file:/run/secrets/octet/redis}"}}


def start_only(*options: str) -> str:
    """The annotation whose change is a rollout."""
    (workload,) = workloads(charted(*LEAST, *options))
    annotations = workload.object["spec"]["template"]["metadata"]["annotations"]
    told: str = annotations["octet/start-only"]
    return told


def test_an_edit_is_a_rollout_only_where_it_must_be() -> None:
    """What Octet takes over by itself leaves the pods as they are; what it reads at its start replaces them."""
    plain = charted(*LEAST)
    edited = charted(*LEAST, "--set", "config.routes[0].name=all")
    assert [a["kind"] for a, b in zip(plain, edited, strict=True) if a != b] == ["ConfigMap"]
    told = {start_only()} | {
        start_only("--set", option)
        for option in (
            "config.server.workers=2",
            "redis.url=redis://redis",
            "config.cache.redis.namespace=other",
            "config.tracing.endpoint=http://traces",
        )
    }
    assert len(told) == 5


@pytest.mark.parametrize(
    ("options", "without"),
    [
        (("autoscaling.enabled=false",), "HorizontalPodAutoscaler"),
        (("networkPolicy.enabled=false",), "NetworkPolicy"),
    ],
    ids=str,
)
def test_what_can_be_left_out(options: tuple[str, ...], without: str) -> None:
    """The rest is sound without it."""
    manifests = charted(*LEAST, *(word for option in options for word in ("--set", option)))
    assert without not in {each["kind"] for each in manifests}
    assert not list(mistakes(of_kubernetes(manifests), MINORS[-1]))
    assert not [complaint for rule in (*RULES, *RELATIONS) for complaint in rule(manifests)]


def test_without_an_autoscaler_there_are_as_many_pods_as_are_asked_for() -> None:
    """Or as many as somebody else wants, such as KEDA."""
    (workload,) = workloads(charted(*LEAST, "--set", "autoscaling.enabled=false,replicas=3"))
    assert workload.object["spec"]["replicas"] == 3
    (workload,) = workloads(charted(*LEAST, "--set", "autoscaling.enabled=false,replicas=null"))
    assert "replicas" not in workload.object["spec"]


def test_streams_are_looked_at_only_where_somebody_serves_the_metric() -> None:
    """A metric that is not there would keep the autoscaler from ever taking pods away."""
    scaler: Any = named(cases()["gateway"], "HorizontalPodAutoscaler", "octet")
    assert [metric["type"] for metric in scaler["spec"]["metrics"]] == ["Resource"]
    scaler = named(cases()["gateway-everything"], "HorizontalPodAutoscaler", "llm")
    assert [metric["type"] for metric in scaler["spec"]["metrics"]] == ["Resource", "Pods"]


def test_redis_can_be_reached_where_it_is_configured() -> None:
    """Through the NetworkPolicy, and not else."""

    def reachable(*options: str) -> set[int]:
        policy: Any = named(charted(*LEAST, *options), "NetworkPolicy", "octet")
        return {port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]}

    assert reachable() == {53, 443}
    assert reachable("--set", "redis.url=redis://redis") == {53, 443, 6379}
    assert reachable("--set", "config.cache.redis.url=redis://redis,redis.ports={26379}") == {53, 443, 26379}


def test_what_helm_says_after_an_installation() -> None:
    """Where callers reach it, who is let in, and what is still to be decided."""
    done = run(tool("helm"), "install", "octet", str(CHART), "--namespace", "llm", "--dry-run=client", *LEAST)
    assert done.returncode == 0, done.stderr
    notes = done.stdout.partition("NOTES:")[2]
    assert "http://octet.llm:8080/v1, and show no key." in notes
    assert "The autoscaler looks at CPU alone" in notes
    assert "Without redis" in notes


def test_rules_and_dashboard_can_be_had_alone() -> None:
    """For sidecars, as docs/kubernetes.md says."""
    wanted = "openToAll=true,config.upstreams.none.provider=openai,monitoring.rules=true,monitoring.dashboard=true"
    assert wanted in (ROOT / "docs/kubernetes.md").read_text()
    manifests = charted("--show-only", "templates/monitoring.yaml", "--set", wanted)
    assert [each["kind"] for each in manifests] == ["ConfigMap", "PrometheusRule"]


def test_what_the_page_says_about_the_gateway_works(tmp_path: Path) -> None:
    """The values that docs/kubernetes.md has people write are sound."""
    (tmp_path / "values.yaml").write_text(BLOCKS["values.yaml"])
    manifests = charted("--values", str(tmp_path / "values.yaml"))
    assert not [complaint for rule in (*RULES, *RELATIONS) for complaint in rule(manifests)]
    assert not list(mistakes(of_kubernetes(manifests), MINORS[0]))
