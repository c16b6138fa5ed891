"""The first screen: how many calls, how many fail, how long they take, what they cost."""

from grafana import looks
from grafana.layout import Row
from grafana.panels import good_from, good_until, series, stat, text
from grafana.queries import (
    ALERTS,
    CALLS,
    FAILED,
    HERE,
    JUDGED,
    UPSTREAM,
    or_zero,
    per_hour,
    quantile,
    quantiles,
    rate,
    share,
    target,
)
from grafana.rows.cache import SERVED
from grafana.thresholds import ERROR_RATE, HIT_RATE, RESPONSE_SECONDS

ERRORS = share(
    rate("octet_calls_total", f"{CALLS}, {FAILED}"), rate("octet_calls_total", f"{CALLS}, {JUDGED}")
)  # fmt: skip

JSON_P95 = quantile(0.95, "octet_call_duration_seconds", f'{UPSTREAM}, mode="json"')

PURPOSE = """\
**Octet**, an OpenAI-compatible sidecar. Read from the top down: what callers feel, then upstreams, streams, cache, \
cost, limits, the process; what to do stands behind each title. Dashed lines are the limits of the alerts. The marks \
are firing alerts (red), new configurations (blue) and starts (purple). Only calls and cost know routes and models: \
what is drawn from other metrics does not change with those two choices."""

ROW = Row(
    "Overview",
    [
        text(PURPOSE, size=(24, 2)),
        stat(
            "Requests", "Calls that ended, per second, of all outcomes. Zero for long in a busy service means that "
            "callers do not reach the sidecar: look at Process, and at the application's base URL.",
            target(rate("octet_calls_total", CALLS)), "reqps",
        ),
        stat(
            "Errors", "Share of calls that failed by an upstream or by us; what callers did wrong, broke off, or were "
            "refused by a limit does not count. Normal is below 1 %. Red from 10 %, like OctetHighErrorRate: see "
            "Upstreams for who fails, and how.",
            target(ERRORS), "percentunit", steps=good_until(ERROR_RATE), empty="No calls", decimals=1,
        ),
        stat(
            "JSON response p95", "95 of 100 JSON calls took no longer than this, from their first byte to the answer's "
            "last. Red from 5 s, like OctetSlowCalls: see Upstreams for who is slow. Long answers are better streamed.",
            target(JSON_P95), "s", steps=good_until(RESPONSE_SECONDS), empty="No JSON calls", decimals=2,
        ),
        stat(
            "First token p95", "95 of 100 streams had their first content after this long. Normal is what the model "
            "needs, mostly below 2 s. Red from 5 s, like OctetSlowCalls: when the overhead (Process) has not grown, "
            "the upstream is slow.",
            target(quantile(0.95, "octet_first_token_seconds", UPSTREAM)), "s", steps=good_until(RESPONSE_SECONDS),
            empty="No streams", decimals=2,
        ),
        stat(
            "Cache hits", "Share of cacheable calls that no upstream was asked for. Orange below 30 %, like "
            "OctetLowCacheHitRate; see Cache. Empty where no route has a cache.",
            target(SERVED), "percentunit", steps=good_from(HIT_RATE), empty="Not used", decimals=1,
        ),
        stat(
            "Cost per hour", "What upstreams charge, at the pace of now. Only answers whose price is configured count. "
            "Normal is what you have budgeted for; see Tokens and cost for whom it goes to.",
            target(per_hour("octet_cost_usd_total", CALLS)), "currencyUSD", empty="No prices", decimals=2,
        ),
        stat(
            "Open streams", "Streams being answered at this moment. They end when a sidecar stops, so this is also "
            "what a restart would wait for.",
            target(f"sum(octet_open_streams{{{HERE}}})"), "short", empty="No sidecar", decimals=0,
        ),
        stat(
            "Alerts firing", "Alerts of Octet that fire at this moment. Above zero: the red marks in the graphs say "
            "which; each has a runbook. Always zero where the alert rules are not loaded.",
            target(or_zero(f"count({ALERTS})")), "none", steps=good_until(1), empty="No sidecar", decimals=0,
        ),
        series(
            "Request rate", "Calls that ended, per second, by how: ok; caller_error, the caller's mistake; limited, by "
            "a limit of ours; hangup, the caller left; upstream_error and cut (broke after the first content), an "
            "upstream's; proxy_error, ours. Normal is nearly all green. Red: see Upstreams; yellow: see Limits.",
            [target(rate("octet_calls_total", CALLS, "outcome"), "{{outcome}}")], "reqps", stacked=True,
            overrides=looks.OUTCOMES, empty="No calls",
        ),
        series(
            "Error rate", "Share of calls that failed by an upstream or by us, by route. Fail-overs that helped do not "
            "count: the caller had an answer. Normal is below 1 %; OctetHighErrorRate fires above the red line, 10 %. "
            "One route: its targets fail together; all routes: the network, or an upstream that all use.",
            [
                target(ERRORS, "all"),
                target(
                    share(
                        rate("octet_calls_total", f"{CALLS}, {FAILED}", "route"),
                        rate("octet_calls_total", f"{CALLS}, {JUDGED}", "route"),
                    ),
                    "{{route}}",
                ),
            ],
            "percentunit", steps=good_until(ERROR_RATE), reach=2 * ERROR_RATE, links=looks.ONLY_ROUTE, empty="No calls",
            overrides=[looks.colour("all", "text", lineWidth=3)],
        ),
        series(
            "Response time p95", "How long calls took, from their first byte to the answer's last: p95, with p50 and "
            "p99 for its company. Normal is steady, since models differ. Streams rightly last as long as they speak, "
            "so OctetSlowCalls judges JSON calls by this, the red line being 5 s, and streams by their first token. "
            "When only p99 grows, look at the heatmap for a second hill: one upstream, or calls that were repeated.",
            [*quantiles("octet_call_duration_seconds", UPSTREAM), target(JSON_P95, "p95, JSON only")], "s",
            steps=good_until(RESPONSE_SECONDS), empty="No calls",
            overrides=[*looks.QUANTILES, looks.colour("p95, JSON only", "red", lineWidth=2, fillOpacity=0)],
        ),
        series(
            "Time to the first token", "From a streamed call's first byte to its first content, as callers feel it, "
            "with waiting, repeats and fail-overs. Normal is what the model needs. When it grows: queue time (Limits), "
            "then the upstream (Upstreams), then our overhead (Process). OctetSlowCalls fires at p95 above the line.",
            quantiles("octet_first_token_seconds", UPSTREAM), "s", steps=good_until(RESPONSE_SECONDS),
            overrides=looks.QUANTILES, empty="No streams",
        ),
    ],
)  # fmt: skip
