"""Limits and connections: where calls wait, and how much room is left."""

from grafana import looks
from grafana.layout import Row
from grafana.panels import good_until, series
from grafana.queries import HERE, UPSTREAM, quantile, rate, target
from grafana.thresholds import POOL

_WHO = "{{scope}} {{name}}"

ROW = Row(
    "Limits and connections",
    [
        series(
            "HTTP connection pool", "Connections to each upstream: in use, waiting for the next request, and how many "
            "there may be; of all processes chosen. Normal is in use about as many as calls in flight. Idle ones that "
            "never stay mean that the upstream closes them: each call then pays for a new one.",
            [
                target(f"sum by (upstream, state) (octet_connections{{{UPSTREAM}}})", "{{upstream}} {{state}}"),
                target(f"sum by (upstream) (octet_connections_limit{{{UPSTREAM}}})", "{{upstream}} limit"),
            ],
            "short", decimals=0, links=looks.ONLY_UPSTREAM, empty="No connections",
            overrides=[
                looks.matching(f" {name}$", lineStyle={"fill": "dash", "dash": dash}, fillOpacity=0, lineWidth=1)
                for name, dash in (("limit", [10, 10]), ("idle", [2, 4]))
            ],
        ),
        series(
            "Connection pool utilisation", "Connections in use as a share of max_connections, of the fullest process. "
            "Normal is below 50 %. OctetConnectionPoolNearlyFull fires above the red line, 80 %: at 100 % calls wait "
            "for a connection and fail with PoolFull after connect_seconds. Raise max_connections, add sidecars, or "
            "find what holds them.",
            [
                target(
                    f'max by (upstream) (octet_connections{{{UPSTREAM}, state="active"}} / ignoring (state) '
                    f"octet_connections_limit{{{UPSTREAM}}})",
                    "{{upstream}}",
                )
            ],
            "percentunit", steps=good_until(POOL), ratio=True, links=looks.ONLY_UPSTREAM,
            empty="No upstream has max_connections",
        ),
        series(
            "Calls that met a limit", "Calls per second that found a limit of ours used up; they waited, went "
            "elsewhere, or were refused (limited in the request rate). Normal is none, or few at peaks; with Redis "
            "also whenever a process asks for a new share. For a caller: it wants more than it was given; for an "
            "upstream: its quota is too small for all of you.",
            [target(rate("octet_limited_total", HERE, "scope", "name", "limit"), f"{_WHO}: {{{{limit}}}}")], "reqps",
            stacked=True, empty="No limit was met",
        ),
        series(
            "Places in use", "Calls that hold a place under limits.concurrent. Normal stays below the limit; level at "
            "it means that calls queue.",
            [target(f"sum by (scope, name) (octet_slots_in_use{{{HERE}}})", _WHO)], "short", decimals=0,
            empty="No limits.concurrent configured",
        ),
        series(
            "Queue", "Calls that wait for a place under limits.concurrent. Normal is none; short queues at peaks are "
            "what they are for. A queue that stays is load above capacity.",
            [target(f"sum by (scope, name) (octet_queue_length{{{HERE}}})", _WHO)], "short", decimals=0, reach=1,
            empty="No limits.concurrent configured",
        ),
        series(
            "Time in the queue p95", "How long calls waited for a place, of those that had to. Normal is far below "
            "queue_seconds, at which they are refused. It is part of the time to the first token.",
            [target(quantile(0.95, "octet_queue_seconds", HERE, "scope", "name"), _WHO)], "s", empty="No call waited",
        ),
        series(
            "Requests left", "What is left of requests_per_minute, of the process with the least. Normal is well above "
            "zero. At zero calls wait or are refused; below, more was used than was reserved. With Redis it is what is "
            "left of a small share, and swings.",
            [target(f'min by (scope, name) (octet_limit_remaining{{{HERE}, limit="requests"}})', _WHO)], "short",
            empty="No requests_per_minute configured",
        ),
        series(
            "Tokens left", "What is left of tokens_per_minute, of the process with the least. Normal is well above "
            "zero. Long below zero: estimates are too low for what these models answer; set max_tokens in the calls.",
            [target(f'min by (scope, name) (octet_limit_remaining{{{HERE}, limit="tokens"}})', _WHO)], "short",
            empty="No tokens_per_minute configured",
        ),
    ],
)  # fmt: skip
