"""PromQL in small pieces: matchers, rates, quantiles, shares."""

from typing import Any

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}

HERE = 'job=~"$job", instance=~"$instance", namespace=~"$namespace", pod=~"$pod"'
UPSTREAM = HERE + ', upstream=~"$upstream"'
ROUTE = HERE + ', route=~"$route"'
ROUTE_UPSTREAM = ROUTE + ', upstream=~"$upstream"'
UPSTREAM_MODEL = UPSTREAM + ', model=~"$model"'
CALLS = ROUTE_UPSTREAM + ', model=~"$model"'

# Alerts keep the labels that their rule keeps: what lacks one is shown whatever is chosen for it.
ALERTS = (
    'ALERTS{alertname=~"Octet.+", alertstate="firing", job=~"$job", instance=~"$instance|", '
    'namespace=~"$namespace|", pod=~"$pod|"}'
)

FAILED = 'outcome=~"upstream_error|cut|proxy_error"'
JUDGED = 'outcome!~"caller_error|hangup|limited"'  # what callers do, and limits of ours, say nothing of our health
TRIED_IN_VAIN = 'outcome!~"ok|hangup|lost"'

QUANTILES = ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))


def rate(metric: str, matchers: str, *by: str) -> str:
    """How fast a counter grows, per second."""
    return f"{_sum(by)}(rate({metric}{{{matchers}}}[$__rate_interval]))"


def per_hour(metric: str, matchers: str, *by: str) -> str:
    """What a counter of dollars would grow by in an hour, at the pace of each moment."""
    return f"3600 * {rate(metric, matchers, *by)}"


def increase(metric: str, matchers: str, *by: str) -> str:
    """By how much a counter grew in each step of a heatmap."""
    return f"{_sum(by)}(increase({metric}{{{matchers}}}[$__rate_interval]))"


def in_the_time_shown(metric: str, matchers: str, *by: str) -> str:
    """By how much a counter grew in the whole time that the dashboard shows; for instant queries."""
    return f"{_sum(by)}(increase({metric}{{{matchers}}}[$__range]))"


def quantile(of: float, metric: str, matchers: str, *by: str) -> str:
    """A quantile of a histogram, over all processes chosen."""
    return f"histogram_quantile({of}, {rate(f'{metric}_bucket', matchers, 'le', *by)})"


def share(part: str, whole: str) -> str:
    """A ratio between 0 and 1; no value where the whole is nothing.

    A counter begins to exist with its first event: where the whole exists and the part does not, the part is 0.
    """
    return f"(({part}) or {whole} * 0) / ({whole} > 0)"


def or_zero(expression: str) -> str:
    """An unlabelled sum, which is 0 as long as Octet is there and has counted nothing."""
    return f"{expression} or {ZERO}"


def of_octet(expression: str) -> str:
    """Keeps `process_*` of other programs out, where they are scraped under the same job."""
    return f"{expression} and on (job, instance) octet_config_generation{{{HERE}}}"


def target(expression: str, legend: str = "", **more: Any) -> dict[str, Any]:
    """A query over time; its refId is given by the panel."""
    return {"datasource": DATASOURCE, "expr": expression, "legendFormat": legend or "__auto", "range": True, **more}


def instant(expression: str, legend: str = "", **more: Any) -> dict[str, Any]:
    """A query for one moment, the last of the time shown."""
    return {
        "datasource": DATASOURCE, "expr": expression, "legendFormat": legend or "__auto", "instant": True,
        "range": False, **more,
    }  # fmt: skip


def quantiles(metric: str, matchers: str) -> list[dict[str, Any]]:
    """p50, p95 and p99 of a histogram, with exemplars."""
    return [target(quantile(of, metric, matchers), name, exemplar=True) for of, name in QUANTILES]


def _sum(by: tuple[str, ...]) -> str:
    return f"sum by ({', '.join(by)}) " if by else "sum"


ZERO = f"0 * sum(octet_config_generation{{{HERE}}})"
