"""The plain files around the rules agree with one another."""

import json
import re
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from proxy.config import load
from proxy.providers import traits
from tests.monitoring.servers import DEPLOY, ROOT

COMPOSE = DEPLOY / "compose" / "compose.yaml"
PROVISIONING = DEPLOY / "grafana" / "provisioning"
TAG = re.compile(r"[\w./-]+:v?\d+\.\d+\.\d+[\w.-]*")


def read(path: Any) -> Any:
    return yaml.safe_load(path.read_text())


def services() -> dict[str, Any]:
    """What compose starts."""
    return dict(read(COMPOSE)["services"])


def mounts(service: str) -> dict[str, Any]:
    """Paths on the host by those in the container, of what is mounted from the repository."""
    found = {}
    for volume in services()[service].get("volumes", ()):
        source, target, *_ = volume.split(":")
        if source.startswith("."):
            assert volume.endswith(":ro"), f"{volume} can be written to"
            found[target] = (COMPOSE.parent / source).resolve()
    return found


def datasource() -> dict[str, Any]:
    (only,) = read(PROVISIONING / "datasources" / "octet.yml")["datasources"]
    return dict(only)


def test_everything_mounted_is_there() -> None:
    """No path of compose leads nowhere."""
    for name in services():
        for source in mounts(name).values():
            assert source.exists(), f"{name}: {source}"
            assert source.is_relative_to(ROOT)


def test_the_dashboard_lies_where_grafana_looks() -> None:
    """The provider's path is where compose mounts the dashboard, and it is the first thing to be seen."""
    (provider,) = read(PROVISIONING / "dashboards" / "octet.yml")["providers"]
    mounted = mounts("grafana")
    assert mounted["/etc/grafana/provisioning"] == PROVISIONING
    target = f"{provider['options']['path']}/octet.json"
    assert mounted[target] == ROOT / "grafana" / "octet.json"
    assert services()["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == target


def test_the_dashboard_finds_its_data_source() -> None:
    """Its variable is of the type that is provisioned; nothing names another data source."""
    dashboard = json.loads((ROOT / "grafana" / "octet.json").read_text())
    (variable,) = [each for each in dashboard["templating"]["list"] if each["type"] == "datasource"]
    assert (variable["name"], variable["query"]) == ("datasource", datasource()["type"])
    assert datasource()["uid"] == "prometheus"
    uids = {uid for uid in re.findall(r'"uid": "([^"]+)"', json.dumps(dashboard)) if uid != dashboard["uid"]}
    assert uids <= {"${datasource}", "-- Grafana --", "prometheus"}
    assert dashboard["uid"] == "octet"


def test_rates_are_made_from_the_pace_of_scraping() -> None:
    """Grafana knows how often Prometheus scrapes."""
    scraping = read(DEPLOY / "prometheus" / "prometheus.yml")
    assert datasource()["jsonData"]["timeInterval"] == scraping["global"]["scrape_interval"] == "10s"
    assert all("scrape_interval" not in job for job in scraping["scrape_configs"])


def test_names_of_hosts_agree() -> None:
    """Who is asked for by Prometheus and Grafana is a service of compose, at a port that it listens on."""
    scraping = read(DEPLOY / "prometheus" / "prometheus.yml")
    (octet,) = [job for job in scraping["scrape_configs"] if job["job_name"] == "octet"]
    assert octet["static_configs"] == [{"targets": ["octet:8081"]}]
    assert "0.0.0.0:8081" in services()["octet"]["command"]
    (manager,) = scraping["alerting"]["alertmanagers"]
    assert manager["static_configs"] == [{"targets": ["alertmanager:9093"]}]
    assert datasource()["url"] == "http://prometheus:9090"
    assert {"octet", "alertmanager", "prometheus", "redis", "grafana"} <= services().keys()


def test_nothing_is_published_beyond_this_machine() -> None:
    """Each published port is bound to loopback; nobody shares the host's network."""
    published = [port for service in services().values() for port in service.get("ports", ())]
    assert len(published) >= 5
    for port in published:
        host, outside, inside = port.split(":")
        assert ip_address(host).is_loopback
        assert outside == inside
    assert "ports" not in services()["redis"]
    shared = {name: service["network_mode"] for name, service in services().items() if "network_mode" in service}
    assert shared == {"app": "service:octet"}  # its sidecar's, never the host's


@pytest.mark.parametrize("name", sorted(services()))
def test_containers_are_bounded(name: str) -> None:
    """Read-only, without capabilities, with a bound on memory, a health check and a version that stays."""
    service = services()[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert re.fullmatch(r"\d+m", service["mem_limit"])
    assert service["healthcheck"]["test"][0] == "CMD"
    assert service.get("build") == "../.." if service["image"] == "octet:local" else TAG.fullmatch(service["image"])


def test_nobody_looks_at_grafana_without_a_password() -> None:
    """None is built in: compose does not start without one, and strangers see nothing."""
    environment = services()["grafana"]["environment"]
    assert environment["GF_SECURITY_ADMIN_PASSWORD"].startswith("${GRAFANA_ADMIN_PASSWORD:?")
    assert environment["GF_AUTH_ANONYMOUS_ENABLED"] == "${GRAFANA_ANONYMOUS:-false}"
    assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert ".env" in (ROOT / ".gitignore").read_text().split()


def test_the_configuration_of_compose_is_good() -> None:
    """Octet takes it; its upstreams and its Redis are services of compose."""
    config = load(str(DEPLOY / "compose" / "octet" / "octet.yaml"), traits(), {})
    hosts = {urlsplit(upstream.base_url).hostname for upstream in config.upstreams.values()}
    assert hosts == {"upstreams"} <= services().keys()
    assert config.redis is not None
    assert "redis:6379" in config.redis.url.get_secret_value()


def test_receivers_are_placeholders_on_loopback() -> None:
    """As shipped, no alert leaves the machine."""
    settings = read(DEPLOY / "alertmanager" / "alertmanager.yml")
    hooks = [hook["url"] for receiver in settings["receivers"] for hook in receiver["webhook_configs"]]
    assert len(hooks) == 2
    assert all(hook.startswith("http://127.0.0.1:") for hook in hooks)
