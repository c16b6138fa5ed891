"""What the dashboard's queries say of numbers that are known."""

import subprocess
from pathlib import Path

import yaml

from tests.monitoring.dashboards import PANELS, filled
from tests.programs import tool

HERE = 'job="octet", instance="a:8081"'
THERE = 'job="octet", instance="b:8081", namespace="shop", pod="search-0"'
ALIVE = {f"octet_config_generation{{{HERE}}}": "1+0x20"}
LOOKS = {
    f'octet_cache_lookups_total{{{HERE}, tier="memory", result="miss"}}': "0+7x20",
    f'octet_cache_lookups_total{{{HERE}, tier="redis", result="miss"}}': "0+6x20",
}
Series = dict[str, str]


def calls(outcome: str) -> str:
    return f'octet_calls_total{{{HERE}, route="chat", upstream="openai", model="gpt", outcome="{outcome}"}}'


def query(title: str, place: int = 0) -> str:
    panel = next(each for each in PANELS if each["title"] == title)
    return f"round({filled(panel['targets'][place]['expr'])}, 0.001)"


def case(name: str, title: str, series: Series, expected: dict[str, float]) -> dict[str, object]:
    """A panel's first query five minutes after the series began.

    Args:
        expected: values by their labels.
    """
    samples = [{"labels": labels, "value": value} for labels, value in expected.items()]
    return {
        "name": name, "interval": "15s",
        "input_series": [{"series": each, "values": values} for each, values in series.items()],
        "promql_expr_test": [{"expr": query(title), "eval_time": "5m", "exp_samples": samples}],
    }  # fmt: skip


CASES = [
    case("no call failed: zero", "Error rate", {calls("ok"): "0+10x20"}, {"{}": 0}),
    case("no calls: nothing", "Error rate", {calls("ok"): "5+0x20"}, {}),
    case(
        "what callers do and limits do not count", "Error rate",
        {
            calls("ok"): "0+8x20", calls("upstream_error"): "0+1x20", calls("cut"): "0+1x20",
            calls("hangup"): "0+9x20", calls("limited"): "0+9x20", calls("caller_error"): "0+9x20",
        },
        {"{}": 0.2},
    ),
    case("only misses: zero", "Cache hits", {**ALIVE, **LOOKS}, {"{}": 0}),
    case(
        "both tiers and joined calls spare a call", "Cache hits",
        {
            **ALIVE, **LOOKS, f'octet_flights_joined_total{{{HERE}, route="chat"}}': "0+1x20",
            f'octet_cache_lookups_total{{{HERE}, tier="memory", result="hit"}}': "0+3x20",
            f'octet_cache_lookups_total{{{HERE}, tier="redis", result="hit"}}': "0+1x20",
        },
        {"{}": 0.5},
    ),
    case("no cache: nothing", "Cache hits", ALIVE, {}),
    case(
        "no Redis configured: nothing", "Redis",
        {f"octet_redis_up{{{HERE}}}": "0+0x20", f"octet_redis_configured{{{HERE}}}": "0+0x20"}, {},
    ),
    case(
        "Redis is away for one of two", "Redis",
        {
            f"octet_redis_up{{{HERE}}}": "0+0x20", f"octet_redis_configured{{{HERE}}}": "1+0x20",
            f"octet_redis_up{{{THERE}}}": "1+0x20", f"octet_redis_configured{{{THERE}}}": "1+0x20",
        },
        {"{}": 0},
    ),
    case(
        "other programs under the same job are left out", "Process memory",
        {
            **ALIVE, f"process_resident_memory_bytes{{{HERE}}}": "5+0x20",
            'process_resident_memory_bytes{job="octet", instance="other:80"}': "9+0x20",
        },
        {'{instance="a:8081"}': 5},
    ),
    case(
        "memory of those that have a limit", "Memory of its limit",
        {
            f"process_resident_memory_bytes{{{HERE}}}": "900+0x20",
            f"process_resident_memory_bytes{{{THERE}}}": "50+0x20", f"octet_memory_limit_bytes{{{THERE}}}": "100+0x20",
        },
        {"{}": 0.5},
    ),
    case(
        "the fullest pool of an upstream", "Connection pool utilisation",
        {
            f'octet_connections{{{where}, upstream="openai", state="{state}"}}': f"{count}+0x20"
            for where, state, count in ((HERE, "active", 8), (THERE, "active", 1), (HERE, "idle", 2))
        } | {f'octet_connections_limit{{{where}, upstream="openai"}}': "10+0x20" for where in (HERE, THERE)},
        {'{upstream="openai"}': 0.8},
    ),
    case("no alert: zero", "Alerts firing", ALIVE, {"{}": 0}),
    case("nobody there: nothing", "Alerts firing", {}, {}),
    case(
        "alerts that know of no instance", "Alerts firing",
        {
            **ALIVE, 'ALERTS{alertname="OctetHighErrorRate", alertstate="firing", job="octet"}': "1+0x20",
            f'ALERTS{{alertname="OctetCircuitOpen", alertstate="firing", {THERE}}}': "1+0x20",
            f'ALERTS{{alertname="OctetCircuitOpen", alertstate="pending", {HERE}}}': "1+0x20",
            'ALERTS{alertname="NodeDown", alertstate="firing", job="octet"}': "1+0x20",
        },
        {"{}": 2},
    ),
]  # fmt: skip


def test_the_values(tmp_path: Path) -> None:
    """Zero where zero is the truth, nothing where nothing is known, and no part of the whole forgotten."""
    promtool = tool("promtool")
    file = tmp_path / "values.yml"
    file.write_text(yaml.safe_dump({"evaluation_interval": "15s", "tests": CASES}), encoding="utf-8")
    tested = subprocess.run([promtool, "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert tested.returncode == 0, tested.stdout + tested.stderr
