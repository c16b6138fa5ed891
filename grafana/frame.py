"""What stands around the panels: variables, annotations and links."""

from typing import Any

from grafana.queries import ALERTS, DATASOURCE, HERE, of_octet

ON_TIME_CHANGE = 2

_SCOPE = {"job": "", "namespace": 'job=~"$job"'}
_SCOPE["pod"] = _SCOPE["namespace"] + ', namespace=~"$namespace"'
_SCOPE["instance"] = _SCOPE["pod"] + ', pod=~"$pod"'


def variables() -> list[dict[str, Any]]:
    """What can be chosen, from the large to the small; each offers what the ones before it leave.

    All of them is `.*`, which also fits where a label does not exist, as `namespace` and `pod` outside of Kubernetes.
    Of jobs it is their names, since others than Octet's are scraped too.
    """
    source = {
        "type": "datasource", "name": "datasource", "label": "Data source", "query": "prometheus", "regex": "",
        "current": {"text": "default", "value": "default"}, "options": [], "refresh": 1, "multi": False,
        "includeAll": False, "hide": 0,
        "skipUrlSync": False, "description": "The Prometheus that scrapes Octet.",
    }  # fmt: skip
    generation = "octet_config_generation"
    return [
        source,
        _choice("job", "Job", f"{generation}", every=None),
        _choice("namespace", "Namespace", f"{generation}{{{_SCOPE['namespace']}}}"),
        _choice("pod", "Pod", f"{generation}{{{_SCOPE['pod']}}}"),
        _choice("instance", "Instance", f"{generation}{{{_SCOPE['instance']}}}"),
        _choice("route", "Route", f"octet_calls_total{{{HERE}}}"),
        _choice("upstream", "Upstream", f"octet_attempts_total{{{HERE}}}"),
        _choice("model", "Model", f'octet_calls_total{{{HERE}, route=~"$route", upstream=~"$upstream"}}'),
    ]


def annotations() -> list[dict[str, Any]]:
    """What happened, as marks on every graph."""
    return [
        _mark("Alerts", ALERTS, "red", title="{{alertname}}", text="{{severity}} {{upstream}} {{instance}}"),
        _mark(
            "Configuration", f"changes(octet_config_generation{{{HERE}}}[$__rate_interval]) > 0", "blue",
            title="Configuration reloaded", text="{{instance}}",
        ),
        _mark(
            "Starts", of_octet(f"process_start_time_seconds{{{HERE}}} * 1000"), "purple",
            title="Process started", text="{{instance}}", useValueForTime=True,
        ),
    ]  # fmt: skip


def links() -> list[dict[str, Any]]:
    """Ways out that keep the time range, and the choices where the other side knows them."""
    common = {
        "targetBlank": False, "asDropdown": False, "keepTime": True, "includeVars": True, "tags": [], "url": "",
        "tooltip": "",
    }  # fmt: skip
    return [
        {
            **common, "type": "dashboards", "title": "LLM dashboards", "icon": "external link", "tags": ["llm"],
            "asDropdown": True, "tooltip": "Other dashboards tagged llm, with the time and the choices made here",
        },
        {
            **common, "type": "link", "title": "Alerts", "icon": "bolt", "url": "/alerting/list?search=Octet",
            "includeVars": False, "tooltip": "The rules whose names begin with Octet, and their states",
        },
    ]  # fmt: skip


def _choice(name: str, label: str, of: str, every: str | None = ".*") -> dict[str, Any]:
    query = f"label_values({of}, {name})"
    return {
        "type": "query", "name": name, "label": label, "datasource": DATASOURCE,
        "query": {"query": query, "refId": "StandardVariableQuery"}, "refresh": ON_TIME_CHANGE, "sort": 1,
        "multi": True, "includeAll": True, **({"allValue": every} if every else {}), "regex": "",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]}, "options": [], "hide": 0,
        "skipUrlSync": False, "description": "",
    }  # fmt: skip


def _mark(name: str, expression: str, shade: str, *, title: str, text: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name, "datasource": DATASOURCE, "enable": True, "hide": False, "iconColor": shade, "expr": expression,
        "titleFormat": title, "textFormat": text, "tagKeys": "severity", "step": "60s", **more,
    }  # fmt: skip
