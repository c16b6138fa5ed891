"""The far side: which upstream fails, how, and what was done about it."""

from grafana import looks
from grafana.layout import Row
from grafana.panels import good_until, heatmap, series, timeline
from grafana.queries import (
    CALLS,
    ROUTE_UPSTREAM,
    TRIED_IN_VAIN,
    UPSTREAM,
    increase,
    quantiles,
    rate,
    share,
    target,
)
from grafana.thresholds import ERROR_RATE, POOL

_TRIES = 'outcome!~"hangup|lost"'
_STATE = f"max by (upstream) (octet_circuit_state{{{UPSTREAM}}})"

ROW = Row(
    "Upstreams",
    [
        timeline(
            "Circuit breaker state", "Whether upstreams are asked at all; of several processes or circuits, the worst. "
            "Closed is normal. Open: it failed too often and is left alone, and calls go to other targets or fail at "
            "once; OctetCircuitOpen fires. Half-open: a few calls try it. What it fails with stands below; when it is "
            "well again and you cannot wait, POST /admin/upstreams/NAME/reset.",
            [target(_STATE, "{{upstream}}")], mappings=looks.CIRCUIT, steps=looks.CIRCUIT_STEPS,
            links=looks.ONLY_UPSTREAM, empty="No circuits",
        ),
        series(
            "Upstream errors by type", "Attempts that failed, per second, by upstream and by what was wrong. Normal is "
            "none, or a few that a second attempt mends. Overloaded and Limited: more than it takes; TooSlow: a clock "
            "ran out (its name follows); Unreachable: network or name; CredentialRefused and PaidOut: our account, "
            "nothing mends itself; RequestRefused: the callers' requests.",
            [
                target(
                    rate("octet_attempts_total", f"{UPSTREAM}, {TRIED_IN_VAIN}", "upstream", "outcome"),
                    "{{upstream}} {{outcome}}",
                )
            ],
            "reqps", stacked=True, links=looks.ONLY_UPSTREAM, empty="No failed attempts", legend=("mean", "max"),
            size=(12, 9), overrides=looks.FAILURES,
        ),
        series(
            "Error rate by upstream", "Share of attempts that failed. Callers see less of it, since calls are repeated "
            "and go elsewhere. Normal is below 1 %. A circuit opens at its failure_rate, 50 % unless configured; the "
            "line at 10 % is where an upstream begins to cost time.",
            [
                target(
                    share(
                        rate("octet_attempts_total", f"{UPSTREAM}, {TRIED_IN_VAIN}", "upstream"),
                        rate("octet_attempts_total", f"{UPSTREAM}, {_TRIES}", "upstream"),
                    ),
                    "{{upstream}}",
                )
            ],
            "percentunit", steps=good_until(ERROR_RATE), reach=2 * ERROR_RATE, links=looks.ONLY_UPSTREAM,
            empty="No attempts", legend=("mean", "max"), size=(12, 9),
        ),
        series(
            "Attempts by upstream", "Tries at each upstream, per second; a call makes none when the cache answers, and "
            "more than one when it is repeated. Normal follows the request rate. One that falls to zero while another "
            "grows has an open circuit, or the routes were changed.",
            [target(rate("octet_attempts_total", UPSTREAM, "upstream"), "{{upstream}}")], "reqps", stacked=True,
            links=looks.ONLY_UPSTREAM, empty="No attempts",
        ),
        series(
            "Retries and fail-overs", "Repeats at the same upstream, calls that left one for the next target, and "
            "repeats that the retry budget did not allow; per second. Normal is close to none. Many: callers wait for "
            "them; a budget used up means that an upstream fails for good and repeats would only add to its load.",
            [
                target(rate("octet_retries_total", UPSTREAM, "upstream"), "repeated at {{upstream}}"),
                target(rate("octet_failovers_total", ROUTE_UPSTREAM, "upstream"), "left {{upstream}}"),
                target(rate("octet_retry_budget_exhausted_total", UPSTREAM, "upstream"), "budget used, {{upstream}}"),
            ],
            "reqps", links=looks.ONLY_UPSTREAM, empty="No retries, no fail-overs",
        ),
        heatmap(
            "Response times, spread", "How many calls took how long. Normal is one hill for kept answers at the bottom "
            "and one for each kind of model above. A new hill, or one that climbs, is an upstream getting slower; a "
            "thin line at the top is a clock that runs out.",
            increase("octet_call_duration_seconds_bucket", UPSTREAM, "le"), size=(24, 9), scheme="Oranges",
        ),
    ],
)  # fmt: skip

ONE = Row(
    "Upstream $upstream",
    [
        series(
            "$upstream: attempts", "Tries per second, by how they ended; lost is to a quicker second attempt, hangup "
            "the caller's. Normal is nearly all ok.",
            [target(rate("octet_attempts_total", UPSTREAM, "outcome"), "{{outcome}}")], "reqps", stacked=True,
            empty="No attempts",
            overrides=[looks.colour("ok", "green"), looks.colour("hangup", "text"), *looks.FAILURES],
        ),
        series(
            "$upstream: response time", "How long calls took that this upstream answered, with all their attempts. "
            "Normal is steady. Compare with the other upstreams before you blame this one.",
            quantiles("octet_call_duration_seconds", UPSTREAM), "s", overrides=looks.QUANTILES, empty="No calls",
        ),
        series(
            "$upstream: first token", "From a streamed call's first byte to its first content. Normal is steady; it "
            "grows when the upstream's own queue does.",
            quantiles("octet_first_token_seconds", UPSTREAM), "s", overrides=looks.QUANTILES, empty="No streams",
        ),
        series(
            "$upstream: calls by model", "Calls per second that this upstream answered or failed last, by the model "
            "asked there. Normal is what the routes' weights say.",
            [target(rate("octet_calls_total", CALLS, "model"), "{{model}}")], "reqps", stacked=True,
            links=looks.ONLY_MODEL, empty="No calls",
        ),
        series(
            "$upstream: circuit changes", "States entered, per second. Normal is none. An open every half minute is an "
            "upstream that fails its trials; look at attempts for the reason.",
            [target(rate("octet_circuit_transitions_total", UPSTREAM, "state"), "{{state}}")], "ops",
            overrides=[
                looks.colour("open", "red"), looks.colour("half_open", "yellow"), looks.colour("closed", "green"),
            ],
            empty="The circuit has not changed",
        ),
        series(
            "$upstream: connections", "Connections in use as a share of max_connections, of the fullest process. "
            "Normal is below 50 %. OctetConnectionPoolNearlyFull fires above the red line, 80 %: raise "
            "max_connections, or add sidecars.",
            [
                target(
                    f'max(octet_connections{{{UPSTREAM}, state="active"}} / ignoring (state) '
                    f"octet_connections_limit{{{UPSTREAM}}})",
                    "in use",
                )
            ],
            "percentunit", steps=good_until(POOL), ratio=True, empty="No max_connections here",
        ),
    ],
    collapsed=True,
    repeat="upstream",
)  # fmt: skip
